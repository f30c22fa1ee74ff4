"""The corpus: entries drawn from a seed, and what is true of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

import msgspec

from oscar_metrics.facts import CallKey, CallLog, CountryFrom, Kind, LogStream
from oscar_metrics.timerange import DAY_NS, MILLISECOND_NS, SECOND_NS, SLOT_NS, Span
from tests.corpus import gateways, manager, platform
from tests.corpus.dice import Dice
from tests.corpus.entries import Call, Cri, Entry, Gateway

_FAILURES = {400: 3.0, 404: 1.0, 500: 4.0, 502: 1.0, 503: 2.0}
_EXECUTION_STATUSES = {
    Kind.SYNC: {200: 90.0, **_FAILURES},
    Kind.ASYNC: {201: 90.0, **_FAILURES},
}
_EXPOSED_STATUSES = {
    200: 70.0, 101: 2.0, 204: 3.0, 304: 8.0, 302: 3.0, 403: 3.0, 404: 5.0, 499: 1.0, 500: 2.0,
    502: 2.0, 503: 1.0,
}  # fmt: skip
# Calls an hour of the day and day of the week, against the busiest: people sleep.
_BY_HOUR = (1, 1, 1, 1, 1, 2, 3, 5, 8, 10, 10, 9, 8, 8, 10, 10, 9, 8, 6, 5, 4, 3, 2, 2)
_BY_WEEKDAY = (1.0, 1.0, 1.0, 0.95, 0.9, 0.35, 0.3)


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """What a corpus is made of.

    `cri` is the share of entries of the pods whose log has CRI form. `heartbeat_seconds` is the
    time between signs of life of the manager and of the gateways. In `outage` the manager writes
    nothing. `repeated` calls are written twice, which is one call all the same.
    """

    calls: int
    exposed: float = 0.3
    broken: int = 0
    repeated: int = 0
    users: int = 60
    cri: float = 0.3
    gateways: tuple[Gateway, ...] = tuple(Gateway)
    heartbeat_seconds: int = 600
    outage: Span = Span(0, 0)


class Corpus:
    """Entries in time order, and the truth about them.

    `span` is where all of them are; the same seed, span and mix give the same corpus.
    """

    def __init__(self, span: Span, entries: Sequence[Entry]) -> None:
        self.span = span
        self.entries = tuple(sorted(entries, key=attrgetter("time_ns")))

    @classmethod
    def generate(cls, seed: int, span: Span, mix: Mix) -> Corpus:
        """Draw a corpus; `mix.calls` calls, give or take none."""
        return cls(span, _Writer(Dice(seed), span, mix).entries())

    def of(self, stream: LogStream, span: Span) -> list[Entry]:
        """The entries of one stream in a span."""
        return [e for e in self.entries if e.stream is stream and e.time_ns in span]

    def truth(
        self,
        stream: LogStream,
        span: Span,
        *,
        geoip: bool = True,
        country_labels: bool = False,
        roster: bool = False,
    ) -> CallLog:
        """What an exact reader says of one stream and span.

        The flags say what it knows of countries: the corpus' GeoIP database, the labels of a
        pipeline (only Loki has any), the corpus' roster.
        """
        at_home = {row[0]: row[3] for row in platform.roster_rows()} if roster else {}
        tallies: Counter[CallKey] = Counter()
        ours = [entry for entry in self.of(stream, span) if entry.ours]
        for entry in ours:
            if (call := entry.call) is None:
                continue
            country, known_from = "", CountryFrom.NOTHING
            if country_labels and entry.country:
                country, known_from = entry.country, CountryFrom.LABEL
            elif geoip and (found := platform.country_of_address(call.ip)):
                country, known_from = found, CountryFrom.GEOIP
            elif home := at_home.get(call.user, ""):
                country, known_from = home, CountryFrom.ROSTER
            tallies[
                CallKey(
                    call.namespace,
                    call.service,
                    call.user,
                    country,
                    known_from,
                    call.kind,
                    call.result,
                )
            ] += 1
        return CallLog(
            tallies=tallies, lines_seen=len(ours), lines_understood=sum(tallies.values())
        )


class _Writer:
    """Draws the entries of one corpus."""

    def __init__(self, dice: Dice, span: Span, mix: Mix) -> None:
        self._dice = dice
        self._span = span
        self._mix = mix
        self._people = platform.People(dice, mix.users)
        self._last_ns = span.start_ns
        self._copies_left = mix.repeated

    def entries(self) -> list[Entry]:
        entries = [self._call() for _ in range(self._mix.calls)]
        entries += [self._broken() for _ in range(self._mix.broken)]
        entries += self._first_words()
        entries += self._heartbeats()
        for entry in entries[: self._mix.calls]:
            if entry.stream is LogStream.EXECUTIONS and self._dice.chance(0.03):
                twin = manager.access_line(self._dice, entry)
                entries += [twin] if twin else []
        return entries

    def _call(self) -> Entry:
        if self._mix.gateways and self._dice.chance(self._mix.exposed):
            entry = self._exposed()
        else:
            entry = self._execution()
        labels, country = self._country_labels(entry)
        copies = 1
        if self._copies_left:
            self._copies_left, copies = self._copies_left - 1, 2
        return msgspec.structs.replace(entry, country_labels=labels, country=country, copies=copies)

    def _execution(self) -> Entry:
        dice = self._dice
        form, cri = dice.weighted(manager.FORM_WEIGHTS), self._cri()
        whole = cri is Cri.NONE and form in manager.SECOND_FORMS
        time_ns = self._instant(whole_seconds=whole, manager=True)
        kind = dice.weighted({Kind.SYNC: 6.0, Kind.ASYNC: 4.0})
        service = dice.weighted(platform.CALL_WEIGHTS)
        namespace = service.namespace if form is manager.Form.EIGHT else ""
        user = dice.weighted({"": 1.0, "minio": 3.0, "nil": 3.0, "oscar": 8.0, "person": 85.0})
        if user == "person":
            user = self._people.caller(dice)
        if form is manager.Form.EIGHT and dice.chance(0.05):
            namespace = ""
        call = Call(
            namespace=namespace,
            service=service.name,
            user=user,
            ip=self._people.address(dice, user),
            kind=kind,
            status=dice.weighted(_EXECUTION_STATUSES[kind]),
        )
        if form is not manager.Form.EIGHT and dice.chance(0.05):
            call = msgspec.structs.replace(
                call,
                service=dice.pick(platform.SCANNED_NAMES),
                user="oscar",
                ip=platform.scanner_address(dice),
                status=dice.pick((401, 404)),
            )
        return manager.execution(dice, call, time_ns, form, cri)

    def _exposed(self) -> Entry:
        dice = self._dice
        gateway, cri = dice.pick(self._mix.gateways), self._cri()
        whole = cri is Cri.NONE and gateway in gateways.SECOND_GATEWAYS
        call = self._exposed_call()
        return gateways.exposed(dice, gateway, call, self._instant(whole_seconds=whole), cri)

    def _exposed_call(self) -> Call:
        service = self._dice.weighted(platform.CALL_WEIGHTS)
        # Visitors of exposed services come from where users come from.
        visitor = self._people.caller(self._dice)
        return Call(
            namespace="" if self._dice.chance(0.04) else service.namespace,
            service=service.name,
            user="",
            ip=self._people.address(self._dice, visitor),
            kind=Kind.EXPOSED,
            status=self._dice.weighted(_EXPOSED_STATUSES),
        )

    def _broken(self) -> Entry:
        dice, cri = self._dice, self._cri()
        gateways_by_path = [g for g in self._mix.gateways if g is not Gateway.TRAEFIK_HOST]
        if gateways_by_path and dice.chance(self._mix.exposed):
            gateway, call = dice.pick(gateways_by_path), self._exposed_call()
            time_ns = self._instant(whole_seconds=gateway in gateways.SECOND_GATEWAYS)
            return gateways.broken(dice, gateway, call, time_ns, cri)
        call = Call(
            namespace="",
            service=dice.weighted(platform.CALL_WEIGHTS).name,
            user=self._people.caller(dice),
            ip=self._people.address(dice, ""),
            kind=Kind.SYNC,
            status=200,
        )
        return manager.broken(dice, call, self._instant(manager=True), cri)

    def _first_words(self) -> list[Entry]:
        """What every pod says when it comes up, at the beginning."""
        start_ns, said = self._span.start_ns, []
        for cri in (Cri.NONE, Cri.FULL) if self._mix.cri else (Cri.NONE,):
            said.append(manager.probe(self._dice, start_ns, cri))
            said += [
                gateways.other(self._dice, gateway, start_ns, cri) for gateway in self._mix.gateways
            ]
        return said

    def _heartbeats(self) -> list[Entry]:
        """A sign of life of a manager and of a gateway, again and again."""
        step_ns = self._mix.heartbeat_seconds * SECOND_NS
        beats = []
        for time_ns in range(self._span.start_ns + step_ns, self._span.stop_ns, step_ns):
            cri = Cri.FULL if self._dice.chance(self._mix.cri) else Cri.NONE
            if self._mix.gateways:
                gateway = self._dice.pick(self._mix.gateways)
                beats.append(gateways.other(self._dice, gateway, time_ns, cri))
            if time_ns not in self._mix.outage:
                beats.append(manager.probe(self._dice, time_ns, cri))
                if self._dice.chance(0.05):
                    beats.append(manager.noise(self._dice, time_ns, cri))
        return beats

    def _instant(self, *, whole_seconds: bool = False, manager: bool = False) -> int:
        """When something happens: at a busy hour, some of it where ranges and slots meet."""
        while True:
            time_ns = self._drawn_instant()
            if whole_seconds:
                time_ns = time_ns // SECOND_NS * SECOND_NS
            outage = manager and time_ns in self._mix.outage
            if time_ns in self._span and not outage:
                self._last_ns = time_ns
                return time_ns

    def _drawn_instant(self) -> int:
        dice, span = self._dice, self._span
        if dice.chance(0.03):
            return self._last_ns
        time_ns = span.start_ns + dice.below(span.length_ns)
        if dice.chance(0.06):
            boundary_ns = time_ns // SLOT_NS * SLOT_NS
            return boundary_ns + dice.pick((0, 0, 1, -1, -SECOND_NS, SECOND_NS - 1))
        if dice.chance(0.02):
            return time_ns // DAY_NS * DAY_NS - 1 - dice.below(SECOND_NS)
        while not self._busy(time_ns):
            time_ns = span.start_ns + dice.below(span.length_ns)
        # Many writers cut a time to milliseconds.
        return time_ns // MILLISECOND_NS * MILLISECOND_NS if dice.chance(0.7) else time_ns

    def _busy(self, time_ns: int) -> bool:
        # Only a week and more has a rhythm; the epoch began on a Thursday.
        day, hour = time_ns // DAY_NS, time_ns % DAY_NS * 24 // DAY_NS
        likely = _BY_HOUR[hour] / 10 * _BY_WEEKDAY[(day + 3) % 7]
        return self._span.length_ns < 7 * DAY_NS or self._dice.chance(likely)

    def _cri(self) -> Cri:
        if not self._dice.chance(self._mix.cri):
            return Cri.NONE
        return Cri.PARTS if self._dice.chance(0.08) else Cri.FULL

    def _country_labels(self, entry: Entry) -> tuple[dict[str, str], str]:
        """What a pipeline says of the country: often what GeoIP says, sometimes more."""
        dice = self._dice
        if entry.call is None or dice.chance(0.3):
            return {}, ""
        code = platform.country_of_address(entry.call.ip)
        if not code or dice.chance(0.05):
            name = dice.pick((*platform.COUNTRY_NAMES, platform.UNMAPPED_COUNTRY))
            label = dice.pick(("geoip_country_name", "country"))
            return {label: name}, platform.COUNTRY_NAMES.get(name, name)
        if dice.chance(0.1):
            return {"country_code": code}, code
        return {"geoip_country_code": code}, code

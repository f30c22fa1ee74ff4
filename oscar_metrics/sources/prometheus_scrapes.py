"""When and how often a metric was scraped, and how far back the server remembers."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from oscar_metrics.errors import UpstreamError
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_answers import Samples, name_of
from oscar_metrics.sources.prometheus_api import RANGE_POINTS, PrometheusApi
from oscar_metrics.sources.prometheus_windows import Window, together
from oscar_metrics.timerange import MILLISECOND_NS, Span

_SLOT_MS = 300_000
# Without `up`, every series of the metric is looked at: a day at a time.
_SERIES_POINTS = 288
_FEWEST_POINTS = 12
_HOUR_MS = 3_600_000
_DAY_MS = 86_400_000
_USUAL_INTERVAL_MS = 60_000
_BY_SIZE_TOO = " or "
_DURATION = re.compile(r"(\d{1,12})(y|w|d|h|ms|m|s)")
_UNIT_MS = {"y": 365 * _DAY_MS, "w": 7 * _DAY_MS, "d": _DAY_MS, "h": _HOUR_MS}
_UNIT_MS |= {"m": 60_000, "s": 1000, "ms": 1}


class Scrapes(msgspec.Struct, frozen=True, kw_only=True):
    """When a metric was scraped over a window.

    `interval_ms` is the usual time between scrapes; `missing` the stretches without any.
    `down` is what is to be said when some of several targets did not answer for a while.
    """

    interval_ms: int
    missing: tuple[Window, ...]
    down: str = ""
    last_ms: int | None = None

    def gaps(self, retained_from_ms: int | None) -> list[Gap]:
        """The missing stretches with their reason."""
        boundary_ns = (retained_from_ms or 0) * MILLISECOND_NS
        gaps = []
        for window in self.missing:
            span = window.span
            for part, reason in (
                (span.clip(Span(0, boundary_ns)), GapReason.RETENTION),
                (span.clip(Span(boundary_ns, span.stop_ns)), GapReason.NOT_SCRAPED),
            ):
                if part.length_ns:
                    gaps.append(Gap(span=part, reason=reason))
        return gaps


class _Presence(NamedTuple):
    """The ends of the slots in which any target was scraped; slots and targets that were down."""

    slots: set[int]
    slots_with_targets_down: int
    most_down: int
    most_targets: int


async def scrapes_of(
    api: PrometheusApi, metric: str, window: Window, doubts: set[str], *, now_ms: int
) -> Scrapes:
    """How `metric` was scraped, of which there are series. Raises UpstreamError."""
    from_ms = max(0, window.start_ms - promql.REACH_MS)
    labels = await together(
        {
            label: api.label_values(label, metric, doubts, from_ms=from_ms, now_ms=now_ms)
            for label in ("job", "metrics_path")
        }
    )
    presence = _Presence(set(), 0, 0, 0)
    up = ""
    if labels["job"]:
        # A job may have targets of other paths, which are no evidence; or no such label.
        matchers = [
            promql.one_of("job", sorted(labels["job"])),
            promql.one_of("metrics_path", [*sorted(labels["metrics_path"]), ""]),
        ]
        up = promql.selector("up", ",".join(matchers))
        presence = await _presence(api, _up(up), window, _SLOT_MS, RANGE_POINTS, doubts)
    by_up = bool(presence.slots)
    asked = up if by_up else metric
    if not by_up:
        presence = await _presence(api, _any(asked), window, _SLOT_MS, _SERIES_POINTS, doubts)
    if not presence.slots:
        # What ended before counts in the window, by the interval it was scraped at.
        interval_ms = await _interval(
            api, up or metric, window.start_ms, by_up=bool(up), doubts=doubts
        )
        return Scrapes(interval_ms=interval_ms, missing=(window,))
    slot_ms = _SLOT_MS
    interval_ms = await _interval(api, asked, max(presence.slots), by_up=by_up, doubts=doubts)
    if interval_ms * 5 // 2 > _SLOT_MS:
        slot_ms = -(-interval_ms * 5 // 2 // 60_000) * 60_000
        question = _up(asked) if by_up else _any(asked)
        presence = await _presence(
            api, question, window, slot_ms, RANGE_POINTS if by_up else _SERIES_POINTS, doubts
        )
    return Scrapes(
        interval_ms=interval_ms,
        missing=tuple(missing(window, slot_ms, presence.slots)),
        down=_down(presence, slot_ms),
        last_ms=max(presence.slots, default=None),
    )


async def retained_from_ms(api: PrometheusApi, now_ms: int) -> int | None:
    """The time before which the server has nothing, as far as it tells; else None."""
    try:
        retention = str((await api.status("runtimeinfo")).get("storageRetention", ""))
    except UpstreamError:
        retention = ""  # its relatives have no such page, and proxies close it
    length_ms = duration_ms(retention)
    by_time_ms = now_ms - length_ms if length_ms else None
    if by_time_ms is not None and _BY_SIZE_TOO not in retention:
        return by_time_ms
    try:
        # Only where it scrapes itself. Without any data it is the largest int64.
        query = "min(prometheus_tsdb_lowest_timestamp < 9e18)"
        lowest = await api.vector(query, now_ms, set())
    except UpstreamError:
        lowest = []
    if not lowest:
        return by_time_ms
    return max(int(lowest[0].value), by_time_ms or 0)


def duration_ms(text: str) -> int:
    """A Prometheus duration such as `15d` or `1w2d or 10GiB`; 0 where none is given."""
    first = text.split(" ", 1)[0]
    if not re.fullmatch(rf"({_DURATION.pattern})+", first):
        return 0
    return sum(int(number) * _UNIT_MS[unit] for number, unit in _DURATION.findall(first))


def missing(window: Window, slot_ms: int, present: Iterable[int]) -> list[Window]:
    """The stretches no present slot covers; a slot is named by its end and is (end − slot, end]."""
    left: list[Window] = []
    start_ms = window.start_ms
    for end_ms in sorted(present):
        if end_ms - slot_ms > start_ms:
            left.append(Window(start_ms, min(end_ms - slot_ms, window.stop_ms)))
        start_ms = max(start_ms, end_ms)
    if start_ms < window.stop_ms:
        left.append(Window(start_ms, window.stop_ms))
    return left


def interval_ms_of(series: Iterable[Samples]) -> int | None:
    """The usual time between samples, to the second so that it does not vary with the range."""
    between = [
        after[0] - before[0]
        for one in series
        for before, after in zip(one.points, one.points[1:], strict=False)
    ]
    if not between:
        return None
    return max(1000, round(statistics.median(between) / 1000) * 1000)


def _up(selected: str) -> dict[str, str]:
    return {"up": f"sum(max_over_time({selected}[#]))", "of": f"count({selected})"}


def _any(selected: str) -> dict[str, str]:
    return {"up": f"count(last_over_time({selected}[#]))"}


async def _presence(
    api: PrometheusApi,
    parts: dict[str, str],
    window: Window,
    slot_ms: int,
    points: int,
    doubts: set[str],
) -> _Presence:
    query = promql.named(parts).replace("#", promql.duration(slot_ms))
    first_ms = (window.start_ms // slot_ms + 1) * slot_ms
    up: dict[int, float] = {}
    of: dict[int, float] = {}

    async def ask(first: int, stop: int) -> None:
        from_ms, to_ms = first_ms + first * slot_ms, first_ms + (stop - 1) * slot_ms
        for series in await api.steps(query, from_ms, to_ms, slot_ms, doubts, by=promql.NAMED):
            (up if name_of(series.labels) == "up" else of).update(series.points)

    count = max(0, (window.stop_ms - first_ms) // slot_ms + 1)
    await api.narrowing("scraped", *parts.values(), least=_FEWEST_POINTS).pieces(count, points, ask)
    if window.stop_ms % slot_ms:  # the rest behind the last whole slot
        for name, value in (await api.numbers(query, window.stop_ms, doubts)).items():
            (up if name == "up" else of)[window.stop_ms] = value
    slots = {at for at, count in up.items() if count > 0}
    down = [of[at] - up[at] for at in slots if of.get(at, 0) > up[at]]
    return _Presence(slots, len(down), int(max(down, default=0)), int(max(of.values(), default=0)))


async def _interval(
    api: PrometheusApi, selected: str, at_ms: int, *, by_up: bool, doubts: set[str]
) -> int:
    if not by_up:
        most = await api.vector(f"topk(1, count_over_time({selected}[1h]))", at_ms, doubts)
        matchers = [
            promql.equals(name, value)
            for sample in most[:1]
            for name, value in sample.labels.items()
            if name != "__name__"
        ]
        selected = promql.selector(selected, ",".join(matchers))
    found = interval_ms_of(await api.samples(selected, _HOUR_MS, at_ms, doubts))
    return _USUAL_INTERVAL_MS if found is None else found


def _down(presence: _Presence, slot_ms: int) -> str:
    if not presence.slots_with_targets_down:
        return ""
    hours = presence.slots_with_targets_down * slot_ms / _HOUR_MS
    return (
        f"for {hours:.3g} h, up to {presence.most_down} of {presence.most_targets} scrape targets "
        "(nodes) did not answer Prometheus: containers that ended there meanwhile are not all seen"
    )

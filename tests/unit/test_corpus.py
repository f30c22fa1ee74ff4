"""The corpus is what the other tests take for the truth, so it is looked at itself."""

from __future__ import annotations

import csv
import gzip
import ipaddress
import re
from pathlib import Path

import maxminddb
import pytest

from oscar_metrics.facts import CountryFrom, LogStream
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, SLOT_NS, Span, parse_instant
from tests.corpus import Corpus, platform, sample
from tests.corpus.corpus import Mix
from tests.corpus.entries import Cri
from tests.corpus.geoip import write_geoip_database
from tests.corpus.origins import loki_streams, pod_logs, write_log_files
from tests.corpus.times import access_log_time, gin_time, rfc3339

START_NS = parse_instant("2026-03-01T00:00:00Z")
SPAN = Span(START_NS, START_NS + 2 * DAY_NS)
CORPUS = Corpus.generate(7, SPAN, Mix(calls=3000, broken=60, repeated=20))

TAG = re.escape("[GIN-EXECUTIONS-LOGGER]")
NANO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
HEAD = rf"^{TAG} {NANO} \| \d\d\d \| [^|]+ \| [^|]+ \| POST +"
# Every line form of the field, and what looks like one and is none.
FORMS = {
    "six fields": rf"{HEAD}/run/[^|]+ \| [^|]+$",
    "eight fields": rf"{HEAD}/job/[^|]+ \| [^|]+ \| [^|]+ \| [^|]+$",
    "path beaten by the logged service": rf"{HEAD}/job/path-service \| [^|]+ \| cowsay \| ",
    "blank user": rf"{HEAD}/job/[^|]+ \| $",
    "blank namespace": rf"{HEAD}/job/[^|]+ \| [^|]+ \| [^|]+ \| $",
    "old time form": rf"^{TAG} \d{{4}}/\d\d/\d\d - \d\d:\d\d:\d\d \| \d\d\d \| .* \| POST +/job/",
    "CRI prefix": rf"^{NANO} stderr F {TAG} ",
    "CRI prefix with an offset": rf"^\S+-05:00 stderr F {TAG} ",
    "CRI part": r"^\S+ stderr P \[GIN-EXEC",
    "[GIN] with six fields": rf"^\[GIN\] {NANO} \| .* \| POST +/job/[^|]+ \| [^|]+$",
    "[GIN] with five fields": r'^\[GIN\] \d{4}/[^|]+( \|[^|]+){3} \| POST +"/run/[^|]+"$',
    "probe": r'^\[GIN\] .* \| GET      "/health"$',
    "quoted path": rf'{HEAD}"/run/[^|"]+" \| ',
    "query string": rf"{HEAD}/run/[a-z-]+\?x=1&y=/run/other \| ",
    "IPv4 with a port": r" \| 79\.117\.\d+\.\d+:\d+ \| POST",
    "IPv6": r" \| 2a02:9000:[0-9a-f:]+ \| POST",
    "IPv6 with a port": r" \| \[2a02:9000:[0-9a-f:]+\]:\d+ \| POST",
    "garbled status": rf"^{TAG} .* \| 2x0 \| .* \| POST +/",
    "cut off before the user": rf"{HEAD}/run/[^|]+$",
    "pipe in a user": r" \| auth0\|5f7c8ec7c33c6c004bbafe82$",
    "path in a user": r" \| https://issuer\.example\.org/run/u1$",
    "minio": r" \| minio$",
    "nil": r" \| nil$",
    "oscar": r" \| oscar$",
    "scanner": r" \| 40[14] \| .*/wp-login\.php.* \| oscar$",
    "ingress-nginx": r'^\S+ - - \[\d\d/Jan/2026:[^]]* \+0000\] "GET /system/services/job/exposed/',
    "ingress-nginx elsewhere": r'\+0100\] "GET /system/services/',
    "ingress-nginx without an upstream": r"/exposed/.* \[\] \[\] - - - - ",
    "ingress-nginx, other request": r'"GET /favicon\.ico HTTP/1\.1" 200 .*/exposed/',
    "one upstream, two services": (
        r"/services/gmolto-nginx/exposed.*\[oscar-svc-gmolto-nginx-svc-80\]"
    ),
    "the other of them": r"/services/nginx/exposed.*\[oscar-svc-gmolto-nginx-svc-80\]",
    "Traefik by path": r'"RequestPath":"/system/services/x-svc-80/exposed',
    "Traefik by host": r'"RequestHost":"cowsay\.example\.org".*"oscar-svc-jane-7f3a-cowsay-svc-80@',
    "Traefik by address": r'"RequestAddr":"cowsay\.example\.org:443","RequestCount":\d+,"RequestM',
    "Traefik with nginx's time": r'"StartUTC":"\d\d/Jan/2026:',
    "Traefik under another host": r'"RequestHost":"cowsay\.notexample\.org"',
    "Traefik cut off": r'/exposed/",$',
    "Traefik with a garbled status": r'"DownstreamStatus":"2x0"',
}


@pytest.fixture(scope="module")
def shipped_text() -> str:
    return "\n".join(_text(path) for path in sorted(sample.FOLDER.glob("*.log*")))


@pytest.mark.parametrize("form", FORMS)
def test_the_shipped_sample_has_every_line_form(form: str, shipped_text: str) -> None:
    assert re.search(FORMS[form], shipped_text, re.MULTILINE)


def test_the_shipped_sample_is_what_its_generator_writes(tmp_path: Path) -> None:
    # What is compressed is compared as text: compressors differ in bytes.
    sample.write_sample(tmp_path)
    written = {path.name: _text(path) for path in tmp_path.iterdir()}
    shipped = {name: _text(sample.FOLDER / name) for name in written}
    assert written == shipped
    logs = {path.name for path in sample.FOLDER.glob("*.log*")}
    assert logs <= written.keys()


def test_one_seed_gives_one_corpus() -> None:
    mix = Mix(calls=200, broken=5)
    assert Corpus.generate(1, SPAN, mix).entries == Corpus.generate(1, SPAN, mix).entries
    assert Corpus.generate(1, SPAN, mix).entries != Corpus.generate(2, SPAN, mix).entries


def test_the_time_a_plain_line_names_is_its_entrys() -> None:
    for entry in CORPUS.entries:
        if entry.cri is Cri.NONE:
            at = entry.time_ns
            times = [rfc3339(at)]
            if at % SECOND_NS == 0:
                times += [gin_time(at), access_log_time(at), access_log_time(at, offset_hours=1)]
            assert any(time in entry.line for time in times)


def test_only_what_is_meant_to_be_is_written_twice() -> None:
    written = {(entry.pod, entry.time_ns, entry.line) for entry in CORPUS.entries}
    assert len(written) == len(CORPUS.entries)
    assert sum(entry.copies - 1 for entry in CORPUS.entries) == 20


def test_the_truth_counts_every_call_once_and_adds_up() -> None:
    truths = [CORPUS.truth(stream, SPAN) for stream in LogStream]
    assert sum(truth.lines_understood for truth in truths) == 3000
    assert sum(truth.lines_seen for truth in truths) == 3060
    for stream, whole in zip(LogStream, truths, strict=True):
        for cut_ns in (SPAN.start_ns + 7 * SLOT_NS, SPAN.start_ns + 17 * HOUR_NS + 1):
            early = CORPUS.truth(stream, Span(SPAN.start_ns, cut_ns))
            late = CORPUS.truth(stream, Span(cut_ns, SPAN.stop_ns))
            assert early.tallies + late.tallies == whole.tallies


def test_countries_are_known_from_what_the_reader_has() -> None:
    def known_from(**knows: bool) -> set[CountryFrom]:
        return {
            key.country_from for key in CORPUS.truth(LogStream.EXECUTIONS, SPAN, **knows).tallies
        }

    assert known_from(geoip=False) == {CountryFrom.NOTHING}
    assert known_from() == {CountryFrom.GEOIP, CountryFrom.NOTHING}
    assert known_from(country_labels=True, roster=True) == set(CountryFrom) - {CountryFrom.CLAIM}


def test_every_quarter_of_an_hour_has_a_line_of_each_stream() -> None:
    for stream in LogStream:
        slots = {entry.time_ns // SLOT_NS for entry in CORPUS.of(stream, SPAN)}
        assert slots == set(range(SPAN.start_ns // SLOT_NS, SPAN.stop_ns // SLOT_NS))


def test_calls_happen_where_ranges_meet() -> None:
    times = [entry.time_ns for entry in CORPUS.entries if entry.call]
    assert any(time % SLOT_NS == 0 for time in times)
    assert any(time % SLOT_NS == SLOT_NS - 1 for time in times)
    assert any(DAY_NS - time % DAY_NS < SECOND_NS for time in times)
    assert len(set(times)) < len(times)


def test_nothing_is_written_in_an_outage() -> None:
    outage = Span(SPAN.start_ns + 5 * HOUR_NS, SPAN.start_ns + 9 * HOUR_NS)
    corpus = Corpus.generate(3, SPAN, Mix(calls=500, broken=20, outage=outage))
    assert not corpus.of(LogStream.EXECUTIONS, outage)
    assert corpus.of(LogStream.EXPOSED, outage)


def test_the_database_says_what_the_truth_says(tmp_path: Path) -> None:
    write_geoip_database(tmp_path / "geoip.mmdb")
    addresses = {entry.call.ip for entry in CORPUS.entries if entry.call}
    with maxminddb.open_database(tmp_path / "geoip.mmdb") as reader:
        for address in addresses:
            found = reader.get(address)
            code = found["country"]["iso_code"] if found else ""  # type: ignore[call-overload,index]
            assert code == platform.country_of_address(address)
            assert not code or ipaddress.ip_address(address).is_global


def test_each_origin_has_every_entry(tmp_path: Path) -> None:
    written = sum(entry.copies for entry in CORPUS.entries)
    parts = sum(entry.copies for entry in CORPUS.entries if entry.cri is Cri.PARTS)
    for compress in (False, True):
        folder = tmp_path / str(compress)
        folder.mkdir()
        files = write_log_files(CORPUS, folder, compress=compress)
        assert sum(_text(path).count("\n") for path in files) == written + parts
    for labels in (False, True):
        streams = loki_streams(CORPUS, country_labels=labels)
        assert sum(len(entries) for _, entries in streams) == written
    logs = pod_logs(CORPUS)
    assert sum(len(log.lines) + len(log.previous) for log in logs) == written + parts


def test_the_roster_and_the_deployed_services_hold_what_readers_need(shipped_text: str) -> None:
    rows = list(csv.DictReader(sample.roster_csv().splitlines()))
    assert list(rows[0]) == ["id", "name", "membership", "country", "vo", "project"]
    assert platform.PLANTED_TOKEN not in shipped_text
    kinds = [manifest["kind"] for manifest in platform.manifests()]
    assert kinds == sorted(kinds, reverse=True)
    services = [m for m in platform.manifests() if m["kind"] == "ConfigMap"]
    assert all(platform.PLANTED_TOKEN in str(service["data"]) for service in services)


def _text(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".mmdb":
        return data.hex()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()

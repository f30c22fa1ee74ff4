"""`python -m tests.corpus.sample [folder]`: write the shipped sample again, the same bytes."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path

from oscar_metrics.facts import Kind, LogStream, Result
from oscar_metrics.timerange import DAY_NS, HOUR_NS, Span, format_instant, parse_instant
from tests.corpus import platform
from tests.corpus.corpus import Corpus, Mix
from tests.corpus.entries import PODS, Entry, Workload
from tests.corpus.geoip import write_geoip_database
from tests.corpus.origins import file_lines, write_lines

_README = Path(__file__).with_name("sample_readme.md")
FOLDER = Path(__file__).parents[2] / "examples"

_START_NS = parse_instant("2026-01-01T00:00:00Z")
SPAN = Span(_START_NS, _START_NS + 31 * DAY_NS)
# The manager's node was down on a Saturday: the first report shows an honest gap.
OUTAGE = Span(_START_NS + 16 * DAY_NS + 2 * HOUR_NS, _START_NS + 16 * DAY_NS + 7 * HOUR_NS)
_MIX = Mix(calls=40_000, exposed=0.25, broken=200, users=120, cri=0.25, outage=OUTAGE)

# Where a day of the month ends one file of the manager's log and begins the next.
_FIRST_ROTATION_NS = _START_NS + 14 * DAY_NS
_LAST_ROTATION_NS = _START_NS + 30 * DAY_NS

_Chosen = Callable[[Entry], bool]


def sample() -> Corpus:
    """The corpus that is shipped: January 2026."""
    return Corpus.generate(20260101, SPAN, _MIX)


def write_sample(folder: Path) -> None:
    """Write every generated file of the sample into a folder."""
    corpus = sample()
    for name, chosen in _files().items():
        lines = file_lines(entry for entry in corpus.entries if chosen(entry))
        write_lines(folder / name, lines)
    (folder / "roster.csv").write_text(roster_csv(), encoding="utf-8")
    (folder / "README.md").write_text(_readme(corpus), encoding="utf-8")
    write_geoip_database(folder / "geoip.mmdb")


def roster_csv() -> str:
    """The roster as a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "name", "membership", "country", "vo", "project"))
    writer.writerows(platform.roster_rows())
    return text.getvalue()


def _files() -> dict[str, _Chosen]:
    """Which entries are in which log file: by pod, and the manager's by age too."""
    manager, second_manager = PODS[Workload.MANAGER]

    def of_manager(start_ns: int, stop_ns: int) -> _Chosen:
        return lambda entry: entry.pod == manager and start_ns <= entry.time_ns < stop_ns

    def of_pods(*pods: str) -> _Chosen:
        return lambda entry: entry.pod in pods

    return {
        "oscar-manager.log": of_manager(_LAST_ROTATION_NS, SPAN.stop_ns),
        "oscar-manager.log.1.gz": of_manager(_FIRST_ROTATION_NS, _LAST_ROTATION_NS),
        "oscar-manager.log.2.gz": of_manager(SPAN.start_ns, _FIRST_ROTATION_NS),
        "oscar-manager-cri.log.gz": of_pods(second_manager),
        "ingress-nginx.log.gz": of_pods(PODS[Workload.NGINX][0]),
        "ingress-nginx-cri.log.gz": of_pods(PODS[Workload.NGINX][1]),
        "traefik-access.log.gz": of_pods(PODS[Workload.TRAEFIK][0]),
        "traefik-access-cri.log.gz": of_pods(PODS[Workload.TRAEFIK][1]),
    }


def _readme(corpus: Corpus) -> str:
    executions = corpus.truth(LogStream.EXECUTIONS, SPAN, roster=True)
    exposed = corpus.truth(LogStream.EXPOSED, SPAN, roster=True)

    def count(kind: Kind) -> int:
        tallies = executions.tallies if kind is not Kind.EXPOSED else exposed.tallies
        return sum(calls for key, calls in tallies.items() if key.kind is kind)

    def failed(stream: LogStream) -> int:
        tallies = (executions if stream is LogStream.EXECUTIONS else exposed).tallies
        return sum(calls for key, calls in tallies.items() if key.result is not Result.OK)

    keys = executions.tallies.keys()
    services = keys | exposed.tallies.keys()
    countries = {key.country for key in keys if key.country}
    rows = (
        ("executions", executions.lines_understood),
        ("of them sync", count(Kind.SYNC)),
        ("of them async", count(Kind.ASYNC)),
        ("of them failed (4xx, 5xx)", failed(LogStream.EXECUTIONS)),
        (
            "executions recognised and not understood",
            executions.lines_seen - executions.lines_understood,
        ),
        (
            "users in executions (the blank one, `oscar`, `nil`, `minio` too)",
            len({key.user for key in keys}),
        ),
        ("countries of executions", len(countries)),
        (
            "executions with no country",
            sum(calls for key, calls in executions.tallies.items() if not key.country),
        ),
        ("exposed requests", exposed.lines_understood),
        ("of them failed (4xx, 5xx)", failed(LogStream.EXPOSED)),
        (
            "exposed requests recognised and not understood",
            exposed.lines_seen - exposed.lines_understood,
        ),
        ("names called, deployed or not", len({key.service for key in services})),
    )
    table = "\n".join(f"| {name} | {number:,} |" for name, number in rows)
    return _README.read_text(encoding="utf-8").format(
        table=table,
        outage_start=format_instant(OUTAGE.start_ns),
        outage_stop=format_instant(OUTAGE.stop_ns),
    )


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)

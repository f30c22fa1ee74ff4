"""Lines of every form, through the collector and a real Loki, are in our reports what they are."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from oscar_metrics.facts import LogStream
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, SLOT_NS, Span
from tests.corpus.corpus import Corpus, Mix
from tests.corpus.entries import PODS, Workload
from tests.corpus.origins import write_lines, write_log_files
from tests.corpus.times import access_log_time, rfc3339
from tests.pipeline.reading import facts, read_until, settings_of, truth
from tests.servers.collector import Collector
from tests.servers.kwok import cri_line
from tests.servers.loki import Loki
from tests.servers.process import wait_until

ALLOY = Path(__file__).parents[2] / "alloy"

# How files of the corpus reach the pipeline: those of a pod's runtime, and those of a program.
_CONFIGURATION = """
import.file "files" { filename = env("PIPELINE") + "/files.alloy" }
import.file "executions" { filename = env("PIPELINE") + "/executions.alloy" }
import.file "ingress_nginx" { filename = env("PIPELINE") + "/ingress_nginx.alloy" }
import.file "traefik" { filename = env("PIPELINE") + "/traefik.alloy" }
import.file "country" { filename = env("PIPELINE") + "/country.alloy" }
import.file "anonymise" { filename = env("PIPELINE") + "/anonymise.alloy" }
import.file "delivery" { filename = env("PIPELINE") + "/delivery.alloy" }
executions.lines "oscar" { forward_to = [country.by_address.callers.receiver] }
ingress_nginx.lines "ingress_nginx" {
  other_lines_per_second = OTHERS
  forward_to = [country.by_address.callers.receiver]
}
traefik.lines "traefik" {
  ingress_host = "example.org"
  other_lines_per_second = OTHERS
  forward_to = [country.by_address.callers.receiver]
}
country.by_address "callers" {
  database = env("GEOIP_DATABASE")
  forward_to = [BEHIND]
}
anonymise.truncate "callers" { forward_to = [delivery.to_loki.default.receiver] }
anonymise.drop "callers" { forward_to = [delivery.to_loki.default.receiver] }
delivery.to_loki "default" { url = env("LOKI_PUSH_URL") }
"""
_FILES = """
files.FORM "APP_FORM" {
  targets    = [{ __path__ = "PATH", namespace = "NAMESPACE", app = "NAMESPACE", pod = "POD" }]
  forward_to = [MODULE.lines.MODULE_LABEL.receiver]
}
"""
_MODULES = {
    Workload.MANAGER: ("executions", "oscar"),
    Workload.NGINX: ("ingress_nginx", "ingress_nginx"),
    Workload.TRAEFIK: ("traefik", "traefik"),
}


def corpus_of_now() -> Corpus:
    """Two hours, over since a while, of every form there is."""
    stop_ns = time.time_ns() // SLOT_NS * SLOT_NS
    span = Span(stop_ns - 2 * HOUR_NS, stop_ns)
    mix = Mix(calls=4000, exposed=0.4, broken=80, cri=0.5, heartbeat_seconds=60)
    return Corpus.generate(7, span, mix)


def configuration(
    directory: Path,
    manager: str,
    gateway: str,
    *,
    behind: str = "delivery.to_loki.default.receiver",
    others: int = 1_000_000,
) -> Path:
    """A configuration that puts the corpus' files in `directory` through the modules."""
    text = _CONFIGURATION.replace("BEHIND", behind).replace("OTHERS", str(others))
    for workload, pods in PODS.items():
        module, label = _MODULES[workload]
        place = manager if workload is Workload.MANAGER else gateway
        for pod, form, suffix in zip(pods, ("plain", "cri"), ("", "-cri"), strict=True):
            files = _FILES.replace("FORM", form).replace("APP", label).replace("POD", pod)
            files = files.replace("PATH", str(directory / f"{workload}{suffix}.log"))
            files = files.replace("NAMESPACE", place).replace("MODULE_LABEL", label)
            text += files.replace("MODULE", module)
    path = directory / "pipeline.alloy"
    path.write_text(text)
    return path


def environment(loki: Loki, geoip: Path) -> dict[str, str]:
    return {
        "PIPELINE": str(ALLOY),
        "LOKI_PUSH_URL": f"{loki.url}/loki/api/v1/push",
        "GEOIP_DATABASE": str(geoip),
    }


@pytest.mark.parametrize(
    ("behind", "has_addresses"),
    [
        ("delivery.to_loki.default.receiver", True),
        ("anonymise.truncate.callers.receiver", False),
        ("anonymise.drop.callers.receiver", False),
    ],
    ids=["whole", "truncated", "dropped"],
)
async def test_a_report_says_what_is_true_of_lines_of_every_form(
    loki: Loki, geoip: Path, behind: str, has_addresses: bool, tmp_path: Path
) -> None:
    corpus = corpus_of_now()
    # Places of its own, so that tests can share a Loki.
    what = behind.rpartition(".")[0].replace(".", "-")
    manager, gateway = f"manager-{what}", f"gateway-{what}"
    write_log_files(corpus, tmp_path)
    expected = {stream: truth(corpus, stream) for stream in LogStream}
    lines = sum(log.lines_seen for log in expected.values())
    with Collector.start(
        tmp_path,
        configuration(tmp_path, manager, gateway, behind=behind),
        environment=environment(loki, geoip),
    ) as collector:
        outcomes = await read_until(settings_of(loki, manager, gateway), corpus.span, lines)
        for stream, log in expected.items():
            outcome = outcomes[stream]
            assert facts(outcome) == log
            assert "no log lines" not in str(outcome)
        not_understood = sum(log.lines_seen - log.lines_understood for log in expected.values())
        name = "oscar_pipeline_lines_not_understood_total"
        assert collector.metric(name) == not_understood
        assert collector.metric("oscar_pipeline_lines_total") >= len(corpus.entries)
    callers = {entry.call.ip for entry in corpus.entries if entry.call}
    # Those that are more than their network.
    some = sorted(ip for ip in callers if not ip.endswith((".0", "::")) and len(ip) > 3)[:200]
    pattern = "|".join(rf"[^0-9a-f.:]{re.escape(ip)}[^0-9a-f.]" for ip in some)
    query = f'{{namespace=~"{manager}|{gateway}"}} |~ `{pattern}`'
    found = loki.count(query, corpus.span.start_ns, corpus.span.stop_ns)
    assert (found > 0) is has_addresses


async def test_of_a_gateways_other_traffic_a_line_now_and_then_is_kept(
    loki: Loki, geoip: Path, tmp_path: Path
) -> None:
    """And every line of the heartbeat."""
    at_ns = time.time_ns() // SLOT_NS * SLOT_NS - HOUR_NS
    paths = ["/favicon.ico"] * 100 + ["/oscar-metrics-heartbeat"] * 3
    lines = [
        f'10.0.0.9 - - [{access_log_time(at_ns + n * SECOND_NS)}] "GET {path} HTTP/1.1" 404 0 "-"'
        ' "-" 109 0.001 [] [] - - - - a72c'
        for n, path in enumerate([*paths, "/system/services/cowsay/exposed/"])
    ]
    write_lines(tmp_path / f"{Workload.NGINX}.log", lines)
    stream = '{namespace="quiet-gateway"}'
    span = (at_ns - SECOND_NS, at_ns + HOUR_NS)
    with Collector.start(
        tmp_path,
        configuration(tmp_path, "quiet-manager", "quiet-gateway", others=1),
        environment=environment(loki, geoip),
    ) as collector:
        wait_until(
            lambda: loki.count(f'{stream} |= "cowsay"', *span) == 1, "a call", timeout_seconds=30
        )
        kept = loki.count(f'{stream} |= "favicon"', *span)
        assert 1 <= kept < 100
        assert loki.count(f'{stream} |= "heartbeat"', *span) == 3
        assert kept + collector.metric("loki_process_dropped_lines_total") == 100


async def test_a_stack_trace_is_joined_and_a_call_in_it_is_not(
    loki: Loki, geoip: Path, tmp_path: Path
) -> None:
    at_ns = time.time_ns() // SLOT_NS * SLOT_NS - HOUR_NS
    call = f"[GIN-EXECUTIONS-LOGGER] {rfc3339(at_ns)} | 200 | 1ms | 10.0.0.1 | POST /run/cowsay | u"
    trace = ["panic: out of cows", "main.serve(...)", "\t/go/main.go:7", call, "\t/go/cow.go:1"]
    cri = [cri_line(at_ns + n, line) for n, line in enumerate(trace)]
    write_lines(tmp_path / f"{Workload.MANAGER}-cri.log", cri)
    stream = '{namespace="traced-manager"}'
    span = (at_ns - SECOND_NS, at_ns + SECOND_NS)
    with Collector.start(
        tmp_path,
        configuration(tmp_path, "traced-manager", "traced-gateway"),
        environment=environment(loki, geoip),
    ):
        joined = f'{stream} |~ "(?s)^main.serve.*main.go:7.*cow.go:1$"'
        wait_until(lambda: loki.count(joined, *span) == 1, "a joined line", timeout_seconds=30)
        wait_until(lambda: loki.count(stream, *span) == 3, "three lines", timeout_seconds=30)
        assert loki.count(f'{stream} |= "| POST /run/cowsay | u" !~ "go/"', *span) == 1

"""A real Prometheus that takes samples of the past by remote write."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.servers.build import program
from tests.servers.process import Process, ServerError, free_port

Series = tuple[Mapping[str, str], Iterable[tuple[int, float]]]

# The NaN that Prometheus writes where a series ended:
# https://prometheus.io/docs/specs/prw/remote_write_spec/#stale-markers
STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]

_WRITE_SAMPLES = 20_000
_WRITE_BYTES = 2 * 1024 * 1024
_SNAPPY_LITERAL_BYTES = 65_536


class Prometheus:
    """A running Prometheus at `url`, which also scrapes itself every second."""

    def __init__(
        self,
        directory: Path,
        scrape_configs: Sequence[Mapping[str, Any]],
        retention: str,
        flags: Sequence[str],
        files: Mapping[str, Sequence[Path]],
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        config = directory / "prometheus.json"
        config.write_text(json.dumps(_config(port, scrape_configs, files), indent=2))
        command: list[str | Path] = [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'prometheus'}",
            f"--storage.tsdb.retention.time={retention}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
            "--scrape.discovery-reload-interval=100ms",  # the first scrape at once, not after 5 s
            "--log.level=warn",
            *flags,
        ]
        self._process = Process("prometheus", command, directory / "prometheus.log")

    @classmethod
    @contextmanager
    def start(
        cls,
        directory: Path,
        *,
        scrape_configs: Sequence[Mapping[str, Any]] = (),
        retention: str = "90d",
        flags: Sequence[str] = (),
        scrape_config_files: Sequence[Path] = (),
        rule_files: Sequence[Path] = (),
    ) -> Iterator[Prometheus]:
        """Start Prometheus with its data under `directory` and stop it at the end.

        `scrape_configs` are further entries of its configuration, `retention` a duration such as
        `30d`, `flags` further arguments such as `--query.max-samples=100`, the files whole files
        of scrapes and of rules. Raises ServerError with the end of the log if it does not come up.
        """
        files = {"scrape_config_files": scrape_config_files, "rule_files": rule_files}
        prometheus = cls(directory, scrape_configs, retention, flags, files)
        try:
            prometheus.restart()
            yield prometheus
        finally:
            prometheus.stop()
            prometheus._client.close()

    def stop(self) -> None:
        """Stop Prometheus; its samples stay in its folder. Does nothing if it is stopped."""
        self._process.stop()

    def restart(self) -> None:
        """Start Prometheus again on the same port, and stop it before that if it runs."""
        self.stop()
        self._process.start(self._ready, timeout_seconds=60)

    def suspend(self) -> None:
        """Let it hang: connections are taken, and nothing is answered until `resume`."""
        self._process.suspend()

    def resume(self) -> None:
        """Let a suspended Prometheus go on; what was asked in between is answered."""
        self._process.resume()

    def remote_write(self, samples: Iterable[Series]) -> None:
        """Write series: labels with `__name__`, and samples of (epoch milliseconds, value).

        Samples are up to 60 days old and in time order within a series. `STALE` as a value ends a
        series. Queries see them at once, `prometheus_tsdb_lowest_timestamp` only after a restart.
        Raises ServerError if Prometheus refuses any.
        """
        for request in _write_requests(samples):
            answer = self._client.post(
                "/api/v1/write",
                content=_snappy(request),
                headers={
                    "Content-Type": "application/x-protobuf",
                    "Content-Encoding": "snappy",
                    "X-Prometheus-Remote-Write-Version": "0.1.0",
                },
            )
            if not answer.is_success:
                raise ServerError(
                    f"prometheus refused a remote write: {answer.status_code} {answer.text}"
                )

    def query(self, promql: str, *, time_seconds: float | None = None) -> list[dict[str, Any]]:
        """Return the `result` of an instant query at `time_seconds` since the epoch, or now.

        Raises ServerError if Prometheus answers an error.
        """
        parameters = {"query": promql}
        if time_seconds is not None:
            parameters["time"] = f"{time_seconds:.3f}"
        answer = self._client.post("/api/v1/query", data=parameters)
        if answer.status_code != httpx.codes.OK:
            raise ServerError(f"prometheus did not answer: {answer.status_code} {answer.text}")
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def _ready(self) -> bool:
        if self._client.get("/-/ready").status_code != httpx.codes.OK:
            return False
        # Tests ask for its own metrics; before the second scrape the lowest timestamp is 2^63 - 1.
        return bool(self.query("prometheus_tsdb_lowest_timestamp < 9e18"))


def _config(
    port: int, scrape_configs: Sequence[Mapping[str, Any]], files: Mapping[str, Sequence[Path]]
) -> dict[str, Any]:
    itself = {
        "job_name": "prometheus",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
    }
    return {
        "scrape_configs": [itself, *scrape_configs],
        "storage": {"tsdb": {"out_of_order_time_window": "60d"}},
        **{kind: [str(path) for path in paths] for kind, paths in files.items() if paths},
    }


def _write_requests(samples: Iterable[Series]) -> Iterator[bytes]:
    """Cut the series into WriteRequest messages of bounded size.

    The messages are those of https://prometheus.io/docs/specs/prw/remote_write_spec/:
    WriteRequest {1: TimeSeries*}, TimeSeries {1: Label*, 2: Sample*}, Label {1: name, 2: value},
    Sample {1: value as double, 2: timestamp as int64}.
    """
    request = bytearray()
    count = 0
    for labels, points in samples:
        head = b"".join(
            _field(1, _field(1, name.encode()) + _field(2, value.encode()))
            for name, value in sorted(labels.items())
        )
        series = bytearray(head)
        for time_ms, value in points:
            if count == _WRITE_SAMPLES or len(request) + len(series) > _WRITE_BYTES:
                if len(series) > len(head):
                    request += _field(1, series)
                yield bytes(request)
                request, series, count = bytearray(), bytearray(head), 0
            series += _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(time_ms))
            count += 1
        if len(series) > len(head):
            request += _field(1, series)
    if request:
        yield bytes(request)


def _field(number: int, content: bytes | bytearray) -> bytes:
    """Return a length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF  # a negative int64 is written as its two's complement
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _snappy(content: bytes) -> bytes:
    """Return `content` in Snappy's block format, as literals only: valid, and not compressed.

    The format: https://github.com/google/snappy/blob/main/format_description.txt
    """
    encoded = bytearray(_varint(len(content)))
    for start in range(0, len(content), _SNAPPY_LITERAL_BYTES):
        literal = content[start : start + _SNAPPY_LITERAL_BYTES]
        encoded += b"\xf4" + struct.pack("<H", len(literal) - 1) + literal
    return bytes(encoded)

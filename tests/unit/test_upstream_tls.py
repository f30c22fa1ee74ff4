"""TLS towards upstreams, as a server with real certificates sees it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from oscar_metrics.errors import Reason, SettingsError, UpstreamError
from oscar_metrics.sources.upstream import Upstream, UpstreamLimits
from oscar_metrics.sources.upstream_tls import Tls, TlsSettings
from oscar_metrics.telemetry import Telemetry
from tests.servers.certificates import Authority
from tests.servers.process import wait_until

NUMBERS = msgspec.json.Decoder(dict[str, int])
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}'
TLS_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Server:
    """A TLS server that answers every request, while `open` is set, and notes who connects."""

    def __init__(self, certificate: tuple[Path, Path], *, clients_of: Path | None = None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        if clients_of:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(clients_of)
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        # The names in the certificates of those that connected, blank for none.
        self.clients: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(30)
        with (
            contextlib.suppress(OSError),
            self.context.wrap_socket(
                plain, server_side=True, do_handshake_on_connect=False
            ) as connection,
        ):
            try:
                connection.do_handshake()
            except ssl.SSLError:
                # Closing with something unread would take back what it was told.
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
                return
            peer: Any = connection.getpeercert() or {"subject": [[("commonName", "")]]}
            self.clients.append(peer["subject"][0][0][1])
            while connection.recv(4096).endswith(b"\r\n\r\n"):
                self.asked.set()
                self.open.wait(30)
                connection.sendall(ANSWER)


@asynccontextmanager
async def asking(server: Server, tls: TlsSettings) -> AsyncIterator[Upstream]:
    upstream = Upstream(
        "loki",
        f"https://127.0.0.1:{server.port}",
        limits=UpstreamLimits(timeout_seconds=5, attempts=2),
        telemetry=Telemetry(),
        prefix="LOKI",
        tls=tls,
    )
    try:
        yield upstream
    finally:
        await upstream.aclose()


async def failure(server: Server, tls: TlsSettings) -> UpstreamError:
    with server:
        async with asking(server, tls) as upstream:
            with pytest.raises(UpstreamError) as caught:
                await upstream.get_json("/", {}, NUMBERS)
    return caught.value


async def until(upstream: Upstream, happened: Callable[[], bool]) -> None:
    """Call until something happened; no call may fail."""
    async with asyncio.timeout(30):
        while not happened():
            assert await upstream.get_json("/", {}, NUMBERS) == {"a": 1}
            await asyncio.sleep(0.05)


def replace(old: Path, new: Path) -> None:
    """Put a file in another's place at once, as rotation does."""
    beside = old.with_suffix(".new")
    shutil.copy(new, beside)
    beside.replace(old)


async def test_an_upstream_of_the_named_authority_is_believed(tmp_path: Path) -> None:
    ours = Authority("ours")
    tls = TlsSettings(ca_file=str(ours.write(tmp_path / "ca.crt")))
    with Server(ours.issue(tmp_path, "server")) as server:
        async with asking(server, tls) as upstream:
            assert await upstream.get_json("/", {}, NUMBERS) == {"a": 1}


@pytest.mark.parametrize(
    ("signed_by_ours", "hosts", "expired", "known", "says"),
    [
        (False, ("127.0.0.1",), False, True, "unable to get local issuer"),
        (True, ("127.0.0.1",), False, False, "unable to get local issuer"),
        (True, ("127.0.0.1",), True, True, "expired"),
        (True, ("127.0.0.2", "localhost"), False, True, "IP address mismatch"),
    ],
)
async def test_any_other_certificate_is_refused(
    signed_by_ours: bool,
    hosts: tuple[str, ...],
    expired: bool,
    known: bool,
    says: str,
    tmp_path: Path,
) -> None:
    ours, other = Authority("ours"), Authority("other")
    tls = TlsSettings(ca_file=str(ours.write(tmp_path / "ca.crt")) if known else "")
    signer = ours if signed_by_ours else other
    server = Server(signer.issue(tmp_path, "server", hosts=hosts, expired=expired))
    error = await failure(server, tls)
    assert error.reason is Reason.TLS
    assert not error.retryable
    assert says in error.detail
    assert server.clients == []


async def test_plain_http_where_tls_is_expected_is_told_so() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(plain, "127.0.0.1", 0)
    upstream = Upstream(
        "loki",
        f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}",
        limits=UpstreamLimits(attempts=1),
        telemetry=Telemetry(),
    )
    with pytest.raises(UpstreamError) as caught:
        await upstream.get("/", {})
    await upstream.aclose()
    listening.close()
    assert caught.value.reason is Reason.TLS


@pytest.mark.parametrize("version", TLS_VERSIONS)
@pytest.mark.parametrize(
    ("shown", "passes"), [("ours", True), ("together", True), ("other", False), ("", False)]
)
async def test_an_upstream_may_ask_for_our_certificate(
    shown: str, passes: bool, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    ours, other = Authority("ours"), Authority("other")
    ca_file = ours.write(tmp_path / "ca.crt")
    certificate, key = (other if shown == "other" else ours).issue(tmp_path, "client")
    tls = TlsSettings(ca_file=str(ca_file))
    if shown == "together":
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
        tls = TlsSettings(ca_file=str(ca_file), certificate_file=str(certificate))
    elif shown:
        tls = msgspec.structs.replace(tls, certificate_file=str(certificate), key_file=str(key))
    server = Server(ours.issue(tmp_path, "server"), clients_of=ca_file)
    server.context.minimum_version = server.context.maximum_version = version
    if passes:
        with server:
            async with asking(server, tls) as upstream:
                assert await upstream.get_json("/", {}, NUMBERS) == {"a": 1}
        assert server.clients == ["client"]
    else:
        assert (await failure(server, tls)).reason is Reason.TLS
        assert server.clients == []


async def test_another_authority_takes_over_without_a_call_lost(tmp_path: Path) -> None:
    old, new = Authority("old"), Authority("new")
    ca_file = old.write(tmp_path / "ca.crt")
    with Server(old.issue(tmp_path, "old")) as server:
        async with asking(server, TlsSettings(ca_file=str(ca_file))) as upstream:
            server.open.clear()
            under_way = asyncio.create_task(upstream.get_json("/", {}, NUMBERS))
            await asyncio.to_thread(server.asked.wait, 30)
            # What connects from now on sees a certificate that only the new file vouches for.
            server.context.load_cert_chain(*new.issue(tmp_path, "new"))
            replace(ca_file, new.write(tmp_path / "new-ca.crt"))
            await asyncio.sleep(1.1)
            later = asyncio.create_task(upstream.get_json("/", {}, NUMBERS))
            await asyncio.to_thread(
                wait_until, lambda: len(server.clients) > 1, "connected anew", timeout_seconds=30
            )
            server.open.set()
            assert [await under_way, await later] == [{"a": 1}] * 2


async def test_our_certificate_is_replaced_while_running(tmp_path: Path) -> None:
    ours = Authority("ours")
    ca_file = ours.write(tmp_path / "ca.crt")
    certificate, key = ours.issue(tmp_path, "first")
    new_certificate, new_key = ours.issue(tmp_path, "second")
    tls = TlsSettings(ca_file=str(ca_file), certificate_file=str(certificate), key_file=str(key))
    with Server(ours.issue(tmp_path, "server"), clients_of=ca_file) as server:
        async with asking(server, tls) as upstream:
            await upstream.get_json("/", {}, NUMBERS)
            # Between the two files' replacements they do not belong together.
            replace(certificate, new_certificate)
            await asyncio.sleep(1.1)
            await upstream.get_json("/", {}, NUMBERS)
            replace(key, new_key)
            await until(upstream, lambda: "second" in server.clients)
    assert set(server.clients) == {"first", "second"}


async def test_a_file_that_breaks_is_named_and_its_repair_is_seen(tmp_path: Path) -> None:
    ours = Authority("ours")
    ca_file = ours.write(tmp_path / "ca.crt")
    with Server(ours.issue(tmp_path, "server")) as server:
        async with asking(server, TlsSettings(ca_file=str(ca_file))) as upstream:
            await upstream.get_json("/", {}, NUMBERS)
            ca_file.write_text("nothing of use")
            with pytest.raises(UpstreamError) as caught:
                await until(upstream, lambda: False)
            assert caught.value.reason is Reason.TLS
            assert "LOKI_TLS_CA_FILE" in caught.value.detail
            ca_file.unlink()
            await asyncio.sleep(1.1)
            with pytest.raises(UpstreamError, match="TLS"):
                await upstream.get("/", {})
            ours.write(ca_file)
            await asyncio.sleep(1.1)
            assert await upstream.get_json("/", {}, NUMBERS) == {"a": 1}


def with_passphrase(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hush"),
        )
    )


@pytest.mark.parametrize(
    ("ca", "certificate", "key", "setting", "expected"),
    [
        ("none", "", "", "CA_FILE", "cannot read"),
        ("folder", "", "", "CA_FILE", "cannot read"),
        ("text", "", "", "CA_FILE", "PEM"),
        ("binary", "", "", "CA_FILE", "expected a text file"),
        ("one.key", "", "", "CA_FILE", "PEM"),
        ("ca", "none", "one.key", "CERTIFICATE_FILE", "cannot read"),
        ("ca", "one.crt", "none", "KEY_FILE", "cannot read"),
        ("ca", "one.crt", "two.key", "KEY_FILE", "belongs to"),
        ("", "text", "one.key", "CERTIFICATE_FILE", "PEM"),
        ("", "one.crt", "", "CERTIFICATE_FILE", "its key"),
        ("", "one.crt", "locked.key", "KEY_FILE", "passphrase"),
        ("", "", "one.key", "KEY_FILE", "CERTIFICATE_FILE"),
    ],
)
def test_a_file_of_no_use_stops_the_start_and_is_named(
    ca: str, certificate: str, key: str, setting: str, expected: str, tmp_path: Path
) -> None:
    ours = Authority("ours")
    ours.write(tmp_path / "ca")
    ours.issue(tmp_path, "one")
    ours.issue(tmp_path, "two")
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no certificate")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with_passphrase(tmp_path / "locked.key")
    files = [str(tmp_path / name) if name else "" for name in (ca, certificate, key)]
    settings = TlsSettings(ca_file=files[0], certificate_file=files[1], key_file=files[2])
    with pytest.raises(SettingsError, match=expected) as caught:
        Tls(settings, "LOKI_TLS")
    assert caught.value.setting == f"LOKI_TLS_{setting}"


async def test_no_setting_turns_verification_off(tmp_path: Path) -> None:
    assert TlsSettings.__struct_fields__ == ("ca_file", "certificate_file", "key_file")
    ours = Authority("ours")
    certificate, key = (str(file) for file in ours.issue(tmp_path, "one"))
    ca_file = str(ours.write(tmp_path / "ca.crt"))
    for settings in (
        TlsSettings(),
        TlsSettings(ca_file=ca_file),
        TlsSettings(certificate_file=certificate, key_file=key),
        TlsSettings(ca_file=ca_file, certificate_file=certificate, key_file=key),
    ):
        context = await Tls(settings, "LOKI_TLS").context()
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2

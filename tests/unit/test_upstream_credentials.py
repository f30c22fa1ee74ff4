"""What upstreams are asked with, and that what they repeat of it is not passed on."""

from __future__ import annotations

import asyncio
import base64
import html
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from oscar_metrics.errors import Reason, SettingsError, UpstreamError
from oscar_metrics.sources.upstream import Upstream, UpstreamLimits
from oscar_metrics.sources.upstream_credentials import (
    Credentials,
    CredentialSettings,
    secrets_in,
    without_secrets,
)
from oscar_metrics.telemetry import Telemetry

_NUMBERS = msgspec.json.Decoder(dict[str, int])
SECRET = 'PLANTED-"&/ü-SECRET'


def basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("settings", "in_url", "expected"),
    [
        ({}, ("", ""), ""),
        ({}, ("me", "pass"), basic("me", "pass")),
        ({"username": "u", "password": "p"}, ("me", "pass"), basic("u", "p")),
        ({"password": "ü:"}, ("", ""), basic("", "ü:")),
        ({"username": "u", "password_file": "secret"}, ("", ""), basic("u", "from-file")),
        ({"password": "p", "password_file": "none"}, ("", ""), basic("", "p")),
        ({"token": "t", "username": "u"}, ("me", "pass"), "Bearer t"),
        ({"token": "t", "token_file": "none"}, ("", ""), "Bearer t"),
        ({"token_file": "secret", "password_file": "none"}, ("me", "p"), "Bearer from-file"),
    ],
)
async def test_one_of_them_is_sent(
    settings: dict[str, str], in_url: tuple[str, str], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(" from-file\n")
    settings = {
        name: str(tmp_path / value) if name.endswith("_file") else value
        for name, value in settings.items()
    }
    credentials = Credentials(CredentialSettings(**settings), "LOKI", in_url=in_url)
    assert await credentials.authorization() == expected


@pytest.mark.parametrize("content", [None, b"", b" \n", b"PLANTED\nPLANTED", b"PLANTED\xff"])
@pytest.mark.parametrize("name", ["token_file", "password_file"])
def test_a_file_of_no_use_stops_the_start_and_is_named(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    says = "there is no such file" if content is None else "expected"
    with pytest.raises(SettingsError, match=says) as caught:
        Credentials(CredentialSettings(**{name: str(file)}), "LOKI")
    assert caught.value.setting == f"LOKI_{name.upper()}"
    assert "PLANTED" not in str(caught.value)


@asynccontextmanager
async def echoing(
    status: str = "200 OK",
    url: str = "http://127.0.0.1:{}",
) -> AsyncIterator[tuple[list[str], str]]:
    """A server that says in its body which headers it got, and the Authorization ones so far."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        name = "Authorization: "
        seen.extend(line.removeprefix(name) for line in head.split("\r\n") if line.startswith(name))
        body = head.encode()
        more = f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{more}".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield seen, url.format(server.sockets[0].getsockname()[1])


def upstream_at(
    url: str, credentials: CredentialSettings, headers: Mapping[str, str] | None = None
) -> Upstream:
    return Upstream(
        "loki",
        url,
        limits=UpstreamLimits(timeout_seconds=5, attempts=1),
        telemetry=Telemetry(),
        prefix="LOKI",
        credentials=credentials,
        headers=headers,
    )


async def test_a_name_and_password_in_the_url_are_sent_as_credentials() -> None:
    async with echoing(url="http://me:p%40ss@127.0.0.1:{}/path") as (seen, url):
        upstream = upstream_at(url, CredentialSettings())
        body = await upstream.get("api", {"a": "b"})
        await upstream.aclose()
        assert body.startswith(b"GET /path/api?a=b ")
        with_token = upstream_at(url, CredentialSettings(token="t0ken"))
        await with_token.get("api", {})
        await with_token.aclose()
    assert seen == [basic("me", "p@ss"), "Bearer t0ken"]


async def test_a_token_is_read_again_when_it_is_rotated(tmp_path: Path) -> None:
    # As Kubernetes does: a link is turned to another folder.
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    link = tmp_path / "data"
    link.symlink_to("first")
    file = link / "token"
    async with echoing() as (seen, url):
        upstream = upstream_at(url, CredentialSettings(token_file=str(file)))
        await upstream.get("/", {})
        (tmp_path / "new").symlink_to("second")
        (tmp_path / "new").replace(link)
        await asyncio.sleep(1.1)
        await upstream.get("/", {})
        # Gone for a moment is not gone; gone for good is said, and seen when it is there again.
        link.unlink()
        await asyncio.sleep(1.1)
        await upstream.get("/", {})
        await asyncio.sleep(1.1)
        with pytest.raises(UpstreamError) as caught:
            await upstream.get("/", {})
        link.symlink_to("first")
        await asyncio.sleep(1.1)
        await upstream.get("/", {})
        await upstream.aclose()
    assert [value.removeprefix("Bearer ") for value in seen] == [
        "first",
        "second",
        "second",
        "first",
    ]
    assert caught.value.reason is Reason.CREDENTIALS
    assert not caught.value.retryable
    assert "LOKI_TOKEN_FILE" in caught.value.detail


@pytest.mark.parametrize("status", ["500 No", "401 Unauthorized", "400 Bad", "200 OK", "302 Found"])
@pytest.mark.parametrize(
    "credentials",
    [
        CredentialSettings(token="PLANTED-token"),
        CredentialSettings(username="PLANTED-user", password="PLANTED-password"),
    ],
    ids=["token", "password"],
)
async def test_what_an_upstream_repeats_of_ours_is_not_logged(
    credentials: CredentialSettings, status: str
) -> None:
    headers = {"X-Scope-OrgID": "PLANTED-tenant"}
    async with echoing(status) as (seen, url):
        upstream = upstream_at(url.replace("//", "//me:PLANTED-url@"), credentials, headers)
        with capture_logs() as logged, pytest.raises(UpstreamError) as caught:
            await upstream.get_json("/", {}, _NUMBERS, headers={"X-Other": "PLANTED-other"})
        await upstream.aclose()
    assert seen
    shown = f"{caught.value} {caught.value.detail} {logged}"
    assert "PLANTED" not in shown
    assert all(value.split()[1] not in shown for value in seen)


def forms(secret: str) -> list[str]:
    return [
        secret,
        secret.upper(),
        json.dumps(secret),
        quote(secret, safe=""),
        html.escape(secret),
        f"a {secret}, and {secret} again",
    ]


@pytest.mark.parametrize("text", forms(SECRET))
def test_a_secret_is_taken_out_however_it_is_written(text: str) -> None:
    shown = without_secrets(text, {SECRET})
    assert "planted" not in shown.lower()
    assert "secret" not in shown.lower()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln here", "no … here"),
        ("cut eyJhbGciOiJub25lIn0.eyJzd…", "cut ……"),
        ("Authorization: Bearer abc, Basic eDp5", "Authorization: Bearer … Basic …"),
        ("parse error: unexpected bearer", "parse error: unexpected bearer"),
    ],
)
def test_what_looks_like_anybodys_credentials_is_taken_out(text: str, shown: str) -> None:
    assert without_secrets(text, ()) == shown


@given(
    st.text(max_size=20), st.text(min_size=6, max_size=20), st.integers(0, 40), st.text(max_size=9)
)
def test_no_secret_is_left_nor_most_of_one_where_a_text_was_cut(
    before: str, secret: str, cut: int, after: str
) -> None:
    text = before + secret + after
    assert secret not in without_secrets(text, {secret})
    shown = without_secrets(f"{text[:cut]}…", {secret}).removesuffix("…")
    kept = text[len(before) : cut]
    if 3 <= len(kept) < len(secret):
        assert not shown.endswith(kept)


def test_headers_hold_secrets_and_short_words_are_none() -> None:
    assert secrets_in(
        {
            "Accept": "application/json",
            "Authorization": basic("u", "password"),
            "X-Scope-OrgID": "tenant-1",
            "Empty": "",
            "Other": "dev",
        }
    ) == {basic("u", "password").removeprefix("Basic "), "password", "tenant-1"}


def test_a_secret_that_is_sent_as_in_a_form_is_one_as_it_is_too() -> None:
    sent = secrets_in({"Authorization": basic("u", "p%40ss+w%C3%B6rd")})
    assert {"p%40ss+w%C3%B6rd", "p@ss wörd"} < sent

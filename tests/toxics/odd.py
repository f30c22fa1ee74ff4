"""What no proxy makes of an answer: each is a way to be odd, for `Between`."""

from __future__ import annotations

import gzip
import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Any

import httpx
import msgspec

from tests.toxics.between import Odd, Reply, Request

# In every odd text: none of it may be said on.
MARK = "5aid-by-an-upstream"
PIECE = b" " * 2**16
HUGE_BYTES = 5 * 10**9
HTML = f"<html><body>Please log in at {MARK}</body></html>".encode()
Change = Callable[[Any, Request], Any]


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A way to be odd; `make` has the URL that redirects lead to, and each is used once."""

    name: str
    make: Callable[[str], Odd]

    def __repr__(self) -> str:
        return self.name


def always(reply: Callable[[str], Reply]) -> Callable[[str], Odd]:
    """One reply to every request."""

    def make(elsewhere: str) -> Odd:
        return lambda _, __: reply(elsewhere)

    return make


def once(reply: Reply) -> Callable[[str], Odd]:
    """A reply to the first request; all others are passed on."""

    def make(_: str) -> Odd:
        first = itertools.count()
        return lambda _, __: reply if next(first) == 0 else None

    return make


def where(matches: Callable[[Request], bool], odd: Callable[[str], Odd]) -> Callable[[str], Odd]:
    """Odd about some requests only."""

    def make(elsewhere: str) -> Odd:
        made = odd(elsewhere)
        return lambda request, ask: made(request, ask) if matches(request) else None

    return make


def changed(change: Change) -> Callable[[str], Odd]:
    """The real answer as JSON, changed; None passes it on as it is."""

    def make(_: str) -> Odd:
        def odd(request: Request, ask: Callable[[], httpx.Response]) -> Reply | None:
            real = ask()
            said = change(real.json(), request) if real.is_success else None
            return None if said is None else Reply.of(json.dumps(said).encode())

        return odd

    return make


def in_text(change: Callable[[bytes], bytes], **headers: str) -> Callable[[str], Odd]:
    """The real answer as bytes, changed."""

    def make(_: str) -> Odd:
        return lambda __, ask: Reply.of(change(ask().content), **headers)

    return make


def whole(body: bytes, status: str = "200 OK", **headers: str) -> Callable[[str], Odd]:
    """One whole body, always."""
    return always(lambda _: Reply.of(body, status, **headers))


def _huge(*headers: tuple[str, str], encoded: Callable[[bytes], bytes] = bytes) -> Any:
    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            return itertools.repeat(encoded(PIECE), HUGE_BYTES // len(PIECE))

    pieces: Iterable[bytes] = Pieces()
    return always(lambda _: Reply(body=pieces, headers=headers))


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def _redirect(status: str) -> Callable[[str], Odd]:
    return always(lambda url: Reply.of(HTML, status, location=f"{url}/{MARK}"))


def _refusal(**headers: str) -> Callable[[str], Odd]:
    return whole(f'{{"error": "{MARK}"}}'.encode(), "429 Too Many Requests", **headers)


# Half a gigabyte of nothing, in parts that are each a whole file.
_GZIP_BOMB = gzip.compress(bytes(2**20), 9) * 512
_DEFLATE_BOMB = zlib.compress(bytes(2**26), 9)
_HALF = b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {"a": "'
# Whatever is asked with such an answer, it is none.
NO_ANSWERS = tuple(
    Way(name=name, make=make)
    for name, make in {
        "portal": whole(HTML, content_type="text/html"),
        "portal-called-json": whole(HTML),
        "empty": whole(b""),
        "nothing-at-all": whole(b"", "204 No Content"),
        "half": whole(_HALF),
        "half-of-what-was-announced": always(
            lambda _: Reply(body=(_HALF,), headers=(("Content-Length", "100000"),), sized=False)
        ),
        "no-utf-8": whole(b'{"status": "\xff\xfe"}'),
        "deep": whole(b'{"status":' + b"[" * 10**6),
        "of-another-type": whole(json.dumps([MARK]).encode()),
        "another-object": whole(json.dumps({"status": "success", MARK: MARK}).encode()),
        "error-with-200": whole(
            json.dumps({"status": "error", "kind": "Status", "error": MARK, "data": None}).encode()
        ),
        "huge": _huge(),
        "huge-and-announced": _huge(("Content-Length", str(HUGE_BYTES))),
        "huge-in-chunks": _huge(("Transfer-Encoding", "chunked"), encoded=_chunk),
        "gzip-bomb": whole(_GZIP_BOMB, content_encoding="gzip"),
        "deflate-bomb": whole(_DEFLATE_BOMB, content_encoding="deflate"),
        "huge-header": whole(b"{}", x_long="x" * 2**20),
        "moved": _redirect("301 Moved Permanently"),
        "found": _redirect("302 Found"),
        "see-other": _redirect("303 See Other"),
        "temporarily": _redirect("307 Temporary Redirect"),
        "permanently": _redirect("308 Permanent Redirect"),
        "busy": _refusal(),
        "busy-for-long": _refusal(retry_after="30"),
        "busy-for-ever": _refusal(retry_after="9" * 400),
        "busy-until-9999": _refusal(retry_after="Fri, 31 Dec 9999 23:59:59 GMT"),
        "busy-since-long": _refusal(retry_after="-5"),
        "busy-for-nan": _refusal(retry_after="nan"),
        "failed": whole(MARK.encode(), "500 Internal Server Error", content_type="text/plain"),
        "bad-gateway": whole(HTML, "502 Bad Gateway", content_type="text/html"),
        "teapot": whole(MARK.encode(), "418 I'm a teapot"),
    }.items()
)


def _soon() -> str:
    return formatdate(time.time(), usegmt=True)


# Odd, and nothing is lost.
HARMLESS = (
    Way(name="json-called-html", make=in_text(bytes, content_type="text/html")),
    Way(name="json-without-type", make=in_text(bytes, content_type="")),
    Way(name="busy-for-a-moment", make=once(Reply.of(b"", "429 Busy", retry_after="0"))),
    Way(name="failed-until-now", make=once(Reply.of(b"", "503 Busy", retry_after=_soon()))),
)

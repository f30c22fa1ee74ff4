"""What clients' connections may take of us."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of all connections together, and of each."""

    # The most connections at a time. Who comes when all are in use is answered with 503 at once,
    # but idle ones are closed first, and health routes are answered all the same.
    most: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    # Bytes a request's line and headers may have together; a longer one is answered with 431.
    head_bytes: Annotated[int, Meta(ge=1024, le=1024 * 1024)] = 64 * 1024
    # Seconds in which they must be there; who needs longer is cut off.
    head_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 20.0
    # Seconds a connection may be idle after an answer; above what proxies keep theirs for, so
    # that it is never us who closes first.
    idle_seconds: Annotated[int, Meta(ge=1, le=86400)] = 75
    # Seconds a client may keep us waiting, in all, for each `read_bytes` of an answer; one that
    # reads more slowly is cut off. 9 KiB a second, as they stand.
    read_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 60.0
    # Bytes of an answer for which a client may keep us waiting that long.
    read_bytes: Annotated[int, Meta(ge=1, le=1024 * 1024 * 1024)] = 512 * 1024

"""What `check` found out about a source, in words an operator can act on. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """`problem`: numbers will be missing or wrong; `warning`: they may be; `ok`: all is well."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: what is so, and what to change (blank when nothing)."""

    source: str
    level: Level
    says: str
    change: str = ""

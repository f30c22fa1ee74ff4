"""What `check` found out about a source, in words an operator can act on. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

# Where an operator reads on, at the end of what to change.
DOCS = "; see docs/pipeline.md, What check says"
# The part of calls that has no country in the best of pipelines: those from within the cluster.
FEW_WITHOUT_COUNTRY = 0.1


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

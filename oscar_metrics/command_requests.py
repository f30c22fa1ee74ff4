"""What the command line asks for, as values that JSON can carry.

It is the process that holds the ledger that does what is asked, which may be another one.
"""

from __future__ import annotations

import msgspec

from oscar_metrics import wire
from oscar_metrics.ledger.store import ExportForm


class AskedRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A report's range as it was written."""

    start: str | None = None
    end: str | None = None
    as_of: str | None = None
    restated_since: str | None = None
    interval: str | None = None
    tz: str | None = None


class AskSummary(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="command",
    tag="summary",
):
    """Totals: a `wire.Summary`."""

    asked: AskedRange


class AskBreakdown(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="command",
    tag="breakdown",
):
    """Rows: a breakdown of `wire`."""

    asked: AskedRange
    group_by: wire.GroupBy
    include_users: bool
    include_usage: bool


class AskValue(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="command",
    tag="value",
):
    """One figure: a `wire.Value`."""

    asked: AskedRange
    service: str
    metric: wire.Metric


class Show(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="command",
    tag="show",
):
    """What is sealed: a `Coverage`. Without `start`, from the first seal on."""

    start: str | None = None
    end: str | None = None


class Verify(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="command",
    tag="verify",
):
    """Read everything and compare: a list of `Finding`."""


class Export(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="command",
    tag="export",
):
    """Write everything to new files in a folder: their paths."""

    folder: str
    form: ExportForm


class Forget(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="command",
    tag="forget",
):
    """Replace a user everywhere: `Forgotten`."""

    user: str


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """The pseudonym, or null where the ledger does not know the user; and of their log-ins."""

    pseudonym: str | None
    was_remembered: bool


class ImportFiles(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="command",
    tag="import",
):
    """Seal what log files hold: an `ImportReport`. The paths are absolute."""

    files: tuple[str, ...]


class Backfill(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="command",
    tag="backfill",
):
    """Seal what sources still keep of a range: `Backfilled`."""

    start: str | None = None
    end: str | None = None


ReportRequest = AskSummary | AskBreakdown | AskValue
LedgerRequest = Show | Verify | Export | Forget | ImportFiles | Backfill
Request = ReportRequest | LedgerRequest

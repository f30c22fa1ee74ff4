from __future__ import annotations

import random
from collections.abc import Iterator

import duckdb
import pytest

from oscar_metrics.findings import Finding, Level
from oscar_metrics.ledger.duckdb_rollups import roll_up
from oscar_metrics.ledger.duckdb_schema import migrate
from oscar_metrics.ledger.duckdb_sealing import seal
from oscar_metrics.ledger.duckdb_verifying import verify
from oscar_metrics.ledger.seals import SealKind
from oscar_metrics.timerange import DAY_NS
from tests.ledger.scenes import FIRST_HOUR, FIRST_NS, hour_of

_SEALED_NS = FIRST_NS + 40 * DAY_NS


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Two days and a month's worth of one hour a day, some revised, rolled up; never changed."""
    rows_file = tmp_path_factory.mktemp("verify") / "rows"
    connection = duckdb.connect()
    migrate(connection)
    hours = [*range(FIRST_HOUR, FIRST_HOUR + 24), *range(FIRST_HOUR + 24, FIRST_HOUR + 31 * 24, 24)]
    whole = range(FIRST_HOUR, FIRST_HOUR + 31 * 24)
    seal(
        connection,
        rows_file,
        [hour_of(k, h, random.Random(h), gap=h % 24 == 3) for k in SealKind for h in hours],
        now_ns=_SEALED_NS,
    )
    usage = [hour_of(SealKind.USAGE, h, random.Random(h)) for h in whole if h not in hours]
    seal(connection, rows_file, usage, now_ns=_SEALED_NS)
    seal(
        connection,
        rows_file,
        [hour_of(SealKind.EXECUTIONS, h, random.Random(h), more=1) for h in hours[:5]],
        now_ns=_SEALED_NS + 1,
    )
    for _ in range(50):
        roll_up(connection)
    yield connection
    connection.close()


def _findings(connection: duckdb.DuckDBPyConnection) -> list[Finding]:
    return verify(connection, lambda *_: None)


def test_a_ledger_that_nothing_happened_to_is_well(sealed: duckdb.DuckDBPyConnection) -> None:
    told: list[tuple[int, int]] = []
    findings = verify(sealed, lambda done, total, _: told.append((done, total)))
    assert [finding.level for finding in findings] == [Level.OK]
    assert "seals with" in findings[0].says
    assert [done for done, _ in told] == list(range(told[-1][1] + 1))
    rolled_up = sealed.execute("SELECT count(*) FROM rollups WHERE months").fetchall()
    assert rolled_up == [(1,)], "the scene has a month for the tests below to spoil"


def test_an_empty_ledger_is_well() -> None:
    connection = duckdb.connect()
    migrate(connection)
    assert [finding.level for finding in _findings(connection)] == [Level.OK]
    connection.close()


_DIFFER = "rows are not those that were sealed"
_WRONG = [
    ("UPDATE calls SET count = count + 1 WHERE rowid = 7", _DIFFER),
    ("UPDATE calls SET user_id = user_id % 3 + 1 WHERE rowid = 7", _DIFFER),
    ("DELETE FROM calls WHERE rowid = 7", _DIFFER),
    ("INSERT INTO calls FROM calls WHERE rowid = 7", _DIFFER),
    ("UPDATE usage SET cpu_core_ns = NULL WHERE rowid = 0", _DIFFER),
    ("DELETE FROM usage WHERE rowid = 7", _DIFFER),
    ("UPDATE seals SET total = total + 1 WHERE id = 1", _DIFFER),
    ("UPDATE calls SET part = part + 8 WHERE rowid = 7", "outside the slots of their seal"),
    ("UPDATE usage SET slot = slot - 4 WHERE rowid = 7", "outside the slots of their seal"),
    ("UPDATE calls SET kind = 9 WHERE rowid = 7", "rows hold what no seal ever holds"),
    ("UPDATE usage SET gpu_core_ns = -1 WHERE rowid = 7", "rows hold what no seal ever holds"),
    ("DELETE FROM users WHERE id = 2", "service, user or country that is not there"),
    ("DELETE FROM services WHERE id = 2", "service, user or country that is not there"),
    ("DELETE FROM countries WHERE id = 2", "service, user or country that is not there"),
    ("INSERT INTO users VALUES (77, 'carol')", "given to two users"),
    ("INSERT INTO services FROM services WHERE id = 1", "given to two services"),
    ("DELETE FROM seals WHERE id = 1", "rows belong to a seal that is not there"),
    ("INSERT INTO seals FROM seals WHERE id = 100", "an hour is sealed twice over"),
    (
        "UPDATE seals SET superseded_at_ns = NULL WHERE superseded_at_ns IS NOT NULL",
        "an hour is sealed twice over",
    ),
    (
        "UPDATE seals SET hours = 24, quarters = 96 WHERE hour % 24 = 0 AND kind = 2",
        "an hour is sealed twice over",
    ),
    (
        "UPDATE seals SET superseded_at_ns = sealed_at_ns WHERE id = 100",
        "no revision of it stands",
    ),
    ("UPDATE seals SET revision = 3 WHERE revision = 2", "a revision between others"),
    ("UPDATE seals SET revision = 2", "a revision between others"),
    (
        "UPDATE seals SET sealed_at_ns = sealed_at_ns + 1 WHERE revision = 2",
        "does not begin when the one before it ended",
    ),
    ("UPDATE seals SET lines_understood = lines_seen + 1 WHERE id = 9", "more lines"),
    ("UPDATE seals SET quarters = 3 WHERE id = 9", "of no hour, kind or length"),
    ("UPDATE seals SET gaps = '[{' WHERE missing_ns > 0", "gaps of a seal cannot be read"),
    ("UPDATE seals SET gaps = '[]' WHERE missing_ns > 0", "not what it says is missing"),
    ("UPDATE seals SET hour = hour + 24 WHERE missing_ns > 0", "not what it says is missing"),
    ("UPDATE inventories SET facts = facts || ' '", "an inventory is not what was sealed"),
    ("DELETE FROM inventories", "an inventory that is not there"),
    ("DELETE FROM owned WHERE service = 'demo'", "an owner in an inventory is not among"),
    ("DELETE FROM owned WHERE service = ''", "an owner in an inventory is not among"),
    ("UPDATE owned SET owner = '' WHERE service <> ''", "an owner in an inventory is not among"),
    ("INSERT INTO owned FROM owned", "an owner is listed twice"),
    ("INSERT INTO forgotten VALUES ('x', 99)", "has no pseudonym"),
    ("UPDATE call_days SET count = count + 1 WHERE rowid = 7", "the sums of a day"),
    ("DELETE FROM call_days WHERE rowid = 7", "the sums of a day"),
    ("UPDATE usage_days SET gpu_core_ns = NULL WHERE rowid = 0", "the sums of a day"),
    ("DELETE FROM usage_months WHERE rowid = 1", "the sums of a month"),
    ("INSERT INTO rollups VALUES (1, true, 660)", "the sums of a month"),
]


@pytest.mark.parametrize(("harm", "says"), _WRONG)
def test_what_is_wrong_is_said(sealed: duckdb.DuckDBPyConnection, harm: str, says: str) -> None:
    sealed.execute("BEGIN")
    try:
        sealed.execute(harm)
        findings = _findings(sealed)
    finally:
        sealed.execute("ROLLBACK")
    assert {finding.level for finding in findings} == {Level.PROBLEM}
    assert any(says in finding.says for finding in findings), [f.says for f in findings]
    assert all(finding.change for finding in findings)


def test_an_owner_that_is_in_no_inventory_is_no_fault(sealed: duckdb.DuckDBPyConnection) -> None:
    sealed.execute("BEGIN")
    sealed.execute("INSERT INTO owned VALUES ('oscar-svc', 'long-gone', 'carol')")
    findings = _findings(sealed)
    sealed.execute("ROLLBACK")
    assert [finding.level for finding in findings] == [Level.OK]


def test_a_fault_is_told_once_with_the_first_hours_it_is_in(
    sealed: duckdb.DuckDBPyConnection,
) -> None:
    sealed.execute("BEGIN")
    sealed.execute("UPDATE usage SET cpu_core_ns = cpu_core_ns + 1 WHERE service_id > 0")
    findings = _findings(sealed)
    sealed.execute("ROLLBACK")
    assert [finding.says.split(":")[0] for finding in findings] == [
        f"{_DIFFER} (744 times)",
        "the sums of a day are not those of its slots (31 times)",
        "the sums of a month are not those of its slots (1 times)",
    ]
    assert findings[0].says.endswith(" usage of 2025-01-01T04:00:00Z and 739 more")
    assert findings[2].says.endswith(": usage of 2025-01-01T00:00:00Z")

from __future__ import annotations

import pytest

from oscar_metrics.handlers.preferences import wait_seconds


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], None),
        ([""], None),
        (["wait=10"], 10),
        (["WAIT=10"], 10),
        (['wait="10"'], 10),
        (["wait = 10"], 10),
        (["wait=007"], 7),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait=10"], 10),
        (["wait=10; unit=seconds, handling=lenient"], 10),
        (['handling="a, wait=9", wait=10'], 10),
        (['handling="a\\", wait=9", wait=10'], 10),
        # The first counts, also when it makes no sense.
        (["wait=10, wait=20"], 10),
        (["wait=soon, wait=20"], None),
        (["wait", "wait=20"], None),
        # Nonsense.
        (["wait="], None),
        (["wait=0"], None),
        (["wait=-1"], None),
        (["wait=+1"], None),
        (["wait=1.5"], None),
        (["wait=1e3"], None),
        (["wait=٣"], None),
        (["wait=²"], None),
        (["wait=10s"], None),
        (["wait=9999999999"], None),
        (["waiting=10"], None),
        (["await=10"], None),
        (['handling="wait=10'], None),
        (['wait="10'], None),
        ([",,,=;;,"], None),
        (["x" * 1024 + ",wait=10"], None),
        (['"\\' * 500], None),
    ],
)
def test_how_long_a_caller_waits(fields: list[str], expected: int | None) -> None:
    assert wait_seconds(fields) == expected

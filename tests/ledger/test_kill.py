from __future__ import annotations

import os
import random

import pytest

from tests.ledger.kill import WORK, kill

# By hand: `python -m tests.ledger.kill 100`.
_TIMES = int(os.environ.get("LEDGER_KILLS", "10"))


@pytest.mark.parametrize(("number", "work"), list(enumerate(WORK)))
def test_a_killed_process_loses_and_doubles_nothing(number: int, work: str) -> None:
    share = _TIMES // len(WORK) + (number < _TIMES % len(WORK))
    assert kill(work, share, random.Random()) > 0

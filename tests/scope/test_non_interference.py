"""By no route, parameter, format, ledger or error does a caller learn a fact outside their scope.

Two worlds are made that look the same to the caller by the contract (model.py), and differ in
everything else: every answer must be the same bytes in both, and none may hold a text that
stands for what the caller may not know.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scope.examples import many
from tests.scope.other_worlds import another, marked
from tests.scope.questions import ask, names, some, without_times
from tests.scope.serving import serving
from tests.scope.worlds import MARK, Frame, World, frame_of, world_of

# Attempts to change the other world; those that the caller would see are not made.
CHANGES = 40
SALTS = ("a", "b")


@pytest.mark.parametrize("visible", [False, True])
def test_equal_views_have_equal_answers(visible: bool) -> None:
    @many(10)
    @given(seed=st.integers(0, 2**40), size=st.integers(0, 12))
    def answers_are_equal(seed: int, size: int) -> None:
        dice = random.Random(seed)
        frame = frame_of(dice, visible=visible)
        world = world_of(dice, size, frame)
        asyncio.run(compare(frame, world, another(world, frame, dice, CHANGES), dice))

    answers_are_equal()


async def compare(frame: Frame, world: World, other: World, dice: random.Random) -> None:
    """Ask two worlds the same questions."""
    questions = some(dice, names(SALTS))
    one, two = marked(world, frame, SALTS[0]), marked(other, frame, SALTS[1])
    with tempfile.TemporaryDirectory() as folder:
        async with (
            serving(one, frame, Path(folder, "one"), forgets=forgotten(frame, SALTS[0])) as first,
            serving(two, frame, Path(folder, "two"), forgets=forgotten(frame, SALTS[1])) as second,
        ):
            for question in questions:
                answer = without_times(await ask(first, question))
                assert answer == without_times(await ask(second, question)), question
                assert MARK not in answer.body.replace(f"{MARK}unknown", ""), question


def forgotten(frame: Frame, salt: str) -> tuple[str, ...]:
    """Someone who may be known to the caller, and an owner who is not."""
    return (frame.forgets, f"{MARK}{salt}-{frame.forgets}") if frame.forgets else ()

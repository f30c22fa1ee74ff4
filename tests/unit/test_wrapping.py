from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.resilience.wrapping import Wrapping

KEY = bytes(32)
WRAPPING = Wrapping(KEY, b"ours:")
OTHER = Wrapping(bytes(31) + b"\1", b"ours:")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_what_is_wrapped_is_had_back_by_whoever_has_the_key(question: bytes, answer: bytes) -> None:
    name = WRAPPING.name(question)
    wrapped = WRAPPING.wrap(name, answer)
    assert len(wrapped) == len(answer) + WRAPPING.more_bytes
    assert Wrapping(KEY, b"ours:").unwrap(name, wrapped) == answer
    assert OTHER.unwrap(name, wrapped) is None


@given(st.binary(max_size=40), st.integers(0, 10**6), st.integers(1, 255))
def test_whatever_was_changed_or_moved_is_no_answer(answer: bytes, where: int, by: int) -> None:
    name, another = WRAPPING.name(b"one"), WRAPPING.name(b"another")
    wrapped = WRAPPING.wrap(name, answer)
    where %= len(wrapped)
    changed = wrapped[:where] + bytes([wrapped[where] ^ by]) + wrapped[where + 1 :]
    assert WRAPPING.unwrap(name, changed) is None
    assert WRAPPING.unwrap(name, wrapped[:where]) is None
    assert WRAPPING.unwrap(name, wrapped + bytes([by])) is None
    assert WRAPPING.unwrap(another, wrapped) is None


@pytest.mark.parametrize("garbage", [b"", b"hello", bytes(28), b"{" * 5000])
def test_garbage_is_no_answer(garbage: bytes) -> None:
    assert WRAPPING.unwrap(WRAPPING.name(b"one"), garbage) is None


def test_a_name_says_nothing_but_whose_it_is() -> None:
    name = WRAPPING.name(b"alice@example.org cowsay")
    assert name == WRAPPING.name(b"alice@example.org cowsay")
    assert name.startswith(b"ours:")
    assert len(bytes.fromhex(name.removeprefix(b"ours:").decode())) == 24
    assert len({name, WRAPPING.name(b"alice@example.org"), OTHER.name(b"alice@example.org")}) == 3


def test_the_same_answer_never_looks_the_same() -> None:
    name = WRAPPING.name(b"one")
    assert WRAPPING.wrap(name, b"42") != WRAPPING.wrap(name, b"42")

"""When lines of our own log are written: all of them, in their order, and soon."""

from __future__ import annotations

import asyncio
import io

from oscar_metrics.telemetry import LogLines


class Written(io.StringIO):
    """A file that counts how often it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def write(self, text: str) -> int:
        self.times += 1
        return super().write(text)


async def test_lines_of_one_turn_are_written_together() -> None:
    file = Written()
    lines = LogLines(file)
    for number in range(3):
        lines.info(f"line {number}")
    assert file.getvalue() == ""
    await asyncio.sleep(0)
    assert (file.getvalue(), file.times) == ("line 0\nline 1\nline 2\n", 1)
    lines.info("the next turn's")
    await asyncio.sleep(0)
    assert file.times == 2


async def test_a_warning_is_written_at_once_and_after_what_was_said_before() -> None:
    file = Written()
    lines = LogLines(file)
    lines.info("first")
    lines.warning("second")
    assert file.getvalue() == "first\nsecond\n"
    await asyncio.sleep(0)
    assert file.times == 1


async def test_threads_have_no_turns() -> None:
    file = Written()
    lines = LogLines(file)
    await asyncio.to_thread(lines.info, "from a thread")
    assert file.getvalue() == "from a thread\n"


def test_nor_has_who_runs_no_event_loop_and_nothing_is_lost_at_the_end() -> None:
    file = Written()
    lines = LogLines(file)
    lines.info("at once")
    assert file.getvalue() == "at once\n"

    async def main() -> None:
        lines.info("last")

    asyncio.run(main())
    lines.flush()  # as at the end of the process
    assert file.getvalue() == "at once\nlast\n"

"""The threads on which the ledger's engine runs, and its errors in our words.

One thread writes and two read, each on a cursor of one connection. A piece of work is one
transaction: it sees one state of the file, and is written whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from oscar_metrics.errors import LedgerError, LedgerHeld
from oscar_metrics.ledger import duckdb_schema

T = TypeVar("T")
Cursor = duckdb.DuckDBPyConnection
Work = Callable[[Cursor], T]
Setting = str | bool | int | float | list[str]

_READERS = 2
# As of nice(1): a tenth of the time, where all of it is wanted.
_NICENESS = 10
# How often a cancelled piece of work is interrupted again: one interrupt ends one query.
_INTERRUPT_SECONDS = 0.02
_CLOSED = "the ledger is closed"
# Rows taken from the engine at a time: the whole process waits while they become Python's.
_ROWS_AT_A_TIME = 10_000
# Set once nobody waits any more for what the current thread does.
_current = threading.local()


class Threads:
    """Runs pieces of work on an open file; made by `Threads.open`."""

    def __init__(self, path: Path, config: dict[str, Setting]) -> None:
        self.path = path
        self._config = config
        self._writer = ThreadPoolExecutor(
            1, thread_name_prefix="ledger-writer", initializer=_give_way
        )
        self._readers = ThreadPoolExecutor(
            _READERS, thread_name_prefix="ledger-reader", initializer=_give_way
        )
        self._connection: Cursor | None = None
        # One cursor a thread, of the connection as it was opened last.
        self._cursors: dict[int, Cursor] = {}
        self._idle = threading.Condition()
        self._running = 0
        # Grows with every change there may have been.
        self.changes = 0
        self._broken = False
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, create: bool, memory_mb: int, threads: int) -> Threads:
        """Open the file and bring it to the newest version; blocks while it does.

        Raises LedgerHeld when another process has it, LedgerError when it cannot be opened.
        """
        with in_our_words():
            # What is no file, a pipe say, could block for ever when opened.
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise LedgerError("the ledger is to be a file, and something else has its name")
            if not path.exists() and not create:
                raise LedgerError(
                    f"there is no ledger at {path} (OSCAR_METRICS_LEDGER):"
                    " the server, an import or a backfill makes one"
                )
        # What does not fit into memory goes to a folder beside the file (`<file>.tmp`).
        config: dict[str, Setting] = {
            "memory_limit": f"{memory_mb}MB",
            "threads": threads,
            "temp_directory": f"{path}.tmp",
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        opened = cls(path, config)
        with in_our_words():
            if create:
                # Users are named in the file, and in what the engine writes beside it.
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # By a thread that gives way: those that the engine begins are like it.
            opened._writer.submit(opened._connect).result()
        return opened

    async def write(self, work: Work[T]) -> T:
        """Run work that changes the file; when cancelled, what it changed is undone."""
        # Before and after: what is read meanwhile may be of either state.
        self.changes += 1
        try:
            return await self._run(self._writer, "BEGIN", work)
        finally:
            self.changes += 1

    async def read(self, work: Work[T]) -> T:
        """Run work that changes nothing but temporary tables; when cancelled, it is interrupted."""
        return await self._run(self._readers, "BEGIN TRANSACTION READ ONLY", work)

    async def alone(self, work: Work[T]) -> T:
        """Run work on the writing thread that makes its own transactions."""
        return await self._run(self._writer, "", work)

    async def aclose(self) -> None:
        """Wait for what runs, and close the file."""
        self._closed = True
        await asyncio.to_thread(self._close)

    async def _run(self, threads: ThreadPoolExecutor, begin: str, work: Work[T]) -> T:
        thread: list[int] = []
        cancelled, stopping = threading.Event(), threading.Lock()
        if self._closed:
            raise LedgerError(_CLOSED)
        job = threads.submit(self._transact, thread, cancelled, stopping, begin, work)
        waiting = asyncio.wrap_future(job)
        # Looked at in any case: nobody waits for an error once the caller was cancelled.
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            cancelled.set()
            while not job.cancel() and not job.done():
                with stopping:
                    if thread and (cursor := self._cursors.get(thread[0])):
                        cursor.interrupt()
                await asyncio.wait([waiting], timeout=_INTERRUPT_SECONDS)
            raise

    def _transact(
        self,
        thread: list[int],
        cancelled: threading.Event,
        stopping: threading.Lock,
        begin: str,
        work: Work[T],
    ) -> T:
        _current.cancelled = cancelled
        with in_our_words():
            cursor = self._entered()
            try:
                thread.append(threading.get_ident())
                if begin:
                    cursor.execute(begin)
                result = work(cursor)
                if begin:
                    cursor.execute("COMMIT")
            except BaseException as error:
                if isinstance(error, duckdb.FatalException):
                    self._broken = True
                # From here on an interrupt would hit the end of the transaction, and with it
                # whatever this thread does next.
                with stopping:
                    thread.clear()
                # Where the engine has ended the transaction itself there is none to roll back.
                with contextlib.suppress(duckdb.Error):
                    cursor.execute("ROLLBACK")
                raise
            else:
                return result
            finally:
                with stopping:
                    thread.clear()
                with self._idle:
                    self._running -= 1
                    self._idle.notify_all()

    def _entered(self) -> Cursor:
        """The cursor of this thread; the file is opened again after the engine had given it up."""
        with self._idle:
            if self._broken:
                self._idle.wait_for(lambda: not self._running)
            if self._broken:
                self._disconnect()
                self._connect()
            if self._connection is None:
                raise LedgerError(_CLOSED)
            name = threading.get_ident()
            if name not in self._cursors:
                self._cursors[name] = self._connection.cursor()
            self._running += 1
            return self._cursors[name]

    def _connect(self) -> None:
        is_new = not self.path.exists()
        self._connection = duckdb.connect(str(self.path), config=self._config)
        try:
            if is_new:
                self.path.chmod(0o600)
            duckdb_schema.migrate(self._connection)
        except BaseException:
            self._disconnect()
            raise
        self._broken = False

    def _disconnect(self) -> None:
        for cursor in self._cursors.values():
            cursor.close()
        self._cursors.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        with in_our_words():
            self._disconnect()


def _give_way() -> None:
    """Let the event loop go first where there are fewer processors than queries.

    One that is refused, or answered with what is kept, would else wait for those that are made.
    """
    with contextlib.suppress(OSError):  # only Linux has priorities of threads
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def fetched(cursor: Cursor) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of the last query, some at a time; InterruptException once the work is cancelled.

    An interrupt ends queries only, and to make Python's objects of many rows takes longer.
    """
    while rows := cursor.fetchmany(_ROWS_AT_A_TIME):
        if _current.cancelled.is_set():
            raise duckdb.InterruptException
        yield rows


@contextlib.contextmanager
def in_our_words() -> Iterator[None]:
    """Turn what the engine and the system raise into LedgerError; the cause goes to the log."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise _told(error) from error


_DAMAGED = (
    "the ledger's file is damaged or no ledger: move it aside and restore a copy, or let a new"
    " one be filled from the sources"
)
# What is found in the text of an error, and what is said instead; the first that fits.
_SENTENCES = (
    ("No space left on device", "the disk of the ledger is full: free some space"),
    ("Disk quota exceeded", "the disk quota of the ledger is used up: free some space"),
    ("File too large", "the ledger's file is larger than this process may write"),
    ("Permission denied", "the ledger's file, or its folder, may not be written by this user"),
    ("Operation not permitted", "the ledger's file, or its folder, belongs to another user"),
    ("Read-only file system", "the ledger's file is on a file system that is read-only"),
    ("Is a directory", "the ledger is to be a file, and a folder of that name is there"),
    ("File name too long", "the name of the ledger's file is longer than the system takes"),
    ("Not a directory", "the folder of the ledger's file cannot be made: a file is in its place"),
    ("version number", "the ledger's file was written by a newer engine: run the newer program"),
    ("not a valid DuckDB database", _DAMAGED),
    ("Corrupt", _DAMAGED),
    ("Could not read enough bytes", _DAMAGED),
    ("Serialization Error", _DAMAGED),
    ("database has been invalidated", "the ledger's file is being opened again after a failure"),
)


def _told(error: Exception) -> LedgerError:
    text = str(error)
    if "Could not set lock" in text:
        return LedgerHeld("the ledger's file is open in another process")
    if isinstance(error, duckdb.OutOfMemoryException | MemoryError):
        return LedgerError("the ledger needs more memory than its setting memory_mb allows")
    for found, sentence in _SENTENCES:
        if found in text:
            return LedgerError(sentence)
    return LedgerError(f"the ledger's engine failed ({type(error).__name__})")

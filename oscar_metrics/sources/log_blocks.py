"""One log file, plain or gzip, read in blocks of whole lines.

Never more than a block and one line are held, whatever the file unpacks to.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from oscar_metrics.sources.cri_lines import CriJoiner

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW_BITS = 31
# Little at a time: what a piece holds before a break in it is lost.
_PACKED_BYTES = 8 * 1024
_SAMPLE_BYTES = 8 * 1024


class FileVersion(msgspec.Struct, frozen=True):
    """What tells a file's contents apart without reading them."""

    modified_ns: int
    size: int
    inode: int
    device: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileVersion:
        """The version behind a stat result."""
        return cls(found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)


class LogBlocks:
    """A log file's lines, block by block; `problem` says what kept some of them from being read.

    Lines longer than `line_bytes` are cut there, and counted in `long_lines`.
    """

    def __init__(self, path: Path, *, line_bytes: int) -> None:
        self.problem = ""
        self.long_lines = 0
        # Of the file as it is stored, compressed or not.
        self.bytes_read = 0
        self._line_bytes = line_bytes
        self._begun = b""
        self._inside_long_line = False
        self._joiner = CriJoiner(line_characters=line_bytes)
        self._file: BinaryIO | None = None
        self._bytes: Callable[[int], bytes] = _nothing
        try:
            self._open(path)
        except OSError as exc:
            self.problem = _open_problem(exc)

    @property
    def is_open(self) -> bool:
        """Whether there may be more to read."""
        return self._file is not None

    def read(self, block_bytes: int) -> list[str] | None:
        """The whole lines of the next `block_bytes` or so, without newlines; None at the end.

        An empty list where the block is all of one long line: whoever reads may want to stop.
        """
        if self._file is None:
            return None
        block = self._block(block_bytes)
        self.bytes_read = self._file.tell()
        if block:
            return self._text_lines(self._whole_lines(block))
        self.close()
        if self.problem:
            # Where the file breaks off, it breaks a line: what is left could be another call.
            return None
        # A live file's last line may have been written without its newline yet.
        return self._text_lines(self._begun) + self._joiner.rest() or None

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, path: Path) -> None:
        # What is no regular file (a pipe, say) could block for ever when opened.
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            self.problem = "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"
            return
        self._file = path.open("rb")
        magic = self._file.read(len(_GZIP_MAGIC))
        self._file.seek(0)
        self._bytes = Gunzip(self._file).read if magic == _GZIP_MAGIC else self._file.read

    def _block(self, size: int) -> bytes:
        try:
            return self._bytes(size)
        except EOFError:
            self.problem = "ends in the middle of its gzip data"
        except zlib.error:
            self.problem = "holds broken gzip data, what came before was read"
        except OSError:
            self.problem = "could not be read to its end"
        return b""

    def _whole_lines(self, block: bytes) -> bytes:
        """What of the block makes whole lines; the line it ends in waits for the next block."""
        if self._inside_long_line:
            newline = block.find(b"\n")
            if newline < 0:
                return b""
            self._inside_long_line = False
            block = block[newline + 1 :]
        begun, newline = self._begun, block.rfind(b"\n")
        self._begun = block[newline + 1 :] if newline >= 0 else begun + block
        whole = b"".join((begun, memoryview(block)[:newline])) if newline >= 0 else b""
        if len(self._begun) > self._line_bytes:
            # Its beginning may show a call; the rest is never held.
            whole = b"\n".join(filter(None, (whole, self._begun[: self._line_bytes])))
            self._begun = b""
            self._inside_long_line = True
            self.long_lines += 1
        return whole

    def _text_lines(self, whole: bytes) -> list[str]:
        if not whole:
            return []
        text = whole.decode("utf-8", "replace")
        if "\r" in text:
            text = text.replace("\r\n", "\n").removesuffix("\r")
        lines = text.split("\n")
        if self._joiner.pending or _may_hold_parts(lines):
            return [line for raw in lines if (line := self._joiner.join(raw)) is not None]
        return lines


class Gunzip:
    """The unpacked bytes of a gzip file of any number of members, as much at a time as asked."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._waiting = b""
        self._member = zlib.decompressobj(_GZIP_WINDOW_BITS)
        self._inside_member = False

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end; raises EOFError or zlib.error where it breaks off.

        What came before the break has been returned by then.
        """
        pieces: list[bytes] = []
        wanted = size
        try:
            while wanted > 0 and (piece := self._piece(wanted)):
                pieces.append(piece)
                wanted -= len(piece)
        except (EOFError, zlib.error):
            # Asked again, the same input breaks in the same place.
            if not pieces:
                raise
        return b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        while True:
            packed = self._waiting or self._packed.read(_PACKED_BYTES)
            if not self._inside_member:
                # Members may be padded with zeros.
                packed = packed.lstrip(b"\0") or self._packed.read(_PACKED_BYTES).lstrip(b"\0")
            if not packed:
                if self._inside_member:
                    raise EOFError
                return b""
            self._waiting = packed
            self._inside_member = True
            piece = self._member.decompress(packed, size)
            if self._member.eof:
                self._waiting = self._member.unused_data
                self._member = zlib.decompressobj(_GZIP_WINDOW_BITS)
                self._inside_member = False
            else:
                self._waiting = self._member.unconsumed_tail
            if piece:
                return piece


def _may_hold_parts(lines: list[str]) -> bool:
    """Whether any line may be one of CRI's parts: it begins with a digit, then comes the flag."""
    return min(lines) < ":" and any([line.find(" P ", 20, 52) > 0 for line in lines])  # noqa: C419 - a list is faster


def sample_lines(path: Path, *, places: int) -> list[list[str]]:
    """Some whole lines from each of `places` places of a plain file, its first and last among them.

    Of a gzip file, which cannot be read in the middle, only the first. Raises OSError.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return []
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC:
            file.seek(0)
            return [_some_lines(Gunzip(file).read(_SAMPLE_BYTES), at_start=True)]
        samples = []
        for place in range(places):
            at = max(0, size - _SAMPLE_BYTES) * place // (places - 1)
            file.seek(at)
            samples.append(_some_lines(file.read(_SAMPLE_BYTES), at_start=at == 0))
    return samples


def _some_lines(block: bytes, *, at_start: bool) -> list[str]:
    lines = block.decode("utf-8", "replace").split("\n")
    return lines if at_start else lines[1:]


def _nothing(_size: int) -> bytes:
    return b""


def _open_problem(exc: OSError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "vanished before it was read"
    if isinstance(exc, PermissionError):
        return "cannot be read: no permission"
    return "cannot be opened"

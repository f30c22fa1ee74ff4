"""Where a server that holds the ledger listens for commands: a unix socket beside the file.

An address of a unix socket has room for some hundred bytes, and a ledger may lie deeper:
the folder is then opened and the socket is reached through the open folder (Linux).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oscar_metrics.errors import LedgerError, LedgerHeld

# Linux has 108 with the terminating zero, others 104.
_ADDRESS_BYTES = 100
# What is left of that beside /proc/self/fd/<number>/.
_NAME_BYTES = 70
_WAITING = 16
_CONNECTED_WITHIN_SECONDS = 5


def socket_path(file: Path) -> Path:
    """`<file>.sock`; a digest stands for a name that no address has room for."""
    name = f"{file.name}.sock"
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f"{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:16]}.sock"
    return file.parent / name


@contextmanager
def listening(file: Path) -> Iterator[socket.socket]:
    """A socket that only this user can connect to; it is gone when the block ends.

    Whoever holds the ledger may call this, so a socket that is there already is what a
    killed server left. Raises LedgerError where none can be made.
    """
    path = socket_path(file)
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(_address(path))
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISSOCK(path.lstat().st_mode):
                    raise LedgerError(
                        f"{path} is in the way of the socket for commands: move it aside"
                    )
                path.unlink()
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.bind(address)
            # Nobody can connect before it listens, so there is no moment when others could.
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            listener.settimeout(0)
            listener.listen(_WAITING)
        except OSError as exc:
            raise LedgerError(
                f"cannot listen for commands on {path} ({exc.strerror or exc})"
            ) from exc
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def connected(file: Path) -> socket.socket:
    """A socket to the server that holds the ledger.

    Raises LedgerHeld where nobody answers, LedgerError where this user may not ask.
    """
    path = socket_path(file)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECTED_WITHIN_SECONDS)
    try:
        with _address(path) as address:
            connection.connect(address)
    except PermissionError as exc:
        connection.close()
        raise LedgerError(
            f"{file} is held by a server of another user, who alone may ask it:"
            " run this as that user"
        ) from exc
    except OSError as exc:
        connection.close()
        raise LedgerHeld(
            f"{file} is held by a process that takes no commands"
            " (another command, or a server that is starting or stopping): try again later"
        ) from exc
    connection.settimeout(0)
    return connection


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """What to bind or connect to for `path`."""
    if len(os.fsencode(path)) <= _ADDRESS_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

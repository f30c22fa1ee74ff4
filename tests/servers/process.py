"""One server process: started on loopback, waited for with a bound, and never left behind."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

# Below the range from which Linux and macOS hand out ports for outgoing connections, so that no
# client takes a server's port while that server is stopped and about to be restarted on it.
_PORTS = range(20_000, 32_000)
_LOG_TAIL_BYTES = 4_000
_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1

_ports_given: set[int] = set()


class ServerError(Exception):
    """A server did not start, died, or did not do what a test was promised."""


def free_port() -> int:
    """Return a loopback TCP port that nothing listens on and that was not returned before.

    Raises ServerError if a hundred attempts find none.
    """
    for port in random.sample(_PORTS, k=100):
        if port in _ports_given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _ports_given.add(port)
        return port
    raise ServerError("no free port on 127.0.0.1 between 20000 and 32000")


def wait_until(condition: Callable[[], bool], what: str, *, timeout_seconds: float) -> None:
    """Call `condition` until it is true; a connection that fails counts as not yet.

    Raises ServerError, naming `what`, once `timeout_seconds` have passed.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise ServerError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(_POLL_SECONDS)


class Process:
    """A command that runs until it is stopped, with its output in a log file.

    It dies with the thread that started it, also when that is killed outright (Linux), so start it
    from a thread that outlives it. It has a session of its own: an interrupt typed at the terminal
    reaches the tests, which then stop it in their order.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log_path: Path,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [str(part) for part in command]
        self._environment = {**os.environ, **(environment or {})}
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Start the command and wait until `ready`.

        Raises ServerError with the end of the log if it exits or is not ready in time; it is
        stopped then.
        """
        if self._running is not None:
            raise ServerError(f"{self.name} is running already")
        with self.log_path.open("ab") as log:
            running = self._running = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - it takes no lock
            )

        def ready_while_alive() -> bool:
            if running.poll() is not None:
                raise ServerError(f"{self.name} exited with {running.returncode}")
            return ready()

        try:
            wait_until(ready_while_alive, f"{self.name} ready", timeout_seconds=timeout_seconds)
        except ServerError as error:
            self.stop()
            raise ServerError(f"{error}; the end of {self.log_path}:\n{self._log_tail()}") from None
        except BaseException:
            self.stop()
            raise

    def stop(self, *, grace_seconds: float = 10) -> None:
        """Ask the process to end, and kill it if it has not within `grace_seconds`."""
        if self._running is None:
            return
        running, self._running = self._running, None
        running.terminate()
        running.send_signal(signal.SIGCONT)  # a suspended one could not heed it
        try:
            running.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()

    def kill(self) -> None:
        """End the process outright, as a power cut would."""
        if self._running is None:
            return
        running, self._running = self._running, None
        running.kill()
        running.wait()

    @property
    def pid(self) -> int:
        """Its number, while it runs."""
        if self._running is None:
            raise ServerError(f"{self.name} is not running")
        return self._running.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._signal(number)

    def ended(self, timeout_seconds: float) -> int:
        """Wait for it to end by itself, and return with what.

        Raises ServerError, and kills it, where it has not within `timeout_seconds`.
        """
        if self._running is None:
            raise ServerError(f"{self.name} is not running")
        try:
            return self._running.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ServerError(f"{self.name} had not ended after {timeout_seconds:g} s") from None
        finally:
            self.kill()

    def give_way(self) -> None:
        """Let it have of the processors what others leave, until it is started again."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)

    def suspend(self) -> None:
        """Halt the process where it is: the system still takes connections, nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _log_tail(self) -> str:
        text = self.log_path.read_bytes()[-_LOG_TAIL_BYTES:]
        return text.decode(errors="replace")


def _die_with(parent_pid: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    # Loaded here: between fork and exec, where the function below runs, little is safe to do.
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # the parent died before the kernel was told
            os._exit(1)

    return die_with_parent

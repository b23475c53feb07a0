"""Processes of a drill: started in a group of their own, ended with the drill, whatever happens to it."""

import atexit
import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_STARTED: list["Process"] = []


def free_port() -> int:
    """A free port below those that the kernel gives to outgoing connections, which would take it before we do."""
    for port in random.sample(range(15_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port")


def wait_until(true: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Waits for something, and says what did not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: a drill that is killed leaves nothing behind.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Process:
    """One program with its log."""

    def __init__(self, command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self.child = subprocess.Popen(
                list(command),
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        _STARTED.append(self)

    @property
    def runs(self) -> bool:
        return self.child.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.runs:
            os.killpg(self.child.pid, number)

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 40) -> int:
        """Asks it to end and waits; kills it when it does not. Answers its exit code."""
        if self.runs:
            # The leader alone: it tells its children.
            self.child.send_signal(number)
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            return self.child.wait(10)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.child.wait(10)

    def last_lines(self, count: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


@atexit.register
def end_all() -> None:
    for process in reversed(_STARTED):
        if process.runs:
            process.send(signal.SIGCONT)
            process.kill()

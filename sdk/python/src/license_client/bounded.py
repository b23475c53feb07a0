"""A call that may hang, for a bounded time.

It runs on a daemon thread. Who gives up waiting leaves it there: it blocks neither the caller nor the exit.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class StillRunning(Exception):
    """The call has not come back in time; it goes on."""


class Call(Generic[T]):
    """One run of `act`, begun at once; may be waited for several times, by several threads."""

    def __init__(self, act: Callable[[], T], name: str) -> None:
        self.taken = False
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._over = threading.Event()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                self._result.append(context.run(act))
            except BaseException as error:  # handed to whoever waits
                self._error = error
            self._over.set()

        try:
            threading.Thread(target=run, daemon=True, name=name).start()
        except RuntimeError:  # no new threads while the interpreter ends: then on this one
            run()

    def wait(self, seconds: float) -> T:
        """The result, or what it raised. StillRunning after `seconds`."""
        if not self._over.wait(seconds):
            raise StillRunning
        self.taken = True
        if self._error is not None:
            raise self._error
        return self._result[0]

"""The thread that keeps a seat. It sleeps; when its time has come it calls `beat`, which says when to come again.

Daemon, no signal handlers, nothing at import. It wakes every half minute while waiting, because a sleeping
laptop stops the clock that threads wait on but not the one that deadlines are kept on; that costs some
microseconds a minute.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from .clock import monotonic

SLICE_SECONDS = 30.0
OVERSLEPT_SECONDS = 5.0
JITTER_SHARE = 0.1
_AFTER_FAILURE_SECONDS = 30.0
_log = logging.getLogger("license_client")


class HeartbeatThread(threading.Thread):
    """Calls `beat(pause)` again and again.

    `beat` returns the seconds until the next call (`jittered` by up to a tenth, so that many clients do not come
    together), or None to end. `pause(seconds)` is how it waits in between: it returns True at once when the
    thread is to stop. `overslept(seconds)` is told when the machine or the process stood still meanwhile.
    `farewell`, if given to `stop`, runs last, on this thread.
    """

    def __init__(
        self,
        beat: Callable[[Callable[[float], bool]], float | None],
        first_seconds: float,
        *,
        overslept: Callable[[float], None] | None = None,
        name: str = "license-heartbeat",
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._beat = beat
        self._overslept = overslept
        self._due = monotonic() + first_seconds
        self._wake = threading.Event()
        self._stopping = False
        self._farewell: Callable[[], None] | None = None

    def run(self) -> None:
        while not self._stopping:
            self._sleep_until_due()
            if self._stopping:
                break
            try:
                seconds = self._beat(self.pause)
            except Exception:
                _log.exception("heartbeat failed unexpectedly")
                seconds = _AFTER_FAILURE_SECONDS
            if seconds is None:
                return
            self._due = monotonic() + seconds
        if self._farewell is not None:
            try:
                self._farewell()
            except Exception:
                _log.exception("release failed unexpectedly")

    def pause(self, seconds: float) -> bool:
        """Wait, but not a moment longer than until `stop`. True if stopping."""
        until = monotonic() + seconds
        while not self._stopping and (left := until - monotonic()) > 0:
            self._wake.wait(min(left, SLICE_SECONDS))
            self._wake.clear()  # `stop` sets its flag first, so the loop's condition sees it
        return self._stopping

    def stop(self, farewell: Callable[[], None] | None = None) -> None:
        """End at once, after `farewell`; does not wait (`join` does)."""
        self._farewell = farewell
        self._stopping = True
        self._wake.set()

    def hurry(self) -> None:
        """Beat now."""
        self._due = monotonic()
        self._wake.set()

    def _sleep_until_due(self) -> None:
        while not self._stopping and (left := self._due - monotonic()) > 0:
            slice_end = monotonic() + min(left, SLICE_SECONDS)
            self._wake.wait(slice_end - monotonic())
            self._wake.clear()
            late = monotonic() - slice_end
            if late > OVERSLEPT_SECONDS and self._overslept is not None:
                self._overslept(late)


def jittered(seconds: float) -> float:
    return seconds * (1.0 - JITTER_SHARE * random.random())  # noqa: S311 - no secret

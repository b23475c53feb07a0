"""Two clocks: one that counts and one that is shown.

Deadlines are kept on `monotonic()`, which goes on while the machine sleeps and which nobody can set. The
wall clock is only compared with itself (differences between two readings on this machine), so a clock that
is wrong by hours harms nobody, and one that is turned back is noticed.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ROLLBACK_TOLERANCE_SECONDS = 300.0
"""How far the wall clock may step back (time synchronisation) before it counts as turned back."""


def monotonic() -> float:
    """Seconds on a clock that never steps and counts sleep. Its zero is arbitrary, the same for all processes."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)  # Darwin's goes on asleep; Python's own does not
    return time.monotonic()


@lru_cache(maxsize=1)
def boot_id() -> str | None:
    """Which boot `monotonic()` counts from, or None where the system does not say (then only the wall clock
    bridges two processes)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except OSError:
        return None


@dataclass(frozen=True)
class Moment:
    """One instant on both clocks, in seconds; can be written down and read by a later process."""

    boot: str | None
    mono: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        return cls(boot_id(), monotonic(), time.time())

    @classmethod
    def from_record(cls, record: Any) -> Moment:
        """Read back what `as_record` wrote; KeyError, TypeError or ValueError if it is something else."""
        return cls(record["boot"], float(record["mono"]), float(record["wall"]))

    def as_record(self) -> dict[str, Any]:
        return {"boot": self.boot, "mono": self.mono, "wall": self.wall}

    def same_boot(self, other: Moment) -> bool:
        return self.boot is not None and self.boot == other.boot

    def seconds_until(self, later: Moment) -> float:
        """Seconds between the two, exact within one boot, else as the wall clock has it (never negative)."""
        if self.same_boot(later):
            return max(0.0, later.mono - self.mono)
        return max(0.0, later.wall - self.wall)

    def strictest_seconds_until(self, later: Moment) -> float:
        """The longer of what the two clocks say: what a stored permission has to be counted by."""
        by_wall = max(0.0, later.wall - self.wall)
        return max(by_wall, self.seconds_until(later))


def rolled_back(mark: float, anchor: Moment, now: Moment) -> bool:
    """Whether the wall clock was turned back.

    `mark` is the highest wall-clock reading known (seconds since the epoch), `anchor` a moment at which the
    server vouched for us. Within one boot the counting clock says how late it must be by now.
    """
    expected = mark
    if anchor.same_boot(now):
        expected = max(expected, anchor.wall + (now.mono - anchor.mono))
    return now.wall < expected - ROLLBACK_TOLERANCE_SECONDS

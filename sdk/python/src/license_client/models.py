"""The values that this package hands out. All are immutable."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any


class State(str, Enum):
    """What a client holds."""

    IDLE = "idle"
    """Nothing asked for yet."""
    WAITING = "waiting"
    """All seats are in use; `acquire(wait=…)` waits for one."""
    ACTIVE = "active"
    """A seat, confirmed by the server."""
    OFFLINE = "offline"
    """The server is out of reach; the license token carries on until its end."""
    LOST = "lost"
    """No seat any more: `LicenseStatus.error` says why."""
    RELEASED = "released"
    """Given back."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Seats:
    """Seats of the pool at the time of the answer."""

    used: int
    total: int


@dataclass(frozen=True)
class LicenseClaims:
    """The verified contents of a license token."""

    issuer: str
    subject: str
    token_id: str
    user_id: str
    tenant_id: str
    license_id: str
    session_id: str
    hardware_id: str
    plan: str
    product: str
    features: tuple[str, ...]
    issued_at: datetime
    not_before: datetime
    expires_at: datetime

    @property
    def grace_seconds(self) -> float:
        """How long the token lasts, by the server's own clock at both ends."""
        return (self.expires_at - self.issued_at).total_seconds()


@dataclass(frozen=True)
class Grant:
    """A seat: what `acquire()` returns."""

    session_id: str
    token: str = field(repr=False)
    claims: LicenseClaims
    status: str
    """`granted` or `renewed` as the server said, or `offline`."""
    heartbeat_interval_seconds: float
    session_ttl_seconds: float
    seats: Seats | None = None

    @property
    def expires_at(self) -> datetime:
        return self.claims.expires_at

    @property
    def features(self) -> tuple[str, ...]:
        return self.claims.features


@dataclass(frozen=True)
class LicenseStatus:
    """A snapshot of a client; what `LicenseClient.status` returns and every callback receives."""

    state: State
    session_id: str | None = None
    user_id: str | None = None
    plan: str | None = None
    features: tuple[str, ...] = ()
    expires_at: datetime | None = None
    seconds_left: float | None = None
    """Until the license token's end if the server stays away, on the counting clock."""
    seats: Seats | None = None
    error: Exception | None = field(default=None, compare=False)
    """Why it is offline or lost."""
    clock_rolled_back: bool = False

    @property
    def usable(self) -> bool:
        """Whether the product may run."""
        return self.state in (State.ACTIVE, State.OFFLINE)

    def __str__(self) -> str:
        return self.state.value


def parse_time(text: Any) -> datetime:
    """RFC 3339 to an aware datetime; ValueError if it is not one."""
    if not isinstance(text, str):
        raise ValueError("not a time")
    parsed = datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text)
    if parsed.tzinfo is None:
        raise ValueError("a time without a zone")
    return parsed


def from_epoch(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def in_words(seconds: float) -> str:
    """A span for people: `23 h 10 min`, `4 min`, `20 s`."""
    whole = max(0, int(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min" if whole >= 60 else f"{whole} s"

"""One seat in this process: its verified token, its deadlines on the counting clock, its place on disk.

Knows time and files; knows nothing of the network.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from .api import AcquireAnswer
from .clock import Moment, monotonic, rolled_back
from .errors import ClockRollback, OfflineGraceExpired
from .models import Grant, LicenseClaims, Seats
from .record import SeatRecord
from .verify import TokenVerifier

RENEW_AFTER_SHARE = 0.25
"""A running client fetches a new token when this share of the old one's life has passed."""


@dataclass(frozen=True)
class Seat:
    """Immutable: each news makes a new one."""

    record: SeatRecord
    claims: LicenseClaims
    deadline: float
    """On `monotonic()`: when the token ends, counted from when it was asked for."""
    status: str
    seats: Seats | None = None
    clock_rolled_back: bool = False

    @classmethod
    def granted(cls, answer: AcquireAnswer, claims: LicenseClaims, sent: Moment) -> Seat:
        record = SeatRecord(
            token=answer.license_token,
            session_id=answer.session_id,
            interval=answer.interval,
            ttl=answer.ttl,
            fetched=sent,
            contact=sent,
            mark=time.time(),  # the server has just vouched for us: whatever the clock says is where it starts
        )
        return cls(record, claims, sent.mono + claims.grace_seconds, answer.status, answer.seats)

    @classmethod
    def stored(cls, record: SeatRecord, verifier: TokenVerifier, hardware_id: str, product: str) -> Seat:
        """A seat to start offline with. ClockRollback, OfflineGraceExpired or InvalidLicenseToken if it is none."""
        now = Moment.now()
        claims = verify_kept(record, verifier, hardware_id, product)
        if rolled_back(record.mark, record.fetched, now):
            raise ClockRollback("the clock was set back since the license server was last reached")
        left = claims.grace_seconds - record.fetched.strictest_seconds_until(now)
        if left <= 0:
            raise OfflineGraceExpired("the offline time is used up: the license server must be reached once")
        return cls(replace(record, mark=max(record.mark, now.wall)), claims, now.mono + left, "offline")

    def heard(self, sent: Moment, interval: float | None) -> Seat:
        """After a heartbeat that was sent at `sent` and answered.

        `interval` is measured with a header of whole seconds, so it is up to one too long: it counts only if it
        differs by more, that is, if the server's setting was changed.
        """
        known = self.record.interval
        if interval is None or -0.5 <= interval - known <= 1.5:
            interval = known
        changed = replace(self.record, contact=sent, interval=interval, mark=self.expected_wall())
        return replace(self, record=changed)

    def marked(self) -> Seat:
        """With the clock's high-water mark moved on."""
        seen = self.clock_rolled_back or rolled_back(self.record.mark, self.record.fetched, Moment.now())
        return replace(self, record=replace(self.record, mark=self.expected_wall()), clock_rolled_back=seen)

    def shared(self, record: SeatRecord, verifier: TokenVerifier, hardware_id: str, product: str) -> Seat:
        """With what another process of this user wrote down later."""
        if record.token == self.record.token:
            return replace(self, record=record)
        claims = verify_kept(record, verifier, hardware_id, product)
        now = Moment.now()
        left = claims.grace_seconds - record.fetched.seconds_until(now)
        return replace(self, record=record, claims=claims, deadline=now.mono + left)

    def expected_wall(self) -> float:
        """The mark, moved on by the counting clock: a clock that jumps ahead does not drag it along."""
        now = Moment.now()
        if self.record.fetched.same_boot(now):
            return max(self.record.mark, self.record.fetched.wall + now.mono - self.record.fetched.mono)
        return max(self.record.mark, now.wall)

    def seconds_left(self) -> float:
        return self.deadline - monotonic()

    def due_in(self) -> float:
        """Seconds until the next heartbeat, negative if overdue. A heartbeat of any process counts."""
        return self.record.interval - self.record.contact.seconds_until(Moment.now())

    def renewal_due(self) -> bool:
        return self.seconds_left() < self.claims.grace_seconds * (1.0 - RENEW_AFTER_SHARE)

    def session_may_live(self) -> bool:
        """Whether the server's own deadline for the session lies ahead, counted from our last heartbeat."""
        return self.record.contact.seconds_until(Moment.now()) < self.record.ttl

    def grant(self) -> Grant:
        record = self.record
        return Grant(
            session_id=record.session_id,
            token=record.token,
            claims=self.claims,
            status=self.status,
            heartbeat_interval_seconds=record.interval,
            session_ttl_seconds=record.ttl,
            seats=self.seats,
        )


def verify_kept(record: SeatRecord, verifier: TokenVerifier, hardware_id: str, product: str) -> LicenseClaims:
    """Signature and claims of a token from disk, without the network. Its age is judged by the caller."""
    return verifier.verify_fresh(record.token, ask=False, hardware_id=hardware_id, product=product)

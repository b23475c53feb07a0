"""What a client does and when: the state machine behind LicenseClient and its heartbeat thread.

    idle --acquire--> active <--> offline --token ends--> lost
                         |---refused, or ended and not to be had again---> lost
    any --release--> released

One lock, `_op`, is held by whoever acts (the caller or the thread). `status` never takes it, and callbacks run
after it is given back (but `waiting`, which comes from the middle of an acquire).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from .clock import monotonic
from .config import Settings
from .errors import (
    AuthenticationError,
    InvalidLicenseToken,
    LicenseError,
    NoSeatsAvailable,
    NotFound,
    OfflineGraceExpired,
    Refused,
    SessionEnded,
    StateTampered,
    Transient,
)
from .exchange import Exchange, Pause
from .files import locked
from .heartbeat import jittered
from .models import Grant, LicenseStatus, State, in_words
from .record import Slot
from .retry import RETRIES, Stopped
from .seat import Seat

MIN_BUDGET_SECONDS = 5.0
LONGEST_RECONNECT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
WAKING_SECONDS = 60.0
"""After the machine slept past the token's end the network gets this long to come back."""
_DOOR_SECONDS = 5.0
_log = logging.getLogger("license_client")
_GONE = ("session_not_found",)
_DECIDED = ("license_not_found", "tenant_not_found", "user_not_found")

Notify = Callable[[str, LicenseStatus], None]


@dataclass
class _Situation:
    """What `status` shows; replaced as a whole."""

    state: State = State.IDLE
    error: Exception | None = None


class Engine:
    """Acts for one user on one machine. `notify(event, status)` is called after each change, without locks."""

    def __init__(self, settings: Settings, exchange: Exchange, slot: Slot, notify: Notify) -> None:
        self.settings = settings
        self.exchange = exchange
        self.slot = slot
        self.seat: Seat | None = None
        self._notify = notify
        self._now = _Situation()
        self._op = threading.RLock()
        self._outbox: list[tuple[str, LicenseStatus]] = []
        self._failures = 0
        self._woken: str | None = None
        """The token that got its minute after a sleep."""

    # -- what it holds -------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._now.state

    @property
    def error(self) -> Exception | None:
        return self._now.error

    def status(self) -> LicenseStatus:
        """A snapshot, without waiting. The token's end counts from the moment it comes, not from when it is noticed."""
        now, seat = self._now, self.seat
        if seat is None:
            return LicenseStatus(now.state, error=now.error)
        left = max(0.0, seat.seconds_left())
        state, error = now.state, now.error
        if state in (State.ACTIVE, State.OFFLINE) and left == 0 and not seat.session_may_live():
            state, error = State.LOST, OfflineGraceExpired("the offline time is used up")
        return LicenseStatus(
            state=state,
            session_id=seat.record.session_id,
            user_id=seat.claims.user_id,
            plan=seat.claims.plan,
            features=seat.claims.features,
            expires_at=seat.claims.expires_at,
            seconds_left=left,
            seats=seat.seats,
            error=error,
            clock_rolled_back=seat.clock_rolled_back,
        )

    def due_in(self) -> float:
        """Seconds until the next heartbeat is due."""
        return max(0.05, self.seat.due_in()) if self.seat else 0.05

    # -- acquire -------------------------------------------------------------------------------------------

    def acquire(
        self, wait_seconds: float, pause: Pause, obstacle: LicenseError | None = None, spent_seconds: float = 0.0
    ) -> Grant:
        """Online if the server answers, else offline with the stored token.

        `obstacle`: why there is no token for the server to begin with (the identity provider is away).
        `spent_seconds`: what finding that out took, of the time until an offline start.
        """
        try:
            with self._op:
                return self._acquire(wait_seconds, pause, obstacle, spent_seconds)
        finally:
            self._flush()

    def _acquire(self, wait_seconds: float, pause: Pause, obstacle: LicenseError | None, spent_seconds: float) -> Grant:
        kept, problem = self._kept()
        self.slot.holder.join(_DOOR_SECONDS)
        settings = self.settings
        try:
            if obstacle is not None:
                raise obstacle
            seat = self.exchange.acquire_waiting(
                wait_seconds,
                budget_seconds=max(0.5, settings.offline_after_seconds - spent_seconds)
                if kept
                else settings.acquire_seconds,
                retries=1 if kept else RETRIES,
                pause=pause,
                waiting=self._waiting,
            )
        except (Transient, InvalidLicenseToken) as error:
            if kept is None or self.state is State.WAITING:
                self._withdraw(error)
                if problem is not None:
                    raise problem from error
                raise
            self.seat = kept
            self.slot.save(kept.record)
            self._enter_offline(error)
            return kept.grant()
        except Refused as error:
            self.slot.forget()
            self._withdraw(error)
            raise
        except BaseException as error:
            if self.state not in (State.ACTIVE, State.OFFLINE):  # what is held stays held
                self._withdraw(error if isinstance(error, Exception) else None)
            raise
        self._take(seat)
        return seat.grant()

    def _kept(self) -> tuple[Seat | None, LicenseError | None]:
        """The seat to go on with if the server is away: the one held, else the stored one; or why there is none."""
        if self.seat is not None and self.state in (State.ACTIVE, State.OFFLINE) and self.seat.seconds_left() > 0:
            return replace(self.seat, status="offline"), None
        exchange = self.exchange
        try:
            record = self.slot.load()
            if record is None:
                return None, None
            return Seat.stored(record, exchange.verifier, exchange.hardware_id, self.settings.product), None
        except LicenseError as error:
            if isinstance(error, StateTampered):
                _log.warning("%s", error)
            return None, error

    def _waiting(self, full: NoSeatsAvailable) -> None:
        if self.state is not State.WAITING:
            self.slot.forget()  # a refusal, though one that may pass
            self._change(State.WAITING, full, "waiting")
            self._flush()

    def _withdraw(self, error: Exception | None) -> None:
        """An acquire came to nothing."""
        self._leave()
        if self.seat is not None and self.state is not State.LOST:
            self._change(State.LOST, error, "lost")
        else:
            self._now = _Situation(State.LOST if self.seat else State.IDLE, error)

    def _take(self, seat: Seat) -> None:
        """A token has come."""
        before = self.state
        self.seat = seat
        self._failures = 0
        self.slot.save(seat.record)
        event = {State.ACTIVE: "renewed", State.OFFLINE: "online"}.get(before, "granted")
        self._change(State.ACTIVE, None, event)

    # -- heartbeat -----------------------------------------------------------------------------------------

    def beat(self, pause: Pause, *, now: bool = False) -> float | None:
        """What is due; seconds until the next time, or None when it is over. `now`: also if not due yet."""
        try:
            with self._op:
                return self._beat(pause, now)
        finally:
            self._flush()

    def _beat(self, pause: Pause, now: bool) -> float | None:
        if self.seat is None or self.state not in (State.ACTIVE, State.OFFLINE):
            return None
        self._hear_the_others()
        seat = self.seat
        due = seat.due_in()
        if self.state is State.ACTIVE and not now and due > 0.2 * seat.record.interval:
            return jittered(due)
        with locked(self.slot.beat_lock, 0.0) as mine:
            spare = max(0.0, seat.record.ttl - seat.record.interval)
            if not mine and not now and -due < spare / 3:  # another process is at it; unless it is stuck
                return min(1.0, spare / 6) or 1.0
            try:
                self._keep(seat, pause)
            except Stopped:
                return None
            except (Refused, SessionEnded) as error:
                if isinstance(error, NotFound) and error.code not in _DECIDED:
                    return self._without_server(error)
                self._lose(error)
                return None
            except LicenseError as error:
                return self._without_server(error)
        self.exchange.verifier.keys.refresh_if_stale()
        return jittered(self.due_in())

    def _keep(self, seat: Seat, pause: Pause) -> None:
        """A heartbeat, or a new token if that is due, or a new session if the old one is over (once)."""
        spare = seat.record.ttl - seat.record.interval
        budget = max(MIN_BUDGET_SECONDS, spare)
        if self.state is State.OFFLINE:
            last_try = seat.seconds_left() <= 0
            self._take(
                self.exchange.acquire(
                    budget_seconds=MIN_BUDGET_SECONDS if last_try else budget,
                    pause=pause,
                    retries=0 if last_try or self._failures > 1 else RETRIES,
                )
            )
            return
        try:
            self.seat = self.exchange.heartbeat(seat, budget_seconds=budget, pause=pause)
        except (SessionEnded, NotFound) as error:
            if isinstance(error, NotFound) and error.code not in _GONE:
                raise
            _log.info("session ended (%s), acquiring again", getattr(error, "reason", None) or error.code)
            self._take(self.exchange.acquire(budget_seconds=budget, pause=pause))
            return
        self._failures = 0
        self.slot.save(self.seat.record, durable=True)
        if self.seat.renewal_due():
            try:
                self._take(self.exchange.acquire(budget_seconds=budget, pause=pause))
            except (Transient, AuthenticationError, InvalidLicenseToken) as error:
                _log.info("license token not renewed yet: %s", error)

    def _hear_the_others(self) -> None:
        """Take over what another process of this user has learned since."""
        seat, record = self.seat, self.slot.peek()
        if seat is None or record is None or record.released:
            return
        mine = seat.record
        if mine.contact.seconds_until(record.contact) <= 0:
            return
        exchange = self.exchange
        try:
            self.seat = seat.shared(record, exchange.verifier, exchange.hardware_id, self.settings.product)
        except InvalidLicenseToken:
            return
        if self.state is State.OFFLINE and self.seat.due_in() > 0:
            self._failures = 0
            self._change(State.ACTIVE, None, "online")

    def _without_server(self, error: LicenseError) -> float | None:
        before = self.seat
        self._hear_the_others()
        seat = self.seat
        assert seat is not None
        if seat is not before and self.state is State.ACTIVE and seat.due_in() > 0:
            return jittered(self.due_in())  # another process got through meanwhile
        if seat.seconds_left() <= 0 and not seat.session_may_live():
            over = OfflineGraceExpired("the license server was out of reach until the license token's end")
            over.__cause__ = error
            self._lose(over, forget=False)
            return None
        self.seat = seat.marked()
        self.slot.save(self.seat.record)
        self._enter_offline(error)
        told = min(getattr(error, "retry_after", None) or 0.0, LONGEST_RETRY_AFTER_SECONDS)
        wait = min(MIN_BUDGET_SECONDS * 2.0 ** min(self._failures, 8), LONGEST_RECONNECT_SECONDS)
        wait = max(2 * told - jittered(told), jittered(min(wait, seat.record.interval)))
        left = seat.seconds_left()
        return min(wait, left + 0.01) if left > 0 else min(wait, 1.0)

    def _enter_offline(self, error: LicenseError) -> None:
        assert self.seat is not None
        self._failures += 1
        left = in_words(self.seat.seconds_left())
        if self.state is State.OFFLINE:
            self._now = _Situation(State.OFFLINE, error)
            _log.info("License server still unreachable, %s left: %s", left, error)
            return
        _log.warning("License server unreachable, offline mode: %s left (%s)", left, error)
        self._change(State.OFFLINE, error, "offline")

    def _lose(self, error: LicenseError, *, forget: bool = True) -> None:
        """It is over: a decision of the server, or the end of the offline time."""
        _log.error("License lost: %s", error)
        if forget:
            self.slot.forget()
        self._leave()
        self._change(State.LOST, error, "lost")

    def overslept(self) -> None:
        """The machine slept. If the token ended meanwhile, the network gets a minute to wake up too, once a token."""
        seat = self.seat
        if seat is None or seat.claims.token_id == self._woken:
            return
        extra = min(WAKING_SECONDS, seat.claims.grace_seconds / 4)
        if seat.seconds_left() < extra:
            self._woken = seat.claims.token_id
            self.seat = replace(seat, deadline=monotonic() + extra)

    # -- release -------------------------------------------------------------------------------------------

    def release(self, timeout_seconds: float) -> bool:
        """Leave; the last one on this machine gives the seat back. Whether nothing is left to be done.

        False after `timeout_seconds`, also when another thread is in the middle of a request for that long.
        """
        give_up = monotonic() + timeout_seconds
        if not self._op.acquire(timeout=timeout_seconds):
            return False
        try:
            return self._release(max(0.1, give_up - monotonic()))
        finally:
            self._op.release()
            self._flush()

    def _release(self, timeout_seconds: float) -> bool:
        give_up = monotonic() + timeout_seconds
        seat = self.seat
        if seat is None or self.state not in (State.ACTIVE, State.OFFLINE):
            return True
        done = True
        with locked(self.slot.holder.door, min(timeout_seconds, 1.0)):
            others = self.slot.holder.others()
            self.slot.holder.leave()
            if others == 0:
                self._hear_the_others()
                session = self.seat.record.session_id if self.seat else seat.record.session_id
                done = self.exchange.release(session, timeout_seconds=max(0.1, give_up - monotonic()))
                record = self.slot.peek()
                if record is not None and done:
                    self.slot.save(replace(record, released=True))
        self._change(State.RELEASED, None, None)
        return done

    def detach(self) -> None:
        """Leave without a word to the server."""
        with self._op:
            self._leave()
            self._change(State.RELEASED, None, None)

    def take_over(self, seat: Seat) -> None:
        """Hold a seat that another process of this user left in the files."""
        with self._op:
            self.slot.holder.join(_DOOR_SECONDS)
            self.seat = seat
            self._change(State.ACTIVE, None, None)

    def _leave(self) -> None:
        with locked(self.slot.holder.door, 1.0):
            self.slot.holder.leave()

    # -- telling -------------------------------------------------------------------------------------------

    def _change(self, state: State, error: Exception | None, event: str | None) -> None:
        self._now = _Situation(state, error)
        if event is not None:
            self._outbox.append((event, self.status()))

    def _flush(self) -> None:
        while self._outbox:
            event, status = self._outbox.pop(0)
            self._notify(event, status)

    def after_fork_in_child(self) -> None:
        """Locks of the parent's other threads, and its connections, are not ours."""
        self._op = threading.RLock()
        self._outbox = []
        self.exchange.api.transport.forget()
        self.exchange.identity.after_fork_in_child()
        self.exchange.verifier.keys.reset_guard()

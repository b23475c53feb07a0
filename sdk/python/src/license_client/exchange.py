"""The three requests with everything around them: identity, retries, the same key on each retry, verification."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from .api import AcquireAnswer, LicenseApi
from .clock import Moment, monotonic
from .config import Settings
from .errors import (
    Conflict,
    InvalidLicenseToken,
    LicenseError,
    NoSeatsAvailable,
    NotFound,
    SessionEnded,
    Transient,
)
from .heartbeat import jittered
from .providers import Identity
from .retry import RETRIES, Stopped, with_retries
from .seat import Seat
from .verify import TokenVerifier

Pause = Callable[[float], bool]
_POLL_SECONDS = (1.0, 5.0)
"""While a person waits for a seat it is asked for as often as the server says, but within these bounds: a seat
may come free at any moment, and the question is cheap."""
_POLL_UNTOLD_SECONDS = 5.0


@dataclass(frozen=True)
class Exchange:
    """Bound to one user's identity and one machine."""

    api: LicenseApi
    identity: Identity
    verifier: TokenVerifier
    settings: Settings
    hardware_id: str

    def acquire(self, *, budget_seconds: float, pause: Pause, retries: int = RETRIES) -> Seat:
        """A seat, verified. Again with a new key if the key met an ended session or was used for another body.

        Raises what the API raises, InvalidLicenseToken for an answer whose token does not verify, Stopped.
        """
        try:
            return self._acquire(str(uuid.uuid4()), budget_seconds, pause, retries)
        except (SessionEnded, Conflict):
            return self._acquire(str(uuid.uuid4()), budget_seconds, pause, retries)

    def _acquire(self, key: str, budget_seconds: float, pause: Pause, retries: int) -> Seat:
        body = {"hardware_id": self.hardware_id, "product": self.settings.product}
        if self.settings.user_id:
            body["user_id"] = self.settings.user_id
        machine = platform.node() if self.settings.machine_name is None else self.settings.machine_name
        if machine:
            body["machine_name"] = machine[:64]

        def attempt(seconds: float) -> tuple[AcquireAnswer, Moment]:
            def send(token: str, left: float) -> tuple[AcquireAnswer, Moment]:
                sent = Moment.now()
                return self.api.acquire(body, token=token, key=key, timeout_seconds=left), sent

            return self.identity.call(send, seconds)

        answer, sent = with_retries(attempt, budget_seconds=budget_seconds, pause=pause, retries=retries)
        try:
            claims = self.verifier.verify_fresh(
                answer.license_token,
                public_key=answer.public_key,
                hardware_id=self.hardware_id,
                product=self.settings.product,
                session_id=answer.session_id,
            )
        except InvalidLicenseToken:
            if answer.status == "granted":
                self._give_up(answer.session_id)
            raise
        return Seat.granted(answer, claims, sent)

    def acquire_waiting(
        self,
        wait_seconds: float,
        *,
        budget_seconds: float,
        retries: int,
        pause: Pause,
        waiting: Callable[[NoSeatsAvailable], None],
    ) -> Seat:
        """`acquire`, and while the pool is full again and again for `wait_seconds`.

        Once it is waiting, failures of the network are waited through as well.
        """
        give_up = monotonic() + wait_seconds
        full: NoSeatsAvailable | None = None
        while True:
            try:
                return self.acquire(budget_seconds=budget_seconds, pause=pause, retries=retries)
            except (NoSeatsAvailable, Transient) as error:
                if isinstance(error, NoSeatsAvailable):
                    full = error
                left = give_up - monotonic()
                if full is None or left <= 0:
                    raise
                waiting(full)
                told = error.retry_after or _POLL_UNTOLD_SECONDS
                delay = jittered(min(max(told, _POLL_SECONDS[0]), _POLL_SECONDS[1]))
                if pause(min(delay, left)):
                    raise Stopped from error

    def heartbeat(self, seat: Seat, *, budget_seconds: float, pause: Pause) -> Seat:
        """The seat with its new deadline. SessionEnded and NotFound if the server knows it no more."""

        def attempt(seconds: float) -> Seat:
            def send(token: str, left: float) -> Seat:
                sent = Moment.now()
                session = seat.record.session_id
                return seat.heard(sent, self.api.heartbeat(session, token=token, timeout_seconds=left))

            return self.identity.call(send, seconds)

        return with_retries(attempt, budget_seconds=budget_seconds, pause=pause)

    def release(self, session_id: str, *, timeout_seconds: float) -> bool:
        """One attempt; whether the seat is free now. If not, it is when its time is up."""

        def send(token: str, left: float) -> None:
            self.api.release(session_id, token=token, timeout_seconds=left)

        try:
            self.identity.call(send, timeout_seconds)
        except (NotFound, SessionEnded):
            return True
        except LicenseError:
            return False
        return True

    def _give_up(self, session_id: str) -> None:
        self.release(session_id, timeout_seconds=self.settings.exit_seconds)

"""The client endpoints of the contract: one function an endpoint, every answer a value or a typed error."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from . import errors
from .errors import LicenseError, ProtocolError
from .models import Seats, parse_time
from .transport import Answer, Transport

MAX_INTERVAL_SECONDS = 3600.0
_REFUSALS: dict[str, type[LicenseError]] = {
    "user_mismatch": errors.UserMismatch,
    "license_inactive": errors.LicenseInactive,
    "license_expired": errors.LicenseExpired,
    "tenant_inactive": errors.TenantInactive,
}


@dataclass(frozen=True)
class AcquireAnswer:
    """A grant as it came, the token still unverified. Durations in seconds."""

    session_id: str
    license_token: str = field(repr=False)
    public_key: str | None
    status: str
    interval: float
    ttl: float
    seats: Seats | None


class LicenseApi:
    """Speaks to one server. `token` is the caller's JWT; `timeout_seconds` bounds one request."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def acquire(
        self, body: dict[str, Any], *, token: str, key: str, timeout_seconds: float | None = None
    ) -> AcquireAnswer:
        """POST /api/v1/licenses/acquire. `key` is the same on each retry of one acquire."""
        answer = self._post("acquire", body, token, timeout_seconds, {"Idempotency-Key": key})
        try:
            seats = answer.get("seats")
            return AcquireAnswer(
                session_id=_text(answer, "session_id"),
                license_token=_text(answer, "license_token"),
                public_key=answer.get("public_key"),
                status=_text(answer, "status"),
                interval=_seconds(answer["heartbeat_interval_seconds"]),
                ttl=float(answer["session_ttl_seconds"]),
                seats=Seats(int(seats["used"]), int(seats["total"])) if seats else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"acquire: the server's answer lacks or garbles {error}") from error

    def heartbeat(self, session_id: str, *, token: str, timeout_seconds: float | None = None) -> float | None:
        """POST …/heartbeat: seconds until the next one as the server wants it, None if it cannot be told."""
        body = {"session_id": session_id}
        raw = self._request("heartbeat", body, token, timeout_seconds, {})
        answer = raw.json()
        if answer.get("status") != "ok":
            raise ProtocolError("heartbeat: the server's answer is not of the contract", status=raw.status)
        try:  # measured on the server's clock at both ends: ours may be wrong
            sent: datetime = parsedate_to_datetime(raw.headers["date"])
            return _seconds((parse_time(answer["next_heartbeat_at"]) - sent).total_seconds())
        except (KeyError, TypeError, ValueError):
            return None

    def release(self, session_id: str, *, token: str, timeout_seconds: float | None = None) -> None:
        """POST …/release. Asking again is answered the same."""
        self._post("release", {"session_id": session_id}, token, timeout_seconds, {})

    def _post(
        self, act: str, body: dict[str, Any], token: str, limit: float | None, extra: dict[str, str]
    ) -> dict[str, Any]:
        return self._request(act, body, token, limit, extra).json()

    def _request(
        self, act: str, body: dict[str, Any], token: str, limit: float | None, extra: dict[str, str]
    ) -> Answer:
        answer = self.transport.request(
            "POST",
            f"/api/v1/licenses/{act}",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json", **extra},
            body=json.dumps(body).encode(),
            timeout_seconds=limit,
        )
        if answer.status != 200:
            raise problem(answer)
        return answer


def problem(answer: Answer) -> LicenseError:
    """The typed error of an answer other than 200 (RFC 9457, or what a proxy in between made up)."""
    try:
        document: dict[str, Any] = answer.json()
    except ProtocolError:
        document = {}
    code = document.get("code") if isinstance(document.get("code"), str) else None
    text = str(document.get("detail") or document.get("title") or f"the server answered {answer.status}")
    known: dict[str, Any] = {
        "code": code,
        "status": answer.status,
        "request_id": document.get("request_id") or answer.headers.get("x-request-id"),
    }
    kind: type[LicenseError] | None = _REFUSALS.get(code or "")
    if answer.status == 429:
        return errors.RateLimited(text, retry_after=answer.retry_after, **known)
    if answer.status >= 500:
        return errors.ServiceUnavailable(text, retry_after=answer.retry_after, **known)
    if answer.status == 401:
        return errors.AuthenticationError(text, **known)
    if code is None or answer.status < 400:  # not our server's words
        return ProtocolError(text, **known)
    if answer.status == 403:
        return (kind or errors.Forbidden)(text, **known)
    if answer.status == 404:
        return errors.NotFound(text, **known)
    if code == "no_seats_available":
        seats = document.get("seats") if isinstance(document.get("seats"), dict) else {}
        used, total = (int(seats.get(name) or 0) for name in ("used", "total")) if seats else (0, 0)
        return errors.NoSeatsAvailable(text, used=used, total=total, retry_after=answer.retry_after, **known)
    if answer.status == 410:
        return errors.SessionEnded(text, reason=document.get("reason"), **known)
    if answer.status == 409:
        return errors.Conflict(text, **known)
    return errors.InvalidRequest(text, field=document.get("field"), **known)


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer[name]
    if not isinstance(value, str) or not value:
        raise ValueError(name)
    return value


def _seconds(value: Any) -> float:
    """An interval within bounds, whatever the server says."""
    seconds = float(value)
    if math.isnan(seconds):
        raise ValueError("interval")
    return min(max(seconds, 0.2), MAX_INTERVAL_SECONDS)

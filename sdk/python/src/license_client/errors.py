"""Every way in which a license operation can fail, one type each.

`code`, `status` and `request_id` come from the server's problem document and are None where the failure
was noticed here. Three groups matter to the caller:

* `Transient`: nobody's decision; a valid token carries the client through it (offline mode).
* `Refused`: a decision; the stored token is dropped, retrying does not help.
* the rest: a mistake in the configuration, the login, or the token.
"""

from __future__ import annotations

from typing import Any


class LicenseError(Exception):
    """Base of all errors of this package."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.request_id = request_id


class ConfigurationError(LicenseError):
    """An argument, environment variable or line of config.toml is missing or malformed."""


class Transient(LicenseError):
    """Nobody's decision: network, overload, a part of the service that is down. Retried, then offline mode.

    `retry_after` is what the server asked for, in seconds, or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **problem: Any) -> None:
        super().__init__(message, **problem)
        self.retry_after = retry_after


class ServerUnreachable(Transient):
    """No answer: DNS, connection, TLS, or no reply in time."""


class ServiceUnavailable(Transient):
    """503, or another 5xx: the server cannot answer now. Repeating is safe."""


class RateLimited(Transient):
    """429: too many requests of this user or tenant."""


class ProtocolError(Transient):
    """An answer that is not of the contract (a captive portal, a wrong address, a broken proxy)."""


class AuthenticationError(LicenseError):
    """401 also after the token provider refreshed its token, or the provider failed."""


class LoginRequired(AuthenticationError):
    """There is no usable login: none stored, or its refresh token was refused. Run `license-client login`."""


class InvalidRequest(LicenseError):
    """400: the request was not understood; `field` names the culprit where the server said so."""

    def __init__(self, message: str, *, field: str | None = None, **problem: Any) -> None:
        super().__init__(message, **problem)
        self.field = field


class Refused(LicenseError):
    """The server decided: no. Offline mode does not apply."""


class Forbidden(Refused):
    """403: this user may not."""


class UserMismatch(Forbidden):
    """403 `user_mismatch`: the `user_id` is not the token's subject."""


class LicenseInactive(Forbidden):
    """403 `license_inactive`: switched off by an administrator."""


class LicenseExpired(Forbidden):
    """403 `license_expired`: its term has ended."""


class TenantInactive(Forbidden):
    """403 `tenant_inactive`: the organisation is suspended."""


class NotFound(Refused):
    """404: no such license, session, tenant or user (`code` says which)."""


class NoSeatsAvailable(Refused):
    """409 `no_seats_available`: all `total` seats are in use. `retry_after` in seconds, or None."""

    def __init__(
        self,
        message: str,
        *,
        used: int = 0,
        total: int = 0,
        retry_after: float | None = None,
        **problem: Any,
    ) -> None:
        super().__init__(message, **problem)
        self.used = used
        self.total = total
        self.retry_after = retry_after


class Conflict(LicenseError):
    """409 `conflict`: an Idempotency-Key came with another body."""


class SessionEnded(LicenseError):
    """410: the session is over; `reason` is `expired`, `released` or `revoked`."""

    def __init__(self, message: str, *, reason: str | None = None, **problem: Any) -> None:
        super().__init__(message, **problem)
        self.reason = reason


class InvalidLicenseToken(LicenseError):
    """The license token does not verify: form, signature, issuer, audience or a claim."""


class TokenExpired(InvalidLicenseToken):
    """The license token was good and its time is over."""


class HardwareMismatch(InvalidLicenseToken):
    """The license token was issued to another machine."""


class UnknownKey(InvalidLicenseToken):
    """No published, cached or bundled key has the token's `kid`."""


class StateTampered(LicenseError):
    """A state file does not carry this machine's seal; it is not used."""


class OfflineGraceExpired(LicenseError):
    """The server was out of reach until the license token's end."""


class ClockRollback(LicenseError):
    """The clock was set back since this machine last ran offline; offline mode needs a new token first."""


class LicenseLost(LicenseError):
    """Raised by `LicenseClient.check()` when there is no seat any more; `__cause__` says why."""


__all__ = [name for name, value in globals().items() if isinstance(value, type) and name[0].isupper()]

"""Hold one CODITECT seat per user and machine, online and offline.

    with LicenseClient("https://auth.coditect.ai", token_provider) as license:
        print(license.status)

Importing this package loads nothing but itself: each name below loads its module on first use, and the
network and cryptography libraries come in with the first request.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .client import LicenseClient
    from .errors import (
        AuthenticationError,
        ClockRollback,
        ConfigurationError,
        Conflict,
        Forbidden,
        HardwareMismatch,
        InvalidLicenseToken,
        InvalidRequest,
        LicenseError,
        LicenseExpired,
        LicenseInactive,
        LicenseLost,
        LoginRequired,
        NoSeatsAvailable,
        NotFound,
        OfflineGraceExpired,
        ProtocolError,
        RateLimited,
        ServerUnreachable,
        ServiceUnavailable,
        SessionEnded,
        StateTampered,
        TenantInactive,
        TokenExpired,
        UnknownKey,
        UserMismatch,
    )
    from .hardware import fingerprint
    from .heartbeat import HeartbeatThread
    from .models import Grant, LicenseClaims, LicenseStatus, Seats, State
    from .providers import StoredLogin, TokenProvider
    from .signin import login
    from .verify import TokenVerifier

_HOME = {
    "LicenseClient": "client",
    "fingerprint": "hardware",
    "HeartbeatThread": "heartbeat",
    "login": "signin",
    "StoredLogin": "providers",
    "TokenProvider": "providers",
    "TokenVerifier": "verify",
    **dict.fromkeys(("Grant", "LicenseClaims", "LicenseStatus", "Seats", "State"), "models"),
}

__all__ = [
    "AuthenticationError",
    "ClockRollback",
    "ConfigurationError",
    "Conflict",
    "Forbidden",
    "Grant",
    "HardwareMismatch",
    "HeartbeatThread",
    "InvalidLicenseToken",
    "InvalidRequest",
    "LicenseClaims",
    "LicenseClient",
    "LicenseError",
    "LicenseExpired",
    "LicenseInactive",
    "LicenseLost",
    "LicenseStatus",
    "LoginRequired",
    "NoSeatsAvailable",
    "NotFound",
    "OfflineGraceExpired",
    "ProtocolError",
    "RateLimited",
    "Seats",
    "ServerUnreachable",
    "ServiceUnavailable",
    "SessionEnded",
    "State",
    "StateTampered",
    "StoredLogin",
    "TenantInactive",
    "TokenExpired",
    "TokenProvider",
    "TokenVerifier",
    "UnknownKey",
    "UserMismatch",
    "__version__",
    "fingerprint",
    "login",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME.get(name, 'errors')}", __name__), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return __all__

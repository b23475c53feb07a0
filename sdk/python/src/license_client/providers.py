"""Where the caller's JWT comes from: a function of the embedding program, a ready token, or the stored login."""

from __future__ import annotations

import base64
import inspect
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from .bounded import Call, StillRunning
from .clock import monotonic
from .config import Settings
from .errors import AuthenticationError, LicenseError, LoginRequired, Transient

if TYPE_CHECKING:
    from .login_store import Login

T = TypeVar("T")
_log = logging.getLogger("license_client")


@runtime_checkable
class TokenProvider(Protocol):
    """Anything with `get_token(refresh=…)`. `refresh` True: the last one was refused, bring a new one.

    Raise LoginRequired if only a person can help, anything else for a passing failure.
    """

    def get_token(self, *, refresh: bool = False) -> str: ...


TokenSource: TypeAlias = str | Callable[..., str] | TokenProvider | None
"""What LicenseClient takes: a JWT, `f()`, `f(refresh=…)`, a TokenProvider, or None for the stored login."""


class Identity:
    """Gives tokens to requests, and once more after a 401.

    A provider that hangs is not called again before it has come back: the next one to ask waits for the same call.
    """

    def __init__(self, source: TokenSource, settings: Settings) -> None:
        self._fetch = _as_function(source, settings)
        self._primed: str | None = None
        self._calls: dict[bool, Call[str]] = {}

    def prime(self, seconds: float | None = None) -> str:
        """A token to look at now and to send with the next request."""
        self._primed = self.token(seconds=seconds)
        return self._primed

    def token(self, *, refresh: bool = False, seconds: float | None = None) -> str:
        """A JWT. LoginRequired or AuthenticationError; Transient if it cannot be had just now.

        `seconds` bounds the wait; None waits as long as the provider takes (it may be asking a person).
        """
        try:
            token = self._fetch(refresh) if seconds is None else self._fetch_within(seconds, refresh)
        except StillRunning:
            raise Transient("the token provider does not answer") from None
        except LicenseError:
            raise
        except Exception as error:
            raise Transient(f"the token provider failed: {error}") from error
        if not isinstance(token, str) or not token:
            raise AuthenticationError("the token provider returned no token")
        return token

    def call(self, act: Callable[[str, float], T], seconds: float) -> T:
        """`act(token, seconds left)`; on 401 once more with a refreshed token. All of it within `seconds`."""
        deadline = monotonic() + seconds

        def left() -> float:
            return max(0.1, deadline - monotonic())

        primed, self._primed = self._primed, None
        try:
            token = primed or self.token(seconds=left())
            return act(token, left())
        except AuthenticationError as error:
            if error.status != 401:
                raise
        token = self.token(refresh=True, seconds=left())
        return act(token, left())

    def after_fork_in_child(self) -> None:
        """The threads of calls under way are the parent's."""
        self._calls = {}

    def _fetch_within(self, seconds: float, refresh: bool) -> str:
        call = self._calls.get(refresh)
        if call is None or call.taken:
            call = self._calls[refresh] = Call(lambda: self._fetch(refresh), "license-token")
        return call.wait(seconds)


def subject_of(token: str) -> str | None:
    """`sub` of a JWT, unverified (the server verifies it): names the files of this user's session."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        subject = claims.get("sub")
    except (IndexError, ValueError, AttributeError):
        return None
    return subject if isinstance(subject, str) else None


def _as_function(source: TokenSource, settings: Settings) -> Callable[[bool], str]:
    if source is None and settings.token:
        source = settings.token
    if source is None:
        return StoredLogin(settings).fetch
    if isinstance(source, str):
        text = source
        return lambda refresh: text
    if isinstance(source, TokenProvider):
        provider = source
        return lambda refresh: provider.get_token(refresh=refresh)
    function = source
    try:
        takes_refresh = "refresh" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        takes_refresh = False
    return (lambda refresh: function(refresh=refresh)) if takes_refresh else (lambda refresh: function())


class StoredLogin:
    """The login that `license-client login` left behind, refreshed when it is about to end.

    One process at a time refreshes (refresh tokens may be good for one use only); the others read its result.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._unsaved: Login | None = None

    def get_token(self, *, refresh: bool = False) -> str:
        return self.fetch(refresh)

    def fetch(self, refresh: bool) -> str:
        """A JWT. LoginRequired if there is no login or it was refused; Transient if the issuer is away."""
        from .login_store import LoginStore
        from .oidc import refreshed

        store = LoginStore(self._settings)
        login = self._unsaved or store.load()
        if login is None:
            raise LoginRequired("no login on this machine: run `license-client login`")
        if not refresh and login.lasts():
            return login.bearer(self._settings.oidc_token)
        with store.lock():
            now = self._unsaved or store.load()
            if now is not None and now != login and now.lasts():  # another process was faster
                return now.bearer(self._settings.oidc_token)
            try:
                fresh = refreshed(now or login, self._settings)
            except LoginRequired:
                self._unsaved = None
                store.remove()
                raise
            try:
                store.save(fresh)
                self._unsaved = None
            except OSError as error:  # a full disk costs the next start its login, not this one
                _log.warning("login not written: %s", error)
                self._unsaved = fresh
        return fresh.bearer(self._settings.oidc_token)

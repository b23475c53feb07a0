"""Where a login is kept: a 0600 file, or the system's keyring (extra `keyring`)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from .config import Settings
from .errors import ConfigurationError, LoginRequired
from .files import locked, write_private

EARLY_SECONDS = 60.0
_LOCK_SECONDS = 15.0
_SERVICE = "coditect-license"


@dataclass(frozen=True)
class Login:
    """Tokens of one sign-in. `expires_at` is in seconds on this machine's wall clock."""

    kind: str
    """`oidc` or `identity_platform`: who renews it."""
    id_token: str | None = field(repr=False)
    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float
    token_endpoint: str = ""
    client_id: str = ""

    def lasts(self) -> bool:
        """Whether it is good for another minute."""
        return time.time() < self.expires_at - EARLY_SECONDS

    def bearer(self, which: str) -> str:
        """The token for the license server. LoginRequired if the issuer gave none of this kind."""
        token = self.access_token if which == "access_token" else self.id_token
        if not token:
            raise LoginRequired(f"the login holds no {which}: run `license-client login`")
        return token


class LoginStore:
    """One login a machine user and issuer."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.home / "login.json"
        self._keyring = settings.keyring
        self._name = f"{settings.oidc_issuer}|{settings.oidc_client_id}"

    def load(self) -> Login | None:
        """The login, None if there is none (or another version's)."""
        text = self._read()
        try:
            record: Any = json.loads(text) if text else None
            entry = record.get(self._name) if isinstance(record, dict) else None
            return Login(**entry) if entry else None
        except (ValueError, TypeError):
            return None

    def save(self, login: Login) -> None:
        """OSError if the disk refuses."""
        self._write({**self._all(), self._name: asdict(login)})

    def remove(self) -> None:
        """Forget it, as far as the disk lets us."""
        with contextlib.suppress(OSError):
            self._write({name: entry for name, entry in self._all().items() if name != self._name})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One process refreshes at a time."""
        with locked(self._path.with_name("login.lock"), _LOCK_SECONDS):
            yield

    def _all(self) -> dict[str, Any]:
        try:
            record = json.loads(self._read() or "{}")
        except ValueError:
            record = {}
        return record if isinstance(record, dict) else {}

    def _read(self) -> str | None:
        if self._keyring:
            text: str | None = _keyring().get_password(_SERVICE, str(self._path))
            return text
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def _write(self, record: dict[str, Any]) -> None:
        text = json.dumps(record)
        if self._keyring:
            _keyring().set_password(_SERVICE, str(self._path), text)
        else:
            write_private(self._path, text.encode(), durable=True)


def _keyring() -> Any:
    try:
        import keyring
    except ImportError as error:
        raise ConfigurationError("keyring: install `license-client[keyring]`") from error
    return keyring

"""State files that only this installation can have written.

The key is made from a random secret of this installation (0600) and the machine's hardware id: a file edited
by hand, copied from another machine or half written does not open. It keeps honest people honest; who
rewrites this program on their own machine is beyond what a client can prevent.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

from .errors import StateTampered
from .files import locked, write_private

_SECRET_BYTES = 32


def sealing_key(directory: Path, hardware_id: str) -> bytes:
    """This installation's key; makes the secret on first use. Without a writable disk it lasts as long as we do."""
    secret = _read_secret(directory / "secret")
    if secret is None:
        with locked(directory / "secret.lock", 2.0):
            secret = _read_secret(directory / "secret")
            if secret is None:
                secret = secrets.token_bytes(_SECRET_BYTES)
                try:
                    write_private(directory / "secret", secret, durable=True)
                except OSError:
                    pass
    return hmac.new(secret, b"coditect license state v1\0" + hardware_id.encode(), hashlib.sha256).digest()


def _read_secret(path: Path) -> bytes | None:
    try:
        secret = path.read_bytes()
    except OSError:
        return None
    return secret if len(secret) == _SECRET_BYTES else None


class SealedFile:
    """One JSON object in a file, with an HMAC-SHA256 over its bytes and its name."""

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self._key = key

    def load(self) -> dict[str, Any] | None:
        """The object, or None if there is no file. StateTampered if the seal is broken."""
        try:
            raw = self.path.read_bytes()
        except OSError:
            return None
        try:
            outer = json.loads(raw)
            body, seal = outer["body"], outer["seal"]
            good = isinstance(body, str) and hmac.compare_digest(str(seal), self._seal(body))
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise StateTampered(f"{self.path.name} does not carry this machine's seal")
        record = json.loads(body)
        return record if isinstance(record, dict) else None

    def save(self, record: dict[str, Any], *, durable: bool = False) -> None:
        """Replace the file. OSError if the disk refuses."""
        body = json.dumps(record, separators=(",", ":"))
        outer = json.dumps({"version": 1, "body": body, "seal": self._seal(body)})
        write_private(self.path, outer.encode(), durable=durable)

    def remove(self) -> None:
        try:
            os.unlink(self.path)  # noqa: PTH108 - no stat before
        except OSError:
            pass

    def _seal(self, body: str) -> str:
        message = self.path.name.encode() + b"\0" + body.encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

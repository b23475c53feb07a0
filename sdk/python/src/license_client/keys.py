"""The keys that license tokens are checked with: published, cached for an hour, bundled.

The published JWK set is kept in a sealed file with its ETag, so that a start without network finds it. It is
asked for again after an hour, or when a token names an unknown key (at most every 30 seconds). If the server
does not answer, what is there goes on being used.
"""

from __future__ import annotations

import json
import logging
import threading
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .clock import Moment
from .errors import ConfigurationError, LicenseError, ProtocolError, StateTampered
from .seal import SealedFile
from .transport import Transport

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

FRESH_SECONDS = 3600.0
REFETCH_SECONDS = 30.0
MIN_KEY_BITS = 4096
_TIMEOUT_SECONDS = 5.0
_PATH = "/.well-known/jwks.json"
_log = logging.getLogger("license_client")


class KeyStore:
    """Finds a key by its id. `transport` None means: never ask the network."""

    def __init__(
        self, transport: Transport | None = None, cache: SealedFile | None = None, bundled: str | None = None
    ) -> None:
        self._transport = transport
        self._cache = cache
        self._guard = threading.Lock()
        self._bundled = read_keys(files(__package__).joinpath("bundled_keys.json").read_text("utf-8"))
        if bundled:
            try:
                self._bundled += read_keys(Path(bundled).read_text("utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"bundled_keys: {error}") from error
        self._published: list[dict[str, Any]] = []
        self._etag: str | None = None
        self._fetched: Moment | None = None
        self._tried: Moment | None = None
        self._loaded = False
        self._answered = False
        self._parsed: dict[str, RSAPublicKey] = {}

    def candidates(self, kid: str, *, ask: bool = True) -> list[RSAPublicKey]:
        """The keys that may have signed a token with this `kid`: the one of that name, else bundled nameless ones.

        `ask` False leaves the network alone, however old the cache is.
        """
        self._load()
        if ask and (self._stale() or not self._named(kid)):
            self.refresh(only_if_due=True)
        return self._named(kid) or [key for jwk in self._bundled if not jwk.get("kid") for key in self._parse(jwk)]

    def refresh(self, *, only_if_due: bool = False) -> bool:
        """Ask for the published set. True if the server answered; never raises for its absence."""
        self._load()
        with self._guard:
            now = Moment.now()
            if self._transport is None:
                return False
            if only_if_due and self._tried and self._tried.seconds_until(now) < REFETCH_SECONDS:
                return False
            self._tried = now
            headers = {"Cache-Control": "no-cache"}  # the cache is here
            if self._etag and self._published:
                headers["If-None-Match"] = self._etag
            try:
                answer = self._transport.request("GET", _PATH, headers=headers, timeout_seconds=_TIMEOUT_SECONDS)
                if answer.status == 200:
                    self._published = read_jwk_set(answer.json())
                    self._etag = answer.headers.get("etag")
                elif answer.status != 304:
                    raise ProtocolError(f"the key set was answered with {answer.status}")
            except LicenseError as error:
                _log.info("license keys not refreshed: %s", error)
                self._answered = False
                return False
            self._answered = True
            self._fetched = now
            self._parsed.clear()
            self._save()
            return True

    def refresh_if_stale(self) -> None:
        """Keep the cache good for a later start without network; called now and then from the background."""
        self._load()
        if self._stale():
            self.refresh(only_if_due=True)

    def vouch(self, kid: str, pem: str) -> bool:
        """Take the key that came with an answer of the server itself, while its key set cannot be had.

        It came from the same host over the same TLS, so it deserves the same trust; lasts until the next refresh.
        """
        if self._answered or self._named(kid):
            return False
        self._published.append({"kid": kid, "pem": pem})
        return True

    def published(self) -> list[dict[str, Any]]:
        """The JWK set as last published (to be bundled with a product)."""
        self._load()
        return [jwk for jwk in self._published if "pem" not in jwk]

    def reset_guard(self) -> None:
        self._guard = threading.Lock()

    def _stale(self) -> bool:
        return self._fetched is None or self._fetched.strictest_seconds_until(Moment.now()) >= FRESH_SECONDS

    def _named(self, kid: str) -> list[RSAPublicKey]:
        if kid in self._parsed:
            return [self._parsed[kid]]
        for jwk in self._published + self._bundled:
            if jwk.get("kid") == kid:
                for key in self._parse(jwk):
                    self._parsed[kid] = key
                    return [key]
        return []

    def _parse(self, jwk: dict[str, Any]) -> list[RSAPublicKey]:
        """The key if it is RSA, for signatures, and at least 4096 bits long."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
        from jwt.algorithms import RSAAlgorithm

        try:
            loaded = load_pem_public_key(jwk["pem"].encode()) if "pem" in jwk else RSAAlgorithm.from_jwk(jwk)
        except Exception:  # whatever a published file may hold
            return []
        if not isinstance(loaded, RSAPublicKey) or loaded.key_size < MIN_KEY_BITS:
            return []
        usable = jwk.get("use", "sig") == "sig" and jwk.get("alg", "RS256") == "RS256"
        return [loaded] if usable else []

    def _load(self) -> None:
        if self._loaded or self._cache is None:
            return
        self._loaded = True
        try:
            record = self._cache.load() or {}
            self._published = read_jwk_set({"keys": record.get("keys", [])})
            self._etag = record.get("etag")
            self._fetched = Moment.from_record(record["fetched"])
        except StateTampered as error:
            _log.warning("cached license keys ignored: %s", error)
        except (KeyError, TypeError, ValueError, LicenseError):
            pass

    def _save(self) -> None:
        if self._cache is None or self._fetched is None:
            return
        record = {"keys": self.published(), "etag": self._etag, "fetched": self._fetched.as_record()}
        try:
            self._cache.save(record)
        except OSError as error:
            _log.info("license keys not cached: %s", error)


def read_jwk_set(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of a JWK set, unparsed. ProtocolError if it is none."""
    keys = document.get("keys")
    if not isinstance(keys, list):
        raise ProtocolError("that is no JWK set")
    return [jwk for jwk in keys if isinstance(jwk, dict)]


def read_keys(text: str) -> list[dict[str, Any]]:
    """A JWK set, or PEM keys one after the other. ConfigurationError if it is neither."""
    end = "-----END PUBLIC KEY-----"
    if "-----BEGIN PUBLIC KEY-----" in text:
        return [{"pem": part.strip() + "\n" + end + "\n"} for part in text.split(end)[:-1]]
    try:
        return read_jwk_set(json.loads(text))
    except (ValueError, AttributeError, LicenseError) as error:
        raise ConfigurationError("bundled keys: neither a JWK set nor PEM public keys") from error

"""Verification of a license token: one algorithm, our keys, every claim, and the time as the caller has it.

A token is a JWT, or a batch token (`batch_token`), as the service is set; both say the same, signed with the same keys.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from .batch_token import is_batch_token, read_batch_token
from .errors import HardwareMismatch, InvalidLicenseToken, TokenExpired, UnknownKey
from .keys import KeyStore
from .models import LicenseClaims, from_epoch

LEEWAY_SECONDS = 30.0
MAX_TOKEN_CHARACTERS = 16_384
_TEXTS = (
    "sub",
    "jti",
    "user_id",
    "tenant_id",
    "license_id",
    "session_id",
    "hardware_id",
    "plan",
    "product",
)
_REQUIRED = ["iss", "aud", *_TEXTS, "features", "iat", "nbf", "exp"]


class TokenVerifier:
    """Checks tokens against `keys`. Thread-safe; asks the network only for keys it does not have."""

    def __init__(self, keys: KeyStore, *, issuer: str = "https://auth.coditect.ai", audience: str = "coditect") -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience

    def verify(
        self,
        token: str,
        *,
        hardware_id: str | None = None,
        product: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        now: float | None = None,
        ask: bool = True,
    ) -> LicenseClaims:
        """The claims of a good token.

        `now` is the time to judge by, in seconds since the epoch (the wall clock if None); `ask` False keeps
        off the network. What is given of
        `hardware_id`, `product`, `user_id` and `session_id` must be the token's. Raises UnknownKey,
        TokenExpired, HardwareMismatch, or their base InvalidLicenseToken for everything else.
        """
        claims = self._checked_claims(self._payload(token, ask))
        at = time.time() if now is None else now
        if at > claims.expires_at.timestamp() + LEEWAY_SECONDS:
            raise TokenExpired(f"the license token ended at {claims.expires_at:%Y-%m-%d %H:%M:%S} UTC")
        if at < claims.not_before.timestamp() - LEEWAY_SECONDS:
            raise InvalidLicenseToken("the license token is not valid yet")
        if hardware_id is not None and claims.hardware_id != hardware_id:
            raise HardwareMismatch("the license token belongs to another machine")
        for name, wanted in (("product", product), ("user_id", user_id), ("session_id", session_id)):
            if wanted is not None and getattr(claims, name) != wanted:
                raise InvalidLicenseToken(f"the license token is for another {name}")
        return claims

    def verify_fresh(
        self, token: str, *, public_key: str | None = None, ask: bool = True, **wanted: str | None
    ) -> LicenseClaims:
        """`verify` for a token whose age the caller counts for itself, as for one that just arrived.

        It is judged at its own time of issue, since our clock may be wrong. A key unknown until now is looked
        for at once, for the server itself has used it; if the key set is out of reach just now, the
        `public_key` that came beside the token serves.
        """
        issued, kid = _peek(token)
        try:
            return self.verify(token, now=issued, ask=ask, **wanted)
        except UnknownKey:
            if not ask or not (self.keys.refresh() or (public_key and self.keys.vouch(kid, public_key))):
                raise
        return self.verify(token, now=issued, ask=False, **wanted)

    def _payload(self, token: str, ask: bool) -> dict[str, Any]:
        import jwt

        if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARACTERS:
            raise InvalidLicenseToken("that is no license token")
        if is_batch_token(token):
            return self._batch_payload(token, ask)
        header = _part(token, 0)
        kid = header.get("kid")
        if header.get("alg") != "RS256" or not isinstance(kid, str) or "crit" in header:
            raise InvalidLicenseToken("a license token is signed with RS256 and names its key")
        failure: jwt.InvalidTokenError | None = None
        for key in self.keys.candidates(kid, ask=ask):
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=["RS256"],
                    issuer=self._issuer,
                    audience=self._audience,
                    options={
                        "require": _REQUIRED,
                        "verify_exp": False,
                        "verify_iat": False,
                        "verify_nbf": False,
                    },
                )
            except jwt.InvalidTokenError as error:
                failure = error
        if failure is None:
            raise UnknownKey(f"no published or bundled key is called {kid[:80]!r}")
        raise InvalidLicenseToken(f"the license token does not verify: {failure}") from failure

    def _batch_payload(self, token: str, ask: bool) -> dict[str, Any]:
        batch = read_batch_token(token)
        failure: InvalidLicenseToken | None = None
        for key in self.keys.candidates(batch.kid, ask=ask):
            try:
                claims = batch.claims(self._issuer, key)
            except InvalidLicenseToken as error:
                failure = error
                continue
            if claims.get("iss") != self._issuer or claims.get("aud") != self._audience:
                raise InvalidLicenseToken("the license token is of another issuer or for another audience")
            missing = [name for name in _REQUIRED if claims.get(name) is None]
            if missing:
                raise InvalidLicenseToken(f"the license token does not say {missing[0]}")
            return claims
        if failure is None:
            raise UnknownKey(f"no published or bundled key is called {batch.kid[:80]!r}")
        raise failure

    def _checked_claims(self, payload: dict[str, Any]) -> LicenseClaims:
        for name in _TEXTS:
            if not isinstance(payload[name], str) or not payload[name]:
                raise InvalidLicenseToken(f"claim {name} is not a string")
        features = payload["features"]
        if not isinstance(features, list) or not all(isinstance(item, str) for item in features):
            raise InvalidLicenseToken("claim features is not a list of strings")
        times = [payload[name] for name in ("iat", "nbf", "exp")]
        if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in times):
            raise InvalidLicenseToken("claims iat, nbf and exp are not numbers")
        if not times[0] <= times[2] or not times[1] <= times[2]:
            raise InvalidLicenseToken("the license token ends before it begins")
        if payload["sub"] != payload["user_id"]:
            raise InvalidLicenseToken("sub and user_id differ")
        texts = {name: payload[name] for name in _TEXTS if name not in ("sub", "jti")}
        try:
            issued, begins, ends = (from_epoch(item) for item in times)
        except (ValueError, OverflowError, OSError) as error:
            raise InvalidLicenseToken("a time of the license token is absurd") from error
        return LicenseClaims(
            issuer=payload["iss"],
            subject=payload["sub"],
            token_id=payload["jti"],
            features=tuple(features),
            issued_at=issued,
            not_before=begins,
            expires_at=ends,
            **texts,
        )


def _part(token: str, number: int) -> dict[str, Any]:
    """Header (0) or payload (1) as they stand there, unverified."""
    try:
        text = token.split(".")[number]
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, IndexError, AttributeError, RecursionError) as error:
        raise InvalidLicenseToken("that is no license token") from error
    if not isinstance(found, dict):
        raise InvalidLicenseToken("that is no license token")
    return found


def _peek(token: str) -> tuple[float, str]:
    """Issue time and key id as the token says."""
    if isinstance(token, str) and len(token) <= MAX_TOKEN_CHARACTERS and is_batch_token(token):
        batch = read_batch_token(token)
        issued, kid = batch.unverified_claims().get("iat"), batch.kid
    else:
        issued, kid = _part(token, 1).get("iat"), str(_part(token, 0).get("kid"))
    if not isinstance(issued, int | float):
        raise InvalidLicenseToken("claim iat is not a number")
    return float(issued), kid

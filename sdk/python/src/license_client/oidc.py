"""OpenID Connect as a native app speaks it: discovery, code for tokens, refresh, and the id token's check."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

from .config import Settings, is_loopback
from .errors import AuthenticationError, ConfigurationError, LoginRequired, ProtocolError, ServiceUnavailable
from .login_store import Login
from .transport import Answer, Transport

_ALGORITHMS = ["RS256", "ES256", "PS256", "RS384", "RS512", "ES384", "EdDSA"]
_DEFAULT_LIFE_SECONDS = 3600.0
_LOGIN_OVER = {
    *("invalid_grant", "interaction_required", "login_required", "consent_required", "access_denied"),
    *("TOKEN_EXPIRED", "USER_DISABLED", "USER_NOT_FOUND", "INVALID_REFRESH_TOKEN", "MISSING_REFRESH_TOKEN"),
}
"""What an issuer says (the second line: Identity Platform) when only a person can help. Any other refusal, of the
client or of a proxy in between, says nothing about the login, which is then kept."""


class Provider:
    """An issuer as its discovery document describes it."""

    def __init__(self, settings: Settings) -> None:
        if not settings.oidc_issuer or not settings.oidc_client_id:
            raise ConfigurationError("login needs oidc_issuer and oidc_client_id")
        self.settings = settings
        self.transport = Transport(settings.oidc_issuer.rstrip("/"), settings.timeout_seconds)
        document = self._get("/.well-known/openid-configuration")
        if str(document.get("issuer", "")).rstrip("/") != self.transport.base_url:
            raise ConfigurationError("oidc_issuer: its discovery document names another issuer")
        self.document = document
        self.issuer: str = document["issuer"]

    def endpoint(self, name: str) -> str:
        """An address out of the document. ConfigurationError if it is missing or not https."""
        value = str(self.document.get(name, ""))
        check_secure(value, name)
        return value

    def supports_scope(self, scope: str) -> bool:
        return scope in self.document.get("scopes_supported", [scope])

    def login_from_code(self, code: str, verifier: str, redirect_uri: str, nonce: str) -> Login:
        """Exchange the code. AuthenticationError if the issuer refuses, or its id token is not for us."""
        settings = self.settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
            "client_id": str(settings.oidc_client_id),
            **({"client_secret": settings.oidc_client_secret} if settings.oidc_client_secret else {}),
        }
        endpoint = self.endpoint("token_endpoint")
        answer = tokens_of(post_form(self.transport, endpoint, form))
        id_token = answer.get("id_token")
        if not isinstance(id_token, str):
            raise AuthenticationError("the issuer returned no id token")
        self.check_id_token(id_token, nonce)
        return login_of(answer, endpoint, str(settings.oidc_client_id))

    def check_id_token(self, token: str, nonce: str) -> None:
        """Signature by the issuer's keys, issuer, audience, nonce. AuthenticationError.

        Its times are not held against our clock, which may be wrong: it came this moment, by TLS, from the
        issuer, and the nonce ties it to this login. The license server checks them by its own.
        """
        import jwt

        keys = self._get(self.endpoint("jwks_uri"))
        try:
            header = jwt.get_unverified_header(token)
            usable = [
                key
                for key in jwt.PyJWKSet.from_dict(keys).keys
                if key.public_key_use in (None, "sig") and header.get("kid") in (None, key.key_id)
            ]
            if not usable:
                raise AuthenticationError("the id token names a key that the issuer does not publish")
            claims = jwt.decode(
                token,
                usable[0],
                algorithms=_ALGORITHMS,
                audience=self.settings.oidc_client_id,
                issuer=self.issuer,
                options={
                    "require": ["iss", "aud", "sub", "exp", "iat"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.PyJWTError as error:
            raise AuthenticationError(f"the id token does not verify: {error}") from error
        if claims.get("nonce") != nonce:
            raise AuthenticationError("the id token belongs to another login")

    def _get(self, path: str) -> dict[str, Any]:
        check_secure(path if "://" in path else self.transport.base_url, "oidc_issuer")
        answer = self.transport.request("GET", path)
        if answer.status != 200:
            raise ServiceUnavailable(f"the issuer answered {answer.status}", status=answer.status)
        return answer.json()


def refreshed(login: Login, settings: Settings) -> Login:
    """A fresh login. LoginRequired if the issuer refuses the refresh token; Transient if it does not answer."""
    if not login.refresh_token:
        raise LoginRequired("the login has ended and cannot be renewed: run `license-client login`")
    if login.kind == "identity_platform":
        from .identity_platform import refresh

        return refresh(login, settings)
    form = {
        "grant_type": "refresh_token",
        "refresh_token": login.refresh_token,
        "client_id": login.client_id,
        **({"client_secret": settings.oidc_client_secret} if settings.oidc_client_secret else {}),
    }
    check_secure(login.token_endpoint, "token_endpoint")
    transport = Transport(login.token_endpoint, settings.timeout_seconds)
    answer = tokens_of(post_form(transport, login.token_endpoint, form), refreshing=True)
    return login_of(answer, login.token_endpoint, login.client_id, before=login)


def post_form(transport: Transport, url: str, form: dict[str, str]) -> Answer:
    return transport.request(
        "POST",
        url,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(form).encode(),
    )


def tokens_of(answer: Answer, *, refreshing: bool = False) -> dict[str, Any]:
    """A token endpoint's answer. AuthenticationError if it refuses, LoginRequired if the refresh token is over."""
    if answer.status >= 500 or answer.status in (408, 429):
        raise ServiceUnavailable(
            f"the issuer answered {answer.status}", status=answer.status, retry_after=answer.retry_after
        )
    document = answer.json()
    if answer.status == 200:
        return document
    error = document.get("error")
    if isinstance(error, dict):  # Google's own form
        error = error.get("message")
    if not isinstance(error, str):  # a captive portal, a proxy
        raise ProtocolError(f"the issuer answered {answer.status}", status=answer.status)
    over = refreshing and error.split(" ")[0] in _LOGIN_OVER
    kind = LoginRequired if over else AuthenticationError
    raise kind(f"the issuer refused: {document.get('error_description') or error}")


def login_of(answer: dict[str, Any], endpoint: str, client_id: str, before: Login | None = None) -> Login:
    """What a token endpoint gave, with what it left out taken from `before`."""
    try:
        life = float(answer.get("expires_in") or _DEFAULT_LIFE_SECONDS)
    except (TypeError, ValueError):
        life = _DEFAULT_LIFE_SECONDS
    return Login(
        kind=before.kind if before else "oidc",
        id_token=answer.get("id_token") or (before.id_token if before else None),
        access_token=answer.get("access_token"),
        refresh_token=answer.get("refresh_token") or (before.refresh_token if before else None),
        expires_at=time.time() + life,
        token_endpoint=endpoint,
        client_id=client_id,
    )


def check_secure(url: str, name: str) -> None:
    """https, or http on this machine. ConfigurationError."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ConfigurationError(f"{name}: https is wanted, not {json.dumps(url)}")

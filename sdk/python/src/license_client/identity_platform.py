"""Google Identity Platform: it has no authorization page of its own, so the login happens at an issuer that it
trusts (Google's, or a customer's OIDC), whose id token is exchanged for Identity Platform's tokens.

`FIREBASE_AUTH_EMULATOR_HOST` points both addresses at the emulator, as in Google's own libraries.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from urllib.parse import urlencode

from .config import Settings
from .errors import AuthenticationError, ConfigurationError
from .login_store import Login
from .oidc import login_of, post_form, tokens_of
from .transport import Transport


def exchange(login: Login, settings: Settings) -> Login:
    """Identity Platform's tokens for an issuer's id token. AuthenticationError if it refuses."""
    base = _base("identitytoolkit.googleapis.com")
    form = {"id_token": login.id_token or "", "providerId": settings.identity_platform_provider}
    body = {
        "postBody": urlencode(form),
        "requestUri": "http://localhost",
        "returnSecureToken": True,
        **({"tenantId": settings.identity_platform_tenant} if settings.identity_platform_tenant else {}),
    }
    answer = Transport(base, settings.timeout_seconds).request(
        "POST",
        f"/v1/accounts:signInWithIdp?{urlencode({'key': _key(settings)})}",
        headers={"Content-Type": "application/json"},
        body=json.dumps(body).encode(),
    )
    document = tokens_of(answer)
    if not isinstance(document.get("idToken"), str):
        raise AuthenticationError("Identity Platform returned no id token")
    renamed = {
        "id_token": document["idToken"],
        "refresh_token": document.get("refreshToken"),
        "expires_in": document.get("expiresIn"),
    }
    return replace(login_of(renamed, "", ""), kind="identity_platform")


def refresh(login: Login, settings: Settings) -> Login:
    """A fresh id token for the refresh token. LoginRequired if it was revoked."""
    url = f"{_base('securetoken.googleapis.com')}/v1/token?{urlencode({'key': _key(settings)})}"
    form = {"grant_type": "refresh_token", "refresh_token": login.refresh_token or ""}
    answer = post_form(Transport(url, settings.timeout_seconds), url, form)
    return login_of(tokens_of(answer, refreshing=True), "", "", before=login)


def _base(host: str) -> str:
    emulator = os.environ.get("FIREBASE_AUTH_EMULATOR_HOST")
    return f"http://{emulator}/{host}" if emulator else f"https://{host}"


def _key(settings: Settings) -> str:
    if not settings.identity_platform_key:
        raise ConfigurationError("identity_platform_key: the project's web API key is wanted")
    return settings.identity_platform_key

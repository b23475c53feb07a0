"""A login page and token endpoint of our own (and Identity Platform's two addresses), strict about what it is sent.

Refresh tokens are good for one use; using one twice ends the login, as careful issuers have it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import urllib3

from .issuer import Issuer

CLIENT = "license-client"


class OpenId(Issuer):
    """`decline`, `spoil` and `life` change how it behaves."""

    def __init__(self) -> None:
        super().__init__()
        self.decline = ""
        self.spoil: dict[str, Any] = {}
        self.life = 3600
        self.refreshes = 0
        self.away = False
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh: str | None = None
        self._guard = threading.Lock()
        openid = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path == "/authorize":
                    query = {name: values[0] for name, values in parse_qs(url.query).items()}
                    self.send_response(302)
                    self.send_header("Location", openid.authorize(query))
                    self.end_headers()
                    return
                self._json(200, openid.document(url.path))

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                with openid._guard:
                    self._json(*openid.post(urlsplit(self.path).path, raw))

            def _json(self, status: int, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        self._server.RequestHandlerClass = Handler

    def document(self, path: str) -> dict[str, Any]:
        return {
            **super().document(path),
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "scopes_supported": ["openid", "email", *self.spoil.get("scopes", ["offline_access"])],
            **self.spoil.get("document", {}),
        }

    def authorize(self, query: dict[str, str]) -> str:
        assert query["response_type"] == "code" and query["client_id"] == CLIENT
        assert query["code_challenge_method"] == "S256" and len(query["code_challenge"]) == 43
        code = secrets.token_urlsafe(8)
        self._codes[code] = query
        answer = {"code": code, "state": query["state"], **self.spoil.get("answer", {})}
        if self.decline:
            answer = {"error": self.decline, "state": query["state"]}
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def post(self, path: str, raw: bytes) -> tuple[int, dict[str, Any]]:
        if self.away:
            return 503, {}
        if path.endswith("accounts:signInWithIdp"):
            body = json.loads(raw)
            form = parse_qs(body["postBody"])
            assert form["providerId"] == ["google.com"] and body["returnSecureToken"] is True
            self._refresh = secrets.token_urlsafe(8)
            token = self.fresh("platform-ada")
            return 200, {"idToken": token, "refreshToken": self._refresh, "expiresIn": str(self.life)}
        form_values = {name: values[0] for name, values in parse_qs(raw.decode()).items()}
        return self.tokens(form_values)

    def tokens(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        nonce = None
        if form["grant_type"] == "authorization_code":
            query = self._codes.pop(form["code"])
            challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
            assert challenge.rstrip(b"=").decode() == query["code_challenge"]
            assert form["redirect_uri"] == query["redirect_uri"]
            nonce = query["nonce"]
        else:
            self.refreshes += 1
            if form["refresh_token"] != self._refresh:
                self._refresh = None
                return 400, {"error": "invalid_grant", "error_description": "used twice"}
        self._refresh = secrets.token_urlsafe(8)
        claims = {"aud": CLIENT, "nonce": nonce, **self.spoil.get("claims", {})}
        return 200, {
            "id_token": self.fresh("ada", **claims),
            "access_token": "opaque",
            "refresh_token": self._refresh,
            "expires_in": self.life,
            "token_type": "Bearer",
            **self.spoil.get("tokens", {}),
        }

    def fresh(self, user: str, **claims: Any) -> str:
        """No two alike."""
        return self.token(user, seconds=self.life, jti=secrets.token_urlsafe(6), **claims)


def browse(address: str) -> None:
    """The browser of somebody who is signed in already: follows redirects to the loopback page."""
    urllib3.PoolManager().request("GET", address, redirect=True, retries=5)

"""An OIDC issuer of our own: discovery, JWK set, RS256 tokens; no login page."""

from __future__ import annotations

import json
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import time  # by name: tests that shift the clock shift the client's alone
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import RSAAlgorithm

AUDIENCE = "coditect-tests"


@lru_cache
def rsa_key(name: str, bits: int = 4096) -> rsa.RSAPrivateKey:
    """One key a name and test run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_jwk(key: rsa.RSAPrivateKey, kid: str) -> dict[str, Any]:
    jwk: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
    return {**jwk, "kid": kid, "use": "sig", "alg": "RS256"}


class Issuer:
    """Answers on 127.0.0.1; `token` makes what the license server accepts."""

    def __init__(self) -> None:
        self.key = rsa_key("issuer", 2048)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(issuer.document(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def document(self, path: str) -> dict[str, Any]:
        if path == "/jwks":
            return {"keys": [public_jwk(self.key, "issuer-1")]}
        return {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}

    def token(
        self, user: str, tenant: str | None = None, roles: tuple[str, ...] = (), seconds: float = 3600.0, **more: Any
    ) -> str:
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": user,
            "email": f"{user}@example.com",
            "email_verified": True,
            "iat": int(time()) - 1,
            "exp": int(time() + seconds),
            "roles": list(roles),
            **({"tenant_id": tenant} if tenant else {}),
            **more,
        }
        return jwt.encode(claims, self.key, "RS256", headers={"kid": "issuer-1"})

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

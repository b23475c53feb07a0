"""Login by a person: authorization code with PKCE, answered to a port of this machine (RFC 8252)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from .config import Settings, load_settings
from .errors import AuthenticationError
from .login_store import Login, LoginStore
from .oidc import Provider

_PAGE = b"<!doctype html><meta charset=utf-8><title>CODITECT</title><p>%s You can close this window."
_SOCKET_SECONDS = 10


def login(
    settings: Settings | None = None,
    *,
    open_browser: Callable[[str], object] = webbrowser.open,
    show: Callable[[str], object] = print,
    timeout_seconds: float = 300.0,
) -> Login:
    """Sign in with the browser and keep the tokens for `token_provider=None`.

    `show` gets the address too, for machines whose browser does not open. Raises AuthenticationError if the
    person or the issuer declines or nobody comes in time, ConfigurationError, or a Transient failure.
    """
    settings = settings or load_settings()
    provider = Provider(settings)
    verifier, state, nonce = (secrets.token_urlsafe(48) for _ in range(3))
    with _Landing() as landing:
        query = {
            "response_type": "code",
            "client_id": settings.oidc_client_id,
            "redirect_uri": landing.uri,
            "scope": settings.oidc_scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
            "prompt": "consent",
        }
        if not provider.supports_scope("offline_access"):  # Google asks in its own way
            query["scope"] = " ".join(word for word in settings.oidc_scope.split() if word != "offline_access")
            query["access_type"] = "offline"
        page = provider.endpoint("authorization_endpoint")
        address = page + ("&" if "?" in page else "?") + urlencode(query)
        show(f"Sign in here: {address}")
        threading.Thread(target=open_browser, args=(address,), daemon=True).start()
        code = _code_of(landing.wait(timeout_seconds), state, provider.issuer)
        found = provider.login_from_code(code, verifier, landing.uri, nonce)
    if settings.identity_platform_key:
        from .identity_platform import exchange

        found = exchange(found, settings)
    store = LoginStore(settings)
    with store.lock():
        store.save(found)
    return found


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _code_of(answer: dict[str, str], state: str, issuer: str) -> str:
    if not hmac.compare_digest(answer.get("state", ""), state):
        raise AuthenticationError("the answer belongs to another login")
    if "error" in answer:
        raise AuthenticationError(f"the login was declined: {answer.get('error_description') or answer['error']}")
    if answer.get("iss", issuer) != issuer:  # RFC 9207
        raise AuthenticationError("the answer comes from another issuer")
    if not answer.get("code"):
        raise AuthenticationError("the answer holds no code")
    return answer["code"]


class _Landing:
    """A server on 127.0.0.1 and a free port that takes one answer and ends."""

    def __init__(self) -> None:
        self._answer: dict[str, str] = {}
        self._came = threading.Event()
        landing = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _SOCKET_SECONDS

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                taken = url.path == "/callback" and not landing._came.is_set()
                if taken:
                    landing._answer = {name: values[0] for name, values in parse_qs(url.query).items()}
                body = _PAGE % (b"Signed in." if "code" in landing._answer else b"Not signed in.")
                self.send_response(200 if taken else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                if taken:
                    landing._came.set()

            def log_message(self, format: str, *args: object) -> None:
                """The query holds the code: nothing is logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}/callback"

    def __enter__(self) -> _Landing:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, seconds: float) -> dict[str, str]:
        if not self._came.wait(seconds):
            raise AuthenticationError("nobody signed in in time")
        return self._answer

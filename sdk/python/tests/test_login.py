"""Login by PKCE on a loopback port, refresh tokens, and where they are kept; against two issuers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import jwt
import pytest

from license_client import (
    AuthenticationError,
    ConfigurationError,
    LoginRequired,
    ServiceUnavailable,
    StoredLogin,
    login,
)
from license_client.config import Settings, load_settings
from license_client.login_store import LoginStore

from .support.engines import free_port
from .support.openid import CLIENT, OpenId, browse

Sign = Callable[..., Settings]


@pytest.fixture
def openid() -> Iterator[OpenId]:
    made = OpenId()
    yield made
    made.stop()


@pytest.fixture
def sign(openid: OpenId, home: Path) -> Sign:
    """Sign in at `openid`; the settings to go on with."""

    def act(**options: Any) -> Settings:
        options = {"oidc_issuer": openid.url, "oidc_client_id": CLIENT, **options}
        settings = load_settings(**options)
        login(settings, open_browser=browse, show=lambda line: None, timeout_seconds=10)
        return settings

    return act


def test_login_and_refresh(openid: OpenId, sign: Sign, home: Path) -> None:
    settings = sign()
    assert (home / "login.json").stat().st_mode & 0o777 == 0o600
    provider = StoredLogin(settings)
    first = provider.get_token()
    assert provider.get_token() == first and openid.refreshes == 0
    assert jwt.decode(first, options={"verify_signature": False})["sub"] == "ada"
    second = provider.get_token(refresh=True)
    assert second != first and openid.refreshes == 1
    assert provider.get_token() == second


def test_a_login_about_to_end_is_refreshed_by_itself(openid: OpenId, sign: Sign) -> None:
    openid.life = 30
    provider = StoredLogin(sign())
    assert provider.get_token() != provider.get_token()
    assert openid.refreshes == 2


def test_many_at_once_refresh_once(openid: OpenId, sign: Sign) -> None:
    """The issuer ends the login if a refresh token is used twice."""
    openid.life = 30
    settings = sign()
    openid.life = 3600
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(StoredLogin(settings).get_token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8 and len(set(found)) == 1 and openid.refreshes == 1


def test_a_refused_refresh_token_asks_for_a_login(openid: OpenId, sign: Sign) -> None:
    settings = sign()
    openid._refresh = "another"
    with pytest.raises(LoginRequired, match="used twice"):
        StoredLogin(settings).get_token(refresh=True)
    with pytest.raises(LoginRequired, match="no login"):
        StoredLogin(settings).get_token()


def test_an_issuer_that_is_away_keeps_the_login(openid: OpenId, sign: Sign) -> None:
    settings = sign()
    openid.away = True
    with pytest.raises(ServiceUnavailable):
        StoredLogin(settings).get_token(refresh=True)
    openid.away = False
    assert StoredLogin(settings).get_token(refresh=True)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ({"answer": {"state": "another"}}, "another login"),
        ({"answer": {"iss": "https://evil.example"}}, "another issuer"),
        ({"answer": {"code": ""}}, "no code"),
        ({"claims": {"nonce": "another"}}, "another login"),
        ({"claims": {"aud": "somebody"}}, "does not verify"),
        ({"claims": {"iss": "https://evil.example"}}, "does not verify"),
        ({"tokens": {"id_token": None}}, "no id token"),
        ({"tokens": {"id_token": "x.y.z"}}, "does not verify"),
    ],
)
def test_what_does_not_belong_to_this_login(openid: OpenId, sign: Sign, spoil: dict[str, Any], why: str) -> None:
    openid.spoil = spoil
    with pytest.raises(AuthenticationError, match=why):
        sign()


def test_login_on_a_machine_whose_clock_is_wrong(sign: Sign, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 5 * 3600)
    assert StoredLogin(sign()).get_token()


def test_declined(openid: OpenId, sign: Sign) -> None:
    openid.decline = "access_denied"
    with pytest.raises(AuthenticationError, match="declined: access_denied"):
        sign()


def test_nobody_comes(openid: OpenId) -> None:
    settings = load_settings(oidc_issuer=openid.url, oidc_client_id=CLIENT)
    with pytest.raises(AuthenticationError, match="in time"):
        login(settings, open_browser=lambda url: None, show=lambda line: None, timeout_seconds=0.1)


def test_settings_that_are_missing_or_wrong(openid: OpenId, sign: Sign) -> None:
    with pytest.raises(ConfigurationError, match="oidc_client_id"):
        login(load_settings(oidc_issuer=openid.url))
    openid.spoil = {"document": {"issuer": "https://other.example"}}
    with pytest.raises(ConfigurationError, match="another issuer"):
        sign()
    openid.spoil = {"document": {"token_endpoint": "http://token.example"}}
    with pytest.raises(ConfigurationError, match="https"):
        sign()


def test_an_issuer_without_offline_access_is_asked_google_s_way(openid: OpenId, sign: Sign) -> None:
    openid.spoil = {"scopes": []}
    asked: list[dict[str, str]] = []
    authorize = openid.authorize

    def note(query: dict[str, str]) -> str:
        asked.append(query)
        return authorize(query)

    openid.authorize = note  # type: ignore[method-assign]
    sign()
    assert asked[0]["access_type"] == "offline" and asked[0]["scope"] == "openid email"


def test_access_token_for_servers_that_want_it(openid: OpenId, sign: Sign) -> None:
    assert StoredLogin(sign(oidc_token="access_token")).get_token() == "opaque"
    openid.spoil = {"tokens": {"access_token": None}}
    with pytest.raises(LoginRequired, match="no access_token"):
        StoredLogin(sign(oidc_token="access_token")).get_token()


def test_identity_platform(openid: OpenId, sign: Sign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIREBASE_AUTH_EMULATOR_HOST", openid.url.removeprefix("http://"))
    settings = sign(identity_platform_key="web-api-key", identity_platform_tenant="acme")
    provider = StoredLogin(settings)
    first = provider.get_token()
    assert jwt.decode(first, options={"verify_signature": False})["sub"] == "platform-ada"
    assert provider.get_token(refresh=True) != first and openid.refreshes == 1
    openid._refresh = None
    with pytest.raises(LoginRequired):
        provider.get_token(refresh=True)


def test_keyring(openid: OpenId, sign: Sign, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "keyring", None)
        with pytest.raises(ConfigurationError, match=r"license-client\[keyring\]"):
            sign(keyring=True)
    kept: dict[tuple[str, str], str] = {}
    ring = types.ModuleType("keyring")
    ring.get_password = lambda service, name: kept.get((service, name))  # type: ignore[attr-defined]
    ring.set_password = lambda service, name, text: kept.update({(service, name): text})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", ring)
    assert StoredLogin(sign(keyring=True)).get_token()
    assert len(kept) == 1 and not (home / "login.json").exists()


def test_a_broken_login_file_is_no_login(openid: OpenId, sign: Sign, home: Path) -> None:
    settings = sign()
    for text in ("", "{", "[]", json.dumps({f"{openid.url}|{CLIENT}": {"kind": 1}})):
        (home / "login.json").write_text(text)
        assert LoginStore(settings).load() is None
    with pytest.raises(LoginRequired):
        StoredLogin(settings).get_token()


# -- an issuer that nobody here wrote ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign_issuer() -> Iterator[str]:
    """npm's `oidc-provider`, in a process of its own."""
    folder = Path(__file__).parent / "interop"
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("needs node and npm")
    if not (folder / "node_modules" / "oidc-provider").exists():
        install = ["npm", "ci", "--silent", "--no-audit", "--no-fund"]
        if subprocess.run(install, cwd=folder, timeout=120).returncode != 0:
            pytest.skip("npm could not install oidc-provider")
    command = ["node", "provider.mjs", str(free_port())]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


def person(address: str) -> None:
    """Fills in oidc-provider's own pages: a name, then consent, until it sends us back to the loopback page."""
    opener = build_opener(HTTPCookieProcessor(CookieJar()))
    page = opener.open(address, timeout=10)
    for form in ({"prompt": "login", "login": "ada", "password": "x"}, {"prompt": "consent"}):
        found = re.search(r'action="([^"]+)"', page.read().decode())
        if found is None:
            return
        page = opener.open(found.group(1), urlencode(form).encode(), timeout=10)


def test_interop_with_oidc_provider(foreign_issuer: str, home: Path) -> None:
    settings = load_settings(oidc_issuer=foreign_issuer, oidc_client_id="license-client")
    found = login(settings, open_browser=person, show=lambda line: None, timeout_seconds=20)
    assert found.refresh_token and found.id_token
    provider = StoredLogin(settings)
    used: set[str | None] = {found.refresh_token}
    for _ in range(2):
        third = provider.get_token(refresh=True)
        kept = LoginStore(settings).load()
        assert kept is not None
        used.add(kept.refresh_token)
    assert len(used) == 3, "refresh tokens are rotated and followed"
    keys = jwt.PyJWKClient(f"{foreign_issuer}/jwks")
    claims = jwt.decode(
        third, keys.get_signing_key_from_jwt(third), ["RS256"], audience="license-client", issuer=foreign_issuer
    )
    assert claims["sub"] == "ada"

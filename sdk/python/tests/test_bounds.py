"""Whatever hangs, starts and ends stay short; and what is nobody's decision ends no login."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from license_client import AuthenticationError, LoginRequired, ProtocolError, State
from license_client.bounded import Call, StillRunning
from license_client.config import load_settings
from license_client.errors import ServerUnreachable, Transient
from license_client.files import private_directory
from license_client.login_store import Login
from license_client.oidc import tokens_of
from license_client.providers import Identity, StoredLogin
from license_client.transport import Answer, Transport

from .support.engines import wait_until
from .support.proxy import Passage, Proxy
from .support.server import Tenant


def drip(passage: Passage) -> bool:
    """A byte now and then: no timeout of a socket ever comes."""
    passage.handler.send_response_only(200)
    passage.handler.send_header("content-length", "1000")
    passage.handler.end_headers()
    for _ in range(30):
        passage.handler.wfile.write(b" ")
        passage.handler.wfile.flush()
        time.sleep(0.1)
    passage.handler.close_connection = True
    return True


def test_an_answer_that_drips_is_none(proxy: Proxy) -> None:
    proxy.always = drip
    began = time.monotonic()
    with pytest.raises(ServerUnreachable, match="within"):
        Transport(proxy.url, 0.5).request("GET", "/")
    assert time.monotonic() - began < 1.5


def test_a_provider_that_hangs_does_not_delay_an_offline_start(tenant: Tenant, home: Path) -> None:
    tenant.client(home, heartbeat_thread=False).acquire()
    asked: list[bool] = []
    came_back = threading.Event()

    def hang() -> str:
        asked.append(True)
        came_back.wait(20)
        return tenant.token("ada")

    client = tenant.client(home, token_provider=hang, offline_after_seconds=0.5, heartbeat_thread=False)
    began = time.monotonic()
    assert client.acquire().status == "offline"
    assert time.monotonic() - began < 3
    assert client.acquire().status == "offline" and len(asked) == 1, "one call at a time"
    came_back.set()
    assert client.acquire().status == "renewed" and len(asked) == 1, "the late answer serves"


def test_nothing_stored_waits_for_its_provider(tenant: Tenant, home: Path) -> None:
    """It may be asking a person."""

    def slow() -> str:
        time.sleep(1.0)
        return tenant.token("ada")

    client = tenant.client(home, token_provider=slow, offline_after_seconds=0.2, acquire_seconds=0.8)
    assert client.acquire().status == "granted"


def test_what_a_late_call_raises_arrives_too(home: Path) -> None:
    def nothing() -> str:
        time.sleep(0.3)
        return ""

    identity = Identity(nothing, load_settings(home=home))
    with pytest.raises(Transient, match="does not answer"):
        identity.token(seconds=0.05)
    with pytest.raises(AuthenticationError, match="no token"):
        identity.token(seconds=5)
    identity.after_fork_in_child()


def test_without_new_threads_the_call_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def ending(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", ending)
    assert Call(threading.get_ident, "here").wait(0) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        Call(lambda: 1 / 0, "here").wait(0)


def test_a_call_given_up_goes_on() -> None:
    call = Call(lambda: time.sleep(0.2), "slow")
    with pytest.raises(StillRunning):
        call.wait(0.01)
    assert call.wait(5) is None


def test_release_does_not_wait_for_another_threads_request(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    client = tenant.client(home, api_url=proxy.url, heartbeat_thread=False, exit_seconds=0.5)
    client.acquire()
    proxy.always = drip
    beating = threading.Thread(target=client.heartbeat, daemon=True)
    beating.start()
    wait_until(lambda: proxy.count("heartbeat") == 1)
    began = time.monotonic()
    assert client.release() is False
    assert time.monotonic() - began < 1.5
    beating.join(20)


def test_one_minute_after_a_sleep_not_one_after_each(tenant: Tenant, home: Path) -> None:
    client = tenant.client(home, heartbeat_thread=False)
    client.acquire()
    engine = client._engine
    assert engine is not None and engine.seat is not None
    engine.overslept()
    assert engine.seat.seconds_left() > 3600, "nothing to add to"
    engine.seat = engine.seat.__class__(**{**vars(engine.seat), "deadline": 0.0})
    engine.overslept()
    assert 0 < engine.seat.seconds_left() <= 60
    engine.seat = engine.seat.__class__(**{**vars(engine.seat), "deadline": 0.0})
    engine.overslept()
    assert engine.seat.seconds_left() < 0


def test_release_during_acquire_keeps_no_seat(tenant: Tenant, home: Path) -> None:
    """The provider is still at work when another thread releases."""
    asked, go_on = threading.Event(), threading.Event()

    def token() -> str:
        asked.set()
        go_on.wait(20)
        return tenant.token("ada")

    client = tenant.client(home, token_provider=token)
    errors: list[str] = []

    def acquire() -> None:
        try:
            client.acquire()
        except Exception as error:
            errors.append(str(error))

    working = threading.Thread(target=acquire, daemon=True)
    working.start()
    assert asked.wait(10)
    assert client.release() is True
    go_on.set()
    working.join(20)
    assert errors == ["acquire was broken off by release"]
    assert client.status.state is State.RELEASED
    wait_until(lambda: tenant.sessions() == [])


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (302, b"", ProtocolError),
        (200, b"<html>Welcome to the hotel</html>", ProtocolError),
        (403, b"<html>proxy: not allowed</html>", ProtocolError),
        (407, b"{}", ProtocolError),
        (400, b'{"error":"invalid_client"}', AuthenticationError),
        (400, b'{"error":{"message":"API key not valid. Please pass a valid API key."}}', AuthenticationError),
        (400, b'{"error":"invalid_grant"}', LoginRequired),
        (400, b'{"error":{"message":"TOKEN_EXPIRED"}}', LoginRequired),
        (400, b'{"error":{"message":"USER_DISABLED : by an administrator"}}', LoginRequired),
    ],
)
def test_only_the_issuers_word_ends_a_login(status: int, body: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind) as refused:
        tokens_of(Answer(status, {}, body), refreshing=True)
    assert type(refused.value) is kind


def a_login(**changes: Any) -> Login:
    fields = {"kind": "oidc", "id_token": "secret-1", "access_token": "secret-2", "refresh_token": "secret-3"}
    return Login(**{**fields, "expires_at": time.time() + 3600, **changes})


@pytest.mark.skipif(os.name == "nt", reason="folders there have no such mode")
def test_a_full_disk_costs_no_login(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh token may be good for one use: what came for it is used, written down or not."""
    settings = load_settings(home=home, oidc_issuer="https://issuer.example", oidc_client_id="x")
    from license_client import login_store, oidc

    login_store.LoginStore(settings).save(a_login(expires_at=0.0))
    used: list[str | None] = []

    def refreshed(login: Login, _: object) -> Login:
        used.append(login.refresh_token)
        return a_login(id_token="fresh", refresh_token=f"next-{len(used)}")

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(oidc, "refreshed", refreshed)
    monkeypatch.setattr(login_store, "write_private", full)
    provider = StoredLogin(settings)
    assert provider.get_token() == provider.get_token() == "fresh"
    assert provider.get_token(refresh=True) == "fresh"
    assert used == ["secret-3", "next-1"]
    login_store.LoginStore(settings).remove()


def test_no_secret_in_what_is_printed(tenant: Tenant, home: Path) -> None:
    settings = load_settings(home=home, token="secret-4", oidc_client_secret="secret-5")
    assert "secret-" not in repr(a_login()) + repr(settings)
    client = tenant.client(home, heartbeat_thread=False)
    grant = client.acquire()
    assert client._engine is not None
    assert grant.token not in repr(grant) + repr(client._engine.seat) + repr(client.status)


def test_an_offline_start_says_one_thing(
    tenant: Tenant, home: Path, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    from license_client.cli import main

    server = ["--api-url", proxy.url, "--token", tenant.token("ada"), "--hardware-id", "machine-0001", "--json"]
    assert main([*server, "acquire"]) == 0
    proxy.down()
    capsys.readouterr()
    assert main([*server, "acquire"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "offline"


@pytest.mark.skipif(os.name == "nt", reason="folders there have no such mode")
def test_every_folder_made_is_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        private_directory(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b", "a/b/c")] == [0o700] * 3

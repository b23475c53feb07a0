"""Faults between client and server: overload answers, slowness, a frozen, killed or restarted server, rotation."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from license_client import InvalidLicenseToken, RateLimited, ServiceUnavailable, State
from license_client.errors import ProtocolError, ServerUnreachable, UnknownKey

from .conftest import Events
from .support.engines import wait_until
from .support.issuer import private_pem, rsa_key
from .support.proxy import Proxy, answer, cut, delay, problem
from .support.server import LicenseServer, Tenant


@pytest.mark.parametrize(
    ("status", "code"), [(503, "unavailable"), (429, "rate_limited")], ids=["unavailable", "rate limited"]
)
def test_waits_as_told_and_succeeds(tenant: Tenant, home: Path, proxy: Proxy, status: int, code: str) -> None:
    proxy.faults = [problem(status, code, retry_after="2")]
    began = time.monotonic()
    assert tenant.client(home, api_url=proxy.url).acquire().status == "granted"
    assert 2.0 <= time.monotonic() - began < 4
    assert proxy.count("acquire") == 2


def test_gives_up_after_three_retries_with_growing_waits(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    proxy.faults = [answer(500)] * 4
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable):
        tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    assert proxy.count("acquire") == 4
    assert 1.5 < time.monotonic() - began < 5


def test_told_to_wait_longer_than_there_is_time(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    proxy.faults = [problem(429, "rate_limited", retry_after="120")]
    began = time.monotonic()
    with pytest.raises(RateLimited) as refused:
        tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    assert refused.value.retry_after == 120 and time.monotonic() - began < 1


def test_overload_with_a_stored_token_starts_offline(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.faults = [problem(503, "unavailable", retry_after="60")]
    client = tenant.client(home, api_url=proxy.url, heartbeat_thread=False)
    assert client.acquire().status == "offline"


def test_a_captive_portal_is_not_an_answer(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    page = answer(200, b"<html>Welcome to the hotel</html>", content_type="text/html")
    proxy.always = page
    assert tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire().status == "offline"
    proxy.always = answer(302, b"", location="http://portal.invalid/")
    with pytest.raises(ProtocolError):
        tenant.client(home, "bob", api_url=proxy.url, acquire_seconds=1.0).acquire()


def test_a_slow_server_is_waited_for(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    proxy.faults = [delay(1.0)]
    assert tenant.client(home, api_url=proxy.url).acquire().status == "granted"


def test_a_server_that_hangs_is_not(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    proxy.faults = [delay(8)]
    began = time.monotonic()
    with pytest.raises(ServerUnreachable):
        tenant.client(home, api_url=proxy.url, timeout_seconds=0.5, acquire_seconds=0.6).acquire()
    assert time.monotonic() - began < 2


def test_exit_does_not_wait_for_a_server_that_hangs(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    client = tenant.client(home, api_url=proxy.url, exit_seconds=0.5)
    client.acquire()
    proxy.faults = [delay(8)]
    began = time.monotonic()
    assert client.release() is False
    assert time.monotonic() - began < 1


def test_cut_heartbeats_are_repeated(tenant: Tenant, home: Path, proxy: Proxy, events: Events) -> None:
    client = tenant.client(home, api_url=proxy.url, heartbeat_thread=False, **events.callbacks())
    client.acquire()
    proxy.faults = [cut, cut]
    assert client.heartbeat().state is State.ACTIVE
    assert proxy.count("heartbeat") == 3 and events.names == ["granted"]


def test_frozen_server(
    tenant: Tenant, server: LicenseServer, home: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("license_client.retry.FIRST_WAIT_SECONDS", 0.05)
    client = tenant.client(home, timeout_seconds=0.5, **events.callbacks())
    session = client.acquire().session_id
    server.signal(signal.SIGSTOP)
    try:
        events.wait_for("offline")
    finally:
        server.signal(signal.SIGCONT)
    events.wait_for("online")
    assert client.status.state is State.ACTIVE and session


def test_server_killed_and_restarted(
    tenant: Tenant, server: LicenseServer, home: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("license_client.retry.FIRST_WAIT_SECONDS", 0.05)
    client = tenant.client(home, **events.callbacks())
    session = client.acquire().session_id
    server.stop(signal.SIGKILL)
    events.wait_for("offline")
    server.start()
    events.wait_for("online")
    assert client.status.session_id == session, "an outage costs nobody the seat"
    assert events.names == ["granted", "offline", "online"]


def test_key_rotation(server: LicenseServer, home: Path, tmp_path: Path) -> None:
    """Tokens of the old key go on verifying; the new key is found by its name as soon as it signs."""
    tenant = server.tenant()
    client = tenant.client(home, heartbeat_thread=False)
    old = client.acquire()
    before = server.environment["SIGNING_KEY_FILE"]
    rotated = tmp_path / "rotated.pem"
    rotated.write_bytes(private_pem(rsa_key("rotated")))
    engine = client._engine
    assert engine is not None
    keys = engine.exchange.verifier.keys
    try:
        server.stop(signal.SIGTERM)
        server.environment["SIGNING_KEY_FILE"] = str(rotated)
        server.start()
        new = client.acquire()
        verifier = engine.exchange.verifier
        assert verifier.verify(new.token).session_id == new.session_id
        assert verifier.verify(old.token).session_id == old.session_id
        assert len({jwk["kid"] for jwk in keys.published()}) >= 2
    finally:
        server.stop(signal.SIGTERM)
        server.environment["SIGNING_KEY_FILE"] = before
        server.start()


def test_a_key_that_is_not_published_is_not_trusted(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    proxy.applies = lambda seen: seen.path.endswith("jwks.json")
    proxy.faults = [answer(200, b'{"keys":[]}', content_type="application/json")] * 2
    with pytest.raises(UnknownKey):
        tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    wait_until(lambda: tenant.sessions() == [], what="giving the seat back")


def test_key_set_out_of_reach_at_the_first_start(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    """The key that came with the answer is taken for the time being."""
    proxy.applies = lambda seen: seen.path.endswith("jwks.json")
    proxy.faults = [answer(503)]
    client = tenant.client(home, api_url=proxy.url)
    assert client.acquire().status == "granted"


def test_a_token_that_does_not_verify_starts_offline_if_there_is_a_good_one(
    tenant: Tenant, home: Path, proxy: Proxy
) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()

    def spoiled(passage: object) -> bool:
        from .support.proxy import Passage

        assert isinstance(passage, Passage)
        status, headers, body = passage.forward()
        document = json.loads(body)
        head, payload, signature = document["license_token"].split(".")
        document["license_token"] = f"{head}.{payload}.{signature[::-1]}"
        passage.reply(status, headers, json.dumps(document).encode())
        return True

    proxy.faults = [spoiled]
    client = tenant.client(home, api_url=proxy.url, heartbeat_thread=False)
    assert client.acquire().status == "offline"
    assert isinstance(client.status.error, InvalidLicenseToken)


def test_a_resolver_that_hangs_does_not_delay_the_start(
    tenant: Tenant, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    from license_client.transport import Transport

    def hang(*_: object) -> None:
        time.sleep(8)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    with pytest.raises(ServerUnreachable, match="no address"):
        Transport("https://license.example", 0.5).request("GET", "/")
    assert time.monotonic() - began < 1


def test_a_name_that_does_not_exist() -> None:
    from license_client.transport import Transport

    with pytest.raises(ServerUnreachable, match="no address for nowhere"):
        Transport("https://nowhere.invalid", 5).request("GET", "/")


def test_proxies_of_the_environment(tenant: Tenant, home: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host elsewhere is asked through the proxy, this machine never."""
    from license_client.transport import Transport

    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    proxy.applies = lambda seen: True
    proxy.faults = [answer(200, b'{"by":"proxy"}')]
    assert Transport("http://license.invalid", 5).request("GET", "/x").json() == {"by": "proxy"}
    assert proxy.seen[0].path == "http://license.invalid/x"
    assert tenant.client(home).acquire().status == "granted"
    assert len(proxy.seen) == 1

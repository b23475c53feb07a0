"""The life of a seat against the real server."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import jwt
import pytest

from license_client import (
    AuthenticationError,
    Forbidden,
    LicenseClient,
    LicenseInactive,
    LicenseLost,
    LicenseStatus,
    NoSeatsAvailable,
    NotFound,
    ServerUnreachable,
    State,
    UserMismatch,
)

from .conftest import INTERVAL_SECONDS, TTL_SECONDS, Events
from .support.engines import wait_until
from .support.proxy import Proxy, answer, swallow
from .support.server import Tenant


def test_acquire_heartbeat_release(tenant: Tenant, home: Path, events: Events) -> None:
    client = tenant.client(home, machine_name="ada's desk", **events.callbacks())
    assert str(client.status) == "idle"
    grant = client.acquire()
    assert grant.status == "granted"
    assert grant.seats is not None and (grant.seats.used, grant.seats.total) == (1, 5)
    assert (grant.heartbeat_interval_seconds, grant.session_ttl_seconds) == (INTERVAL_SECONDS, TTL_SECONDS)
    status = client.heartbeat()
    assert status.usable and status.session_id == grant.session_id and status.user_id == "ada"
    assert status.seconds_left is not None and 86_300 < status.seconds_left <= 86_400
    wait_until(lambda: [s["machine_name"] for s in tenant.sessions()] == ["ada's desk"])
    assert client.release() is True
    wait_until(lambda: tenant.sessions() == [])
    assert client.status.state is State.RELEASED
    assert events == [("granted", "active")]
    with pytest.raises(LicenseLost):
        client.check()


def test_the_token_verifies_with_a_library_that_knows_nothing_of_us(tenant: Tenant, home: Path) -> None:
    grant = tenant.client(home).acquire()
    keys = jwt.PyJWKClient(f"{tenant.server.url}/.well-known/jwks.json")
    key = keys.get_signing_key_from_jwt(grant.token)
    claims = jwt.decode(grant.token, key, algorithms=["RS256"], audience="coditect")
    assert claims["session_id"] == grant.session_id == grant.claims.session_id
    assert claims["exp"] == grant.expires_at.timestamp()


def test_context_manager_releases_also_after_an_error(tenant: Tenant, home: Path) -> None:
    client = tenant.client(home)
    with pytest.raises(ZeroDivisionError), client as held:
        assert held.status.usable
        1 / 0  # noqa: B018
    assert client.status.state is State.RELEASED
    wait_until(lambda: tenant.sessions() == [])


def test_asking_again_renews_the_same_session(tenant: Tenant, home: Path, events: Events) -> None:
    client = tenant.client(home, **events.callbacks())
    first, second = client.acquire(), client.acquire()
    assert (second.status, second.session_id) == ("renewed", first.session_id)
    assert second.token != first.token
    assert events.names == ["granted", "renewed"]


def test_full_pool(server: object, tenant: Tenant, home: Path, events: Events) -> None:
    pool = tenant.server.tenant(seats=1)
    holder = pool.client(home, "ada")
    holder.acquire()
    late = pool.client(home, "bob", **events.callbacks())
    with pytest.raises(NoSeatsAvailable) as refused:
        late.acquire()
    assert (refused.value.used, refused.value.total, refused.value.status) == (1, 1, 409)
    assert refused.value.retry_after and refused.value.request_id
    assert late.status.state is State.IDLE and not events


def test_waiting_for_a_seat(tenant: Tenant, home: Path, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("license_client.exchange._POLL_SECONDS", (0.1, 0.3))
    pool = tenant.server.tenant(seats=1)
    holder = pool.client(home, "ada")
    holder.acquire()
    waiter = pool.client(home, "bob", **events.callbacks())
    with pytest.raises(NoSeatsAvailable):
        waiter.acquire(wait=0.5)
    events.clear()
    threading.Timer(0.5, holder.release).start()
    assert waiter.acquire(wait=20).status == "granted"
    assert events == [("waiting", "waiting"), ("granted", "active")]


def test_waiting_can_be_broken_off(tenant: Tenant, home: Path) -> None:
    pool = tenant.server.tenant(seats=1)
    pool.client(home, "ada").acquire()
    waiter = pool.client(home, "bob")
    threading.Timer(0.5, waiter.release).start()
    with pytest.raises(LicenseLost):
        waiter.acquire(wait=True)
    assert waiter.status.state is State.IDLE


def test_a_lost_answer_takes_no_second_seat(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    proxy.faults = [swallow, swallow]
    grant = tenant.client(home, api_url=proxy.url).acquire()
    assert grant.status == "renewed" and grant.seats is not None and grant.seats.used == 1
    asked = [seen for seen in proxy.seen if seen.path.endswith("acquire")]
    assert len(asked) == 3
    assert len({seen.headers["Idempotency-Key"] for seen in asked}) == 1
    assert len({seen.body for seen in asked}) == 1


def test_401_refreshes_the_token_once(tenant: Tenant, home: Path) -> None:
    asked: list[bool] = []

    def provider(refresh: bool) -> str:
        asked.append(refresh)
        return tenant.token("ada", seconds=3600 if refresh else -3600)

    assert tenant.client(home, token_provider=provider).acquire().status == "granted"
    assert asked == [False, True]

    with pytest.raises(AuthenticationError) as refused:
        tenant.client(home, "eve", token_provider=lambda: tenant.token("eve", seconds=-3600)).acquire()
    assert refused.value.status == 401 and refused.value.code == "invalid_token"


def test_a_401_that_a_refresh_cures_is_not_seen_by_a_heartbeat(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    client = tenant.client(home, api_url=proxy.url)
    client.acquire()
    proxy.faults = [answer(401, b"{}")]
    assert client.heartbeat().state is State.ACTIVE


def test_refusals_have_types(tenant: Tenant, home: Path) -> None:
    with pytest.raises(UserMismatch):
        tenant.client(home, user_id="somebody-else").acquire()
    with pytest.raises(NotFound):
        tenant.client(home, product="unheard-of").acquire()
    with pytest.raises(Forbidden):
        tenant.client(home, token_provider=tenant.server.issuer.token("ada")).acquire()
    tenant.change(active=False)
    with pytest.raises(LicenseInactive) as refused:
        tenant.client(home).acquire()
    assert refused.value.code == "license_inactive"


def test_deactivation_ends_a_running_client_and_its_offline_time(tenant: Tenant, home: Path, events: Events) -> None:
    client = tenant.client(home, **events.callbacks())
    client.acquire()
    tenant.change(active=False)
    events.wait_for("lost")
    assert isinstance(client.status.error, LicenseInactive)
    assert not list(home.glob("license/*/*/seat"))


def test_ended_elsewhere_it_asks_again_and_gets_another_seat(tenant: Tenant, home: Path, events: Events) -> None:
    client = tenant.client(home, **events.callbacks())
    before = client.acquire()
    tenant.end(before.session_id)
    wait_until(lambda: client.status.session_id != before.session_id)
    assert client.status.state is State.ACTIVE


def test_ended_elsewhere_and_the_pool_full_it_is_lost(tenant: Tenant, home: Path, events: Events) -> None:
    pool = tenant.server.tenant(seats=1)
    client = pool.client(home, **events.callbacks())
    session = client.acquire().session_id
    pool.end(session)
    rival = pool.client(home, "bob")
    rival.acquire()
    events.wait_for("lost")
    assert isinstance(client.status.error, NoSeatsAvailable)
    with pytest.raises(LicenseLost) as lost:
        client.check()
    assert isinstance(lost.value.__cause__, NoSeatsAvailable)
    client.release()
    rival.release()


def test_release_may_be_repeated_and_acquire_follow(tenant: Tenant, home: Path) -> None:
    client = tenant.client(home)
    assert client.release() is True
    client.acquire()
    assert (client.release(), client.release()) == (True, True)
    assert client.acquire().status == "granted"


def test_what_is_sent(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    client = tenant.client(home, api_url=proxy.url, machine_name="")
    client.acquire()
    client.release()
    body = json.loads(proxy.seen[0].body)
    assert body == {"hardware_id": "machine-0001", "product": "coditect"}
    assert proxy.seen[0].headers["User-Agent"].startswith("license-client/")


def test_callbacks_that_fail_harm_nothing(tenant: Tenant, home: Path) -> None:
    def fail(status: object) -> None:
        raise SystemExit(1)

    client = tenant.client(home, on_granted=fail)
    assert client.acquire().status == "granted"


def test_options_are_checked() -> None:
    with pytest.raises(TypeError, match="no option colour"):
        LicenseClient("http://127.0.0.1:1", "token", colour="blue")


def test_acquiring_again_from_the_lost_callback(tenant: Tenant, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that called back goes on with the new seat."""
    monkeypatch.setattr("license_client.exchange._POLL_SECONDS", (0.1, 0.3))
    pool = tenant.server.tenant(seats=1)
    rival = pool.client(home, "bob")
    again: list[str] = []

    def try_again(status: LicenseStatus) -> None:
        again.append(client.acquire(wait=20).status)

    client = pool.client(home, on_lost=try_again)
    pool.end(client.acquire().session_id)
    rival.acquire()
    wait_until(lambda: str(client.status) == "waiting")
    rival.release()
    wait_until(lambda: again == ["granted"])
    session = client.status.session_id
    threading.Event().wait(TTL_SECONDS + 1)
    assert client.status.state is State.ACTIVE and client.status.session_id == session
    assert [live["session_id"] for live in pool.sessions()] == [session], "it is kept alive"


def test_another_user_signs_in(tenant: Tenant, home: Path) -> None:
    user = "ada"
    client = tenant.client(home, token_provider=lambda: tenant.token(user))
    client.acquire()
    user = "bob"
    assert client.acquire().claims.user_id == "bob"
    wait_until(lambda: [live["user_id"] for live in tenant.sessions()] == ["bob"])


def test_a_provider_object(tenant: Tenant, home: Path) -> None:
    class Provider:
        def get_token(self, *, refresh: bool = False) -> str:
            return tenant.token("ada")

    assert tenant.client(home, token_provider=Provider()).acquire().claims.user_id == "ada"


@pytest.mark.parametrize("token", ["", "no jwt at all", "a.b.c"])
def test_tokens_that_are_none(tenant: Tenant, home: Path, token: str) -> None:
    with pytest.raises(AuthenticationError):
        tenant.client(home, token_provider=lambda: token).acquire()


def test_a_client_that_nobody_beats_does_not_claim_a_seat_for_ever(tenant: Tenant, home: Path) -> None:
    from dataclasses import replace

    client = tenant.client(home, heartbeat_thread=False)
    client.acquire()
    engine = client._engine
    assert engine is not None and engine.seat is not None
    engine.seat = replace(engine.seat, deadline=0.0)
    assert client.status.usable, "the session itself lives"
    wait_until(lambda: not client.status.usable)
    assert client.status.state is State.LOST and client.grant is None and not client.has_feature("agents")


def test_a_login_that_ended_does_not_cost_the_seat(tenant: Tenant, home: Path) -> None:
    life = 3600
    client = tenant.client(home, token_provider=lambda: tenant.token("ada", seconds=life), heartbeat_thread=False)
    client.acquire()
    life = -3600
    with pytest.raises(AuthenticationError):
        client.acquire()
    assert client.status.state is State.ACTIVE
    status = client.heartbeat()
    assert status.state is State.OFFLINE and isinstance(status.error, AuthenticationError)


def test_who_was_refused_does_not_start_offline_instead(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    pool = tenant.server.tenant(seats=1)
    client = pool.client(home, api_url=proxy.url)
    client.acquire()
    client.release()
    pool.client(home, "bob").acquire()
    threading.Timer(0.5, proxy.down).start()
    with pytest.raises(ServerUnreachable):
        client.acquire(wait=2)
    with pytest.raises(ServerUnreachable):
        pool.client(home, api_url=proxy.url, acquire_seconds=1.0).acquire()

"""Offline mode: what carries on without the server, for how long, and what ends it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from license_client import (
    ClockRollback,
    InvalidLicenseToken,
    LicenseClient,
    LicenseExpired,
    LicenseLost,
    OfflineGraceExpired,
    ServerUnreachable,
    State,
    StateTampered,
)
from license_client.errors import Transient

from .conftest import Events
from .support.engines import wait_until
from .support.proxy import Proxy, problem
from .support.server import Tenant

LAST_SECONDS = 5


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("license_client.retry.FIRST_WAIT_SECONDS", 0.05)


def let_pass(client: LicenseClient, seconds: float) -> None:
    """As if the token were older: its deadline comes nearer."""
    engine = client._engine
    assert engine is not None and engine.seat is not None
    engine.seat = replace(engine.seat, deadline=engine.seat.deadline - seconds)


def shift_wall_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)


def test_network_loss_and_return(
    tenant: Tenant, home: Path, events: Events, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    client = tenant.client(home, api_url=proxy.url, **events.callbacks())
    session = client.acquire().session_id
    proxy.down()
    events.wait_for("offline")
    status = client.status
    assert status.usable and status.seconds_left is not None and status.seconds_left > 86_000
    assert isinstance(status.error, ServerUnreachable)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "License server unreachable, offline mode: 23 h 59 min left" in warned[0].message
    assert len(warned) == 1
    proxy.up()
    events.wait_for("online")
    assert events == [("granted", "active"), ("offline", "offline"), ("online", "active")]
    assert client.status.session_id is not None and session


def test_start_without_network(tenant: Tenant, home: Path, events: Events, proxy: Proxy) -> None:
    first = tenant.client(home, api_url=proxy.url)
    first.acquire()
    first.release()
    proxy.down()
    second = tenant.client(home, api_url=proxy.url, **events.callbacks())
    began = time.monotonic()
    grant = second.acquire()
    assert time.monotonic() - began < 2
    assert grant.status == "offline" and str(second.status) == "offline"
    proxy.up()
    events.wait_for("online")
    assert second.status.state is State.ACTIVE
    wait_until(lambda: len(tenant.sessions()) == 1)


def test_start_without_network_nor_identity_provider(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.down()

    def away() -> str:
        raise OSError("no route to the identity provider")

    client = tenant.client(home, api_url=proxy.url, token_provider=away)
    assert client.acquire().status == "offline"
    with pytest.raises(Transient):
        tenant.client(home / "other", api_url=proxy.url, token_provider=away).acquire()


def test_nothing_stored_and_no_network(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    proxy.down()
    client = tenant.client(home, api_url=proxy.url, acquire_seconds=1.0)
    with pytest.raises(ServerUnreachable):
        client.acquire()
    assert client.status.state is State.IDLE


def test_another_user_gets_nothing_from_the_stored_token(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.down()
    with pytest.raises(ServerUnreachable):
        tenant.client(home, "bob", api_url=proxy.url, acquire_seconds=1.0).acquire()


def test_forced_stop_at_the_token_s_end(tenant: Tenant, home: Path, events: Events, proxy: Proxy) -> None:
    """A token never outlives the license; one that ends in seconds shows what else would take a day."""
    end = datetime.now(timezone.utc) + timedelta(seconds=LAST_SECONDS)
    tenant.change(valid_until=end.isoformat(timespec="milliseconds"))
    client = tenant.client(home, api_url=proxy.url, **events.callbacks())
    began = time.monotonic()
    client.acquire()
    proxy.down()
    events.wait_for("lost", LAST_SECONDS + 10)
    assert LAST_SECONDS - 2 <= time.monotonic() - began <= LAST_SECONDS + 3
    assert events.names == ["granted", "offline", "lost"]
    assert isinstance(client.status.error, OfflineGraceExpired)
    with pytest.raises(LicenseLost):
        client.check()
    with pytest.raises(OfflineGraceExpired):
        tenant.client(home, api_url=proxy.url, acquire_seconds=1.0).acquire()


def test_a_running_client_renews_at_a_quarter_of_the_grace(tenant: Tenant, home: Path, events: Events) -> None:
    client = tenant.client(home, heartbeat_thread=False, **events.callbacks())
    first = client.acquire()
    let_pass(client, 5.9 * 3600)
    client.heartbeat()
    assert events.names == ["granted"]
    let_pass(client, 0.2 * 3600)
    client.heartbeat()
    assert events.names == ["granted", "renewed"]
    newer = client.grant
    assert newer is not None and newer.token != first.token and newer.session_id == first.session_id
    assert client.status.seconds_left is not None and client.status.seconds_left > 86_000


def test_a_renewal_that_fails_costs_nothing_yet(tenant: Tenant, home: Path, proxy: Proxy, events: Events) -> None:
    client = tenant.client(home, api_url=proxy.url, heartbeat_thread=False, **events.callbacks())
    client.acquire()
    let_pass(client, 8 * 3600)
    proxy.applies = lambda seen: seen.path.endswith("acquire")
    proxy.faults = [problem(503, "unavailable")] * 4
    assert client.heartbeat().state is State.ACTIVE
    assert events.names == ["granted"]
    client.heartbeat()
    assert events.names == ["granted", "renewed"]


def test_the_license_s_own_grace(tenant: Tenant, home: Path) -> None:
    tenant.change(offline_grace_seconds=7 * 86_400)
    client = tenant.client(home, heartbeat_thread=False)
    assert client.acquire().claims.grace_seconds == 7 * 86_400
    assert client.status.seconds_left is not None and client.status.seconds_left > 6.9 * 86_400


def test_clock_set_back_while_the_program_was_closed(
    tenant: Tenant, home: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.down()
    shift_wall_clock(monkeypatch, -7200)
    with pytest.raises(ClockRollback):
        tenant.client(home, api_url=proxy.url, acquire_seconds=1.0).acquire()
    proxy.up()
    client = tenant.client(home, api_url=proxy.url)  # the server's word counts more than the clock
    assert client.acquire().status == "renewed"
    proxy.down()
    assert tenant.client(home, api_url=proxy.url).acquire().status == "offline"


def test_clock_set_back_across_a_reboot(
    tenant: Tenant, home: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the high-water mark knows: the counting clock began anew."""
    from license_client import clock

    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.down()
    monkeypatch.setattr(clock, "boot_id", lambda: "another boot")
    shift_wall_clock(monkeypatch, 3600)
    assert tenant.client(home, api_url=proxy.url).acquire().status == "offline"
    monkeypatch.undo()
    monkeypatch.setattr(clock, "boot_id", lambda: "a third boot")
    with pytest.raises(ClockRollback):
        tenant.client(home, api_url=proxy.url, acquire_seconds=1.0).acquire()


def test_clock_set_forward_ends_the_offline_time_of_a_new_start(
    tenant: Tenant, home: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.down()
    shift_wall_clock(monkeypatch, 25 * 3600)
    with pytest.raises(OfflineGraceExpired):
        tenant.client(home, api_url=proxy.url, acquire_seconds=1.0).acquire()


@pytest.mark.parametrize("hours", [-30, 30])
def test_a_running_client_does_not_care_for_the_wall_clock(
    tenant: Tenant, home: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    client = tenant.client(home, api_url=proxy.url)
    client.acquire()
    proxy.down()
    shift_wall_clock(monkeypatch, hours * 3600)
    status = client.heartbeat()
    assert status.state is State.OFFLINE and status.seconds_left is not None
    assert 86_000 < status.seconds_left <= 86_400
    assert status.clock_rolled_back is (hours < 0)


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_machine_whose_clock_is_always_wrong(
    tenant: Tenant, home: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    shift_wall_clock(monkeypatch, hours * 3600)
    assert tenant.client(home, api_url=proxy.url).acquire().status == "granted"
    proxy.down()
    assert tenant.client(home, api_url=proxy.url).acquire().status == "offline"


def test_tampered_state_is_not_used(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.down()
    (seat,) = home.glob("license/*/*/seat")
    seat.write_text(seat.read_text().replace('\\"released\\":false', '\\"released\\":true '))
    with pytest.raises(StateTampered):
        tenant.client(home, api_url=proxy.url, acquire_seconds=1.0).acquire()


def test_state_of_another_machine_is_not_used(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.down()
    with pytest.raises((StateTampered, InvalidLicenseToken)):
        tenant.client(home, api_url=proxy.url, hardware_id="machine-0002", acquire_seconds=1.0).acquire()


def test_files_are_private(tenant: Tenant, home: Path) -> None:
    client = tenant.client(home)
    client.acquire()
    client.heartbeat()
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {"seat", "keys", "user", "secret"} <= {path.name for path in files}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.stat().st_mode & 0o077 for path in home.rglob("*") if path.is_dir()} == {0}


def test_a_full_disk_costs_only_the_offline_start(tenant: Tenant, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("license_client.files.os.open", full)
    client = tenant.client(home)
    assert client.acquire().status == "granted"
    assert client.heartbeat().usable
    assert client.release() is True


def test_a_refusal_drops_the_stored_token(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.faults = [problem(403, "license_expired")]
    with pytest.raises(LicenseExpired):
        tenant.client(home, api_url=proxy.url, heartbeat_thread=False).acquire()
    proxy.down()
    with pytest.raises(ServerUnreachable):
        tenant.client(home, api_url=proxy.url, acquire_seconds=1.0).acquire()


def test_after_a_sleep_past_the_end_the_network_gets_a_moment(tenant: Tenant, home: Path, proxy: Proxy) -> None:
    client = tenant.client(home, api_url=proxy.url, heartbeat_thread=False)
    client.acquire()
    proxy.down()
    client.heartbeat()
    let_pass(client, 30 * 3600)
    engine = client._engine
    assert engine is not None and engine.seat is not None
    assert str(client.status) in ("offline", "lost") and client.status.seconds_left == 0
    engine.overslept()
    assert 0 < engine.seat.seconds_left() <= 60 and client.status.usable
    proxy.up()
    assert client.heartbeat().state is State.ACTIVE


def test_a_sleep_shorter_than_the_grace_is_nothing_special(tenant: Tenant, home: Path, events: Events) -> None:
    """The session ended at the server meanwhile; the next heartbeat gets another."""
    client = tenant.client(home, heartbeat_thread=False, **events.callbacks())
    first = client.acquire()
    wait_until(lambda: tenant.sessions() == [], 20, "the server's expiry")
    status = client.heartbeat()
    assert status.state is State.ACTIVE and status.session_id != first.session_id


def test_asking_again_without_the_server_loses_nothing(
    tenant: Tenant, home: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """Whatever the disk and the wall clock say: what is held is held."""
    client = tenant.client(home, api_url=proxy.url, **events.callbacks())
    client.acquire()
    proxy.down()
    (seat,) = home.glob("license/*/*/seat")
    seat.unlink()
    shift_wall_clock(monkeypatch, -7200)
    assert client.acquire().status == "offline"
    assert client.status.usable and events.names == ["granted", "offline"]


def test_a_user_without_a_home(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written anywhere: no offline start and no sharing, but a seat."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CODITECT_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    client = tenant.client(None, hardware_id=None)
    assert client.acquire().status == "granted"
    assert client.heartbeat().usable and client.release() is True

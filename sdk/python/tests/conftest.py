"""Real engines, a real server, an issuer and a proxy, once a run; a tenant, a home and a log of events a test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .support.engines import Engines, wait_until
from .support.issuer import Issuer, private_pem, rsa_key
from .support.proxy import Proxy
from .support.server import LicenseServer, Tenant

TTL_SECONDS = 3
INTERVAL_SECONDS = 1


class Events(list[tuple[str, str]]):
    """What a client's callbacks were told: (event, state)."""

    def callbacks(self) -> dict[str, Any]:
        def note(name: str) -> Any:
            return lambda status: self.append((name, str(status)))

        return {f"on_{name}": note(name) for name in ("granted", "renewed", "offline", "online", "lost", "waiting")}

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self]

    def wait_for(self, name: str, seconds: float = 20.0) -> None:
        wait_until(lambda: name in self.names, seconds, f"event {name} (so far {self})")


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    made = Engines()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def key_file(engines: Engines) -> Path:
    path = engines.folder / "signing.pem"
    path.write_bytes(private_pem(rsa_key("license")))
    return path


@pytest.fixture(scope="session")
def shared_server(engines: Engines, issuer: Issuer, key_file: Path) -> Iterator[LicenseServer]:
    made = LicenseServer(
        engines,
        issuer,
        key_file,
        SESSION_TTL_SECONDS=TTL_SECONDS,
        HEARTBEAT_INTERVAL_SECONDS=INTERVAL_SECONDS,
    )
    made.migrate()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def server(shared_server: LicenseServer) -> Iterator[LicenseServer]:
    """The run's server; tests may stop it."""
    yield shared_server
    if shared_server.process is None:
        shared_server.start()


@pytest.fixture
def tenant(server: LicenseServer) -> Tenant:
    return server.tenant()


@pytest.fixture
def proxy(server: LicenseServer) -> Iterator[Proxy]:
    made = Proxy(server.port)
    yield made
    made.down()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "coditect"


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test reads the developer's own configuration, and none leaves a client running."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("CODITECT_HOME", str(tmp_path / "coditect"))
    yield
    from license_client import process

    for client in list(process._clients):
        client.detach()
    time.sleep(0)

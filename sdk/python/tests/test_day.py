"""A day of a developer, on the built wheel in a clean environment (each Python that is installed, oldest first)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .support.engines import wait_until
from .support.issuer import private_pem, rsa_key
from .support.proxy import Proxy
from .support.server import LicenseServer

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def pythons() -> list[str]:
    """The interpreters to try: `TEST_PYTHONS` (paths, separated by colons), else this one."""
    return os.environ.get("TEST_PYTHONS", sys.executable).split(":")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=pythons())
def python(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([request.param, "-m", "venv", folder], check=True)
    inside = str(folder / "bin" / "python")
    subprocess.run([inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel], check=True)
    yield inside
    shutil.rmtree(folder)


class Program:
    def __init__(self, python: str, url: str, token: str, home: Path) -> None:
        self.process = subprocess.Popen(
            [python, "-W", "error", str(ROOT / "tests" / "day.py"), url, token, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=home.parent,
        )

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.events = said["events"]
        return said["answer"]

    def wait_for(self, event: str) -> None:
        def there() -> bool:
            self.ask("status")
            return event in self.events

        wait_until(there, 30, event)

    def exit(self) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        began = time.monotonic()
        self.process.stdin.write("exit\n")
        self.process.stdin.close()
        assert self.process.wait(10) == 0
        self.process.stdout.close()
        return time.monotonic() - began


def test_a_day(server: LicenseServer, python: str, tmp_path: Path) -> None:
    tenant = server.tenant(seats=2)
    proxy = Proxy(server.port)
    home = tmp_path / "home"

    def terminal(user: str = "ada", place: Path = home) -> Program:
        return Program(python, proxy.url, tenant.token(user), place)

    # Morning: two terminals, one seat; a colleague takes the other; a third one waits for it.
    one, two = terminal(), terminal()
    assert (one.ask("acquire"), two.ask("acquire")) == ("granted", "renewed")
    session = one.ask("status")[1]
    assert two.ask("status")[1] == session
    bob, eve = terminal("bob", tmp_path / "bob"), terminal("eve", tmp_path / "eve")
    assert bob.ask("acquire") == "granted"
    assert eve.ask("acquire") == "NoSeatsAvailable"
    assert bob.ask("release") is True
    assert eve.ask("acquire 20") == "granted"

    # The lid is closed: everything stands still past the session's time, and somebody may take the seat.
    for program in (one, two, eve):
        program.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: tenant.sessions() == [], 20)
    for program in (one, two, eve):
        program.process.send_signal(signal.SIGCONT)
    wait_until(lambda: one.ask("status")[0] == "active" and one.ask("status")[1] != session)
    wait_until(lambda: two.ask("status")[1] == one.ask("status")[1])

    # The train: no network, a new start in the middle of it, and back.
    proxy.down()
    one.wait_for("offline:offline")
    three = terminal()
    assert three.ask("acquire") == "offline"
    proxy.up()
    for program in (one, two, three):
        wait_until(lambda program=program: program.ask("status")[0] == "active")  # type: ignore[misc]

    # The server is restarted with another key.
    before = server.environment["SIGNING_KEY_FILE"]
    rotated = tmp_path / "rotated.pem"
    rotated.write_bytes(private_pem(rsa_key("rotated again")))
    try:
        server.stop(signal.SIGTERM)
        server.environment["SIGNING_KEY_FILE"] = str(rotated)
        server.start()
        assert one.ask("acquire") == "renewed"
        wait_until(lambda: one.ask("heartbeat") == "active")
    finally:
        server.stop(signal.SIGTERM)
        server.environment["SIGNING_KEY_FILE"] = before
        server.start()

    # A crash, and the evening: whoever goes last gives the seat back.
    three.process.kill()
    three.process.wait()
    assert one.exit() < 3
    time.sleep(1)
    assert two.ask("heartbeat") == "active"
    assert two.exit() < 3 and eve.exit() < 3 and bob.exit() < 3
    wait_until(lambda: tenant.sessions() == [], 5)

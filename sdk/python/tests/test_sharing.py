"""Several processes of one user on one machine: one seat, whoever comes and goes first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from license_client import State

from .conftest import INTERVAL_SECONDS, TTL_SECONDS
from .support.engines import wait_until
from .support.proxy import Proxy, delay
from .support.server import Tenant

Start = Callable[..., "Terminal"]


class Terminal:
    """One process that holds the seat."""

    def __init__(self, tenant: Tenant, home: Path, url: str | None = None) -> None:
        command = [sys.executable, "-m", "tests.support.holder", url or tenant.server.url, tenant.token("ada")]
        root = Path(__file__).parents[1]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        self.process = subprocess.Popen(
            [*command, str(home), "machine-0001"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=environment,
        )
        _, self.session, self.how = self.read().split()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def ask(self, word: str) -> str:
        self.tell(word)
        return self.read()

    def end(self, word: str = "exit") -> int:
        self.tell(word)
        return self.process.wait(10)


@pytest.fixture
def start(tenant: Tenant, home: Path) -> Iterator[Start]:
    made: list[Terminal] = []

    def begin(url: str | None = None) -> Terminal:
        made.append(Terminal(tenant, home, url))
        return made[-1]

    yield begin
    for terminal in made:
        terminal.process.kill()
        terminal.process.wait()
        for pipe in (terminal.process.stdin, terminal.process.stdout):
            if pipe is not None:
                pipe.close()


def live(tenant: Tenant) -> list[str]:
    return [session["session_id"] for session in tenant.sessions()]


def test_two_terminals_one_seat(tenant: Tenant, start: Start) -> None:
    one, two = start(), start()
    assert one.session == two.session and (one.how, two.how) == ("granted", "renewed")
    assert one.end() == 0
    time.sleep(TTL_SECONDS + 1)
    assert two.ask("status") == f"active {one.session}"
    assert live(tenant) == [one.session]
    assert two.end() == 0
    wait_until(lambda: live(tenant) == [])


def test_they_share_the_heartbeats(tenant: Tenant, start: Start, proxy: Proxy) -> None:
    start(proxy.url), start(proxy.url), start(proxy.url)
    proxy.seen.clear()
    time.sleep(3.5 * INTERVAL_SECONDS)
    assert 2 <= proxy.count("heartbeat") <= 6, "one stream of heartbeats, not three"


def test_a_crash_leaves_the_seat_to_the_others(tenant: Tenant, start: Start) -> None:
    one, two = start(), start()
    one.process.send_signal(signal.SIGKILL)
    one.process.wait()
    time.sleep(TTL_SECONDS + 1)
    assert two.ask("status") == f"active {one.session}"
    two.end()
    wait_until(lambda: live(tenant) == [])


def test_the_last_one_s_crash_frees_the_seat_in_time(tenant: Tenant, start: Start) -> None:
    one = start()
    one.process.kill()
    one.process.wait()
    wait_until(lambda: live(tenant) == [], TTL_SECONDS + 4)
    again = start()
    assert again.how == "granted" and again.session != one.session


def test_an_exit_after_an_exception_releases(tenant: Tenant, start: Start) -> None:
    one = start()
    assert one.end("fail") == 1
    wait_until(lambda: live(tenant) == [], 2)


def test_exit_is_quick_and_releases(tenant: Tenant, start: Start) -> None:
    one = start()
    began = time.monotonic()
    assert one.end() == 0
    assert time.monotonic() - began < 1
    wait_until(lambda: live(tenant) == [], 2)


def test_exit_does_not_hang_with_the_network_gone_silent(tenant: Tenant, start: Start, proxy: Proxy) -> None:
    one = start(proxy.url)
    proxy.always = delay(30)
    began = time.monotonic()
    assert one.end() == 0
    assert time.monotonic() - began < 4


def test_fork(tenant: Tenant, start: Start) -> None:
    one = start()
    assert one.ask("fork") == "child 0"
    assert one.ask("status") == f"active {one.session}"
    assert live(tenant) == [one.session]
    one.end()
    wait_until(lambda: live(tenant) == [])


def test_becoming_a_daemon(tenant: Tenant, start: Start) -> None:
    """The parent exits the moment it has forked; the child keeps the seat alive and gives it back."""
    one = start()
    one.tell("daemon")
    one.process.wait(10)
    time.sleep(TTL_SECONDS + 1)
    assert one.ask("status") == f"active {one.session}"
    one.tell("exit")
    wait_until(lambda: live(tenant) == [])


@pytest.mark.slow
def test_frozen_heartbeater_does_not_cost_the_others_the_seat(tenant: Tenant, start: Start) -> None:
    one, two = start(), start()
    one.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(TTL_SECONDS + 2)
        assert two.ask("status") == f"active {one.session}"
    finally:
        one.process.send_signal(signal.SIGCONT)
    wait_until(lambda: one.ask("status") == f"active {one.session}")


def test_two_clients_in_one_process(tenant: Tenant, home: Path) -> None:
    one, two = tenant.client(home), tenant.client(home)
    assert one.acquire().session_id == two.acquire().session_id
    assert one.release() is True
    assert two.heartbeat().state is State.ACTIVE
    two.release()
    wait_until(lambda: live(tenant) == [])


def test_users_of_one_machine_have_seats_of_their_own(tenant: Tenant, home: Path) -> None:
    one, two = tenant.client(home, "ada"), tenant.client(home, "bob")
    assert one.acquire().session_id != two.acquire().session_id
    one.release()
    assert two.heartbeat().state is State.ACTIVE


def test_exit_on_lost_ends_the_program(tenant: Tenant, home: Path) -> None:
    code = (
        "import signal, sys, time; from license_client import LicenseClient\n"
        # A shell's background jobs, and whatever they start, ignore SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "url, token, home = sys.argv[1:]\n"
        "with LicenseClient(url, token, home=home, hardware_id='machine-0001', exit_on_lost=True):\n"
        "    print('holds', flush=True)\n"
        "    try:\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('saved', flush=True)\n"
    )
    command = [sys.executable, "-c", code, tenant.server.url, tenant.token("ada"), str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    tenant.change(active=False)
    out, errors = process.communicate(timeout=20)
    assert out == "saved\n" and process.returncode != 0 and "KeyboardInterrupt" in errors

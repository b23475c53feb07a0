"""Configuration, clocks, files, retries and the thread: the parts that need no server."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import license_client
from license_client import ConfigurationError, HeartbeatThread, NoSeatsAvailable, clock, files
from license_client.api import problem
from license_client.clock import Moment
from license_client.config import load_settings, read_flat_table
from license_client.errors import ServiceUnavailable
from license_client.models import in_words, parse_time
from license_client.retry import Stopped, waiting_time, with_retries
from license_client.transport import Answer

from .support.engines import wait_until


def test_arguments_environment_file_defaults(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "config.toml").write_text(
        '[other]\napi_url = "https://wrong"\n[license]\napi_url = "https://file.example/"  # ours\n'
        "timeout_seconds = 4\nproduct = 'tool'\nkeyring = true\n"
    )
    assert load_settings().api_url == "https://file.example"
    assert load_settings().timeout_seconds == 4 and load_settings().keyring is True
    monkeypatch.setenv("CODITECT_API_URL", "https://environment.example")
    assert load_settings().api_url == "https://environment.example"
    assert load_settings(api_url="https://argument.example").api_url == "https://argument.example"
    assert load_settings().product == "tool" and load_settings().exit_seconds == 2


def test_the_small_toml_reader_agrees(home: Path) -> None:
    text = "[a]\nx=1\n[license] # c\na = \"b\" # c\nc = 'd'\ne = 4.5\n\n# f\ng = true\n[h]\ni = [1]\n"
    assert read_flat_table(text) == {"a": "b", "c": "d", "e": "4.5", "g": "true"}
    with pytest.raises(ConfigurationError, match="line 2"):
        read_flat_table("[license]\na = [1, 2]\n")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"api_url": "ftp://x"}, "api_url"),
        ({"api_url": "http://license.example"}, "api_url"),
        ({"timeout_seconds": "soon"}, "timeout_seconds"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"keyring": "perhaps"}, "keyring"),
        ({"oidc_token": "refresh_token"}, "oidc_token"),
        ({"product": 7}, "product"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        load_settings(**options)


def test_a_config_file_that_is_none(home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("[license\n")
    with pytest.raises(ConfigurationError, match=r"config\.toml"):
        load_settings()
    (home / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"config\.toml"):
        load_settings()


def test_http_elsewhere_if_one_insists() -> None:
    assert load_settings(api_url="http://license.internal", allow_http=True).api_url


def test_moments() -> None:
    then = Moment("b", 100.0, 1000.0)
    assert then.seconds_until(Moment("b", 160.0, 5000.0)) == 60
    assert then.strictest_seconds_until(Moment("b", 160.0, 5000.0)) == 4000
    assert then.seconds_until(Moment("c", 1.0, 1200.0)) == 200
    assert then.seconds_until(Moment(None, 1.0, 900.0)) == 0
    assert Moment.from_record(then.as_record()) == then
    assert not clock.rolled_back(1000.0, then, Moment("c", 1.0, 1000.0 - 299))
    assert clock.rolled_back(1000.0, then, Moment("c", 1.0, 1000.0 - 301))
    assert clock.rolled_back(1000.0, then, Moment("b", 1100.0, 1100.0 - 301)), "within one boot it knows better"


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    files.write_private(path, b"one", durable=True)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700

    def fail(*_: object) -> None:
        raise OSError("cut")

    monkeypatch.setattr("license_client.files.os.replace", fail)
    with pytest.raises(OSError, match="cut"):
        files.write_private(path, b"two")
    assert path.read_bytes() == b"one" and list(path.parent.iterdir()) == [path]


def test_locks_exclude_and_do_not_wait_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path, 0) as mine:
        assert mine
        began = time.monotonic()
        with files.locked(path, 0.2) as second:
            assert not second
        assert 0.2 <= time.monotonic() - began < 1
    with files.locked(path, 0) as again:
        assert again


def test_a_descriptor_that_became_another_file_is_left_alone(tmp_path: Path) -> None:
    fd = files.open_locked(tmp_path / "lock")
    assert fd is not None
    with (tmp_path / "other").open("w") as other:
        os.dup2(other.fileno(), fd)
        files.close_locked(fd)
        os.write(fd, b"still open")
        os.close(fd)


def test_retries() -> None:
    waits: list[float] = []
    outcomes: list[Any] = [ServiceUnavailable("a"), ServiceUnavailable("b", retry_after=3.0), "good"]

    def attempt(left: float) -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    def pause(seconds: float) -> bool:
        waits.append(seconds)
        return False

    assert with_retries(attempt, budget_seconds=60, pause=pause) == "good"
    assert 0.25 <= waits[0] <= 0.5 and 3.0 <= waits[1] <= 3.2
    assert [waiting_time(n, None) <= 0.5 * 2**n for n in range(4)] == [True] * 4

    def fail(left: float) -> str:
        raise ServiceUnavailable("x")

    with pytest.raises(Stopped):
        with_retries(fail, budget_seconds=60, pause=lambda s: True)


def test_the_thread_beats_stops_at_once_and_survives_errors() -> None:
    beats: list[float] = []
    late: list[float] = []

    def beat(pause: Any) -> float | None:
        beats.append(time.monotonic())
        if len(beats) == 1:
            return 0.05
        return 60

    thread = HeartbeatThread(beat, 0.01, overslept=late.append)
    thread.start()
    wait_until(lambda: len(beats) == 2)
    assert thread.daemon
    thread.hurry()
    wait_until(lambda: len(beats) == 3)
    said: list[str] = []
    began = time.monotonic()
    thread.stop(lambda: said.append("bye"))
    thread.join(5)
    assert time.monotonic() - began < 0.5 and said == ["bye"] and not late


def test_a_pause_inside_a_beat_ends_with_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    entered = threading.Event()
    result: list[bool] = []

    def beat(pause: Any) -> float | None:
        entered.set()
        result.append(pause(60))
        raise ValueError("unforeseen")

    def bye() -> None:
        raise ValueError("also this")

    thread = HeartbeatThread(beat, 0)
    thread.start()
    assert entered.wait(5)
    thread.stop(bye)
    thread.join(5)
    assert result == [True] and not thread.is_alive()
    assert len([r for r in caplog.records if r.exc_info]) == 2


def test_the_thread_notices_that_it_overslept(monkeypatch: pytest.MonkeyPatch) -> None:
    from license_client import heartbeat

    asleep = 0.0
    real = clock.monotonic
    monkeypatch.setattr(heartbeat, "monotonic", lambda: real() + asleep)
    monkeypatch.setattr(heartbeat, "SLICE_SECONDS", 0.1)
    late: list[float] = []
    beats: list[float] = []

    def beat(pause: Any) -> float | None:
        beats.append(real())
        return None

    thread = HeartbeatThread(beat, 3600, overslept=late.append)
    thread.start()
    time.sleep(0.05)
    asleep = 8 * 3600.0
    wait_until(lambda: beats, 5, "the beat after waking")
    assert late and late[0] > 8 * 3600 - 60


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", "InvalidRequest"),
        (401, "invalid_token", "AuthenticationError"),
        (403, "forbidden", "Forbidden"),
        (403, "user_mismatch", "UserMismatch"),
        (403, "license_inactive", "LicenseInactive"),
        (403, "license_expired", "LicenseExpired"),
        (403, "tenant_inactive", "TenantInactive"),
        (404, "license_not_found", "NotFound"),
        (404, "session_not_found", "NotFound"),
        (409, "no_seats_available", "NoSeatsAvailable"),
        (409, "conflict", "Conflict"),
        (410, "session_ended", "SessionEnded"),
        (413, "body_too_large", "InvalidRequest"),
        (429, "rate_limited", "RateLimited"),
        (500, "internal", "ServiceUnavailable"),
        (503, "unavailable", "ServiceUnavailable"),
        (404, None, "ProtocolError"),
        (403, None, "ProtocolError"),
        (302, None, "ProtocolError"),
    ],
)
def test_every_answer_has_its_type(status: int, code: str | None, kind: str) -> None:
    body = f'{{"code":"{code}","detail":"why","field":"f","reason":"expired","seats":{{"used":1,"total":2}}}}'
    error = problem(Answer(status, {"retry-after": "7", "x-request-id": "r"}, body.encode() if code else b"<html>"))
    assert type(error).__name__ == kind
    assert (error.status, error.code, error.request_id) == (status, code, "r")
    for name, value in (("retry_after", 7.0), ("field", "f"), ("reason", "expired"), ("used", 1), ("total", 2)):
        assert getattr(error, name, value) in (value, None)


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(NoSeatsAvailable("full", used=5, total=5, retry_after=2.0)))
    assert (error.used, error.total, error.retry_after) == (5, 5, 2.0)


def test_retry_after_as_a_date() -> None:
    from email.utils import formatdate

    wait = Answer(503, {"retry-after": formatdate(time.time() + 30, usegmt=True)}, b"").retry_after
    assert wait is not None and 28 < wait < 31
    assert Answer(503, {"retry-after": "soon"}, b"").retry_after is None


def test_times_and_words() -> None:
    assert parse_time("2026-01-02T03:04:05.678Z").timestamp() == pytest.approx(1767323045.678)
    for bad in ("2026-01-02T03:04:05", 7, "x"):
        with pytest.raises(ValueError):
            parse_time(bad)
    assert [in_words(s) for s in (86_340, 250, 20.9, -5)] == ["23 h 59 min", "4 min", "20 s", "0 s"]


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys; import license_client; from license_client import LicenseClient;"
        "heavy = {'urllib3', 'jwt', 'cryptography', 'http.server', 'ssl', 'argparse', 'tomllib'} & set(sys.modules);"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_exported_name_is_there() -> None:
    for name in license_client.__all__:
        assert getattr(license_client, name) is not None
    assert dir(license_client) == license_client.__all__
    with pytest.raises(AttributeError):
        license_client.unheard_of  # noqa: B018

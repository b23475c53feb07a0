"""`license-client` as a shell runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from license_client import __version__
from license_client.cli import main

from .support.engines import wait_until
from .support.openid import CLIENT, OpenId, browse
from .support.proxy import Proxy
from .support.server import Tenant


@pytest.fixture
def environment(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Tenant:
    monkeypatch.setenv("CODITECT_API_URL", tenant.server.url)
    monkeypatch.setenv("CODITECT_TOKEN", tenant.token("ada"))
    monkeypatch.setenv("CODITECT_HARDWARE_ID", "machine-0001")
    monkeypatch.setenv("CODITECT_ACQUIRE_SECONDS", "1")
    return tenant


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(arguments)
    return code, capsys.readouterr().out


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    _, text = run(capsys, "--json", *arguments)
    found: dict[str, Any] = json.loads(text)
    return found


def test_acquire_status_verify_release(environment: Tenant, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "status")[0] == 3
    held = run_json(capsys, "acquire")
    assert held["state"] == "active" and held["seats"] == "1/5"
    known = run_json(capsys, "status")
    assert known["session_id"] == held["session_id"] and known["valid"] and known["holders"] == 0
    code, text = run(capsys, "verify", "--offline")
    assert code == 0 and "hardware_id" in text and "machine-0001" in text
    assert run(capsys, "release")[0] == 0
    wait_until(lambda: environment.sessions() == [])
    assert run_json(capsys, "status")["state"] == "released"
    assert run(capsys, "release")[0] == 3


def test_hold_until_a_signal(environment: Tenant) -> None:
    command = [sys.executable, "-m", "license_client.cli", "--json", "acquire", "--hold"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["state"] == "active"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()
    wait_until(lambda: environment.sessions() == [])


def test_hold_ends_with_the_license(environment: Tenant) -> None:
    command = [sys.executable, "-m", "license_client.cli", "acquire", "--hold"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    environment.change(active=False)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 3 and "license lost" in errors


def test_exit_codes(
    environment: Tenant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    full = environment.server.tenant(seats=1)
    full.client(Path(os.environ["CODITECT_HOME"]) / "other").acquire()
    assert main(["--token", full.token("bob"), "acquire"]) == 3
    assert main(["--token", environment.token("ada", seconds=-3600), "acquire"]) == 4
    proxy.down()
    assert main(["--api-url", proxy.url, "acquire"]) == 5
    assert main(["--api-url", "ftp://x", "acquire"]) == 2
    assert main(["verify", "not-a-token"]) == 6
    assert main(["verify"]) == 3
    with pytest.raises(SystemExit) as usage:
        main(["unheard-of"])
    assert usage.value.code == 2
    with pytest.raises(SystemExit):
        main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_waiting(environment: Tenant, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    full = environment.server.tenant(seats=1)
    full.client(tmp_path / "other").acquire()
    assert main(["--token", full.token("bob"), "acquire", "--wait", "0.2"]) == 3
    assert "waiting" in capsys.readouterr().err


def test_fingerprint(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    code, text = run(capsys, "fingerprint")
    assert code == 0 and text.strip() == (home / "hardware_id").read_text().splitlines()[0]
    assert run_json(capsys, "fingerprint", "--parts")["hardware_id"] == text.strip()


def test_verify_from_standard_input(
    environment: Tenant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import io

    token = environment.client(tmp_path / "a", hardware_id="machine-0002").acquire().token
    monkeypatch.setattr(sys, "stdin", io.StringIO(token + "\n"))
    assert run(capsys, "verify", "-", "--any-machine")[0] == 0
    assert run(capsys, "verify", token)[0] == 6


def test_keys_to_bundle(environment: Tenant, capsys: pytest.CaptureFixture[str], home: Path, proxy: Proxy) -> None:
    """What `keys` prints lets a machine without cache and network verify."""
    code, text = run(capsys, "keys")
    assert code == 0
    token = environment.client(home / "a").acquire().token
    bundled = home / "bundled.json"
    bundled.write_text(text)
    os.environ["CODITECT_BUNDLED_KEYS"] = str(bundled)
    try:
        assert main(["--home", str(home / "fresh"), "verify", "--offline", token]) == 0
    finally:
        del os.environ["CODITECT_BUNDLED_KEYS"]
    assert run(capsys, "--home", str(home / "fresh"), "verify", "--offline", token)[0] == 6
    proxy.down()
    assert run(capsys, "--api-url", proxy.url, "keys")[0] == 5


def test_login(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from license_client import signin

    openid = OpenId()
    monkeypatch.setenv("CODITECT_OIDC_ISSUER", openid.url)
    monkeypatch.setenv("CODITECT_OIDC_CLIENT_ID", CLIENT)
    original = signin.login

    def with_browser(*args: Any, show: Any, **options: Any) -> Any:
        def also(line: str) -> None:
            show(line)
            threading.Thread(target=browse, args=(line.split(" ", 3)[-1],)).start()

        return original(*args, show=also, **options)

    monkeypatch.setattr(signin, "login", with_browser)
    code, text = run(capsys, "login", "--no-browser")
    assert code == 0 and text.strip() == "signed in as ada"
    openid.stop()


def test_the_example(environment: Tenant) -> None:
    example = Path(__file__).parents[1] / "examples" / "coditect.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "License active: fine\n", "")
    assert environment.sessions() == []

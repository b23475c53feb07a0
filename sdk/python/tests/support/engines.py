"""A private Postgres and Redis for one test run: own folder, own ports, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], object], seconds: float = 20.0, what: str = "it") -> None:
    """Poll until `true()` is; AssertionError after `seconds`."""
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Engines:
    """Postgres with a database `license` owned by `owner` (CREATEROLE, no superuser), and Redis."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lc-"))
        self.folder.chmod(0o755)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._account = _account()
        self.postgres_port, self.redis_port = free_port(), free_port()
        self._start_redis()
        self._start_postgres()

    @property
    def database_url(self) -> str:
        return f"postgres://owner@127.0.0.1:{self.postgres_port}/license"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}"

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGQUIT)  # Postgres's immediate stop; its data go away anyway
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_redis(self) -> None:
        command = ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", ""]
        self._spawn([*command, "--maxmemory-policy", "noeviction", "--dir", str(self.folder)], {})
        wait_until(lambda: answers(self.redis_port), what="redis-server's start")

    def _start_postgres(self) -> None:
        tools = _postgres_tools()
        data = self.folder / "pg"
        data.mkdir()
        if self._account:
            shutil.chown(data, self._account.pw_uid, self._account.pw_gid)
        run = {"check": True, "stdout": subprocess.DEVNULL, **self._as_account()}
        initdb = [str(tools / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([*initdb, "--locale=C"], **run)  # type: ignore[call-overload]
        settings = {
            "port": self.postgres_port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": 200,
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._spawn([str(tools / "postgres"), "-D", str(data), *flags], self._as_account())
        psql = [str(tools / "psql"), "-qX", "-h", "127.0.0.1", "-p", str(self.postgres_port), "-U", "postgres"]
        wait_until(lambda: subprocess.run([*psql, "-c", "select 1"], capture_output=True).returncode == 0)
        for line in ("create role owner login createrole", "create database license owner owner"):
            subprocess.run([*psql, "-c", line], check=True)

    def _spawn(self, command: list[str], extra: dict[str, object]) -> None:
        log = (self.folder / f"{Path(command[0]).name}.log").open("wb")
        self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **extra))  # type: ignore[call-overload]

    def _as_account(self) -> dict[str, object]:
        """Postgres refuses to be root."""
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _postgres_tools() -> Path:
    """Where initdb is: not on PATH on Debian."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if shutil.which("pg_config"):
        asked = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True)
        folders.append(Path(asked.stdout.strip()))
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError("the tests need Postgres and Redis: apt install postgresql redis-server")

"""Postgres and Redis, as a drill needs them: with an archive, with a standby, killed, restored."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from .processes import Process, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]


def programs() -> tuple[Path, Path]:
    """Where `engines` finds Postgres' programs and Redis."""
    said = subprocess.run([ROOT / "target/debug/engines", "check"], capture_output=True, text=True, check=False).stdout
    found = dict(re.findall(r"^(\w+): \S+ in (.+)$", said, flags=re.M))
    if {"postgres", "redis"} - set(found):
        raise SystemExit(f"drills: {said.strip() or 'engines check failed'}")
    return Path(found["postgres"]), Path(found["redis"])


class Postgres:
    """One server on a port of 127.0.0.1: superuser `postgres`, owner `license_owner`, service login `license_api`."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.bin, _ = programs()
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on",
            **settings,
        }
        self.process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.give(folder)

    def give(self, path: Path) -> None:
        # Postgres refuses to run as root.
        if os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")

    def command(self, program: str, *words: str) -> list[str]:
        drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        return [*drop, str(self.bin / program), *words]

    def run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            self.command(program, *words), capture_output=True, text=True, cwd=self.folder, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.strip()}")
        return done.stdout

    def initdb(self) -> None:
        self.run(
            "initdb",
            "--pgdata",
            str(self.data),
            "--username=postgres",
            "--auth=trust",
            "--locale=C",
            "--encoding=UTF8",
            "--no-sync",
        )

    def start(self, *, wait: bool = True) -> None:
        words = ["-D", str(self.data), "-p", str(self.port)]
        for name, value in self.settings.items():
            words += ["-c", f"{name}={value}"]
        self.process = Process(self.command("postgres", *words), self.folder / "postgres.log")
        if wait:
            self.wait()

    def wait(self, seconds: float = 60) -> None:
        def answers() -> bool:
            if self.process and not self.process.runs:
                raise RuntimeError(f"Postgres ended:\n{self.process.last_lines()}")
            return (
                subprocess.run(
                    self.command("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)),
                    check=False,
                    cwd=self.folder,
                ).returncode
                == 0
            )

        wait_until(answers, "Postgres answers", seconds)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        if self.process:
            self.process.end(how, 20)

    def kill(self) -> None:
        if self.process:
            self.process.kill()

    def url(self, user: str = "postgres", database: str = "license") -> str:
        return f"postgres://{user}@127.0.0.1:{self.port}/{database}"

    def ask(self, sql: str, database: str = "license", user: str = "postgres") -> str:
        """Rows as psql prints them, unaligned."""
        return self.run(
            "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, self.url(user, database)
        ).strip()

    def prepare(self, program: Path) -> None:
        """An empty database with its roles and schema, in the order that infra/README.md gives."""
        env = {
            **os.environ,
            "OWNER_PASSWORD": "owner",
            "SERVICE_PASSWORD": "service",
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }
        server = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres"}
        subprocess.run([ROOT / "infra/sql/owner.sh"], check=True, env={**env, **server}, capture_output=True)
        subprocess.run(
            [program, "migrate"],
            check=True,
            env={**env, "DATABASE_URL": self.url("license_owner")},
            capture_output=True,
        )
        login = ["psql", "-X", "-q", self.url("license_owner"), f"--file={ROOT / 'infra/sql/service-login.sql'}"]
        subprocess.run(login, check=True, env=env, capture_output=True)


class Redis:
    """One server without persistence, as the gate needs it."""

    def __init__(self, folder: Path) -> None:
        _, self.program = programs()
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        words = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory-policy",
            "noeviction",
            "--dir",
            str(self.folder),
        ]
        self.process = Process([str(self.program), *words], self.folder / "redis.log")

    def kill(self) -> None:
        if self.process:
            self.process.kill()

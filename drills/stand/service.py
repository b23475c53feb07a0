"""Replicas of the service, and what asks them."""

import http.client
import json
import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .engines import ROOT, Postgres, Redis
from .google import AUDIENCE, KEY, Issuer, Kms
from .processes import Process, free_port, wait_until

PROGRAM = Path(os.environ.get("CODITECT_LICENSE_BIN", ROOT / "target/debug/coditect-license"))


class Replica:
    """One `serve`."""

    def __init__(self, folder: Path, number: int, env: dict[str, str], program: Path) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.program = program
        self.env = {**env, "LISTEN_ADDR": f"127.0.0.1:{self.port}", "METRICS_ADDR": f"127.0.0.1:{self.metrics_port}"}
        self.log = folder / f"serve-{number}.log"
        self.process: Process | None = None

    def start(self, *, wait: bool = True) -> None:
        self.process = Process([str(self.program), "serve"], self.log, self.env)
        if wait:
            self.wait()

    def is_ready(self) -> bool:
        if self.process and not self.process.runs:
            raise RuntimeError(f"serve ended:\n{self.process.last_lines()}")
        try:
            return call(self.url, "GET", "/ready")[0] == 200
        except OSError:
            return False

    def wait(self, seconds: float = 30) -> None:
        wait_until(self.is_ready, "a replica is ready", seconds)

    def stop(self) -> int:
        """SIGTERM, as Kubernetes does; answers the exit code."""
        return self.process.end(signal.SIGTERM) if self.process else 0

    def kill(self) -> None:
        if self.process:
            self.process.kill()


class Service:
    """Postgres, Redis, issuer, KMS and replicas, ready for clients."""

    def __init__(
        self, folder: Path, postgres: Postgres, *, replicas: int = 2, program: Path = PROGRAM, **settings: str
    ) -> None:
        if not program.is_file():
            raise SystemExit(f"drills: no {program}: cargo build -p api -p engines --bins")
        self.folder = folder
        self.postgres = postgres
        self.redis = Redis(folder / "redis")
        self.issuer = Issuer()
        self.kms = Kms()
        self.redis.start()
        self.program = program
        self.settings = {
            "REDIS_URL": self.redis.url,
            "OIDC_ISSUER": self.issuer.url,
            "OIDC_AUDIENCE": AUDIENCE,
            "SIGNER": "kms",
            "KMS_KEY": KEY,
            "KMS_ENDPOINT": self.kms.url,
            "RUST_LOG": "warn",
            "RATE_LIMIT_PER_USER_PER_MINUTE": "0",
            "RATE_LIMIT_PER_TENANT_PER_SECOND": "0",
            "SHUTDOWN_GRACE_SECONDS": "10",
            **settings,
        }
        self.replicas = [self.replica(number, postgres) for number in range(replicas)]
        for replica in self.replicas:
            replica.start(wait=False)
        for replica in self.replicas:
            replica.wait()

    def replica(self, number: int, postgres: Postgres, program: Path | None = None) -> Replica:
        env = {**self.settings, "DATABASE_URL": postgres.url("license_api")}
        return Replica(self.folder, number, env, program or self.program)

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    def admin(self, method: str, path: str, body: Any = None, url: str | None = None) -> Any:
        token = self.issuer.token("platform", roles=["platform_admin"])
        status, answer = call(url or self.urls[0], method, path, body, token)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer

    def command(self, *words: str) -> str:
        """Another subcommand with the settings of `serve`; answers what it prints."""
        env = {**os.environ, **self.settings, "DATABASE_URL": self.postgres.url("license_api"), "KEYS_BY": "drill"}
        done = subprocess.run([self.program, *words], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def tenant(self, seats: int) -> str:
        name = uuid.uuid4().hex[:12]
        body = {"name": name, "subdomain": f"t-{name}", "plan": "team", "max_seats": seats}
        return str(self.admin("POST", "/api/v1/tenants", body)["id"])


def call(
    url: str,
    method: str,
    path: str,
    body: Any = None,
    token: str | None = None,
    key: str | None = None,
    seconds: float = 5,
) -> tuple[int, Any]:
    """One request on a connection of its own: status and JSON."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if key:
        headers["Idempotency-Key"] = key
    connection = http.client.HTTPConnection(urlparse(url).netloc, timeout=seconds)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no whole answer: {error}") from error
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text or b"null")
    except ValueError:
        return answer.status, text.decode(errors="replace")

"""The real license server, as a process that tests may stop, kill, freeze and restart on the same address."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from license_client import LicenseClient

from .engines import Engines, answers, free_port, wait_until
from .issuer import AUDIENCE, Issuer

HTTP = urllib3.PoolManager()


def binary() -> str:
    """`CODITECT_LICENSE_BIN`, else what cargo built in this repository."""
    chosen = os.environ.get("CODITECT_LICENSE_BIN")
    if chosen:
        return chosen
    root = Path(__file__).resolve().parents[4]
    built = [root / "target" / profile / "coditect-license" for profile in ("release", "debug")]
    present = [path for path in built if path.exists()]
    if not present:
        raise RuntimeError("build the server first (cargo build --bin coditect-license) or set CODITECT_LICENSE_BIN")
    return str(max(present, key=lambda path: path.stat().st_mtime))


@dataclass
class Tenant:
    """A customer with seats, and clients that act for its users."""

    server: LicenseServer
    id: str
    license_id: str

    def token(self, user: str, **more: Any) -> str:
        return self.server.issuer.token(user, self.id, **more)

    def client(self, home: Path | None, user: str = "ada", **options: Any) -> LicenseClient:
        options.setdefault("api_url", self.server.url)
        options.setdefault("token_provider", lambda: self.token(user))
        options.setdefault("hardware_id", "machine-0001")
        return LicenseClient(home=home, **options)

    def change(self, **fields: Any) -> None:
        self.server.admin("PUT", f"/api/v1/tenants/{self.id}/licenses/{self.license_id}", fields)

    def sessions(self) -> list[dict[str, Any]]:
        """The sessions that live by the event log: `session_id`, `user_id`, `machine_name` each."""
        live: dict[str, dict[str, Any]] = {}
        after: str | None = ""
        while after is not None:
            query = f"limit=1000&after={after}" if after else "limit=1000"
            page = self.server.admin("GET", f"/api/v1/tenants/{self.id}/events?{query}")
            for event in page["items"]:
                if event["type"] == "seat_acquired":
                    named = event["data"].get("machine_name")
                    live[event["session_id"]] = {**event, "machine_name": named}
                elif event["type"] in ("seat_released", "seat_expired", "seat_revoked"):
                    live.pop(event["session_id"], None)
            after = page["next"]
        return list(live.values())

    def end(self, session_id: str, user: str = "ada") -> None:
        """End a session behind its client's back."""
        self.server.post("release", {"session_id": session_id}, self.token(user))


class LicenseServer:
    """`coditect-license serve` beside `engines`, trusting `issuer`."""

    def __init__(self, engines: Engines, issuer: Issuer, key_file: Path, **variables: object) -> None:
        self.engines, self.issuer = engines, issuer
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "LISTEN_ADDR": f"127.0.0.1:{self.port}",
            "METRICS_ADDR": f"127.0.0.1:{free_port()}",
            "DATABASE_URL": engines.database_url,
            "REDIS_URL": engines.redis_url,
            "OIDC_ISSUER": issuer.url,
            "OIDC_AUDIENCE": AUDIENCE,
            "OIDC_JWKS_URL": f"{issuer.url}/jwks",
            "SIGNER": "local",
            "SIGNING_KEY_FILE": str(key_file),
            "SHUTDOWN_GRACE_SECONDS": "2",
            "RATE_LIMIT_PER_USER_PER_MINUTE": "0",
            "RATE_LIMIT_PER_TENANT_PER_SECOND": "0",
            "RUST_LOG": os.environ.get("TEST_SERVER_LOG", "warn"),
            **{name: str(value) for name, value in variables.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def migrate(self) -> None:
        subprocess.run([binary(), "migrate"], env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        log = (self.engines.folder / f"server-{self.port}.log").open("ab")
        self.process = subprocess.Popen([binary(), "serve"], env=self.environment, stdout=log, stderr=log)
        wait_until(self.ready, 30, "the server's start")

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.engines.folder / f"server-{self.port}.log").read_text()[-2000:]
        return answers(self.port) and HTTP.request("GET", f"{self.url}/ready", retries=False).status == 200

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {
            "Authorization": f"Bearer {self.issuer.token('root', roles=('platform_admin',))}",
            "Content-Type": "application/json",
        }
        sent = json.dumps(body) if body is not None else None
        answer = HTTP.request(method, self.url + path, headers=headers, body=sent, retries=False)
        assert answer.status < 300, (answer.status, answer.data)
        return answer.json() if answer.data else None

    def post(self, act: str, body: dict[str, Any], token: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        url = f"{self.url}/api/v1/licenses/{act}"
        answer = HTTP.request("POST", url, headers=headers, body=json.dumps(body), retries=False)
        assert answer.status == 200, answer.data

    def tenant(self, seats: int = 5) -> Tenant:
        name = f"t{uuid.uuid4().hex[:12]}"
        body = {"name": name, "subdomain": name, "plan": "pro", "max_seats": seats}
        made = self.admin("POST", "/api/v1/tenants", body)
        return Tenant(self, made["id"], made["license_id"])

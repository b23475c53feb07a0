"""Clients that behave like CODITECT: acquire, heartbeats, release, again; what fails is repeated with the same key.

They keep what they were told, so that a drill can compare it with the log, and they verify each license token offline with the keys
they fetched at most `KEYS_FOR` ago.
"""

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt

from .google import Issuer
from .service import call

KEYS_FOR = 5.0


@dataclass
class Seen:
    """What all clients together were told."""

    granted: dict[str, str] = field(default_factory=dict)  # session -> client
    released: set[str] = field(default_factory=set)
    ended: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    longest_wait: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Clients:
    def __init__(
        self,
        urls: Callable[[], list[str]],
        issuer: Issuer,
        tenant: str,
        count: int,
        *,
        pause: float = 0.05,
        hold: int = 4,
        patience: float = 30,
        refetch: bool = True,
    ) -> None:
        self.urls = urls
        self.issuer = issuer
        self.tenant = tenant
        self.pause = pause
        self.hold = hold
        self.patience = patience
        self.refetch = refetch
        self.seen = Seen()
        self._keys: tuple[float, dict[str, Any]] = (0.0, {})
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(count)]

    def start(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> Seen:
        self._stop.set()
        for thread in self._threads:
            thread.join(self.patience + 10)
        return self.seen

    def __enter__(self) -> "Clients":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self, path: str, body: Any, token: str, key: str | None = None) -> tuple[int, Any]:
        """As the SDK does: another replica, the same request, until there is an answer that is one."""
        begun = time.monotonic()
        while True:
            for url in random.sample(self.urls(), len(self.urls())):
                try:
                    status, answer = call(url, "POST", f"/api/v1/licenses/{path}", body, token, key)
                except OSError:
                    self._count("no answer")
                    continue
                self._count(f"{path} {status}")
                if status < 500 and status != 429:
                    with self.seen.lock:
                        self.seen.longest_wait = max(self.seen.longest_wait, time.monotonic() - begun)
                    return status, answer
            if time.monotonic() - begun > self.patience:
                self._count("gave up")
                return 0, None
            time.sleep(0.1 + random.random() * 0.2)

    def _count(self, what: str) -> None:
        with self.seen.lock:
            self.seen.counts[what] += 1

    def _work(self, number: int) -> None:
        name = f"client-{number}"
        token = self.issuer.token(name, tenant_id=self.tenant)
        while not self._stop.is_set():
            key = uuid.uuid4().hex
            status, grant = self._ask("acquire", {"hardware_id": f"machine-of-{name}"}, token, key)
            if status != 200:
                self._refused("acquire", status, grant)
                continue
            session = grant["session_id"]
            with self.seen.lock:
                self.seen.granted[session] = name
            self._verify(grant["license_token"])
            for _ in range(self.hold):
                if self._stop.wait(self.pause):
                    break
                status, answer = self._ask("heartbeat", {"session_id": session}, token)
                if status == 410:
                    with self.seen.lock:
                        self.seen.ended[answer.get("reason", "?")] += 1
                    break
                self._refused("heartbeat", status, answer)
            # Whoever is stopped keeps the seat: somebody looks at it afterwards.
            if self._stop.is_set():
                return
            status, answer = self._ask("release", {"session_id": session}, token)
            if status == 200:
                with self.seen.lock:
                    self.seen.released.add(session)
            self._refused("release", status, answer)

    def _refused(self, what: str, status: int, answer: Any) -> None:
        if status not in (0, 200):
            with self.seen.lock:
                self.seen.refused.append(f"{what}: {status} {answer}")

    def _verify(self, token: str) -> None:
        try:
            kid = jwt.get_unverified_header(token)["kid"]
            # A key that is not known yet is asked for, as every JOSE library does.
            keys = self._public_keys()
            if kid not in keys and self.refetch:
                keys = self._public_keys(fresh=True)
            key = keys[kid]
            jwt.decode(token, key, algorithms=["RS256"], audience="coditect")
            self._count("verified")
        except Exception as error:  # noqa: BLE001 - whatever it is, this client could not use its token
            with self.seen.lock:
                self.seen.unverified.append(f"{type(error).__name__}: {error}")

    def _public_keys(self, *, fresh: bool = False) -> dict[str, Any]:
        at, keys = self._keys
        if not fresh and time.monotonic() - at < KEYS_FOR:
            return keys
        for url in self.urls():
            try:
                status, answer = call(url, "GET", "/.well-known/jwks.json")
            except OSError:
                continue
            if status == 200:
                keys = {one["kid"]: jwt.PyJWK(one).key for one in answer["keys"]}
                self._keys = (time.monotonic(), keys)
                break
        return keys

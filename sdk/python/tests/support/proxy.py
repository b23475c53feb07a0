"""An HTTP proxy in front of the server that spoils single answers: cuts, delays, swallows, makes up others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread

from .engines import free_port


@dataclass
class Seen:
    """One request that came by."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Fault = Callable[["Passage"], bool]
"""Acts on a request; True if it was dealt with."""


@dataclass
class Passage:
    """A request in the proxy's hands."""

    handler: BaseHTTPRequestHandler
    seen: Seen
    proxy: Proxy

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.handler.send_response_only(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def forward(self) -> tuple[int, dict[str, str], bytes]:
        upstream = HTTPConnection("127.0.0.1", self.proxy.target_port, timeout=20)
        try:
            kept = {name: value for name, value in self.seen.headers.items() if name.lower() != "connection"}
            upstream.request(self.seen.method, self.seen.path, self.seen.body, kept)
            answer = upstream.getresponse()
            dropped = ("transfer-encoding", "connection", "content-length")
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in dropped}
            return answer.status, headers, answer.read()
        finally:
            upstream.close()


@dataclass
class Proxy:
    """Listens on `url`. `faults` are used up in order, one a request that `applies`; then all passes."""

    target_port: int
    port: int = field(default_factory=free_port)
    seen: list[Seen] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    applies: Callable[[Seen], bool] = lambda seen: seen.method == "POST"
    always: Fault | None = None

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"
        self._guard = Lock()
        self.opened = Event()
        self.opened.set()
        self.up()

    def up(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                seen = Seen(self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
                proxy._treat(Passage(self, seen, proxy))

            do_GET = do_POST = _pass

            def log_message(self, format: str, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None: ...

        self._server = Server(("127.0.0.1", self.port), Handler)
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.always = None

    def down(self) -> None:
        """The network is gone: connections are refused, open ones are cut at their next request."""
        self.always = cut
        self._server.shutdown()
        self._server.server_close()

    def count(self, act: str) -> int:
        return sum(seen.path.endswith(act) for seen in self.seen)

    def _treat(self, passage: Passage) -> None:
        with self._guard:
            self.seen.append(passage.seen)
            fault = self.always
            if fault is None and self.faults and self.applies(passage.seen):
                fault = self.faults.pop(0)
        if fault is not None and fault(passage):
            return
        try:
            answer = passage.forward()
        except OSError:
            cut(passage)
            return
        passage.reply(*answer)


def cut(passage: Passage) -> bool:
    """Close the connection without an answer, the server never hears of it."""
    passage.handler.close_connection = True
    return True


def swallow(passage: Passage) -> bool:
    """The server does it, its answer is lost."""
    passage.forward()
    return cut(passage)


def delay(seconds: float) -> Fault:
    def fault(passage: Passage) -> bool:
        time.sleep(seconds)
        return False

    return fault


def answer(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer in the server's place; `retry_after="1"` becomes `Retry-After: 1`."""

    def fault(passage: Passage) -> bool:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        passage.reply(status, named, body)
        return True

    return fault


def problem(status: int, code: str, **headers: str) -> Fault:
    body = f'{{"type":"about:blank","title":"{code}","status":{status},"code":"{code}"}}'.encode()
    return answer(status, body, content_type="application/problem+json", **headers)

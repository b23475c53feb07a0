"""HTTP, and nothing else: one request, one answer, every failure one of our types.

No retries and no redirects here: who retries must know what it repeats. The pool is thrown away after a fork
(two processes must not share a connection).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ._version import __version__
from .bounded import Call, StillRunning
from .config import is_loopback
from .errors import ProtocolError, ServerUnreachable

if TYPE_CHECKING:
    import urllib3

MAX_ANSWER_BYTES = 1 << 20
_CONNECT_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    """What came back. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. ProtocolError if it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ProtocolError(f"the server answered {self.status} without a JSON object", status=self.status)
        return value

    @property
    def retry_after(self) -> float | None:
        """`Retry-After` in seconds, given as a number or as a date."""
        text = self.headers.get("retry-after", "").strip()
        if not text:
            return None
        if text.isdigit():
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (TypeError, ValueError):
            return None


class Transport:
    """A pool of connections to one host, honouring HTTPS_PROXY and NO_PROXY (never for this machine itself)."""

    def __init__(self, base_url: str, timeout_seconds: float) -> None:
        self.base_url = base_url
        self.timeout_seconds = timeout_seconds
        self._pool: urllib3.PoolManager | None = None
        self._resolved: str | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Send and wait for the whole answer, for at most `timeout_seconds`: an answer that drips is none.

        ServerUnreachable if none comes; whatever status comes is an answer.
        """
        import urllib3  # noqa: F401 - the library's own loading does not count as waiting

        limit = min(timeout_seconds or self.timeout_seconds, self.timeout_seconds)
        give_up = time.monotonic() + limit
        url = path if "://" in path else self.base_url + path
        self._resolve(url, min(limit, _CONNECT_SECONDS))
        left = max(0.05, give_up - time.monotonic())
        sent = {"User-Agent": f"license-client/{__version__}", "Accept": "application/json", **(headers or {})}
        try:
            return Call(lambda: self._exchange(method, url, sent, body, left), "license-request").wait(left + 0.05)
        except StillRunning:
            self._resolved = None
            raise ServerUnreachable(f"{urlsplit(url).netloc} does not answer within {limit:.0f} s") from None

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, limit: float) -> Answer:
        """One request. `limit` is for connecting and for each piece that comes; the caller bounds the whole."""
        import urllib3

        try:
            reply = self._connections().request(
                method,
                url,
                headers=headers,
                body=body,
                timeout=urllib3.Timeout(connect=min(limit, _CONNECT_SECONDS), read=limit, total=limit),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                content = reply.read(MAX_ANSWER_BYTES + 1, decode_content=True)
                if len(content) > MAX_ANSWER_BYTES:
                    reply.close()
                    raise ProtocolError("the server's answer is over 1 MiB", status=reply.status)
                reply.drain_conn()
            finally:
                reply.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._resolved = None
            raise ServerUnreachable(f"{urlsplit(url).netloc} does not answer: {_reason(error)}") from error
        return Answer(reply.status, {name.lower(): value for name, value in reply.headers.items()}, content)

    def forget(self) -> None:
        """Drop all connections without touching them: after a fork they are the parent's."""
        self._pool = None

    def _resolve(self, url: str, seconds: float) -> None:
        """Look the name up before the first request and after a failure, for a bounded time.

        No timeout reaches the system's resolver, which may take half a minute when its server is gone. The
        connection then asks again, and the system remembers.
        """
        host = urlsplit(url).hostname or ""
        if host == self._resolved or is_loopback(host) or _proxy_for(url) is not None:
            return
        try:
            Call(lambda: socket.getaddrinfo(host, None), "license-dns").wait(seconds)
        except StillRunning:
            raise ServerUnreachable(f"no address for {host} within {seconds:.0f} s") from None
        except (OSError, UnicodeError) as error:
            raise ServerUnreachable(f"no address for {host}: {error}") from error
        self._resolved = host

    def _connections(self) -> urllib3.PoolManager:
        pool = self._pool
        if pool is None:
            pool = self._pool = _make_pool(self.base_url)
        return pool


def _make_pool(url: str) -> urllib3.PoolManager:
    import urllib3

    proxy = _proxy_for(url)
    if proxy is not None:
        return urllib3.ProxyManager(proxy, num_pools=2, maxsize=2)
    return urllib3.PoolManager(num_pools=2, maxsize=2)


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment or the system names for this address."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = None if is_loopback(host) else getproxies().get(parts.scheme)
    return proxy if proxy and not proxy_bypass(host) else None


def _reason(error: BaseException) -> str:
    """The innermost cause, without the library's wrapping."""
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    return text.rsplit("): ", 1)[-1]

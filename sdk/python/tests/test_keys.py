"""The cache of published keys: an hour, ETag, one look at a time, stale while the server is away."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from license_client import clock, keys
from license_client.keys import KeyStore
from license_client.seal import SealedFile
from license_client.transport import Transport

from .support.proxy import Passage, Proxy, answer
from .support.server import Tenant


@pytest.fixture
def cache(tmp_path: Path) -> SealedFile:
    return SealedFile(tmp_path / "keys", b"key")


@pytest.fixture
def kid(tenant: Tenant) -> str:
    """What the server signs with."""
    answer = Transport(tenant.server.url, 5).request("GET", "/api/v1/public-key")
    found = answer.json()["kid"]
    assert isinstance(found, str)
    return found


def store(proxy: Proxy, cache: SealedFile) -> KeyStore:
    proxy.applies = lambda seen: True
    return KeyStore(Transport(proxy.url, 5), cache)


def with_etag(passage: Passage) -> bool:
    """As a cache in front of the server would, whether or not the server has an ETag of its own."""
    status, headers, body = passage.forward()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {**{name: value for name, value in headers.items() if name.lower() != "etag"}, "ETag": tag}
    same = passage.seen.headers.get("If-None-Match") == tag
    passage.reply(304 if same else status, headers, b"" if same else body)
    return True


def test_asked_once_an_hour_and_then_by_etag(
    kid: str, proxy: Proxy, cache: SealedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.always = with_etag
    first = store(proxy, cache)
    assert len(first.candidates(kid)) == 1
    assert len(first.candidates(kid)) == 1
    second = store(proxy, cache)
    assert len(second.candidates(kid)) == 1
    assert len(proxy.seen) == 1, "the second start finds the first one's file"

    real = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: real + keys.FRESH_SECONDS + 1)
    assert len(second.candidates(kid)) == 1
    assert len(proxy.seen) == 2 and proxy.seen[1].headers["If-None-Match"]
    assert len(second.candidates(kid)) == 1
    assert len(proxy.seen) == 2, "304 makes it fresh for another hour"


def test_unknown_key_is_looked_for_at_most_every_half_minute(kid: str, proxy: Proxy, cache: SealedFile) -> None:
    found = store(proxy, cache)
    for _ in range(5):
        assert found.candidates("unheard-of") == []
    assert len(proxy.seen) == 1


def test_goes_on_with_what_it_has(kid: str, proxy: Proxy, cache: SealedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    store(proxy, cache).candidates(kid)
    real = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: real + 100 * keys.FRESH_SECONDS)
    for fault in (answer(503), answer(200, b"[]"), answer(200, b'{"keys":7}')):
        late = store(proxy, cache)
        proxy.faults = [fault]
        assert len(late.candidates(kid)) == 1
    proxy.down()
    assert len(store(proxy, cache).candidates(kid)) == 1


def test_a_cache_that_was_edited_is_not_used(kid: str, proxy: Proxy, cache: SealedFile) -> None:
    store(proxy, cache).candidates(kid)
    cache.path.write_text(cache.path.read_text().replace("RS256", "RS255"))
    proxy.down()
    assert store(proxy, cache).candidates(kid) == []

"""Batch tokens: the published vectors, tokens signed here, and whatever else is thrown at the reader."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from license_client import HardwareMismatch, InvalidLicenseToken, TokenExpired, TokenVerifier, UnknownKey
from license_client.batch_token import is_batch_token, read_batch_token
from license_client.keys import KeyStore

from .support.engines import Engines
from .support.issuer import Issuer, public_jwk, rsa_key
from .support.server import LicenseServer
from .test_verify import NOW, claims, signed

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "docs" / "token-format-vectors.json").read_text("utf-8")
)
SIGNED_AT: int = VECTORS["good"][0]["signed_at"]
GOOD: list[str] = [token for batch in VECTORS["good"] for token in batch["tokens"]]
ISSUER = "https://auth.coditect.ai"
KEY = rsa_key("license")


def with_keys(tmp_path: Path, *keys: dict[str, Any]) -> TokenVerifier:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": keys}))
    return TokenVerifier(KeyStore(bundled=str(path)))


@pytest.fixture
def verifier(tmp_path: Path) -> TokenVerifier:
    """With the vectors' key alone: nothing is asked of any network."""
    return with_keys(tmp_path, VECTORS["jwk"])


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def alone(
    payload: Any = None, *, signed_at: int = NOW, kid: bytes = b"k1", key: Any = KEY, issuer: str = ISSUER
) -> str:
    """A batch of one, made here: nothing of the client's own code takes part."""
    body = json.dumps(claims() if payload is None else payload).encode()
    root = hashlib.sha256(b"\x00" + body).digest()
    named = bytes([len(kid)]) + kid + struct.pack(">H", len(issuer)) + issuer.encode()
    fields = struct.pack(">QI", signed_at, 1) + root + named
    statement = b" " * 64 + b"coditect-license batch token\x00\x01" + fields
    proof = struct.pack(">QIIB", signed_at, 1, 0, len(kid)) + kid
    return ".".join(["clb1", text(body), text(proof), text(key.sign(statement, PKCS1v15(), SHA256()))])


def test_good_vectors(verifier: TokenVerifier) -> None:
    for batch in VECTORS["good"]:
        for index, token in enumerate(batch["tokens"]):
            found = verifier.verify(token, now=SIGNED_AT)
            assert (found.user_id, found.features) == (f"user-{index}", ("agents", "ü"))
            read = read_batch_token(token)
            assert read.statement(VECTORS["issuer"]).hex() == batch["statement"]
            assert (read.index, read.size, read.payload.decode()) == (index, batch["size"], batch["payloads"][index])


@pytest.mark.parametrize("bad", VECTORS["bad"], ids=lambda bad: bad["why"])
def test_bad_vectors(verifier: TokenVerifier, bad: dict[str, str]) -> None:
    with pytest.raises(InvalidLicenseToken):
        verifier.verify(bad["token"], now=SIGNED_AT)


def test_claims_are_judged_as_those_of_a_jwt(tmp_path: Path) -> None:
    verifier = with_keys(tmp_path, public_jwk(KEY, "k1"))
    wanted: dict[str, Any] = {"hardware_id": "machine-0001", "product": "coditect", "user_id": "ada", "session_id": "s"}
    assert verifier.verify(alone(), **wanted) == verifier.verify(signed(), **wanted)
    assert verifier.verify_fresh(alone()).user_id == "ada"
    with pytest.raises(HardwareMismatch):
        verifier.verify(alone(), hardware_id="machine-0002")
    verifier.verify(alone(), now=NOW + 86_400 + 29)
    with pytest.raises(TokenExpired):
        verifier.verify(alone(), now=NOW + 86_400 + 31)
    with pytest.raises(UnknownKey, match="'k9'"):
        verifier.verify(alone(kid=b"k9"))


@pytest.mark.parametrize(
    "token",
    [
        alone(claims(iss="https://evil.example")),
        alone(claims(iss="https://evil.example"), issuer="https://evil.example"),
        alone(claims(aud="somebody")),
        alone(claims(iat=NOW + 1)),
        alone(claims(iat="now")),
        alone(claims(sub="eve")),
        alone(claims(plan=None)),
        alone(claims(exp=True)),
        alone([]),
        alone("claims"),
        alone(key=rsa_key("other")),
        alone(kid=b""),
        "clb2." + alone().split(".", 1)[1],
        "clb1...",
    ],
)
def test_bad_claims_and_signers(tmp_path: Path, token: str) -> None:
    verifier = with_keys(tmp_path, public_jwk(KEY, "k1"))
    for check in (verifier.verify, verifier.verify_fresh):
        with pytest.raises(InvalidLicenseToken):
            check(token)


def test_formats_are_told_apart(tmp_path: Path) -> None:
    """A signature of one format is none of the other, although the key is the same."""
    verifier = with_keys(tmp_path, public_jwk(KEY, "k1"))
    jwt, batch = signed(), alone()
    assert is_batch_token(batch) and not is_batch_token(jwt)
    for crossed in (
        jwt.rsplit(".", 1)[0] + "." + batch.rsplit(".", 1)[1],
        batch.rsplit(".", 1)[0] + "." + jwt.rsplit(".", 1)[1],
        "clb1." + jwt,
        jwt.split(".")[0] + batch[4:],
    ):
        with pytest.raises(InvalidLicenseToken):
            verifier.verify(crossed)


def mutated(chance: random.Random) -> str:
    """A good token with something done to it, or parts of two."""
    token, other = chance.choice(GOOD), chance.choice(GOOD)
    kind = chance.randrange(5)
    if kind == 0:
        at = chance.randrange(len(token))
        return token[:at] + chance.choice("AZaz09-_.=é ") + token[at + 1 :]
    if kind == 1:
        return token[: chance.randrange(len(token))]
    parts = token.split(".")
    part = chance.randrange(1, 4)
    if kind == 2:
        parts[part] = other.split(".")[part]
        return ".".join(parts)
    data = bytearray(base64.urlsafe_b64decode(parts[part] + "=="))
    if kind == 3:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    else:
        cut = chance.randrange(len(data))
        data[cut:] = chance.randbytes(chance.randrange(80))
    parts[part] = text(bytes(data))
    return ".".join(parts)


def test_whatever_is_done_to_a_token(verifier: TokenVerifier) -> None:
    chance = random.Random(20_261_124)
    for _ in range(3_000):
        token = mutated(chance)
        if token in GOOD:
            continue
        with pytest.raises(InvalidLicenseToken):
            verifier.verify(token, now=SIGNED_AT)


def test_a_seat_of_a_server_that_shares_signatures(
    engines: Engines, issuer: Issuer, key_file: Path, shared_server: LicenseServer, home: Path
) -> None:
    """Online, and offline from what was kept. The other server has migrated the database."""
    server = LicenseServer(engines, issuer, key_file, TOKEN_FORMAT="batch")
    server.start()
    try:
        tenant = server.tenant()
        grant = tenant.client(home).acquire()
        assert is_batch_token(grant.token) and read_batch_token(grant.token).size == 1
        assert grant.claims.session_id == grant.session_id
        again = tenant.client(home).acquire()
        assert (again.status, again.session_id) == ("renewed", grant.session_id)
    finally:
        server.stop()
    assert tenant.client(home, timeout_seconds=1).acquire().status == "offline"

"""License tokens, good and bad, against keys from a published set, a bundled file, and none."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from license_client import HardwareMismatch, InvalidLicenseToken, TokenExpired, TokenVerifier, UnknownKey
from license_client.errors import ConfigurationError
from license_client.keys import KeyStore

from .support.issuer import private_pem, public_jwk, rsa_key

KEY = rsa_key("license")
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
NOW = int(time.time())


def claims(**changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "iss": "https://auth.coditect.ai",
        "aud": "coditect",
        "sub": "ada",
        "jti": "j",
        "user_id": "ada",
        "tenant_id": "t",
        "license_id": "l",
        "session_id": "s",
        "hardware_id": "machine-0001",
        "plan": "pro",
        "product": "coditect",
        "features": ["agents"],
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 86_400,
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def signed(payload: dict[str, Any] | None = None, key: Any = None, alg: str = "RS256", **header: Any) -> str:
    return jwt.encode(payload or claims(), key or KEY, alg, headers={"kid": "k1", **header})


@pytest.fixture(params=["jwk set", "pem"])
def verifier(request: pytest.FixtureRequest, tmp_path: Path) -> TokenVerifier:
    """With bundled keys alone: nothing is asked of any network."""
    path = tmp_path / "bundled"
    path.write_text(json.dumps({"keys": [public_jwk(KEY, "k1")]}) if request.param == "jwk set" else PEM)
    return TokenVerifier(KeyStore(bundled=str(path)))


def test_good(verifier: TokenVerifier) -> None:
    found = verifier.verify(signed(), hardware_id="machine-0001", product="coditect", user_id="ada", session_id="s")
    assert (found.user_id, found.features, found.grace_seconds) == ("ada", ("agents",), 86_400)


def unsigned(payload: dict[str, Any], **header: Any) -> str:
    parts = [json.dumps(part).encode() for part in (header, payload)]
    return ".".join([base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts] + [""])


def without(name: str) -> Callable[[], str]:
    return lambda: signed(claims(**{name: None}))


BAD: dict[str, Callable[[], str]] = {
    "alg none": lambda: unsigned(claims(), alg="none", typ="JWT", kid="k1"),
    "HS256 with the public key": lambda: signed(key="x" * 64, alg="HS256"),
    "RS512": lambda: signed(alg="RS512"),
    "another key": lambda: signed(key=rsa_key("other")),
    "a short key": lambda: signed(key=rsa_key("issuer", 2048)),
    "no kid": lambda: jwt.encode(claims(), KEY, "RS256"),
    "crit": lambda: signed(crit=["exp"]),
    "wrong issuer": lambda: signed(claims(iss="https://evil.example")),
    "wrong audience": lambda: signed(claims(aud="somebody")),
    "not yet": lambda: signed(claims(nbf=NOW + 3600)),
    "another product": lambda: signed(claims(product="other")),
    "sub is not user_id": lambda: signed(claims(sub="eve")),
    "features not a list": lambda: signed(claims(features="agents")),
    "feature not a string": lambda: signed(claims(features=[1])),
    "exp a string": lambda: signed(claims(exp="tomorrow")),
    "exp absurd": lambda: signed(claims(exp=10**30)),
    "exp true": lambda: signed(claims(exp=True)),
    "ends before it begins": lambda: signed(claims(iat=NOW, exp=NOW - 10)),
    "plan empty": lambda: signed(claims(plan="")),
    "tenant a number": lambda: signed(claims(tenant_id=7)),
    "tampered": lambda: signed()[:-8] + "AAAAAAAA",
    "cut": lambda: signed()[:200],
    "nothing": lambda: "",
    "words": lambda: "not a token",
    "huge": lambda: "a." * 20_000,
    **{f"no {name}": without(name) for name in claims()},
}


@pytest.mark.parametrize("name", BAD)
def test_bad(verifier: TokenVerifier, name: str) -> None:
    with pytest.raises(InvalidLicenseToken):
        verifier.verify(BAD[name](), product="coditect")


def test_expired_and_leeway(verifier: TokenVerifier) -> None:
    verifier.verify(signed(), now=NOW + 86_400 + 29)
    with pytest.raises(TokenExpired):
        verifier.verify(signed(), now=NOW + 86_400 + 31)


def test_another_machine(verifier: TokenVerifier) -> None:
    with pytest.raises(HardwareMismatch):
        verifier.verify(signed(), hardware_id="machine-0002")


def test_unknown_key() -> None:
    with pytest.raises(UnknownKey, match="'k9'"):
        TokenVerifier(KeyStore()).verify(signed(kid="k9"))


def test_a_bundled_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(ConfigurationError):
        KeyStore(bundled=str(path))
    path.write_text("neither")
    with pytest.raises(ConfigurationError):
        KeyStore(bundled=str(path))


def test_keys_of_other_kinds_in_a_set_are_passed_over(tmp_path: Path) -> None:
    good = public_jwk(KEY, "k1")
    odd: list[Any] = [7, {"kty": "EC", "kid": "k1"}, {"kid": "k1", "kty": "RSA", "n": "!", "e": "AQAB"}]
    odd += [{**good, "use": "enc"}, {**good, "alg": "PS256"}, public_jwk(rsa_key("issuer", 2048), "k1")]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [*odd, good]}))
    assert TokenVerifier(KeyStore(bundled=str(path))).verify(signed()).user_id == "ada"
    path.write_text(json.dumps({"keys": odd}))
    with pytest.raises(UnknownKey):
        TokenVerifier(KeyStore(bundled=str(path))).verify(signed())


def test_private_keys_are_none_of_our_business(tmp_path: Path) -> None:
    path = tmp_path / "keys.pem"
    path.write_bytes(private_pem(KEY))
    with pytest.raises(ConfigurationError):
        KeyStore(bundled=str(path))

"""Batch tokens: one signature for the license tokens of a moment, each verified offline on its own.

The format is specified in docs/token-format.md: `clb1.<payload>.<proof>.<signature>`. The payload is a leaf of an
RFC 6962 tree, the proof leads from it to the root, and the signature is over a statement that names the root, the
issuer, the key and the time. What the payload says is checked elsewhere, as that of any license token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import InvalidLicenseToken

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

PREFIX = "clb1"
MAX_SIZE = 65_536
MAX_PAYLOAD_BYTES = 8_192
MAX_ISSUER_BYTES = 1_024
SIGNATURE_BYTES = 512
KEY_BITS = 4_096
_CONTEXT = b" " * 64 + b"coditect-license batch token\x00\x01"
_HEAD = struct.Struct(">QIIB")
_ANY_VERSION = re.compile(r"clb[0-9]+\.")


@dataclass(frozen=True)
class BatchToken:
    """A batch token, read but not believed."""

    payload: bytes
    signed_at: int
    size: int
    index: int
    kid: str
    path: tuple[bytes, ...]
    signature: bytes

    def statement(self, issuer: str) -> bytes:
        """What the signature must be over. InvalidLicenseToken if the issuer can have none."""
        name, kid = issuer.encode(), self.kid.encode()
        if not 1 <= len(name) <= MAX_ISSUER_BYTES:
            raise InvalidLicenseToken("no batch token has this issuer")
        root = _root(self.payload, self.index, self.size, self.path)
        fields = struct.pack(">QI", self.signed_at, self.size) + root + bytes([len(kid)]) + kid
        return _CONTEXT + fields + struct.pack(">H", len(name)) + name

    def claims(self, issuer: str, key: RSAPublicKey) -> dict[str, Any]:
        """What the token says, once `key` is found to have signed it for `issuer`. InvalidLicenseToken otherwise."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        if key.key_size != KEY_BITS:
            raise InvalidLicenseToken("batch tokens are signed with RSA-4096")
        try:
            key.verify(self.signature, self.statement(issuer), PKCS1v15(), SHA256())
        except InvalidSignature as error:
            raise InvalidLicenseToken("the license token does not verify: the signature is another's") from error
        claims = self.unverified_claims()
        issued = claims.get("iat")
        if not isinstance(issued, int) or isinstance(issued, bool) or issued > self.signed_at:
            raise InvalidLicenseToken("the license token was issued after its batch was signed")
        return claims

    def unverified_claims(self) -> dict[str, Any]:
        """What the token says, believed by nobody yet."""
        try:
            claims = json.loads(self.payload)
        except (ValueError, RecursionError) as error:
            raise InvalidLicenseToken("the license token's payload is no JSON") from error
        if not isinstance(claims, dict):
            raise InvalidLicenseToken("the license token's payload is no JSON object")
        return claims


def is_batch_token(text: str) -> bool:
    """Whether a text is meant as a batch token, of any version."""
    return _ANY_VERSION.match(text) is not None


def read_batch_token(text: str) -> BatchToken:
    """The parts of a token. InvalidLicenseToken if it is none: there is one text for each token."""
    parts = text.split(".")
    if len(parts) != 4 or parts[0] != PREFIX:
        raise InvalidLicenseToken("that is no batch token of a version that is known here")
    payload, proof, signature = (_bytes(part) for part in parts[1:])
    if not 1 <= len(payload) <= MAX_PAYLOAD_BYTES or len(signature) != SIGNATURE_BYTES or len(proof) < _HEAD.size:
        raise InvalidLicenseToken("a part of the batch token has a wrong length")
    signed_at, size, index, kid_length = _HEAD.unpack_from(proof)
    kid = proof[_HEAD.size : _HEAD.size + kid_length]
    path = proof[_HEAD.size + kid_length :]
    if len(kid) != kid_length or not kid or not all(0x21 <= byte <= 0x7E for byte in kid):
        raise InvalidLicenseToken("the batch token's key has no good name")
    if not index < size <= MAX_SIZE or len(path) != 32 * _path_length(index, size):
        raise InvalidLicenseToken("the batch token's path does not fit its place")
    hashes = tuple(path[at : at + 32] for at in range(0, len(path), 32))
    return BatchToken(payload, signed_at, size, index, kid.decode("ascii"), hashes, signature)


def _bytes(text: str) -> bytes:
    """Strict base64url: no padding, no other alphabet, no bits left over."""
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise InvalidLicenseToken("a part of the batch token is not base64url") from error
    if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != text:
        raise InvalidLicenseToken("a part of the batch token is not base64url")
    return found


def _path_length(index: int, size: int) -> int:
    """How many hashes lead from a leaf to the root."""
    last, length = size - 1, 0
    while last > 0:
        length += index % 2 == 1 or index != last
        index, last = index >> 1, last >> 1
    return length


def _root(payload: bytes, index: int, size: int, path: tuple[bytes, ...]) -> bytes:
    """The root that the path leads to (RFC 9162, section 2.1.3.2); its length was checked."""
    last = size - 1
    found = hashlib.sha256(b"\x00" + payload).digest()
    rest = iter(path)
    while last > 0:
        if index % 2 == 1:
            found = hashlib.sha256(b"\x01" + next(rest) + found).digest()
        elif index != last:
            found = hashlib.sha256(b"\x01" + found + next(rest)).digest()
        index, last = index >> 1, last >> 1
    return found

"""Stand-ins for what is Google's: an OIDC issuer, and the calls of Cloud KMS that the signer and `keys` make.

Real keys and real signatures; only the network is missing. KMS can be told to fail, to be slow, and to disable a version.
"""

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

KEY = "projects/drill/locations/here/keyRings/license/cryptoKeys/license-signing"
AUDIENCE = "coditect-license"
ENABLED, DISABLED, RSA_4096 = 1, 2, 7


def _crc_table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


class Server:
    """An HTTP server on a free port; `answer` gives a status and a body."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                status, answer = outer.answer(self.command, urlparse(self.path).path, body)
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = _do

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                # A caller that was killed, or gave up waiting: what a drill is about.
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        raise NotImplementedError


class Issuer(Server):
    """Gives a token to whoever asks."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        self.jwks = {"keys": [{**jwk, "kid": "drill", "alg": "RS256", "use": "sig"}]}
        super().__init__()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.url, "jwks_uri": f"{self.url}/jwks.json"}
        return (200, self.jwks) if path == "/jwks.json" else (404, {})

    def token(self, subject: str, **claims: Any) -> str:
        now = int(time.time())
        body = {"iss": self.url, "aud": AUDIENCE, "sub": subject, "iat": now, "nbf": now, "exp": now + 3600, **claims}
        return jwt.encode(body, self.key, algorithm="RS256", headers={"kid": "drill"})


@dataclass
class Version:
    name: str
    key: rsa.RSAPrivateKey
    enabled: bool = True
    signatures: int = 0

    @property
    def pem(self) -> str:
        return (
            self.key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )


@dataclass
class Trouble:
    status: int = 0
    seconds: float = 0.0


@dataclass
class Kms(Server):
    versions: list[Version] = field(default_factory=list)
    trouble: Trouble = field(default_factory=Trouble)

    def __post_init__(self) -> None:
        Server.__init__(self)
        self.add()

    def add(self) -> Version:
        """A new enabled version of the key."""
        name = f"{KEY}/cryptoKeyVersions/{len(self.versions) + 1}"
        version = Version(name, rsa.generate_private_key(public_exponent=65537, key_size=4096))
        self.versions.append(version)
        return version

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        path = path.removeprefix("/v1/")
        if path.endswith("/cryptoKeyVersions") and method == "GET":
            listed = [self.described(one) for one in self.versions]
            return 200, {"cryptoKeyVersions": listed, "totalSize": len(listed)}
        if path.endswith("/cryptoKeyVersions") and method == "POST":
            return 200, self.described(self.add())
        name = path.removesuffix("/publicKey").removesuffix(":asymmetricSign")
        version = next((one for one in self.versions if one.name == name), None)
        if version is None:
            return 404, {"error": {"code": 404, "status": "NOT_FOUND"}}
        if method == "PATCH":
            version.enabled = body["state"] in (ENABLED, "ENABLED")
            return 200, self.described(version)
        if path.endswith("/publicKey"):
            pem = version.pem
            return 200, {
                "pem": pem,
                "pemCrc32c": str(crc32c(pem.encode())),
                "name": name,
                "algorithm": RSA_4096,
                "protectionLevel": 1,
            }
        return self.sign(version, body)

    @staticmethod
    def described(version: Version) -> dict[str, Any]:
        return {
            "name": version.name,
            "state": ENABLED if version.enabled else DISABLED,
            "algorithm": RSA_4096,
            "protectionLevel": 1,
        }

    def sign(self, version: Version, body: Any) -> tuple[int, Any]:
        time.sleep(self.trouble.seconds)
        if self.trouble.status:
            return self.trouble.status, {
                "error": {"code": self.trouble.status, "status": "UNAVAILABLE", "message": "the drill says so"}
            }
        if not version.enabled:
            return 400, {
                "error": {"code": 400, "status": "FAILED_PRECONDITION", "message": "the version is not enabled"}
            }
        digest = base64.b64decode(body["digest"]["sha256"])
        signature = version.key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
        version.signatures += 1
        return 200, {
            "signature": base64.b64encode(signature).decode(),
            "signatureCrc32c": str(crc32c(signature)),
            "verifiedDigestCrc32c": True,
            "name": version.name,
            "protectionLevel": 1,
        }

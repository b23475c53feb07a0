#!/usr/bin/env python3
"""What the SDK costs the program that embeds it: import time, what acquire adds, what the idle thread burns.

Starts its own engines and server (CODITECT_LICENSE_BIN, or what cargo built here). Prints a table; asserts nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMPORT_RUNS = 15
ACQUIRE_RUNS = 60
IDLE_SECONDS = 65.0  # two of its half-minute looks at the clock


def in_our_environment() -> None:
    """Go on in .venv, made if need be."""
    ours = HERE / ".venv"
    if Path(sys.prefix) != ours:
        subprocess.run([str(HERE / "venv.sh")], check=True)
        os.execv(ours / "bin" / "python", [str(ours / "bin" / "python"), str(HERE / "bench.py"), *sys.argv[1:]])


def median_ms(samples: list[float]) -> float:
    return statistics.median(samples) * 1000


def start_ms(code: str) -> float:
    """How long an interpreter takes for `code`, median."""
    samples = []
    for _ in range(IMPORT_RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        samples.append(time.perf_counter() - began)
    return median_ms(samples)


def imports() -> None:
    bare = start_ms("pass")
    show("import license_client", start_ms("import license_client") - bare, "ms", "< 100")
    show("from … import LicenseClient", start_ms("from license_client import LicenseClient") - bare, "ms", "< 100")
    heavy = start_ms("import urllib3, jwt, cryptography.hazmat.primitives.asymmetric.rsa") - bare
    show("libraries, loaded at first acquire", heavy, "ms", "")


def acquire_and_idle() -> None:
    sys.path.insert(0, str(HERE))
    import urllib3
    from tests.support.engines import Engines
    from tests.support.issuer import Issuer, private_pem, rsa_key
    from tests.support.server import LicenseServer

    from license_client import LicenseClient

    engines, issuer = Engines(), Issuer()
    key = engines.folder / "signing.pem"
    key.write_bytes(private_pem(rsa_key("license")))
    server = LicenseServer(engines, issuer, key)
    try:
        server.migrate()
        server.start()
        tenant = server.tenant()
        token = tenant.token("ada")
        with tempfile.TemporaryDirectory() as home:
            began = time.perf_counter()
            client = LicenseClient(server.url, token, home=home, hardware_id="machine-0001")
            client.acquire()
            show("first acquire, libraries and key set included", (time.perf_counter() - began) * 1000, "ms", "")
            pool = urllib3.PoolManager()
            body = json.dumps({"hardware_id": "machine-0001", "product": "coditect"})
            plain, ours = [], []
            for _ in range(ACQUIRE_RUNS):
                headers = {
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/json",
                    "Idempotency-Key": str(uuid.uuid4()),
                }
                began = time.perf_counter()
                answer = pool.request("POST", f"{server.url}/api/v1/licenses/acquire", body=body, headers=headers)
                plain.append(time.perf_counter() - began)
                assert answer.status == 200, answer.data
                began = time.perf_counter()
                client.acquire()
                ours.append(time.perf_counter() - began)
            show("acquire, plain HTTP request", median_ms(plain), "ms", "")
            show("acquire, with the SDK", median_ms(ours), "ms", "")
            show("the SDK adds", median_ms(ours) - median_ms(plain), "ms", "< 5")
            assert client._thread is not None and client._thread.ident is not None
            clock = time.pthread_getcpuclockid(client._thread.ident)
            before = time.clock_gettime(clock)
            time.sleep(IDLE_SECONDS)
            burnt = time.clock_gettime(clock) - before
            show(f"idle thread, CPU time in {IDLE_SECONDS:.0f} s", burnt * 1000, "ms", "0")
            began = time.perf_counter()
            client.release()
            show("release", (time.perf_counter() - began) * 1000, "ms", "")
    finally:
        server.stop()
        issuer.stop()
        engines.stop()


def show(what: str, value: float, unit: str, wanted: str) -> None:
    print(f"{what:<48}{value:>10.2f} {unit:<3} {wanted}", flush=True)


if __name__ == "__main__":
    in_our_environment()
    imports()
    acquire_and_idle()

"""For programs that want no thread: an explicit heartbeat in a loop of their own, and a wait for a free seat."""

import os
import time

from license_client import LicenseClient, LicenseLost

client = LicenseClient(
    os.environ.get("CODITECT_API_URL"),
    token_provider=lambda: os.environ["MY_JWT"],
    heartbeat_thread=False,
    on_waiting=lambda status: print("waiting for a seat:", status.error),
)
grant = client.acquire(wait=600)
try:
    while True:
        time.sleep(grant.heartbeat_interval_seconds * 0.9)
        client.heartbeat()
except LicenseLost as lost:
    print("stopping:", lost)
finally:
    client.release()

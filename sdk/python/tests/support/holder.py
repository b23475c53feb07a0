"""A program of its own that holds a seat, steered by lines on its standard input."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from license_client import LicenseClient


def main() -> None:
    url, token, home, hardware = sys.argv[1:5]
    client = LicenseClient(url, token, home=Path(home), hardware_id=hardware)
    grant = client.acquire()
    print("holds", grant.session_id, grant.status, flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "status":
            print(client.status, client.status.session_id, flush=True)
        elif word == "exit":
            sys.exit(0)
        elif word == "fail":
            raise RuntimeError("as asked")
        elif word == "release":
            print(client.release(), flush=True)
        elif word in ("fork", "daemon"):
            child = os.fork()
            if child == 0:
                if word == "fork":
                    sys.exit(0 if client.status.usable and client.heartbeat().usable else 1)
                os.setsid()
                continue  # the child goes on reading, its parent is gone
            if word == "daemon":
                sys.exit(0)
            print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

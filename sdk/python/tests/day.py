"""A day of a developer, played by a program that knows the installed wheel alone: `day.py URL TOKEN HOME`.

Steered by lines on standard input, as the world around it changes; answers one line each.
"""

from __future__ import annotations

import json
import sys

from license_client import LicenseClient, LicenseError


def main() -> None:
    url, token, home = sys.argv[1:4]
    events: list[str] = []

    def note(name: str) -> object:
        return lambda status: events.append(f"{name}:{status}")

    names = ("granted", "renewed", "offline", "online", "lost", "waiting")
    client = LicenseClient(url, token, home=home, **{f"on_{name}": note(name) for name in names})  # type: ignore[arg-type]
    for line in sys.stdin:
        word, *rest = line.split()
        answer: object = None
        try:
            if word == "acquire":
                answer = client.acquire(wait=float(rest[0]) if rest else None).status
            elif word == "heartbeat":
                answer = str(client.heartbeat())
            elif word == "status":
                answer = [str(client.status), client.status.session_id]
            elif word == "release":
                answer = client.release()
            elif word == "exit":
                break
        except LicenseError as error:
            answer = type(error).__name__
        print(json.dumps({"answer": answer, "events": events}), flush=True)


main()

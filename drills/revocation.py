#!/usr/bin/env python3
"""Revokes a signing key that has leaked, at once, while clients work: it signs nothing any more, no replica publishes it, what it signed is
refused by whoever fetches the keys, and a new key takes over; clients notice nothing but a fresh token."""

import time
from typing import Any

import jwt

from stand.clients import Clients
from stand.drill import folder
from stand.engines import Postgres
from stand.processes import wait_until
from stand.proof import prove
from stand.report import expect, finish, say
from stand.service import PROGRAM, Service, call


def main() -> None:
    where = folder("revocation")
    postgres = Postgres(where / "postgres")
    postgres.initdb()
    postgres.start()
    postgres.prepare(PROGRAM)
    service = Service(where, postgres, SESSION_TTL_SECONDS="60", HEARTBEAT_INTERVAL_SECONDS="50")
    tenant = service.tenant(50)
    leaked = service.kms.versions[0]
    clients = Clients(lambda: service.urls, service.issuer, tenant, 8).start()
    time.sleep(3)
    token = service.issuer.token("holder", tenant_id=tenant)

    def acquire() -> dict[str, Any]:
        answer: dict[str, Any] = call(
            service.urls[0], "POST", "/api/v1/licenses/acquire", {"hardware_id": "machine-of-holder"}, token
        )[1]
        return answer

    before = acquire()
    kid = jwt.get_unverified_header(before["license_token"])["kid"]

    def keys(url: str) -> dict[str, Any]:
        return {key["kid"]: jwt.PyJWK(key).key for key in call(url, "GET", "/.well-known/jwks.json")[1]["keys"]}

    say(f"the key {kid} has leaked")
    begun = time.monotonic()
    say(service.command("keys", "retire", kid, "--emergency", "--reason", "drill: leaked"))
    expect(
        all(kid not in keys(url) for url in service.urls),
        f"no replica publishes it any more, {time.monotonic() - begun:.1f} s after the decision",
    )
    expect(not leaked.enabled, "KMS refuses to sign with it")

    def signs(url: str) -> str | None:
        kid: str | None = call(url, "GET", "/api/v1/public-key")[1].get("kid")
        return kid

    wait_until(lambda: all(signs(url) not in (kid, None) for url in service.urls), "another key signs", 30)
    say(f"      another key signs at each, {time.monotonic() - begun:.1f} s after it")
    time.sleep(1)  # for what was signed before that and is on its way
    late = len(clients.seen.unverified)
    signed = leaked.signatures
    after = acquire()
    fresh = jwt.get_unverified_header(after["license_token"])["kid"]
    expect(
        after["status"] == "renewed" and after["session_id"] == before["session_id"],
        "the holder keeps its seat and gets a fresh token",
    )
    expect(fresh != kid and fresh in keys(service.urls[1]), "another key signed it, which the other replica publishes")
    jwt.decode(after["license_token"], keys(service.urls[0])[fresh], algorithms=["RS256"], audience="coditect")
    time.sleep(5)
    expect(leaked.signatures == signed, "the leaked key signs nothing")
    events = service.command("keys", "list", "--events")
    expect("drill: leaked" in events and kid in events, "who did it, when and why is in the log")
    for line in events.splitlines():
        say(f"      {line}")
    seen = clients.stop()
    expect(
        not seen.refused and not seen.counts["gave up"] and not seen.ended,
        f"no client was refused or lost its seat ({seen.refused[:2]})",
    )
    # A replica may sign with the leaked key for a second more: who asks for the keys then is told not to believe it.
    wrong = [why for number, why in enumerate(seen.unverified) if kid not in why or number >= late]
    expect(not wrong, f"each token verified ({seen.counts['verified']} of them; {late} of the leaked key; {wrong[:2]})")
    say(f"      answers meanwhile: {dict(seen.counts)}")
    prove(postgres, seen)
    finish()


if __name__ == "__main__":
    main()

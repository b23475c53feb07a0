#!/usr/bin/env python3
"""Rotates the signing key while clients work: a new version is made and published, signs when every client has had the time to fetch it, and
no client is refused or holds a token that it cannot verify, not even one that fetches keys as seldom as it may."""

import time

import jwt

from stand.clients import Clients
from stand.drill import folder
from stand.engines import Postgres
from stand.processes import wait_until
from stand.proof import prove
from stand.report import expect, finish, say
from stand.service import PROGRAM, Service, call

# Two hours in production; clients of this drill keep keys for five seconds.
PUBLISHED_BEFORE_USE = 12


def main() -> None:
    where = folder("rotation")
    postgres = Postgres(where / "postgres")
    postgres.initdb()
    postgres.start()
    postgres.prepare(PROGRAM)
    service = Service(
        where,
        postgres,
        SESSION_TTL_SECONDS="60",
        HEARTBEAT_INTERVAL_SECONDS="50",
        KEY_PUBLICATION_SECONDS=str(PUBLISHED_BEFORE_USE),
    )
    tenant = service.tenant(50)
    old = service.kms.versions[0]
    clients = Clients(lambda: service.urls, service.issuer, tenant, 8, refetch=False).start()
    time.sleep(3)
    reader = service.issuer.token("reader", tenant_id=tenant)
    kept = call(service.urls[0], "POST", "/api/v1/licenses/acquire", {"hardware_id": "machine-of-reader"}, reader)[1][
        "license_token"
    ]
    say(service.command("keys", "rotate"))
    expect(len(service.kms.versions) == 2, "KMS has a second version")
    new = service.kms.versions[1]

    def published() -> set[str]:
        return {key["kid"] for url in service.urls for key in call(url, "GET", "/.well-known/jwks.json")[1]["keys"]}

    wait_until(lambda: len(published()) == 2, "both replicas publish both keys", 20)
    expect(new.signatures == 0, "published, and it signs nothing yet")
    wait_until(lambda: new.signatures > 0, "the new version signs", PUBLISHED_BEFORE_USE + 90)
    time.sleep(8)
    before = old.signatures
    time.sleep(4)
    expect(
        old.signatures == before,
        f"the old version signs no more ({old.signatures} before, {new.signatures} by the new one)",
    )
    kid = jwt.get_unverified_header(kept)["kid"]
    expect(kid in published(), "the old key is published still: tokens that it signed verify until they end")
    seen = clients.stop()
    expect(not seen.refused and not seen.counts["gave up"], f"nobody was refused ({seen.refused[:2]})")
    expect(
        not seen.unverified and seen.counts["verified"] > 50,
        f"all {seen.counts['verified']} tokens verified with keys fetched up to 5 s before ({seen.unverified[:2]})",
    )
    failed = {what: count for what, count in seen.counts.items() if what.endswith(" 503") or what == "no answer"}
    expect(not failed, f"not one request failed ({failed})")
    for line in service.command("keys", "list").splitlines():
        say(f"      {line}")
    prove(postgres, seen)
    finish()


if __name__ == "__main__":
    main()

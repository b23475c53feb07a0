#!/usr/bin/env python3
"""Rolls out a new version while clients work, one replica at a time, and rolls it back. As Kubernetes does it: a replica is taken out of the
load balancer (preStop), then told to end, and a new one is ready before the next goes. No request is lost, not even one that clients would repeat.

OLD_PROGRAM names the version before, if it is another program.
"""

import os
import time
from pathlib import Path

from stand.clients import Clients
from stand.drill import folder
from stand.engines import Postgres
from stand.proof import prove
from stand.report import expect, finish, say
from stand.service import PROGRAM, Replica, Service

PRE_STOP_SECONDS = 1.5


def main() -> None:
    where = folder("rolling")
    old = Path(os.environ.get("OLD_PROGRAM", PROGRAM))
    postgres = Postgres(where / "postgres")
    postgres.initdb()
    postgres.start()
    postgres.prepare(PROGRAM)
    service = Service(
        where, postgres, replicas=3, program=old, SESSION_TTL_SECONDS="60", HEARTBEAT_INTERVAL_SECONDS="50"
    )
    tenant = service.tenant(50)
    balanced = list(service.replicas)
    clients = Clients(lambda: [replica.url for replica in balanced], service.issuer, tenant, 8).start()
    time.sleep(2)

    def roll(program: Path, first: int) -> None:
        for number, going in enumerate(list(balanced)):
            coming: Replica = service.replica(first + number, postgres, program)
            coming.start()
            balanced.append(coming)
            balanced.remove(going)
            time.sleep(PRE_STOP_SECONDS)
            begun = time.monotonic()
            code = going.stop()
            expect(code == 0, f"a replica ended in order, in {time.monotonic() - begun:.1f} s")

    say("roll out")
    roll(PROGRAM, 100)
    upgraded = len(clients.seen.granted)
    say("roll back")
    roll(old, 200)
    time.sleep(1)
    seen = clients.stop()
    expect(upgraded > 10 and len(seen.granted) > upgraded, f"clients worked all the time: {len(seen.granted)} grants")
    lost = {
        what: count
        for what, count in seen.counts.items()
        if what == "no answer" or what.endswith((" 503", " 502", " 0"))
    }
    expect(not lost, f"not one request was lost ({lost})")
    expect(not seen.refused and not seen.ended, f"nobody was refused or lost a seat ({seen.refused[:2]})")
    prove(postgres, seen)
    finish()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Loses Redis while clients work: killed, away for a while, back and empty, then emptied once more. Nobody is refused, no seat is
granted twice, and the mirror is made again from the log."""

import socket
import time

from stand.clients import Clients
from stand.drill import folder
from stand.engines import Postgres
from stand.processes import wait_until
from stand.proof import prove
from stand.report import expect, finish, say
from stand.service import PROGRAM, Service, call

SEATS = 5
CLIENTS = 8


def redis(service: Service, *words: str) -> str:
    """One command, spoken as Redis' own protocol."""
    with socket.create_connection(("127.0.0.1", service.redis.port), 2) as wire:
        wire.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words))
        return wire.recv(65536).decode()


def main() -> None:
    where = folder("redis-loss")
    postgres = Postgres(where / "postgres")
    postgres.initdb()
    postgres.start()
    postgres.prepare(PROGRAM)
    service = Service(where, postgres, SESSION_TTL_SECONDS="60", HEARTBEAT_INTERVAL_SECONDS="50")
    tenant = service.tenant(SEATS)
    say(f"two replicas, {CLIENTS} clients for {SEATS} seats: some are always refused, rightly")

    def state() -> str:
        return str(call(service.urls[0], "GET", "/ready")[1]["status"])

    with Clients(lambda: service.urls, service.issuer, tenant, CLIENTS) as clients:
        time.sleep(4)
        before = dict(clients.seen.counts)
        say("kill -9 of Redis, which keeps nothing on disk")
        service.redis.kill()
        wait_until(lambda: state() == "degraded", "the replicas notice")
        expect(True, "/ready says degraded, and still 200")
        time.sleep(5)
        during = dict(clients.seen.counts)
        expect(
            during["acquire 200"] > before["acquire 200"],
            f"without Redis clients get seats: {during['acquire 200'] - before['acquire 200']} in 5 s",
        )
        say("Redis comes back, empty")
        service.redis.start()
        wait_until(lambda: state() == "ok", "the replicas notice")
        time.sleep(3)
        say("FLUSHALL")
        expect("+OK" in redis(service, "FLUSHALL"), "Redis is empty once more")
        time.sleep(4)
    seen = clients.seen
    wrong = [one for one in seen.refused if "no_seats_available" not in one]
    expect(not wrong, f"nobody was refused but for want of a seat ({wrong[:2]})")
    expect(seen.counts["acquire 409"] > 0, f"the pool was full at times: {seen.counts['acquire 409']} refusals")
    expect(not seen.counts["acquire 503"] and not seen.counts["heartbeat 503"], "no request was answered 503")
    expect(not seen.unverified, "each license token verified")
    expect("license" in redis(service, "KEYS", "*") or ":" in redis(service, "KEYS", "*"), "the mirror was made again")
    prove(postgres, seen)
    finish()


if __name__ == "__main__":
    main()

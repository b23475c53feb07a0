#!/usr/bin/env python3
"""Fails over to a standby of Postgres while clients work: the primary is killed with its disk, the standby takes over at the same address,
as Cloud SQL does it. Replication is synchronous, so nothing that was answered is lost."""

import contextlib
import socket
import threading
import time

from stand.clients import Clients
from stand.drill import folder
from stand.engines import Postgres
from stand.processes import free_port, wait_until
from stand.proof import prove
from stand.report import expect, finish, say
from stand.service import PROGRAM, Service


class Address:
    """One address before two servers, as a private IP that moves: connections of yesterday are cut, new ones go to today's server."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = free_port()
        self.open: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 2)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            for wire in (client, server):
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.open += [client, server]
            threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for wire in (source, sink):
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    def move(self, port: int) -> None:
        self.target = port
        for wire in self.open:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
        self.open.clear()


def standby_of(primary: Postgres, where: Postgres) -> None:
    """A copy that follows, synchronously."""
    url = f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby"
    primary.run(
        "pg_basebackup",
        "--pgdata",
        str(where.data),
        "--dbname",
        url,
        "--write-recovery-conf",
        "--wal-method=stream",
        "--checkpoint=fast",
    )
    where.start()
    wait_until(
        lambda: primary.ask("select count(*) from pg_stat_replication where state = 'streaming'") == "1",
        "the standby follows",
    )
    # Only now: before there is a standby, every commit would wait for it.
    primary.ask("alter system set synchronous_standby_names = 'standby'")
    primary.ask("select pg_reload_conf()")
    wait_until(
        lambda: primary.ask("select sync_state from pg_stat_replication") == "sync", "replication is synchronous"
    )


def main() -> None:
    where = folder("failover")
    primary = Postgres(where / "primary", wal_level="replica", hot_standby="on")
    primary.initdb()
    primary.start()
    primary.prepare(PROGRAM)
    standby = Postgres(where / "standby", hot_standby="on", synchronous_standby_names="")
    standby_of(primary, standby)
    expect(True, "a standby follows, synchronously")

    address = Address(primary.port)
    real = primary.port
    primary.port = address.port
    service = Service(where, primary, SESSION_TTL_SECONDS="30", HEARTBEAT_INTERVAL_SECONDS="25")
    primary.port = real
    tenant = service.tenant(50)
    clients = Clients(lambda: service.urls, service.issuer, tenant, 8).start()
    time.sleep(4)
    say("kill -9 of the primary; its disk is gone")
    primary.kill()
    killed = time.monotonic()
    granted = len(clients.seen.granted)
    standby.run("pg_ctl", "promote", "--pgdata", str(standby.data), "--wait")
    address.move(standby.port)
    say(f"the standby was promoted and has the address ({time.monotonic() - killed:.1f} s)")
    wait_until(lambda: len(clients.seen.granted) > granted + 5, "clients get seats again")
    expect(True, f"clients get seats again {time.monotonic() - killed:.1f} s after the kill")
    time.sleep(5)
    seen = clients.stop()
    expect(not seen.refused, f"nobody was refused ({seen.refused[:2]})")
    expect(not seen.ended, f"nobody lost a seat ({dict(seen.ended)})")
    expect(
        not seen.counts["gave up"],
        f"longest wait for an answer {seen.longest_wait:.1f} s; the SDK's clients work on meanwhile",
    )
    prove(standby, seen)
    finish()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Restores to a point in time: a base backup is taken while clients work, the log is archived, somebody destroys the seats and half of the
events, and the database is brought back, on another server, to the second before. Nothing that was answered until then is lost."""

import shutil
import time

from stand.clients import Clients, Seen
from stand.drill import folder
from stand.engines import Postgres
from stand.processes import wait_until
from stand.proof import broken, prove
from stand.report import expect, finish, say
from stand.service import PROGRAM, Service, call

DISASTER = """
  alter table events_decision disable trigger all;
  delete from events_decision where random() < 0.5;
  truncate seats;
"""


def restored(broken: Postgres, where: Postgres, backup: str, until: str) -> None:
    """What docs/RUNBOOK.md, «Restore», says for a server of our own; on Cloud SQL it is one command."""
    shutil.copytree(backup, where.data)
    for path in (where.data, *where.data.rglob("*")):
        where.give(path)
    where.data.chmod(0o700)
    (where.data / "recovery.signal").touch()
    where.give(where.data / "recovery.signal")
    where.settings.update(
        restore_command=f"cp {broken.folder}/archive/%f %p",
        recovery_target_time=until,
        recovery_target_action="promote",
        archive_mode="off",
    )
    where.start()
    wait_until(lambda: where.ask("select pg_is_in_recovery()") == "f", "the server ends recovery", 60)
    # Later transactions never happened, but readers may hold cursors from them: cursors begin with the epoch.
    where.ask("update log_epoch set epoch = epoch + 1", user="license_owner")


def main() -> None:
    where = folder("restore")
    archive = where / "primary/archive"
    primary = Postgres(
        where / "primary",
        wal_level="replica",
        archive_mode="on",
        archive_command=f"test ! -f {archive}/%f && cp %p {archive}/%f",
    )
    archive.mkdir()
    primary.give(archive)
    primary.initdb()
    primary.start()
    primary.prepare(PROGRAM)
    service = Service(where, primary, SESSION_TTL_SECONDS="120", HEARTBEAT_INTERVAL_SECONDS="100")
    tenant = service.tenant(50)
    clients = Clients(lambda: service.urls, service.issuer, tenant, 8).start()
    time.sleep(3)
    say("base backup, while clients work")
    backup = where / "primary/backup"
    primary.run(
        "pg_basebackup",
        "--pgdata",
        str(backup),
        "--dbname",
        f"host=127.0.0.1 port={primary.port} user=postgres",
        "--checkpoint=fast",
        "--wal-method=stream",
    )
    time.sleep(4)
    cursor = call(
        service.urls[0],
        "GET",
        f"/api/v1/tenants/{tenant}/events?limit=1",
        token=service.issuer.token("p", roles=["platform_admin"]),
    )[1]["next"]
    seen: Seen = clients.stop()
    until = primary.ask("select clock_timestamp()")
    before = primary.ask("select count(*) from events")
    held = set(primary.ask("select session_id from seats").split())
    say(f"clients stop at {until}: {before} events, {len(held)} seats held")
    time.sleep(1.5)

    say("the disaster: half of the decisions deleted, all seats gone")
    primary.ask(DISASTER)
    expect(primary.ask("select count(*) from seats") == "0", "no seat is left")
    expect(broken(primary) > 0, f"and the proof notices: {broken(primary)} streams have gaps")
    primary.ask("select pg_switch_wal()")
    wait_until(
        lambda: (
            primary.ask(
                "select last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 16 * 1024 * 1024) from pg_stat_archiver"
            )
            == "t"
        ),
        "the log is archived",
    )
    for replica in service.replicas:
        replica.stop()
    epoch = int(primary.ask("select epoch from log_epoch"))
    primary.stop()

    begun = time.monotonic()
    rescue = Postgres(where / "rescue")
    restored(primary, rescue, str(backup), until)
    say(f"restored to {until} on another server ({time.monotonic() - begun:.1f} s)")
    expect(rescue.ask("select count(*) from events") == before, f"all {before} events are there")
    expect(
        set(rescue.ask("select session_id from seats").split()) == held, f"so are the {len(held)} seats that were held"
    )
    expect(int(rescue.ask("select epoch from log_epoch")) == epoch + 1, "the log's epoch was moved on")
    prove(rescue, seen)

    say("the service starts on it")
    service.replicas = [service.replica(number, rescue) for number in (10, 11)]
    for replica in service.replicas:
        replica.start()
    lost = 0
    for session in held:
        token = service.issuer.token(seen.granted[session], tenant_id=tenant)
        lost += call(service.urls[0], "POST", "/api/v1/licenses/heartbeat", {"session_id": session}, token)[0] != 200
    expect(bool(held) and not lost, f"each of {len(held)} holders' next heartbeat is ok")
    if cursor:
        token = service.issuer.token("p", roles=["platform_admin"])
        status, answer = call(service.urls[0], "GET", f"/api/v1/tenants/{tenant}/events?after={cursor}", token=token)
        expect(
            status == 400,
            f"a cursor from before the restore is refused, not followed wrongly ({status} {answer.get('code')})",
        )
    with Clients(lambda: service.urls, service.issuer, tenant, 4) as again:
        time.sleep(3)
    expect(
        len(again.seen.granted) > 5 and not again.seen.refused, f"clients work again: {len(again.seen.granted)} grants"
    )
    prove(rescue, again.seen)
    finish()


if __name__ == "__main__":
    main()

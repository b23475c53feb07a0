"""What must be true of the log, whatever happened: asked of Postgres itself, in SQL of our own, not of the service.

When the program has `verify`, it is asked as well.
"""

import os
import subprocess

from .clients import Seen
from .engines import Postgres
from .report import expect
from .service import PROGRAM

# A pool's decisions in order, with the seats held and the limit in force after each.
FOLD = """
with steps as (
  select stream_id, version, type, session_id,
         sum(case type when 'seat_acquired' then 1 when 'seat_released' then -1 when 'seat_expired' then -1 when 'seat_revoked' then -1 else 0 end)
           over (partition by stream_id order by version) as held,
         (data ->> 'seats_total')::int as total,
         count(data ->> 'seats_total') filter (where type in ('license_issued', 'license_updated')) over (partition by stream_id order by version) as era
  from events where class = 'decision'
), limits as (
  select *, max(total) filter (where type in ('license_issued', 'license_updated')) over (partition by stream_id, era) as in_force from steps
)
"""


def _one(postgres: Postgres, sql: str) -> int:
    return int(postgres.ask(sql) or 0)


def broken(postgres: Postgres) -> int:
    """Streams whose versions have gaps or repeats."""
    sql = "select stream_id from events where class = 'decision' group by stream_id having count(*) <> max(version) or min(version) <> 1 or count(distinct version) <> count(*)"
    return _one(postgres, f"select count(*) from ({sql}) x")


def prove(postgres: Postgres, seen: Seen | None = None) -> None:
    """The log's own promises, and with `seen` that what clients were told is in it."""
    gaps = broken(postgres)
    expect(gaps == 0, "each stream's versions are 1 to n without a gap")
    decisions = _one(postgres, "select count(*) from events where class = 'decision'")
    behind = _one(
        postgres,
        "select count(*) from streams s where version <> (select coalesce(max(version), 0) from events e where e.class = 'decision' and e.stream_id = s.stream_id)",
    )
    expect(behind == 0, f"each stream's version is that of its latest decision ({decisions} decisions)")
    over = _one(postgres, FOLD + "select count(*) from limits where type = 'seat_acquired' and held > in_force")
    expect(over == 0, "no grant in the log exceeds the limit in force")
    twice = _one(
        postgres,
        "select count(*) from (select session_id from events where type = 'seat_acquired' group by 1 having count(*) > 1) x",
    )
    expect(twice == 0, "no session was granted twice")
    differ = _one(
        postgres,
        """with live as (
             select session_id from events where type = 'seat_acquired'
             except select session_id from events where type in ('seat_released', 'seat_expired', 'seat_revoked'))
           select (select count(*) from (select session_id from live except select session_id from seats) a)
                + (select count(*) from (select session_id from seats except select session_id from live) b)""",
    )
    expect(differ == 0, "the seats table is the fold of the log")
    if seen:
        _told(postgres, seen)
    _verify(postgres)


def _told(postgres: Postgres, seen: Seen) -> None:
    log = set(postgres.ask("select session_id from events where type = 'seat_acquired'").split())
    lost = set(seen.granted) - log
    expect(
        not lost,
        f"each of {len(seen.granted)} grants that a client got is in the log{f', but for {len(lost)}' if lost else ''}",
    )
    ended = set(
        postgres.ask(
            "select session_id from events where type in ('seat_released', 'seat_expired', 'seat_revoked')"
        ).split()
    )
    lost = seen.released - ended
    expect(not lost, f"so is each of {len(seen.released)} releases{f', but for {len(lost)}' if lost else ''}")


def _verify(postgres: Postgres) -> None:
    done = subprocess.run(
        [PROGRAM, "verify"],
        env={**os.environ, "DATABASE_URL": postgres.url("license_api"), "RUST_LOG": "warn"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = (done.stdout + done.stderr).strip().splitlines()
    expect(done.returncode == 0, f"coditect-license verify: {said[-1] if said else 'silent'}")

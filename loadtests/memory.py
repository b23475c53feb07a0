#!/usr/bin/env python3
"""What a live session and an idle pool cost the service in memory. Needs a release build and psql; asserts nothing.

    loadtests/memory.py [--pools 200] [--sessions 200000]

Starts `coditect-license dev` in a folder of its own, makes the pools over HTTP, writes the sessions into the log by SQL as
a replica would have, and has each pool's actor catch up with them. Memory is the process's resident set.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
API, ISSUER = "http://127.0.0.1:8940", "http://127.0.0.1:8941"

# One session of a user on each of many machines: `seat_acquired` events in version order, and the seats they hold.
SESSIONS = """
with pools as (
  select s.stream_id, s.tenant_id, s.version, gen_random_uuid() as session_id, n
  from streams s cross join generate_series(1, {each}) n where s.product = 'coditect' and s.tenant_id in (select tenant_id from users where user_id = 'measured')
), seated as (
  insert into seats (session_id, stream_id, tenant_id, user_id, hardware_id, machine_name, started_at, last_heartbeat_at, deadline, due, ttl_ms)
  select session_id, stream_id, tenant_id, 'measured', md5(n::text || stream_id), 'desk', now(), now(), now() + interval '1 hour',
    now() + interval '1 hour', 3600000 from pools
), written as (
  insert into events (class, event_id, tenant_id, stream_id, version, type, format, session_id, user_id, hardware_id, occurred_at, data)
  select 'decision', gen_random_uuid(), tenant_id, stream_id, version + n, 'seat_acquired', 1, session_id, 'measured',
    md5(n::text || stream_id), date_trunc('milliseconds', now()),
    jsonb_build_object('seats_used', n, 'seats_total', 100000, 'deadline', event_time(now() + interval '1 hour'), 'machine_name', 'desk')
  from pools
)
update streams s set version = version + {each}, last_at = date_trunc('milliseconds', now())
where s.stream_id in (select stream_id from pools);
"""


def call(token, path, body=None):
    request = urllib.request.Request(API + path, method="POST" if body is not None else "GET")
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    data = None if body is None else json.dumps(body).encode()
    for _ in range(20):
        try:
            with urllib.request.urlopen(request, data, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(1)  # a pool that catches up with a thousand sessions at once may take longer than a decision may
    raise SystemExit(f"{path}: 503 all the time")


def token(query):
    with urllib.request.urlopen(f"{ISSUER}/token?{query}", timeout=10) as answer:
        return answer.read().decode().strip()


def resident(pid):
    """KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def settled(pid):
    """The resident set once it has stopped moving, KiB."""
    before = 0
    while abs((now := resident(pid)) - before) > 512:
        before = now
        time.sleep(3)
    return now


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pools", type=int, default=200)
    options.add_argument("--sessions", type=int, default=200_000)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), asked.pools, asked.sessions // asked.pools)


def measure(folder, pools, each):
    os.chmod(folder, 0o755)
    command = [ROOT / "target/release/coditect-license", "dev", "--dir", folder / "dev", "--listen-addr", API[7:]]
    command += ["--issuer-addr", ISSUER[7:], "--metrics-addr", "127.0.0.1:8942"]
    rates = {"RATE_LIMIT_PER_USER_PER_MINUTE": "0", "RATE_LIMIT_PER_TENANT_PER_SECOND": "0"}
    server = subprocess.Popen(command, env=os.environ | rates, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(API + "/ready", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        platform = token("sub=olga&roles=platform_admin")
        empty = settled(server.pid)
        users = []
        for n in range(pools):
            tenant = {"name": f"T{n}", "subdomain": f"measured-{n}", "plan": "team", "max_seats": 100_000}
            users.append(token(f"sub=measured&tenant_id={call(platform, '/api/v1/tenants', tenant)['id']}"))
        for user in users:
            session = call(user, "/api/v1/licenses/acquire", {"hardware_id": "machine-of-all"})["session_id"]
            call(user, "/api/v1/licenses/release", {"session_id": session})
        idle = settled(server.pid)
        psql = ["psql", "-q", "-h", folder / "dev/postgres/socket", "-U", "postgres", "-v", "ON_ERROR_STOP=1"]
        names = subprocess.run(
            [*psql, "-Atc", "select datname from pg_database where not datistemplate and datname <> 'postgres'"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        subprocess.run([*psql, "-d", names[0], "-c", SESSIONS.format(each=each)], check=True)
        for user in users:
            call(user, "/api/v1/licenses/acquire", {"hardware_id": "machine-of-all"})
        full = settled(server.pid)
    finally:
        server.terminate()
        server.wait(60)
    print(f"started:                 {empty / 1024:8.0f} MiB")
    print(f"{pools} idle pools:      {idle / 1024:8.0f} MiB, {(idle - empty) / pools:.1f} KiB each")
    print(
        f"{pools * each} live sessions: {full / 1024:8.0f} MiB, {(full - idle) * 1024 / (pools * each):.0f} bytes each"
    )


if __name__ == "__main__":
    main()

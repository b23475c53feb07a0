#!/usr/bin/env python3
"""Fires every alert on a live service, and sees it end: a real Prometheus scrapes real replicas that really break.

Rules are those of k8s/monitoring, with shorter windows. What Kubernetes would say of Jobs and restarts is a stand-in, and so is
PagerDuty; it must get each page and each ticket with the right key, a summary and a link. Before, with clients at work, each panel of each
dashboard must have an answer. Takes about three minutes.

While an alert fires, the commands of its section of docs/RUNBOOK.md are run, and must work.

alerts.py [--short] [--pictures FOLDER] [--write-runbook]
--short: the panels, one ticket and one page, in half a minute
"""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from stand.clients import Clients
from stand.drill import folder
from stand.engines import ROOT, Postgres
from stand.monitoring import Monitoring, alert_names
from stand.processes import wait_until
from stand.report import expect, finish, say
from stand.runbook import look
from stand.service import PROGRAM, Service, call

SHORT = "--short" in sys.argv
RESTARTS = 'kube_pod_container_status_restarts_total{namespace="license",pod="license-api-x",container="serve"}'
LAST_SUCCESS = 'kube_cronjob_status_last_successful_time{namespace="license",cronjob="license-verify"}'
PANEL_WINDOW = "15s"
FIRES_WITHIN = 60


def panels() -> list[tuple[str, str, str, str]]:
    """Dashboard, panel, expression, unit."""
    found = []
    for file in sorted((ROOT / "k8s/monitoring/dashboards").glob("*.json")):
        body = json.loads(file.read_text(encoding="utf-8"))
        for panel in body["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", PANEL_WINDOW)
                found.append((body["title"], panel["title"], expression, panel["fieldConfig"]["defaults"]["unit"]))
    return found


class Drill:
    def __init__(self) -> None:
        self.folder = folder("alerts")
        self.postgres = Postgres(self.folder / "postgres")
        self.postgres.initdb()
        self.postgres.start()
        self.postgres.prepare(PROGRAM)
        # A short life without heartbeats: seats that expire are one of the things to see.
        self.service = Service(self.folder, self.postgres, SESSION_TTL_SECONDS="20", HEARTBEAT_INTERVAL_SECONDS="15")
        self.monitoring = Monitoring(self.folder / "monitoring", self.service)
        self.tenant = self.service.tenant(500)
        self.fired: set[str] = set()
        self.begun = time.time()

    def fires(self, names: list[str], hurt: Callable[[], object], heal: Callable[[], object]) -> None:
        """Hurts until all of these fire, heals until all have ended."""
        say(f"break: {', '.join(names)}")
        wanted = set(names)
        quiet_before = wanted & self.monitoring.firing()
        expect(not quiet_before, f"silent before: {', '.join(names)}")
        hurt()
        seen: set[str] = set()

        def all_seen() -> bool:
            seen.update(self.monitoring.firing() & wanted)
            return seen == wanted

        with contextlib.suppress(TimeoutError):
            wait_until(all_seen, "", FIRES_WITHIN)
        # Before it ends PagerDuty must have heard of it (of one of them: a fast burn speaks for the slow ones).
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: any(self.told(name) for name in seen), "", 15)
        expect(any(self.told(name) for name in seen), f"PagerDuty was told of {' or '.join(sorted(seen)) or 'nothing'}")
        for name in sorted(seen):
            look(name, self.service, self.monitoring, write="--write-runbook" in sys.argv)
        heal()
        for name in names:
            expect(name in seen, f"{name} fires")
        self.fired |= seen
        try:
            wait_until(lambda: not (self.monitoring.firing() & wanted), "", FIRES_WITHIN)
            expect(True, f"ended: {', '.join(names)}")
        except TimeoutError:
            expect(False, f"ended: {', '.join(names)}; still: {self.monitoring.firing() & wanted}")

    def told(self, name: str) -> bool:
        link = f"RUNBOOK.md#{name.lower()}"
        return any(
            link in one["links"][0]["href"] for one in list(self.monitoring.pagerduty.events) if one.get("links")
        )

    def look_at_panels(self) -> None:
        names = set(self.monitoring.get("label/__name__/values"))
        said: set[str] = set()
        for dashboard, panel, expression, _ in panels():
            said |= {word for word in _metrics(expression) if word not in names}
            expect(bool(self.monitoring.ask(expression)), f"{dashboard} / {panel} has an answer")
        expect(not said, f"each metric of a panel is exported{': not ' + ', '.join(sorted(said)) if said else ''}")

    def crash_clients(self) -> None:
        """Many clients take a seat and are never heard of again."""
        tenant = self.service.tenant(200)

        def one(number: int) -> None:
            token = self.service.issuer.token(f"crashed-{number}", tenant_id=tenant)
            call(
                self.service.urls[0],
                "POST",
                "/api/v1/licenses/acquire",
                {"hardware_id": f"crashed-machine-{number}"},
                token,
            )

        threads = [threading.Thread(target=one, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def freeze_readers(self) -> subprocess.Popen[bytes]:
        """A long write transaction: no reader sees what was written after it began."""
        sql = "begin; select pg_current_xact_id(); select pg_sleep(60)"
        return subprocess.Popen(
            self.postgres.command("psql", "-X", "-q", "-c", sql, self.postgres.url()),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self) -> None:
        kube = self.monitoring.kube_state
        for cron in ("license-verify", "license-archive", "license-keys-rotate"):
            kube.job(cron, 1, failed=False)
        kube.lines[RESTARTS] = 0.0

        with Clients(lambda: self.service.urls, self.service.issuer, self.tenant, 6) as clients:
            time.sleep(10 if SHORT else 20)
            # How fast this machine is, is not the question here.
            quiet = {name for name in self.monitoring.firing() if "Slow" not in name}
            expect(
                not quiet,
                f"with clients at work and nothing broken, no alert fires ({', '.join(sorted(quiet)) or 'none'})",
            )
            self.look_at_panels()
            self.fires(["RedisDown"], self.service.redis.kill, self.service.redis.start)
            if not SHORT:
                self.fire_the_rest()
            self.fires(["NoReplicaAnswers"], self.stop_all, self.start_all)

        expect(
            not clients.seen.refused,
            f"after all this no client was refused what it had a right to ({clients.seen.refused[:2]})",
        )
        expect(not clients.seen.unverified, f"each license token verified ({clients.seen.unverified[:2]})")
        self.look_at_pages()

    def fire_the_rest(self) -> None:
        kms, kube = self.service.kms.trouble, self.monitoring.kube_state
        burns = ["AvailabilityBurnsFast", "AvailabilityBurns", "AvailabilityBudgetShrinks"]
        self.fires(["PostgresDown", *burns], lambda: self.postgres.stop(signal.SIGQUIT), self.postgres.start)

        def slow() -> None:
            kms.seconds = 0.65

        def fast() -> None:
            kms.seconds = 0.0

        slows = ["AcquireSlowBurnsFast", "AcquireSlowBurns", "AcquireSlowBudgetShrinks"]
        self.fires(["SigningSlow", *slows], slow, fast)

        def fail() -> None:
            kms.status = 503

        def work() -> None:
            kms.status = 0

        # Heartbeats of others go on: what fails is the signature alone.
        holder = self.service.issuer.token("holder", tenant_id=self.tenant)
        status, grant = call(
            self.service.urls[0], "POST", "/api/v1/licenses/acquire", {"hardware_id": "machine-of-holder"}, holder
        )
        beating = threading.Event()

        def beat() -> None:
            while not beating.wait(0.2):
                call(
                    self.service.urls[0],
                    "POST",
                    "/api/v1/licenses/heartbeat",
                    {"session_id": grant["session_id"]},
                    holder,
                )

        threading.Thread(target=beat, daemon=True).start()
        self.fires(["SigningFailing"], fail, work)
        beating.set()

        transaction: list[subprocess.Popen[bytes]] = []
        self.fires(
            ["ProjectionLag"],
            lambda: transaction.append(self.freeze_readers()),
            lambda: transaction[0].kill() or self.end_sleepers(),
        )

        crowd = Clients(lambda: self.service.urls, self.service.issuer, self.tenant, 32, pause=0, hold=0)
        self.fires(["ConflictStorm"], crowd.start, crowd.stop)

        self.fires(["SeatsExpiringEnMasse"], self.crash_clients, lambda: None)

        self.fires(
            ["VerifyFailing"],
            lambda: kube.job("license-verify", 2, failed=True),
            lambda: kube.job("license-verify", 3, failed=False),
        )
        self.fires(
            ["VerifyOverdue"],
            lambda: kube.lines.update({LAST_SUCCESS: time.time() - 27 * 3600}),
            lambda: kube.lines.update({LAST_SUCCESS: time.time()}),
        )
        self.fires(
            ["JobFailed"],
            lambda: kube.job("license-keys-rotate", 2, failed=True),
            lambda: kube.job("license-keys-rotate", 3, failed=False),
        )
        self.fires(["PodsRestarting"], lambda: kube.lines.update({RESTARTS: 6.0}), lambda: None)

    def stop_all(self) -> None:
        for replica in self.service.replicas:
            replica.kill()

    def start_all(self) -> None:
        for replica in self.service.replicas:
            replica.start()

    def end_sleepers(self) -> None:
        self.postgres.ask(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()"
        )

    def look_at_pages(self) -> None:
        with contextlib.suppress(TimeoutError):
            wait_until(
                lambda: any(one["event_action"] == "resolve" for one in self.monitoring.pagerduty.events), "", 10
            )
        missing = {"RedisDown", "NoReplicaAnswers"} - self.fired if SHORT else set(alert_names()) - self.fired
        expect(
            not missing,
            f"every alert of this drill was fired{': not ' + ', '.join(sorted(missing)) if missing else ''}",
        )
        events = [one for one in self.monitoring.pagerduty.events if one["event_action"] == "trigger"]
        resolved = [one for one in self.monitoring.pagerduty.events if one["event_action"] == "resolve"]
        expect(
            {one["routing_key"] for one in events} == {"page", "ticket"},
            f"PagerDuty got {len(events)} triggers, for pages and tickets",
        )
        expect(
            all(
                one["payload"]["severity"] == {"page": "critical", "ticket": "warning"}[one["routing_key"]]
                for one in events
            ),
            "each with its severity",
        )
        expect(
            all("RUNBOOK.md#" in one["links"][0]["href"] and one["payload"]["summary"] for one in events),
            "each with a summary and a link to its section",
        )
        expect(bool(resolved), f"and {len(resolved)} were resolved")


def _metrics(expression: str) -> set[str]:
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', "", expression)
    return set(re.findall(r"\blicense[_:][a-z0-9_:]+", bare))


def main() -> None:
    drill = Drill()
    drill.run()
    if "--pictures" in sys.argv:
        from stand.pictures import draw

        draw(drill.monitoring, Path(sys.argv[sys.argv.index("--pictures") + 1]), drill.begun)
    finish()


if __name__ == "__main__":
    main()

"""A real Prometheus with our rules, a real Alertmanager with our routing, and stand-ins for what they talk to.

Rules are ours but for time: windows and `for` are shortened by one table, so that a drill takes minutes and not days.
"""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from .engines import ROOT
from .google import Server
from .processes import Process, free_port, wait_until
from .service import Service

SCRAPE = "1s"
SHORTER = {
    "5m": "8s",
    "10m": "12s",
    "15m": "14s",
    "30m": "10s",
    "1h": "12s",
    "2h": "12s",
    "6h": "14s",
    "1d": "14s",
    "3d": "16s",
}
# Thresholds in seconds of something that only time brings.
SOONER = {"license_projection_lag_seconds) > 60": "license_projection_lag_seconds) > 3"}


def _extract(what: str, file: str) -> str:
    command = [sys.executable, str(ROOT / "scripts/ops/extract.py"), what, str(ROOT / "k8s/monitoring" / file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def shortened_rules() -> str:
    body = yaml.safe_load(_extract("rules", "rules.yaml"))
    for group in body["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[(\w+)\]", lambda found: f"[{SHORTER[found.group(1)]}]", rule["expr"])
            for long, short in SOONER.items():
                rule["expr"] = rule["expr"].replace(long, short)
            if "for" in rule:
                rule["for"] = "1s"
    return yaml.safe_dump(body, sort_keys=False, width=1000)


def alert_names() -> list[str]:
    body = yaml.safe_load(_extract("rules", "rules.yaml"))
    return [rule["alert"] for group in body["groups"] for rule in group["rules"] if "alert" in rule]


def program(name: str) -> str:
    """Debian calls it so; others leave the first word out."""
    for one in (name, name.removeprefix("prometheus-")):
        found = shutil.which(one)
        if found:
            return found
    raise SystemExit(f"drills: no {name}: scripts/ops/tools.sh prometheus")


class PagerDuty(Server):
    """Takes events as PagerDuty's API does, and keeps them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        super().__init__()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.events.append(body)
        return 202, {"status": "success", "message": "Event processed", "dedup_key": body.get("dedup_key", "")}


class KubeState(Server):
    """What kube-state-metrics would say of our Jobs, in its own words."""

    def __init__(self) -> None:
        self.lines: dict[str, float] = {}
        super().__init__()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        return 200, "".join(f"{name} {value}\n" for name, value in self.lines.items())

    def job(self, cron: str, number: int, *, failed: bool) -> None:
        at = 'namespace="license"'
        name = f"{cron}-{number}"
        self.lines[f'kube_cronjob_created{{{at},cronjob="{cron}"}}'] = time.time() - 1e6
        self.lines[f'kube_job_status_start_time{{{at},job_name="{name}"}}'] = time.time()
        self.lines[f'kube_job_status_failed{{{at},job_name="{name}",reason="BackoffLimitExceeded"}}'] = float(failed)
        if not failed:
            self.lines[f'kube_cronjob_status_last_successful_time{{{at},cronjob="{cron}"}}'] = time.time() + 1


class Monitoring:
    """Prometheus and Alertmanager beside a service."""

    def __init__(self, folder: Path, service: Service) -> None:
        self.service = service
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.pagerduty = PagerDuty()
        self.kube_state = KubeState()
        self.port, self.alertmanager_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._configure()
        manager = [
            program("prometheus-alertmanager"),
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/alertmanager",
        ]
        manager += [f"--web.listen-address=127.0.0.1:{self.alertmanager_port}", "--cluster.listen-address="]
        self.alertmanager = Process(manager, folder / "alertmanager.log")
        server = [program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
        server += [f"--web.listen-address=127.0.0.1:{self.port}"]
        self.prometheus = Process(server, folder / "prometheus.log")
        wait_until(self._is_ready, "Prometheus answers")

    def _is_ready(self) -> bool:
        if not self.prometheus.runs:
            raise RuntimeError(self.prometheus.last_lines())
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _configure(self) -> None:
        (self.folder / "rules.yml").write_text(shortened_rules())
        replicas = [f"127.0.0.1:{replica.metrics_port}" for replica in self.service.replicas]
        config = {
            "global": {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE},
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{self.alertmanager_port}"]}]}]},
            "scrape_configs": [
                {"job_name": "license-api", "static_configs": [{"targets": replicas}]},
                {
                    "job_name": "kube-state-metrics",
                    "static_configs": [{"targets": [urllib.parse.urlparse(self.kube_state.url).netloc]}],
                },
            ],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        routing = yaml.safe_load(_extract("alertmanager", "alertmanager.yaml"))
        routing["route"].update(group_wait="1s", group_interval="1s")
        for receiver in routing["receivers"]:
            for one in receiver["pagerduty_configs"]:
                one["url"] = f"{self.pagerduty.url}/v2/enqueue"
        (self.folder / "alertmanager.yml").write_text(yaml.safe_dump(routing))

    def get(self, path: str, **query: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{query}: {json.load(error)['error']}") from error

    def ask(self, expression: str) -> list[Any]:
        return list(self.get("query", query=expression)["result"])

    def firing(self) -> set[str]:
        return {one["labels"]["alertname"] for one in self.get("alerts")["alerts"] if one["state"] == "firing"}

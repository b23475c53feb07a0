"""Runs the commands of an alert's section of docs/RUNBOOK.md while that alert fires: they must work, and with `write` what they print goes
into the section."""

import os
import re
import subprocess

from .engines import ROOT
from .monitoring import Monitoring
from .report import expect
from .service import Service

FILE = ROOT / "docs/RUNBOOK.md"
WIDEST = 180


def _environment(service: Service, monitoring: Monitoring) -> dict[str, str]:
    postgres = service.postgres
    return {
        **os.environ,
        **service.settings,
        "PATH": f"{service.program.parent}:{postgres.bin}:{os.environ['PATH']}",
        "API": service.urls[0],
        "PROM": monitoring.url,
        "DATABASE_URL": postgres.url("license_api"),
        "ADMIN_DATABASE_URL": postgres.url("postgres"),
        "PGCONNECT_TIMEOUT": "2",
        "LOGS": " ".join(str(replica.log) for replica in service.replicas),
    }


def look(alert: str, service: Service, monitoring: Monitoring, *, write: bool) -> None:
    text = FILE.read_text(encoding="utf-8")
    section = re.search(rf"^### {alert}\n.*?```sh\n(.*?)```\n\n```text\n(.*?)```", text, flags=re.S | re.M)
    if not section:
        expect(False, f"docs/RUNBOOK.md has commands for {alert}")
        return
    said = []
    for command in section.group(1).strip().splitlines():
        # What `license_service` may see; what an administrator sees, with that role's own rights.
        role = "" if "ADMIN_DATABASE_URL" in command else "export PGOPTIONS='-c role=license_service'; "
        script = f"set -o pipefail; {role}logs() {{ tail -qn 400 $LOGS; }}; {command}"
        done = subprocess.run(
            ["bash", "-c", script],
            env=_environment(service, monitoring),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        expect(
            done.returncode == 0,
            f"runbook, {alert}: {command[:70]}{'' if done.returncode == 0 else ': ' + done.stderr.strip()}",
        )
        lines = [line.rstrip()[:WIDEST] for line in (done.stdout + done.stderr).rstrip().splitlines() if line.strip()]
        said += [f"$ {command}", *(lines or ["(nothing)"])]
    if write:
        start, end = section.span(2)
        FILE.write_text(text[:start] + "\n".join(said) + "\n" + text[end:], encoding="utf-8")

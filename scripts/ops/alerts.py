#!/usr/bin/env python3
"""Whether each alert has what an operator needs: a severity, a summary, a section of the runbook, a test that fires and clears it;
and whether the runbook and the tests speak of alerts that exist."""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "k8s/monitoring"
RUNBOOK = ROOT / "docs/RUNBOOK.md"
CLOUD = ROOT / "infra/modules/monitoring/main.tf"
PARTS = ("What users feel", "Look", "Act", "Roll back", "Escalate")


def tested() -> dict[str, set[int]]:
    """For each alert, whether some test wants it firing (1) and some other silent (0)."""
    found: dict[str, set[int]] = {}
    for file in MONITORING.glob("tests/*.yml"):
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            states: dict[str, list[int]] = {}
            for one in test["promql_expr_test"]:
                name = re.search(r'alertname="(\w+)"', one["expr"])
                if name:
                    states.setdefault(name.group(1), []).append(one["exp_samples"][0]["value"])
            for name_, values in states.items():
                known = found.setdefault(name_, set())
                known.update(values)
                # Cleared: silent after it fired, in one and the same case.
                if 1 in values and 0 in values[values.index(1) :]:
                    known.add(2)
    return found


def main() -> None:
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text(encoding="utf-8"))["spec"]["groups"]
    alerts = [rule for group in rules for rule in group["rules"] if "alert" in rule]
    names = {rule["alert"] for rule in alerts}
    runbook = RUNBOOK.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", runbook, flags=re.S | re.M))
    tests = tested()
    wrong = []
    for rule in alerts:
        name = rule["alert"]
        if rule["labels"].get("severity") not in ("page", "ticket"):
            wrong.append(f"{name}: severity is neither page nor ticket")
        if not rule["annotations"].get("summary"):
            wrong.append(f"{name}: no summary")
        if not rule["annotations"].get("runbook_url", "").endswith(f"/docs/RUNBOOK.md#{name.lower()}"):
            wrong.append(f"{name}: runbook_url does not lead to its section")
        section = sections.get(name)
        if section is None:
            wrong.append(f"{name}: docs/RUNBOOK.md has no section of that name")
        else:
            wrong += [f"{name}: its section does not say «{part}»" for part in PARTS if f"**{part}" not in section]
        if not {0, 1, 2} <= tests.get(name, set()):
            wrong.append(f"{name}: no test fires and clears it")
    wrong += [f"{name}: tested, but no such alert" for name in set(tests) - names]
    # Cloud Monitoring's own alerts name their sections by anchor.
    anchors = {name.lower(): section for name, section in sections.items()}
    for anchor in set(re.findall(r"runbook_url}#(\w+)", CLOUD.read_text(encoding="utf-8"))):
        section = anchors.get(anchor, "")
        wrong += [f"{CLOUD.name}: #{anchor} does not say «{part}»" for part in PARTS if f"**{part}" not in section]
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

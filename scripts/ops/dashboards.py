#!/usr/bin/env python3
"""The dashboards: writes k8s/monitoring/dashboards/*.json for Grafana; with --check says whether they are up to date.

One dashboard a concern, one row of three panels at a time, the same colours and units everywhere. A panel's expressions
use $__rate_interval, which Grafana sets to four scrapes at least.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "k8s/monitoring/dashboards"
RATE = "$__rate_interval"
API = 'route=~"/api/.*"'
ACQUIRE = 'route="/api/v1/licenses/acquire"'
CLIENT = 'route=~"/api/v1/licenses/(acquire|heartbeat|release)"'


def quantiles(metric: str, selector: str = "", by: str = "") -> list[tuple[str, str]]:
    group = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return [
        (
            f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{{{selector}}}[{RATE}])))",
            f"{legend}p{int(q * 100)}",
        )
        for q in (0.5, 0.99)
    ]


def each(metric: str, by: str, selector: str = "") -> list[tuple[str, str]]:
    return [(f"sum by ({by}) (rate({metric}{{{selector}}}[{RATE}]))", f"{{{{{by}}}}}")]


# title, unit, expressions with legends, and what it is for
Panel = tuple[str, str, list[tuple[str, str]], str]
DASHBOARDS: dict[str, tuple[str, list[Panel]]] = {
    "api": (
        "API",
        [
            ("Requests", "reqps", each("license_http_requests_total", "route", API), "Answered requests by route."),
            (
                "Errors",
                "percentunit",
                [
                    (
                        f'(sum(rate(license_http_requests_total{{{API},status=~"5.."}}[{RATE}])) or vector(0)) / sum(rate(license_http_requests_total{{{API}}}[{RATE}]))',
                        "answered 5xx",
                    ),
                    ("vector(0.001)", "objective"),
                ],
                "Part of the requests that is answered 5xx; the objective is one in a thousand.",
            ),
            (
                "Latency of acquire",
                "s",
                quantiles("license_http_request_duration_seconds", ACQUIRE),
                "From the last byte of the request to the answer.",
            ),
            (
                "Latency by route, p99",
                "s",
                [
                    (
                        f"histogram_quantile(0.99, sum by (le, route) (rate(license_http_request_duration_seconds_bucket{{{CLIENT}}}[{RATE}])))",
                        "{{route}}",
                    )
                ],
                "The three client routes.",
            ),
            (
                "Answers by status",
                "reqps",
                each("license_http_requests_total", "status", API),
                "409 is a full pool, 429 a limit, 503 a dependency.",
            ),
            (
                "Budget burnt",
                "none",
                [
                    ("license:api_errors:ratio_rate1h / 0.001", "availability, 1 h"),
                    ("license:acquire_slow:ratio_rate1h / 0.01", "acquire under 0.5 s, 1 h"),
                ],
                "1: the budget lasts exactly a month. 14.4 wakes somebody.",
            ),
        ],
    ),
    "seats": (
        "Seats and sessions",
        [
            (
                "Live sessions",
                "short",
                [("max(license_sessions_active)", "sessions")],
                "Of the whole system: each replica counts all of them.",
            ),
            ("Decisions", "ops", each("license_seat_decisions_total", "decision"), "What was committed."),
            (
                "Refused acquires",
                "percentunit",
                [
                    (
                        f'sum(rate(license_seat_decisions_total{{decision="denied"}}[{RATE}])) / sum(rate(license_seat_decisions_total{{decision=~"granted|renewed|denied"}}[{RATE}]))',
                        "denied",
                    )
                ],
                "No seat, or a license that does not accept.",
            ),
            (
                "Expired in ten minutes",
                "short",
                [('sum(increase(license_seat_decisions_total{decision="expired"}[10m]))', "expired")],
                "Sessions that ended for want of a heartbeat: crashed clients, or a network that swallows heartbeats.",
            ),
            (
                "Ended otherwise",
                "ops",
                [
                    (
                        f'sum by (decision) (rate(license_seat_decisions_total{{decision=~"released|revoked"}}[{RATE}]))',
                        "{{decision}}",
                    )
                ],
                "Released by the client, revoked by an admin.",
            ),
            (
                "Heartbeats",
                "ops",
                [(f'sum(rate(license_events_appended_total{{type="seat_heartbeat"}}[{RATE}]))', "heartbeats")],
                "Written to the log. Should follow the number of sessions: one each in five minutes.",
            ),
        ],
    ),
    "pools": (
        "Pools and actors",
        [
            (
                "Pools with an actor",
                "short",
                [("sum by (instance) (license_pool_actors)", "{{instance}}")],
                "20,000 is the most of a replica.",
            ),
            (
                "Actors started again",
                "ops",
                [(f"sum by (instance) (rate(license_actor_restarts_total[{RATE}]))", "{{instance}}")],
                "After a failure. Each reads its pool from the log again.",
            ),
            (
                "Mirrors written from the log",
                "ops",
                [(f"sum by (instance) (rate(license_mirror_repairs_total[{RATE}]))", "{{instance}}")],
                "After Redis was away or lost something.",
            ),
        ],
    ),
    "appends": (
        "Appends and conflicts",
        [
            ("Events written", "ops", each("license_events_appended_total", "type"), "By type."),
            (
                "Time of an append",
                "s",
                quantiles("license_event_append_duration_seconds"),
                "One statement, one round trip, one commit.",
            ),
            (
                "Events of an append",
                "short",
                quantiles("license_event_append_batch_size"),
                "Batches form by themselves: under load they grow.",
            ),
            (
                "Conflicts",
                "ops",
                [(f"sum(rate(license_append_conflicts_total[{RATE}]))", "refused pools")],
                "Another replica was faster on the same pool; the actor catches up and decides again.",
            ),
            (
                "Conflicts for an append",
                "none",
                [
                    (
                        f"sum(rate(license_append_conflicts_total[{RATE}])) / sum(rate(license_event_append_duration_seconds_count[{RATE}]))",
                        "conflicts / appends",
                    )
                ],
                "0.2 for five minutes is a storm.",
            ),
            (
                "Appends",
                "ops",
                [(f"sum(rate(license_event_append_duration_seconds_count[{RATE}]))", "statements")],
                "Statements a second.",
            ),
        ],
    ),
    "redis": (
        "Redis",
        [
            (
                "Answers",
                "bool_on_off",
                [("min by (instance) (license_redis_up)", "{{instance}}")],
                "Off: that replica decides without the gate.",
            ),
            (
                "Time of a script",
                "s",
                [
                    (
                        f"histogram_quantile(0.99, sum by (le, script) (rate(license_redis_call_duration_seconds_bucket[{RATE}])))",
                        "{{script}} p99",
                    )
                ],
                "A call ends after 250 ms, answered or not.",
            ),
            ("Calls", "ops", each("license_redis_call_duration_seconds_count", "script"), "By script."),
        ],
    ),
    "postgres": (
        "Postgres",
        [
            (
                "Answers",
                "bool_on_off",
                [("min by (instance) (license_postgres_up)", "{{instance}}")],
                "Off: that replica answers 503.",
            ),
            (
                "Time of an append",
                "s",
                quantiles("license_event_append_duration_seconds", by="instance"),
                "As each replica sees it: a commit, so the disk as well.",
            ),
            (
                "Answered 503",
                "reqps",
                [
                    (
                        f'sum by (route) (rate(license_http_requests_total{{status="503"}}[{RATE}])) or vector(0)',
                        "{{route}}",
                    )
                ],
                "What clients notice of it.",
            ),
        ],
    ),
    "projections": (
        "Projections",
        [
            (
                "Behind the log",
                "s",
                [("max by (projection) (license_projection_lag_seconds)", "{{projection}}")],
                "Age of the oldest event that is not folded. A long write transaction anywhere in the cluster holds all of them back.",
            ),
            (
                "Events that wait",
                "short",
                [("max by (projection) (license_projection_lag_events)", "{{projection}}")],
                "Counted up to 100,000.",
            ),
            (
                "Events written",
                "ops",
                [(f"sum(rate(license_events_appended_total[{RATE}]))", "events")],
                "What there is to fold.",
            ),
        ],
    ),
    "signing": (
        "Signing",
        [
            (
                "Time of a signature",
                "s",
                quantiles("license_signature_duration_seconds", by="signer"),
                "Given up after 3 s.",
            ),
            (
                "Signatures",
                "ops",
                each("license_signature_duration_seconds_count", "signer"),
                "What the signer was asked for. The quota of an HSM is in the order of 50 a second and region.",
            ),
            (
                "Tokens under one signature",
                "short",
                quantiles("license_signature_batch_size"),
                "1 unless TOKEN_FORMAT=batch: then the tokens of a moment share one.",
            ),
            (
                "Left without a signature",
                "ops",
                each("license_signature_failures_total", "signer"),
                "Tokens, checkpoints and certificates that the signer failed, or took over 3 s for.",
            ),
            (
                "Acquires answered 5xx",
                "percentunit",
                [
                    (
                        f'(sum(rate(license_http_requests_total{{{ACQUIRE},status=~"5.."}}[{RATE}])) or vector(0)) / sum(rate(license_http_requests_total{{{ACQUIRE}}}[{RATE}]))',
                        "acquire",
                    ),
                    (
                        f'(sum(rate(license_http_requests_total{{route=~"/api/v1/licenses/(heartbeat|release)",status=~"5.."}}[{RATE}])) or vector(0)) / sum(rate(license_http_requests_total{{route=~"/api/v1/licenses/(heartbeat|release)"}}[{RATE}]))',
                        "heartbeat, release",
                    ),
                ],
                "If only the first one rises, it is the signer.",
            ),
        ],
    ),
}


def panel(number: int, one: Panel) -> dict[str, object]:
    title, unit, expressions, description = one
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": 8, "w": 8, "x": 8 * (number % 3), "y": 8 * (number // 3)},
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(65 + index),
                "expr": expression,
                "legendFormat": legend,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
            }
            for index, (expression, legend) in enumerate(expressions)
        ],
    }


def dashboard(name: str, title: str, panels: list[Panel]) -> str:
    body = {
        "uid": f"license-{name}",
        "title": f"License: {title}",
        "tags": ["license"],
        "timezone": "utc",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "links": [
            {"type": "dashboards", "tags": ["license"], "title": "License", "asDropdown": True, "keepTime": True}
        ],
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "annotations": {"list": []},
        "panels": [panel(number, one) for number, one in enumerate(panels)],
    }
    return json.dumps(body, indent=2) + "\n"


def main() -> None:
    stale = []
    for name, (title, panels) in DASHBOARDS.items():
        file = FOLDER / f"license-{name}.json"
        text = dashboard(name, title, panels)
        if "--check" in sys.argv:
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                stale.append(file.name)
        else:
            FOLDER.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"{', '.join(stale)}: not what scripts/ops/dashboards.py writes")


if __name__ == "__main__":
    main()

"""Draws each dashboard as a picture from Prometheus' data: the same panels, the same expressions, without Grafana."""

import json
import math
import time
from pathlib import Path

import matplotlib
import matplotlib.dates
import matplotlib.pyplot as plot
import matplotlib.ticker

from .engines import ROOT
from .monitoring import Monitoring
from .report import say

matplotlib.use("Agg")
STYLE = {
    "figure.facecolor": "#181b1f", "axes.facecolor": "#181b1f", "axes.edgecolor": "#444", "axes.labelcolor": "#ccc", "text.color": "#ddd",
    "xtick.color": "#999", "ytick.color": "#999", "grid.color": "#333", "font.size": 7, "axes.grid": True, "legend.frameon": False,
}  # fmt: skip
UNITS = {
    "s": "seconds",
    "reqps": "requests/s",
    "ops": "1/s",
    "percentunit": "part",
    "bool_on_off": "1: on",
    "short": "",
    "none": "",
}


def legend(form: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form


def draw(monitoring: Monitoring, to: Path, begun: float) -> None:
    to.mkdir(parents=True, exist_ok=True)
    end = time.time()
    for file in sorted((ROOT / "k8s/monitoring/dashboards").glob("*.json")):
        body = json.loads(file.read_text(encoding="utf-8"))
        rows = math.ceil(len(body["panels"]) / 3)
        with plot.rc_context(STYLE):
            figure, axes = plot.subplots(rows, 3, figsize=(12, 2.6 * rows), squeeze=False)
            figure.suptitle(body["title"], x=0.01, ha="left", fontsize=10)
            for panel, axis in zip(body["panels"], axes.flat, strict=False):
                for target in panel["targets"]:
                    expression = target["expr"].replace("$__rate_interval", "15s")
                    series = monitoring.get("query_range", query=expression, start=str(begun), end=str(end), step="2")[
                        "result"
                    ]
                    for one in series[:12]:
                        points = [(at, float(value)) for at, value in one["values"]]
                        times = [
                            matplotlib.dates.epoch2num(at) if hasattr(matplotlib.dates, "epoch2num") else at / 86400
                            for at, _ in points
                        ]
                        axis.plot(
                            times,
                            [value for _, value in points],
                            linewidth=0.9,
                            label=legend(target["legendFormat"], one["metric"])[:34],
                        )
                axis.set_title(panel["title"], loc="left", fontsize=8)
                axis.set_ylabel(UNITS[panel["fieldConfig"]["defaults"]["unit"]], fontsize=6)
                axis.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M:%S"))
                axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
                axis.set_ylim(bottom=0)
                if axis.get_legend_handles_labels()[0]:
                    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncol=2, fontsize=5.5)
            for axis in axes.flat[len(body["panels"]) :]:
                axis.set_visible(False)
            figure.tight_layout(h_pad=1.5)
            figure.savefig(to / f"{file.stem}.png", dpi=80)
            plot.close(figure)
    say(f"pictures in {to}")

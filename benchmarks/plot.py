"""The results as pictures for the docs."""

from pathlib import Path
from typing import Any

import pygal

from benchmarks import latency

NAMES = {
    "limit": "bulk SQL (the limit)",
    "shortpick": "Shortpick",
    "celery_empty": "Celery, empty tasks",
    "naive": "a task and a transaction per event",
}


def write(results: dict[str, Any], folder: Path) -> None:
    """`throughput.svg` and `latency.svg`."""
    style = pygal.style.CleanStyle(background="white", plot_background="white")
    bars = pygal.HorizontalBar(style=style, show_legend=False, print_values=True, height=300, js=[])
    bars.title = "Events per second, all on one machine"
    bars.x_labels = list(NAMES.values())
    bars.value_formatter = lambda rate: f"{rate:,.0f}"
    bars.add("events/s", [results["throughput"][key]["median"] for key in NAMES])
    bars.render_to_file(str(folder / "throughput.svg"))
    lines = pygal.Line(style=style, logarithmic=True, height=400, js=[])
    lines.title = "Milliseconds from event to published cancellation, by events per second"
    lines.x_labels = [latency.name_of(row) for row in results["latency"]]
    for name, title in (("median_ms", "median"), ("p99_ms", "99th percentile")):
        lines.add(title, [round(row[name], 1) for row in results["latency"]])
    lines.render_to_file(str(folder / "latency.svg"))

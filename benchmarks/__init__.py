"""Benchmarks; README.md tells the method."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
RESULTS.mkdir(exist_ok=True)


def tell(name: str, results: Any, *tables: Table) -> None:
    """Print tables, and write them and what they were made of: `NAME.txt` and `NAME.json` in the results."""
    console = Console(width=160, record=True)
    for table in tables:
        console.print(table)
    (RESULTS / f"{name}.txt").write_text("".join(f"{line.rstrip()}\n" for line in console.export_text().splitlines()))
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")

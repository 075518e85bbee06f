"""What the fault tests did to the pipeline, told at the end of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

Record = Callable[[str, object], None]
"""pytest's `record_property`. A scenario records `faults`, by kind how many, how many `entries` came meanwhile, and perhaps
a `note`."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.stats.get(outcome, [])]
    rows = [row for row in map(_row, reports) if row]
    if not rows:
        return
    terminalreporter.section("faults")
    for row in sorted(rows, key=lambda row: row.scenario):
        terminalreporter.line(row.scenario)
        terminalreporter.line(f"    {row.told()}")
    faults, entries, seconds = (
        sum(column) for column in zip(*((r.total, r.entries, r.seconds) for r in rows), strict=True)
    )
    terminalreporter.line(f"{len(rows)} scenarios: {faults} faults, {entries} entries, {seconds:.0f} s")


@dataclass(frozen=True, slots=True)
class _Row:
    scenario: str
    faults: dict[str, int]
    entries: int
    seconds: float
    note: str

    @property
    def total(self) -> int:
        return sum(self.faults.values())

    def told(self) -> str:
        faults = ", ".join(f"{kind} {number}" for kind, number in sorted(self.faults.items()))
        return f"{faults}; {self.entries} entries, {self.seconds:.0f} s" + (f"; {self.note}" if self.note else "")


def _row(report: pytest.TestReport) -> _Row | None:
    recorded: dict[str, Any] = dict(report.user_properties)
    if "faults" not in recorded:
        return None
    entries, note = recorded.get("entries", 0), recorded.get("note", "")
    return _Row(report.nodeid.rpartition("/")[2], recorded["faults"], entries, report.duration, note)

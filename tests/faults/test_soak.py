"""The soak program itself, for some seconds, so that it stays working."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.summary import Record
from tests.soak.report import Report

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_soak_of_some_seconds_finds_nothing_wrong(
    tmp_path: Path, request: pytest.FixtureRequest, record_property: Record
) -> None:
    options = ["--minutes", "0.5", "--seed", str(request.config.option.seed), "--folder", str(tmp_path / "soak")]
    soak = subprocess.Popen(
        [sys.executable, "-m", "tests.soak", *options], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        told = soak.communicate(timeout=250)[0].decode()
    finally:
        soak.terminate()
        soak.wait(30)
    assert soak.returncode == 0, told
    report = (tmp_path / "soak/report.txt").read_text()
    assert report.endswith("Verdict: good. The checker finds nothing, and the reference model agrees.\n")
    faults, entries = number(report, "faults"), number(report, " entries")
    assert faults > 0
    assert entries > 100
    record_property("faults", {"in a soak": faults})
    record_property("entries", entries)


def test_a_soak_that_finds_something_wrong_fails() -> None:
    report = report_of("Order o1 lost 3 units, its ledger has 2.")
    assert report.exit_code == 1
    assert report.text().endswith("Verdict: BAD, 1 problems:\nOrder o1 lost 3 units, its ledger has 2.")
    assert report_of().exit_code == 0


def report_of(*problems: str) -> Report:
    nothing: Counter[str] = Counter()
    return Report(1, 10, {}, nothing, nothing, nothing, nothing, [], [], 1, 1, 1, problems)


def number(report: str, name: str) -> int:
    """What stands before the name, on a line of its own."""
    (found,) = re.findall(rf"^ *([0-9,]+) {name}$", report, re.MULTILINE)
    return int(found.replace(",", ""))

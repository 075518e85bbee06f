"""`shortpick demo` as a new user would run it."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(120)


def shortpick(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_the_demo_ends_well_and_its_next_commands_work(tmp_path: Path) -> None:
    done = shortpick(tmp_path, "demo", "--orders", "300")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 5
    assert "✗" not in done.stdout
    assert re.search(r"median \d+ ms, 99th percentile \d+ ms", done.stdout)
    assert running_in(tmp_path) == []
    for line in done.stdout.partition("Try next:")[2].splitlines():
        if line.strip():
            following = shortpick(tmp_path, *line.split()[1:])
            assert following.returncode == 0, following.stderr
            assert following.stdout


def test_the_demo_removes_nothing_but_an_earlier_demo(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    done = shortpick(tmp_path, "demo", "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "holds something that is no demo" in done.stderr
    assert (tmp_path / "precious").exists()


def test_without_all_four_operations_the_demo_fails_and_says_so(tmp_path: Path) -> None:
    done = shortpick(tmp_path, "demo", "--orders", "1")
    assert done.returncode == 1
    assert "not true: all four operations occurred" in " ".join(done.stderr.split())


def running_in(folder: Path) -> list[psutil.Process]:
    """Processes that work in a folder or below it."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if (process.info["cwd"] or "").startswith(str(folder)):
            found.append(process)
    return found

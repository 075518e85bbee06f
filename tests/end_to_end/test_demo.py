"""`shortpick demo` as a new user would run it."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil
import pytest

pytestmark = pytest.mark.timeout(120)


def shortpick(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_the_demo_ends_well_and_its_next_commands_work(tmp_path: Path) -> None:
    done = shortpick(tmp_path, "demo", "--orders", "900")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 6
    assert "✗" not in done.stdout
    assert "none was lost" in done.stdout
    assert "events sent, " in done.stderr
    assert re.search(r"median \d+ ms, 99th percentile \d+ ms", done.stdout)
    assert running_in(tmp_path) == []
    for line in done.stdout.partition("Try next:")[2].splitlines():
        if line.strip():
            following = shortpick(tmp_path, *line.split()[1:])
            assert following.returncode == 0, following.stderr
            assert following.stdout


def test_a_feed_that_runs_away_is_held_and_stopped_exactly_at_the_limit(tmp_path: Path) -> None:
    done = shortpick(tmp_path, "demo", "--scenario", "runaway", "--orders", "500")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 4
    assert "nothing was cut" in done.stdout
    assert "50 orders were cut by 8 workers at once: the limit is 50" in done.stdout
    assert running_in(tmp_path) == []


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


def test_a_second_interrupt_while_the_demo_ends_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "worker.cli", "demo", "--orders", "2000"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    ) as demo:
        assert demo.stderr is not None
        wait_for(demo.stderr, "events sent")
        assert running_in(tmp_path / ".shortpick")
        demo.send_signal(signal.SIGINT)
        wait_for(demo.stderr, "Ending every process")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130
    assert running_in(tmp_path) == []


def heed_ctrl_c() -> None:
    """What a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(lines: IO[str], words: str) -> None:
    assert any(words in line for line in lines), f"it ended before it said: {words}"


def running_in(folder: Path) -> list[psutil.Process]:
    """Processes that work in a folder or below it."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if (process.info["cwd"] or "").startswith(str(folder)):
            found.append(process)
    return found

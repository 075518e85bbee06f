"""`shortpick up`: one command that runs everything, restarts what dies, and leaves nothing behind."""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from worker.cli.main import run

ROOT = Path(__file__).parents[2]
DOCS = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))

pytestmark = pytest.mark.timeout(120)


class Up:
    """`shortpick up` in a folder, with all that it says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = folder / "said.txt"
        with self.said.open("w") as said:
            command = [sys.executable, "-m", "worker.cli", "up", "--state-dir", str(folder / ".shortpick")]
            self.process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        self.wait_for("The pipeline runs in")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 40
        while text not in " ".join(self.said.read_text().split()):
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.05)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, name: str) -> psutil.Process:
        return next(one for one in psutil.Process(self.process.pid).children() if name in " ".join(one.cmdline()))

    def shortpick(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "worker.cli", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started = Up(tmp_path)
    yield started
    if started.process.poll() is None:
        family = started.children()
        started.process.terminate()
        started.process.wait(60)
        psutil.wait_procs(family, timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything(up: Up, number: signal.Signals) -> None:
    up.wait_for("Try:")
    family = up.children()
    assert len(family) >= 5
    up.process.send_signal(number)
    assert up.process.wait(60) == 0, up.said.read_text()
    assert [one for one in family if one.is_running()] == []
    assert "All processes have ended." in up.said.read_text()


def test_a_child_that_dies_is_started_again_and_told(up: Up) -> None:
    for name in ("relay", "redis-server"):
        victim = up.child(name)
        time.sleep(1.1)  # a child is started again at most once a second
        victim.kill()
        up.wait_for(f"{name.removesuffix('-server')} was killed by SIGKILL and has been started again")
    up.shortpick("events", "send", str(ROOT / "docs/examples/short-pick.ndjson"), "--state-dir", ".shortpick")
    drained = up.shortpick("drain", "--timeout", "60", "--state-dir", ".shortpick")
    assert drained.returncode == 0, drained.stderr


def test_a_killed_supervisor_leaves_no_process(up: Up) -> None:
    family = up.children()
    up.process.kill()
    up.process.wait(10)
    gone, alive = psutil.wait_procs(family, timeout=40)
    assert alive == []
    assert len(gone) == len(family)


def test_a_second_pipeline_in_one_folder_is_refused(up: Up) -> None:
    second = up.shortpick("up", "--state-dir", ".shortpick")
    assert second.returncode == 1
    assert "runs in" in second.stderr
    assert "already" in second.stderr


def test_a_second_start_goes_on_from_the_first(up: Up, tmp_path: Path) -> None:
    send = ("events", "send", str(ROOT / "docs/examples/short-pick.ndjson"), "--state-dir", ".shortpick")
    assert up.shortpick(*send).returncode == 0
    assert up.shortpick("drain", "--state-dir", ".shortpick").returncode == 0
    up.process.terminate()
    assert up.process.wait(60) == 0
    again = Up(tmp_path)
    try:
        assert again.shortpick(*send).returncode == 0
        assert again.shortpick("drain", "--state-dir", ".shortpick").returncode == 0
        published = again.shortpick("tail", "--no-follow", "--state-dir", ".shortpick").stdout.splitlines()
        assert len(published) == 4
    finally:
        again.process.terminate()
        again.process.wait(60)


def test_the_commands_that_the_docs_show_work(
    up: Up, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, since to start one for each of so many would take long."""
    monkeypatch.chdir(up.folder)
    (up.folder / "docs").symlink_to(ROOT / "docs")
    shown = [
        shlex.split(line)[1:]
        for document in DOCS
        for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    assert len(shown) > 10
    for arguments in shown:
        monkeypatch.setattr(sys, "argv", ["shortpick", *arguments])
        try:
            run()
        except SystemExit as end:
            assert not end.code, (arguments, capsys.readouterr().err)

"""The processes of a pipeline, each started by its own command, to be killed and started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from worker.settings import Settings, variable

STOP_SECONDS = 60
"""The pool of a busy worker may wait for half a minute whether its parent reads what its children last said (seen)."""
NAMES = ("ingress", "worker", "relay", "beat")


def environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a process these settings."""
    chosen = settings.model_dump(include=settings.model_fields_set)
    return {**os.environ, **{variable(name): str(value) for name, value in chosen.items()}}


class Processes:
    """Use as a context: whatever happens, no process is left behind."""

    def __init__(self, settings: Settings, log_dir: Path) -> None:
        self._environment = environment(settings)
        self._more: dict[str, dict[str, str]] = {}
        self._log_dir = log_dir
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._seen: dict[int, psutil.Process] = {}
        self._logged_before = 0

    def __enter__(self) -> "Processes":
        for name in NAMES:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.family():
            process.kill()
        for started in self._running.values():
            started.wait(10)
        deadline = time.monotonic() + 10
        while self.family() and time.monotonic() < deadline:
            time.sleep(0.01)

    def start(self, name: str) -> None:
        with (self._log_dir / f"{name}.log").open("ab") as log:
            if name == "worker":
                self._logged_before = log.tell()
            command, surroundings = self._command_of(name), {**self._environment, **self._more.get(name, {})}
            self._running[name] = subprocess.Popen(command, env=surroundings, stdout=log, stderr=log)

    def give(self, name: str, **variables: str) -> None:
        """What else stands in the environment of a process from its next start on."""
        self._more[name] = variables

    def give_all(self, **variables: str) -> None:
        """The same, of every process."""
        self._environment |= variables

    def revive(self) -> None:
        """Start what has ended by itself again, as a supervisor does."""
        for name, process in self._running.items():
            if process.poll() is not None:
                self.start(name)

    def _command_of(self, name: str) -> list[str]:
        return [sys.executable, "-m", "worker.cli", name]

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self._running[name].pid)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line to its end."""
        command = [sys.executable, "-m", "worker.cli", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=90, check=False)

    def kill(self, name: str) -> None:
        """SIGKILL, which must find it alive; then start it again. (A killed worker's children end by themselves.)"""
        process = self._running[name]
        assert process.poll() is None, self.log(name)
        self.family()
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        self.start(name)

    def kill_worker_child(self) -> None:
        """SIGKILL one child of the worker's pool, which the pool replaces by itself."""
        child = psutil.Process(self._running["worker"].pid).children()[0]
        child.kill()
        child.wait(10)

    def worker_is_ready(self) -> bool:
        """Whether it has said so, and has both of its children. (Celery gives up if one dies before that.)"""
        said = (self._log_dir / "worker.log").read_bytes()[self._logged_before :]
        return b" ready." in said and sum(map(_lives, psutil.Process(self._running["worker"].pid).children())) == 2

    def running(self, name: str) -> subprocess.Popen[bytes]:
        """The process that was started last."""
        return self._running[name]

    def are_ready(self, names: Sequence[str]) -> bool:
        """Whether these have begun their work, or are about to, and will end in order."""
        return all(map(self._catches_sigterm, names)) and ("worker" not in names or self.worker_is_ready())

    def _catches_sigterm(self, name: str) -> bool:
        status = Path(f"/proc/{self._running[name].pid}/status").read_text()
        (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)

    def stop(self, name: str) -> int:
        """SIGTERM; returns the exit code."""
        process = self._running[name]
        assert process.poll() is None, self.log(name)
        self.family()
        process.terminate()
        return process.wait(STOP_SECONDS)

    def family(self) -> list[psutil.Process]:
        """Every process that was started here, or by one of these, and that still lives."""
        for started in self._running.values():
            if started.poll() is None:
                parent = psutil.Process(started.pid)
                self._seen |= {one.pid: one for one in [parent, *parent.children(recursive=True)]}
        return [one for one in self._seen.values() if _lives(one)]

    def log(self, name: str) -> str:
        return (self._log_dir / f"{name}.log").read_text(errors="replace")


def _lives(one: psutil.Process) -> bool:
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended at this moment
        return False

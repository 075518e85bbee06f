"""The processes of a pipeline, each started by its own command, to be killed and started again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from worker.settings import Settings, variable

NAMES = ("ingress", "worker", "relay", "beat")


def environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a process these settings."""
    chosen = settings.model_dump(include=settings.model_fields_set)
    return {**os.environ, **{variable(name): str(value) for name, value in chosen.items()}}


class Processes:
    """Use as a context: whatever happens, no process is left behind."""

    def __init__(self, settings: Settings, log_dir: Path) -> None:
        self._environment = environment(settings)
        self._log_dir = log_dir
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._seen: dict[int, psutil.Process] = {}
        self._worker_starts = 0

    def __enter__(self) -> "Processes":
        for name in NAMES:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.family():
            process.kill()
        for started in self._running.values():
            started.wait(10)
        psutil.wait_procs(list(self._seen.values()), timeout=10)

    def start(self, name: str) -> None:
        self._worker_starts += name == "worker"
        with (self._log_dir / f"{name}.log").open("ab") as log:
            command = self._command_of(name)
            self._running[name] = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

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
        children = psutil.Process(self._running["worker"].pid).children()
        alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        return len(alive) == 2 and self.log("worker").count(" ready.") == self._worker_starts

    def stop(self, name: str) -> int:
        """SIGTERM; returns the exit code."""
        process = self._running[name]
        assert process.poll() is None, self.log(name)
        self.family()
        process.terminate()
        return process.wait(30)

    def family(self) -> list[psutil.Process]:
        """Every process that was started here, or by one of these, and that still lives."""
        for started in self._running.values():
            if started.poll() is None:
                parent = psutil.Process(started.pid)
                self._seen |= {one.pid: one for one in [parent, *parent.children(recursive=True)]}
        return [one for one in self._seen.values() if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def log(self, name: str) -> str:
        return (self._log_dir / f"{name}.log").read_text(errors="replace")

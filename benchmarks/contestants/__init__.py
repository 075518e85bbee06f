"""What is compared: each takes a load, and returns when all of it is done. Use as contexts."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

import psutil

from benchmarks.events import Load

PATIENCE_SECONDS = 300


class Contestant(Protocol):
    name: str

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def processes(self) -> dict[str, psutil.Process]:
        """Those of its own, by name."""

    def run(self, load: Load) -> None: ...


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.01)


class CeleryWorker:
    """A Celery worker of two processes, of an app of ours that is no part of Shortpick."""

    def __init__(self, module: str, environment: dict[str, str]) -> None:
        options = ["--concurrency=2", "--loglevel=warning", "--without-gossip", "--without-mingle"]
        self._command = [sys.executable, "-m", "celery", "-A", module, "worker", *options]
        self._environment = {**environment, "PYTHONWARNINGS": "ignore"}  # Celery's, about running as root
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> psutil.Process:
        self._process = subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL)
        return psutil.Process(self._process.pid)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)


def queue_is_empty(redis: Any, queue: str) -> bool:
    """Whether Celery has nothing left, neither waiting nor begun."""
    return redis.llen(queue) == 0 and redis.hlen("unacked") == 0

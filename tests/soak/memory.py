"""The memory of each process over time."""

import statistics
import time
from contextlib import suppress

import psutil

from tests.end_to_end.processes import NAMES
from tests.faults.scene import Scene
from tests.servers import PostgresServer, RedisServer

EVERY_SECONDS = 2.0
STARTED_SECONDS = 5.0
"""A process that is younger has not all its modules yet."""
QUARTERS = 4
SHOWN = (*NAMES, "worker child", "redis", "postgres, each")
_MIB = 1 << 20


class Memory:
    """Resident set sizes in MiB, by process and quarter of the time. Of the worker's children, and of PostgreSQL's
    processes, each counts by itself."""

    def __init__(self, scene: Scene, redis: RedisServer, postgres: PostgresServer, seconds: float) -> None:
        self._scene, self._redis, self._postgres = scene, redis, postgres
        self._begun, self._seconds = time.monotonic(), seconds
        self._next = 0.0
        self._sizes: dict[str, list[list[float]]] = {name: [[] for _ in range(QUARTERS)] for name in SHOWN}
        self.children: set[int] = set()
        """The worker's children that were seen, by process id."""

    def sample(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_SECONDS
        for name in NAMES:
            self._note(name, self._scene.process(name).pid)
        with suppress(psutil.NoSuchProcess):
            children = {child.pid for child in self._scene.process("worker").children()}
            self.children |= children
            for pid in children:
                self._note("worker child", pid)
        self._note("redis", self._redis.pid)
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self._postgres.pid).children():
                self._note("postgres, each", one.pid)

    def _note(self, name: str, pid: int) -> None:
        quarter = min(QUARTERS - 1, int((time.monotonic() - self._begun) / self._seconds * QUARTERS))
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            size = process.memory_info().rss  # a zombie has none
            if size and time.time() - process.create_time() > STARTED_SECONDS:
                self._sizes[name][quarter].append(size / _MIB)

    def table(self) -> list[str]:
        """A line for each process: minimum, median and maximum of each quarter."""
        lines = []
        for name, quarters in self._sizes.items():
            cells = [_cell(sizes) for sizes in quarters]
            lines.append(f"{name:<14} " + "  ".join(f"{cell:>14}" for cell in cells))
        return lines


def _cell(sizes: list[float]) -> str:
    return f"{min(sizes):.0f}/{statistics.median(sizes):.0f}/{max(sizes):.0f}" if sizes else "-"

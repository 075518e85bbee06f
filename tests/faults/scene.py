"""A pipeline of real processes, to be disturbed: started again when something ends, brought to an end, and judged."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import Engine, Row, text

from tests import checker
from tests.end_to_end.processes import NAMES, Processes
from tests.faults.faults import VARIABLE, Faults
from tests.faults.load import Load
from worker.settings import Settings
from worker.streams import Queue

PATIENCE_SECONDS = 90
_UNDONE = """
    SELECT (SELECT count(*) FROM waiting_events) + (SELECT count(*) FROM allocations WHERE finished_at IS NULL)
         + (SELECT count(*) FROM holds WHERE state = 'approved')
"""
_OPEN_HOLDS = "SELECT count(*) FROM holds WHERE state = 'open'"


class Scene(Processes):
    """Use as a context. `settings` are the processes' (they may lead through a proxy); `engine`, `redis` and `queue` are
    the test's own. Processes that end are started again by whatever waits here, as a supervisor does; `ended` counts
    them, by name and exit code."""

    def __init__(
        self, settings: Settings, folder: Path, rng: random.Random, engine: Engine, redis: Redis, queue: Queue
    ) -> None:
        super().__init__(settings, folder)
        self.faults = Faults(folder)
        self.rng, self.engine, self.redis, self.queue = rng, engine, redis, queue
        self.load = Load(rng)
        self.ended: Counter[tuple[str, int]] = Counter()
        self._environment[VARIABLE] = str(folder)

    def _command_of(self, name: str) -> list[str]:
        """There may be several of a kind: `relay-2` is a relay too."""
        return [sys.executable, "-m", "tests.faults.entry", name.partition("-")[0]]

    def revive(self) -> None:
        """Start what has ended again."""
        for name in NAMES:
            code = self._running[name].poll()
            if code is not None:
                self.ended[name, code] += 1
                self.start(name)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}; {self.told()}"
            self.revive()
            time.sleep(0.02)

    def place(self) -> None:
        """The orders come, and are recorded."""
        self.queue.add(self.load.placings)
        self.wait_for(self.is_quiet, "all orders to be placed")

    def feed(self) -> None:
        """All the rest comes, the first half during a pause."""
        half = len(self.load.events) // 2
        self._must("pause", "--reason", "a test")
        cut_before = self.number("SELECT count(*) FROM cancellations")
        self.queue.add(self.load.events[:half])
        self.wait_for(self.is_quiet, "the first half of the load to be done")
        assert self.number("SELECT count(*) FROM cancellations") == cut_before
        self._must("resume", "--reason", "it is over")
        self.queue.add(self.load.events[half:])

    def finish(self) -> None:
        """Bring everything to its end: what waits, what is held, what is not published."""
        self.faults.take_away()
        self.wait_for(lambda: self.is_quiet() and self.number(_UNDONE) == 0, "all that waits to be done")
        assert self.number(_OPEN_HOLDS) > 0
        self.approve_all()
        self.wait_for(lambda: self.number(_UNDONE) == 0, "what was approved to be done")
        self.wait_for(self.is_published, "everything to be published")

    def approve_all(self) -> None:
        held = str(self.number(_OPEN_HOLDS))
        self._must("holds", "approve", "--all", "--expect", held, "--reason", "a test")

    def judge(self) -> None:
        """The checker finds nothing, and the reference model agrees."""
        with self.engine.connect() as connection:
            assert checker.violations(connection, self.redis) == []
            assert checker.agreement(connection, self.load.model()) == []

    def is_quiet(self) -> bool:
        """Whether every entry is done."""
        return not self.queue.has_unread() and self.queue.pending() == 0

    def is_published(self) -> bool:
        return self.is_quiet() and self.number("SELECT count(*) FROM cancellations") == self.redis.xlen(
            "order.cancelled"
        )

    def number(self, sql: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(sql)).scalar_one())

    def rows(self, sql: str, **values: object) -> Sequence[Row[Any]]:
        with self.engine.connect() as connection:
            return connection.execute(text(sql), values).all()

    def told(self) -> str:
        """What tells most when something went wrong."""
        ends = {name: self.log(name)[-1500:] for name in NAMES}
        return f"ended: {dict(self.ended)}; faults met: {self.faults.met()}; logs end with: {ends}"

    def _must(self, *arguments: str) -> None:
        done: subprocess.CompletedProcess[str] = self.command(*arguments)
        assert done.returncode == 0, done.stderr

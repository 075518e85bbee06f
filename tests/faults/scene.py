"""A pipeline of real processes, to be disturbed: started again when something ends, brought to an end, and judged."""

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import Engine, Row, text
from sqlalchemy.exc import OperationalError

from tests import checker
from tests.end_to_end.processes import NAMES, Processes
from tests.faults.faults import VARIABLE, Faults
from tests.faults.load import Load, in_parts
from tests.faults.summary import Record
from worker import verdicts
from worker.settings import Settings
from worker.storage import holds, pauses
from worker.storage.database import transaction
from worker.streams import Queue

PATIENCE_SECONDS = 90
_UNDONE = """
    SELECT (SELECT count(*) FROM waiting_events) + (SELECT count(*) FROM allocations WHERE finished_at IS NULL)
         + (SELECT count(*) FROM holds WHERE state = 'approved')
"""
_OPEN_HOLDS = "SELECT count(*) FROM holds WHERE state = 'open'"


def _nothing() -> None:
    """Nothing is disturbed."""


class Scene(Processes):
    """Use as a context. `settings` are the processes' (they may lead through a proxy); `engine`, `redis` and `queue` are
    the test's own. Processes that end are started again by whatever waits here, as a supervisor does; `ended` counts
    them, by name and exit code. What was done to the pipeline beside the faults that were laid, the test counts in
    `counted`, by kind."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        rng: random.Random,
        engine: Engine,
        redis: Redis,
        queue: Queue,
        record: Record,
    ) -> None:
        super().__init__(settings, folder)
        self.faults = Faults(folder)
        self.rng, self.engine, self.redis, self.queue = rng, engine, redis, queue
        self.load = Load(rng)
        self.ended: Counter[tuple[str, int]] = Counter()
        self.counted: Counter[str] = Counter()
        self._record = record
        self._sent: list[bytes] = []
        self._environment[VARIABLE] = str(folder)

    def _command_of(self, name: str) -> list[str]:
        """There may be several of a kind: `relay-2` is a relay too."""
        return [sys.executable, "-m", "tests.faults.entry", name.partition("-")[0]]

    def kill(self, name: str) -> None:
        super().kill(name)
        self.counted[f"kill {name}"] += 1

    def kill_worker_child(self) -> None:
        super().kill_worker_child()
        self.counted["kill worker's child"] += 1

    def revive(self) -> None:
        """Start what has ended again."""
        for name in NAMES:
            code = self._running[name].poll()
            if code is not None:
                self.ended[name, code] += 1
                self.start(name)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not _holds(condition):
            assert time.monotonic() < deadline, f"waited in vain for {what}; {self.told()}"
            self.revive()
            time.sleep(0.02)

    def wait_until_met(self) -> None:
        """Until all faults that were laid are met."""
        self.wait_for(lambda: self.faults.laid() == 0, "all faults to be met")

    def place(self, disturb: Callable[[], None] = _nothing, parts: int = 1) -> None:
        """The orders come, and are recorded."""
        self._feed(self.load.placings, disturb, parts)
        self.wait_for(self.is_quiet, "all orders to be placed")

    def feed(self, disturb: Callable[[], None] = _nothing, parts: int = 1) -> None:
        """All the rest comes, the first half during a pause, each half in so many parts. `disturb` is called after each
        part, while it is worked on."""
        half = len(self.load.events) // 2
        with transaction(self.engine) as connection:
            pauses.pause(connection, None, "a test", "somebody")
        cut_before = self.number("SELECT count(*) FROM cancellations")
        self._feed(self.load.events[:half], disturb, parts)
        self.wait_for(self.is_quiet, "the first half of the load to be done")
        assert self.number("SELECT count(*) FROM cancellations") == cut_before
        with transaction(self.engine) as connection:
            assert pauses.resume(connection, None, "it is over", "somebody") == 1
        self._feed(self.load.events[half:], disturb, parts)

    def _feed(self, events: Sequence[bytes], disturb: Callable[[], None], parts: int) -> None:
        for part in in_parts(events, parts):
            self.queue.add(part)
            self._sent += part
            disturb()

    def take_time(self) -> None:
        """Some of the next batches do, in their transactions: on a fast machine all would be done before a fault."""
        for _ in range(4):
            self.faults.lay("batch: before claim", "sleep", seconds=2)

    def repeat(self, number: int) -> None:
        """Some of what was sent comes again."""
        self.queue.add(self.rng.choices(self._sent, k=number))

    def settle(self) -> None:
        """Bring to its end what waits for nobody, undisturbed from here on."""
        self.faults.take_away()
        self.wait_for(lambda: self.is_quiet() and self.number(_UNDONE) == 0, "all that waits to be done")

    def finish(self, disturb: Callable[[], None] = _nothing) -> None:
        """Bring everything to its end: what waits, what is held, what is not published. `disturb` is called while what
        was approved is carried out."""
        self.settle()
        self.approve_all()
        disturb()
        self.wait_for(lambda: self.number(_UNDONE) == 0, "what was approved to be done")
        self.wait_for(self.is_published, "everything to be published")

    def approve_all(self) -> None:
        with self.engine.connect() as connection:
            held = holds.select_ids(connection, [], None, None, everything=True)
        assert held
        assert verdicts.give(self.engine, held, "approved", "somebody", "a test") == len(held)

    def judge(self) -> None:
        """The checker finds nothing, and the reference model agrees. For the summary, the faults are counted."""
        with self.engine.connect() as connection:
            assert checker.violations(connection, self.redis) == []
            assert checker.agreement(connection, self.load.model()) == []
        met = Counter(f"{act} in {point.partition(':')[0]}" for point, act in self.faults.met())
        self._record("faults", dict(met + self.counted))
        self._record("entries", self.redis.xlen("order.events"))

    def note(self, sentence: str) -> None:
        """What else the summary should tell."""
        self._record("note", sentence)

    def is_quiet(self) -> bool:
        """Whether every entry is done."""
        return not self.queue.has_unread() and self.queue.pending() == 0

    def is_published(self) -> bool:
        return self.is_quiet() and self.number("SELECT count(*) FROM cancellations") == self.redis.xlen(
            "order.cancelled"
        )

    def is_at_rest(self) -> bool:
        """Whether nothing is left to do for anybody."""
        return self.is_published() and self.number(_UNDONE) + self.number(_OPEN_HOLDS) == 0

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


def _holds(condition: Callable[[], bool]) -> bool:
    """Not while the database is away."""
    try:
        return condition()
    except OperationalError:
        return False

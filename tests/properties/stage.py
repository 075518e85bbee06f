"""What happens one thing after the other: on a clock that tests move, turns that may be cut short, or joined by others,
at the program's named points."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Literal

import pytest
from redis.exceptions import ConnectionError as RedisDown
from redis.exceptions import RedisError
from sqlalchemy.exc import OperationalError

from worker import ingress, points, relay
from worker.points import Point
from worker.storage import database
from worker.storage.database import TRANSIENT

START = datetime(2026, 1, 2, tzinfo=UTC)

Act = Literal["crash", "database outage", "redis outage", "meanwhile"]
"""The process dies; the database or Redis fails it; or before it goes on, others have their turns."""
OUTAGES = {
    "database outage": OperationalError("a test", None, Exception("a test")),
    "redis outage": RedisDown("a test"),
}
Ended = Literal["done", "crash", "outage"]


class Crash(BaseException):
    """The process ends here, as if it was killed: nothing in the program catches this."""


@dataclass(frozen=True)
class Fault:
    """What happens to a turn when it comes to a point."""

    point: Point
    act: Act


@dataclass
class Clock:
    """The time of the database, of Redis and of every process. A transaction that began `behind` has an earlier one."""

    time: datetime = START
    behind: timedelta = timedelta(0)

    def now(self) -> datetime:
        return self.time - self.behind

    def monotonic(self) -> float:
        return self.time.timestamp()

    def milliseconds(self) -> int:
        return int(self.time.timestamp() * 1000)


@contextmanager
def one_clock() -> Iterator[Clock]:
    """The program and the fake Redis go by this clock meanwhile, and wait for nothing."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "clock", clock.now)
        patch.setattr(ingress, "time", clock)
        patch.setattr(ingress, "BLOCK_MILLISECONDS", 1)
        patch.setattr(relay, "WAIT_SECONDS", 0.001)
        patch.setattr("fakeredis.model._stream.time", SimpleNamespace(time=clock.monotonic))
        patch.setattr("fakeredis.model._stream.current_time", clock.milliseconds)
        patch.setattr("fakeredis.commands_mixins.streams_mixin.current_time", clock.milliseconds)
        patch.setattr(points, "hook", None)
        yield clock


class Once:
    """A flag for a process's `run`: it takes one turn, and never waits."""

    def __init__(self) -> None:
        self._asked = False

    def is_set(self) -> bool:
        asked, self._asked = self._asked, True
        return asked

    def wait(self, _: float) -> None:
        pass


@dataclass
class Stage:
    """`watch` looks at what stands there after each turn, `others` have their turns in the middle of one. `done` counts
    what has happened, by name; `story` tells it, a line for each turn, to be read when something is wrong."""

    clock: Clock
    watch: Callable[[], None]
    others: Callable[[], None]
    done: Counter[str]
    story: list[str] = field(default_factory=list)
    laid: Fault | None = None
    """A fault for whoever comes to its point first."""
    _fault: Fault | None = None

    def __post_init__(self) -> None:
        self.clock.time, self.clock.behind = START, timedelta(0)
        points.hook = self._come_to

    def turn(self, name: str, work: Callable[[], object], fault: Fault | None = None) -> Ended:
        """Returns how it ended. No two transactions have the same time."""
        ended: Ended = "done"
        self.clock.time += timedelta(milliseconds=1)
        self.story.append(f"{self.clock.now()} {name}" + (f", {fault.act} at {fault.point}" if fault else ""))
        self._fault = fault = fault or self.laid
        try:
            work()
        except Crash:
            ended = "crash"
        except (RedisError, *TRANSIENT):
            if not fault:
                raise
            ended = "outage"
        self._fault = None
        self.story += [f"  {ended}"] if ended != "done" else []
        self.watch()
        return ended

    def _come_to(self, point: Point) -> None:
        if self._fault is None or self._fault.point != point:
            return
        act, self._fault, self.laid = self._fault.act, None, None
        self.done[f"{act} at {point}"] += 1
        self.done[f"{act} of {point.split(':')[0]}"] += 1
        match act:
            case "crash":
                raise Crash
            case "database outage" | "redis outage":
                raise OUTAGES[act]
            case "meanwhile":
                behind, self.clock.behind = self.clock.behind, timedelta(0)
                self.others()
                self.clock.behind = behind

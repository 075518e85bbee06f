"""The whole pipeline in one process: SQLite, a fake Redis, and what Celery carries as a list. What processes and people
do at their own time, this does turn by turn."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from fakeredis import FakeRedis, FakeServer
from sqlalchemy import Engine

from tests.properties.stage import Clock, Fault, Once, Stage
from tests.records import parsed_event
from worker import bootstrap, release, retries, shortages, upkeep, verdicts
from worker.ingress import DispatchFailed, Ingress
from worker.process import Processor, process
from worker.relay import Relay
from worker.settings import Settings
from worker.storage import breakers, holds, pauses
from worker.storage.database import reading, transaction
from worker.storage.tables import metadata
from worker.streams import FIELD, Batch


@dataclass(frozen=True)
class Runs:
    """A message that asks for shortages of SKUs to be carried out."""

    skus: Sequence[str]
    going_on: bool = False


@dataclass
class Pipeline:
    """`watch` looks at what stands there after each turn. `done` counts what has happened, by name."""

    engine: Engine
    clock: Clock
    settings: Settings
    watch: Callable[[], None]
    done: Counter[str]
    messages: list[Batch | Runs] = field(default_factory=list)
    """What Celery carries."""
    sent: dict[str, bytes] = field(default_factory=dict)
    """All that was ever put on the queue, by entry id."""
    deleted: set[str] = field(default_factory=set)
    """Entries that were deleted while they were pending."""
    ended_badly: Counter[str] = field(default_factory=Counter)
    """By entry, how often a worker died over it, or could not tell that it was done."""
    limits: set[float] = field(default_factory=set)
    """How long events may wait, in seconds, by all settings so far."""

    def __post_init__(self) -> None:
        emptied(self.engine)
        self.stage = Stage(self.clock, self.watch, self._others, self.done)
        self.redis = FakeRedis(server=FakeServer())
        self.queue = bootstrap.queue(self.settings, self.redis)
        self.queue.ensure_group()
        self.begin_with()
        self.relays = [self._new_relay() for _ in range(3)]

    @property
    def processor(self) -> Processor:
        made = bootstrap.processor(self.settings, self.engine, self.redis)
        return replace(made, start_runs=lambda skus: self.messages.append(Runs(skus)))

    # Turns of processes

    def send(self, *events: bytes) -> None:
        for event in events:
            entry_id = self.redis.xadd(self.settings.events_stream, {FIELD: event}).decode()
            self.sent[entry_id] = event
            self.stage.story.append(f"send {entry_id} {_shown(event)}")

    def read(self, fault: Fault | None = None, *, refused: bool = False) -> None:
        """Ingress; `refused`: Celery takes no message."""

        def dispatch(batch: Batch) -> None:
            if refused:
                raise DispatchFailed("a test")
            assert len(batch.entry_ids) == 1 or not self._begun(batch), f"{batch} was started before, and is not alone"
            self.messages.append(batch)

        self.ingress.dispatch = dispatch
        if self.stage.turn(f"read {refused=}", lambda: self.ingress.run(Once()), fault) == "crash":
            self.ingress = self._new_ingress()

    def work(self, number: int, fault: Fault | None = None, behind: timedelta = timedelta(0)) -> None:
        """A worker takes one of the messages."""
        message = self.messages.pop(number)
        self.clock.behind = behind
        ended = self.stage.turn(f"work on {message}", lambda: self._process(message), fault)
        if isinstance(message, Batch) and (ended == "crash" or (fault and fault.act == "redis outage")):
            self.ended_badly.update(message.entry_ids)
        self.clock.behind = timedelta(0)

    def beat(self, fault: Fault | None = None) -> None:
        """What runs by the clock."""
        self.stage.turn("beat", self._release_due, fault)

    def publish(self, number: int = 0, fault: Fault | None = None) -> None:
        """One of the relays."""
        if self.stage.turn(f"publish by {number}", lambda: self.relays[number].run(Once()), fault) == "crash":
            self.relays[number] = self._new_relay()

    def prune(self, retention: timedelta) -> None:
        """What is kept in the queue for so long; all else is kept for longer than a test lasts."""
        kept = replace(bootstrap.retention(self.settings), queue=retention)
        outbox = bootstrap.outbox(self.settings, self.redis)
        self.stage.turn(f"prune {retention}", lambda: upkeep.prune(self.engine, self.queue, outbox, kept))

    def delete(self, number: int) -> None:
        """One of the pending entries."""
        pending = self.redis.xpending_range(self.queue.stream, self.queue.group, "-", "+", 1000)
        entry_id = pending[number % len(pending)]["message_id"].decode()
        self.stage.story.append(f"delete {entry_id}")
        self.redis.xdel(self.queue.stream, entry_id)
        self.deleted.add(entry_id)

    # Turns of people

    def pause(self, source: str | None) -> None:
        self.stage.turn(f"pause {source}", lambda: self._in_transaction(pauses.pause, source, "a test", "somebody"))

    def resume(self, source: str | None) -> None:
        self.stage.turn(f"resume {source}", lambda: self._in_transaction(pauses.resume, source, "a test", "somebody"))

    def give(self, hold_ids: Sequence[int], verdict: holds.Verdict) -> None:
        self.stage.turn(
            f"{verdict} {hold_ids}", lambda: verdicts.give(self.engine, hold_ids, verdict, "somebody", "a test")
        )

    def retry(self, fault: Fault | None = None) -> None:
        """Every dead letter."""
        ids = range(1, 1 + self._count("SELECT max(dead_letter_id) FROM dead_letters"))
        self.stage.turn("retry", lambda: retries.retry(self.engine, self.queue, ids, "somebody", "a test"), fault)
        for entry_id, fields in self.redis.xrange(self.queue.stream):
            self.sent.setdefault(entry_id.decode(), fields[FIELD])

    def close(self, key: Any) -> None:
        self.stage.turn(f"close {key}", lambda: self._in_transaction(breakers.close, key, "a test", "somebody"))

    def begin_with(self, **settings: Any) -> None:
        self._set(**settings)
        self._former = self.settings

    def change(self, name: str, value: Any) -> None:
        """All processes are started again with another setting, but those that are `outdated`."""
        self._former = self.settings
        self._set(**{name: value})

    @contextmanager
    def outdated(self) -> Iterator[None]:
        """Whoever has a turn meanwhile was started before the last setting was changed."""
        self.settings, self._former = self._former, self.settings
        yield
        self.settings, self._former = self._former, self.settings

    def pass_time(self, seconds: float) -> None:
        self.stage.story.append(f"{seconds} seconds pass")
        self.clock.time += timedelta(seconds=seconds)

    # What stands there

    def paused(self) -> Any:
        with reading(self.engine) as connection:
            return pauses.paused(connection)

    def open_holds(self) -> list[int]:
        with reading(self.engine) as connection:
            return holds.select_ids(connection, [], None, None, everything=True)

    def open_breakers(self) -> list[Any]:
        with reading(self.engine) as connection:
            return [(row.scope, row.name) for row in breakers.is_open(connection)]

    def _count(self, statement: str) -> int:
        with reading(self.engine) as connection:
            return connection.exec_driver_sql(statement).scalar_one() or 0

    def _others(self) -> None:
        """In the middle of a turn. The last relay has no other turns."""
        self.publish(-1)
        for _ in list(self.messages):
            self.work(0)
        self.beat()

    def _process(self, message: Batch | Runs) -> None:
        if isinstance(message, Batch):
            process(self.processor, message)
            return
        unfinished, unseen = shortages.run(self.processor, message.skus, 0, going_on=message.going_on)
        self.messages += [Runs(unfinished, going_on=True)] if unfinished else []
        self.messages += [Runs(unseen)] if unseen else []

    def _release_due(self) -> None:
        processor = self.processor
        try:
            if skus := shortages.due(processor):
                self.messages.append(Runs(skus))
        finally:
            release.release_due(processor)
            verdicts.carry_out_approved(processor)

    def _begun(self, batch: Batch) -> list[str]:
        """Those of its entries whose processing was begun before."""
        pending = self.redis.xpending_range(self.queue.stream, self.queue.group, "-", "+", 1000)
        begun = {one["message_id"].decode() for one in pending if one["times_delivered"] > 1}
        return sorted(begun.intersection(batch.entry_ids))

    def _set(self, **settings: Any) -> None:
        self.stage.story.append(f"set {settings}")
        self.settings = self.settings.model_copy(update=settings)
        self.limits.add(self.settings.waiting_limit_seconds)
        self.ingress = self._new_ingress()

    def _in_transaction(self, call: Callable[..., object], *arguments: object) -> None:
        with transaction(self.engine) as connection:
            call(connection, *arguments)

    def _new_relay(self) -> Relay:
        return bootstrap.relay(self.settings, self.engine, self.redis)

    def _new_ingress(self) -> Ingress:
        return Ingress(
            queue=self.queue,
            engine=self.engine,
            dispatch=self.messages.append,
            batch_size=self.settings.batch_size,
            batch_bytes=self.settings.batch_bytes,
            max_pending=self.settings.max_pending,
            redeliver_after_milliseconds=bootstrap.milliseconds(self.settings.redeliver_after_seconds),
        )


def emptied(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if table.name != "publication":
                connection.execute(table.delete())
        connection.exec_driver_sql("UPDATE publication SET next_position = 1, appended_position = 0")


def _shown(event: bytes) -> str:
    names = {"id": "", "source": "of ", "type": "", "time": "at "}
    told = parsed_event(event)
    return " ".join([*(f"{word}{told.get(name)}" for name, word in names.items()), json.dumps(told["data"])])

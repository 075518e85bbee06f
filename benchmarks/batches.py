"""What a batch costs: statements, round trips and time, by its size, on both databases."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from redis import Redis
from sqlalchemy import Engine, event

from benchmarks.events import placed, short
from domain.policy import Policy
from worker import migrations
from worker.process import Processor, process_entries
from worker.storage import database
from worker.streams import Entry, Outbox, Queue

ROUNDS = 7
SIZES = (1, 50, 500)


@dataclass(slots=True)
class Count:
    statements: int = 0
    round_trips: int = 0


@contextmanager
def counted(engine: Engine) -> Iterator[Count]:
    """The statements that run inside the block, and how often PostgreSQL was waited for (as libpq's trace tells)."""
    count = Count()

    def add(*_: object) -> None:
        count.statements += 1

    event.listen(engine, "before_cursor_execute", add)
    with closing(engine.raw_connection()) as pooled:  # the only one of its pool, so the block will use it
        connection = cast(Any, pooled.driver_connection)
    with tempfile.TemporaryFile() as trace:
        if engine.dialect.name == "postgresql":
            connection.pgconn.trace(trace.fileno())
        yield count
        if engine.dialect.name == "postgresql":
            connection.pgconn.untrace()
            trace.seek(0)
            count.round_trips = trace.read().count(b"ReadyForQuery")
    event.remove(engine, "before_cursor_execute", add)


def measure(url: str) -> list[dict[str, Any]]:
    """For each size what a batch costs, and its median time; every event is a shortage that cuts."""
    engine = database.create(url)
    migrations.upgrade(engine)
    processor = processor_without_streams(engine)
    found = []
    for size in SIZES:
        seconds, statements, round_trips = [], set(), set()
        for round_ in range(ROUNDS):
            orders = [f"{size}-{round_}-{n}" for n in range(size)]
            process_entries(processor, [Entry(f"1-{n}", placed(order)) for n, order in enumerate(orders)])
            entries = [Entry(f"2-{n}", short(order)) for n, order in enumerate(orders)]
            with counted(engine) as count:
                start = time.perf_counter()
                process_entries(processor, entries)
                seconds.append(time.perf_counter() - start)
            statements.add(count.statements)
            round_trips.add(count.round_trips)
        median = sorted(seconds)[ROUNDS // 2]
        found.append(
            {
                "database": engine.dialect.name,
                "events": size,
                "statements": sorted(statements),
                "round_trips": sorted(round_trips),
                "milliseconds": 1000 * median,
                "events_per_second": size / median,
            }
        )
    engine.dispose()
    return found


def processor_without_streams(engine: Engine) -> Processor:
    """process_entries uses neither the queue nor the outbox."""
    client = Redis()
    queue, outbox = Queue(client, "unused", "unused"), Outbox(client, "unused")
    return Processor(engine, queue, outbox, Policy(), timedelta(hours=24), 5, 1000)

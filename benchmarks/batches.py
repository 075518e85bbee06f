"""What a batch costs: statements, round trips and time, by its size, on both databases."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

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


@contextmanager
def counted(engine: Engine) -> Iterator[list[int]]:
    """The statements that run inside the block."""
    count = [0]

    def add(*_: object) -> None:
        count[0] += 1

    event.listen(engine, "before_cursor_execute", add)
    yield count
    event.remove(engine, "before_cursor_execute", add)


def measure(url: str) -> list[dict[str, Any]]:
    """For each size the statements of a batch and its median time; every event is a shortage that cuts."""
    engine = database.create(url)
    migrations.upgrade(engine)
    processor = processor_without_streams(engine)
    found = []
    for size in SIZES:
        seconds, statements = [], set()
        for round_ in range(ROUNDS):
            orders = [f"{size}-{round_}-{n}" for n in range(size)]
            process_entries(processor, [Entry(f"1-{n}", placed(order)) for n, order in enumerate(orders)])
            entries = [Entry(f"2-{n}", short(order)) for n, order in enumerate(orders)]
            with counted(engine) as count:
                start = time.perf_counter()
                process_entries(processor, entries)
                seconds.append(time.perf_counter() - start)
            statements.add(count[0])
        median = sorted(seconds)[ROUNDS // 2]
        row = {"database": engine.dialect.name, "events": size, "statements": sorted(statements)}
        found.append({**row, "milliseconds": 1000 * median, "events_per_second": size / median})
    engine.dispose()
    return found


def processor_without_streams(engine: Engine) -> Processor:
    """process_entries uses neither the queue nor the outbox."""
    client = Redis()
    queue, outbox = Queue(client, "unused", "unused"), Outbox(client, "unused")
    return Processor(engine, queue, outbox, Policy(), timedelta(hours=24), 5, 1000)

"""`make bench`: the cost of a batch by its size, and the pipeline's throughput, on both databases."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from redis import Redis
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, event

from domain.policy import Policy
from tests.end_to_end.processes import Processes
from tests.servers import PostgresServer, RedisServer
from worker import bootstrap, logs, migrations
from worker.process import Processor, process_entries
from worker.settings import Settings
from worker.storage import database, ledger
from worker.streams import Entry, Outbox, Queue

ROUNDS = 7
SIZES = (1, 50, 500)
PIPELINE_ORDERS = 6000
TIME = "2026-01-01T00:00:00Z"


def cloud_event(id_: str, type_: str, data: dict[str, object]) -> bytes:
    envelope = {"specversion": "1.0", "id": id_, "source": "/bench", "type": type_, "time": TIME, "data": data}
    return json.dumps(envelope).encode()


def placed(order: str) -> bytes:
    items = [{"itemId": "a", "sku": "SA", "quantity": 10}, {"itemId": "b", "sku": "SB", "quantity": 2}]
    return cloud_event(f"{order}-placed", "order.placed", {"orderId": order, "placedAt": TIME, "items": items})


def short(order: str) -> bytes:
    lines = [{"itemId": "a", "fulfillableQuantity": 4}]
    return cloud_event(f"{order}-short", "inventory.shortage", {"orderId": order, "items": lines})


@contextmanager
def counted(engine: Engine) -> Iterator[list[int]]:
    """The statements that run inside the block."""
    count = [0]

    def add(*_: object) -> None:
        count[0] += 1

    event.listen(engine, "before_cursor_execute", add)
    yield count
    event.remove(engine, "before_cursor_execute", add)


def batches(url: str, table: Table) -> None:
    engine = database.create(url)
    processor = processor_without_streams(engine)
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
        table.add_row(
            engine.dialect.name, str(size), "/".join(map(str, sorted(statements))),
            f"{median * 1000:.1f}", f"{median / size * 1e6:.0f}", f"{size / median:.0f}",
        )  # fmt: skip
    engine.dispose()


def processor_without_streams(engine: Engine) -> Processor:
    """process_entries uses neither the queue nor the outbox."""
    client = Redis()
    queue, outbox = Queue(client, "unused", "unused"), Outbox(client, "unused")
    return Processor(engine, queue, outbox, Policy(), timedelta(hours=24), 5, 1000)


def pipeline(settings: Settings, table: Table, log_dir: Path) -> None:
    client = bootstrap.redis(settings)
    client.flushall()
    queue, outbox, engine = (
        bootstrap.queue(settings, client),
        bootstrap.outbox(settings, client),
        bootstrap.engine(settings),
    )
    queue.ensure_group()
    with Processes(settings, log_dir):
        load(queue, outbox, engine, "warm", 300)
        before = ledger_size(engine)
        seconds = load(queue, outbox, engine, "run", PIPELINE_ORDERS)
    events = PIPELINE_ORDERS * 2
    cancelled = ledger_size(engine) - before
    table.add_row(engine.dialect.name, str(events), str(cancelled), f"{seconds:.1f}", f"{events / seconds:.0f}")
    engine.dispose()
    client.close()


def load(queue: Queue, outbox: Outbox, engine: Engine, prefix: str, orders: int) -> float:
    """Send everything, and return the seconds until all of it is published."""
    events = [placed(f"{prefix}-{n}") for n in range(orders)] + [short(f"{prefix}-{n}") for n in range(orders)]
    start = time.perf_counter()
    for first in range(0, len(events), 1000):
        queue.add(events[first : first + 1000])
    while queue.has_unread() or queue.pending() or outbox.last_position() < ledger_size(engine):
        time.sleep(0.01)
    return time.perf_counter() - start


def ledger_size(engine: Engine) -> int:
    with engine.connect() as connection:
        return ledger.unpublished(connection, 0)


def main() -> None:
    logs.setup("warning", "auto", "bench")
    console = Console()
    batch_table = Table("database", "events", "statements", "ms a batch", "µs an event", "events/s", title="A batch")
    pipeline_table = Table("database", "events", "cancellations", "seconds", "events/s", title="The pipeline")
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as postgres, RedisServer(Path(folder)) as redis:
        urls = [f"sqlite:///{folder}/bench.db", postgres.create_database("bench")]
        for url in urls:
            engine = database.create(url)
            migrations.upgrade(engine)
            engine.dispose()
            batches(url, batch_table)
        console.print(batch_table)
        for url in urls:
            pipeline(Settings(redis_url=redis.url, database_url=url, log_level="warning"), pipeline_table, Path(folder))
        console.print(pipeline_table)


if __name__ == "__main__":
    main()

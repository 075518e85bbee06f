"""`make bench-shortage`: one SKU that very many orders want runs short, on PostgreSQL with every process.

Told are the time of the run, its pace, the memory of the worker's processes along it, and how long other events take
meanwhile. One number is done again with `kill -9` of the worker in the middle; the outcome is checked by SQL of
its own.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rich.table import Table
from sqlalchemy import Engine, text

from benchmarks import tell
from benchmarks.events import placed, short
from tests import demand
from tests.end_to_end.processes import Processes
from tests.servers import PostgresServer, RedisServer
from worker import bootstrap, logs, migrations
from worker.cli.demo_subscriber import Subscriber
from worker.settings import Settings
from worker.streams import Queue

SIZES = (100_000, 10_000, 1_000_000)  # the first one is done again, and killed
OTHERS_A_SECOND = 25  # orders, each placed and short at once
IDLE_SECONDS = 6.0


class Others:
    """Other orders' events, at a steady pace, and the time from each shortage to its published cancellation."""

    def __init__(self, queue: Queue, subscriber: Subscriber, name: str) -> None:
        self._queue, self._subscriber, self._name = queue, subscriber, name
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self.sent: dict[tuple[str, str], float] = {}

    def __enter__(self) -> "Others":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stopping.wait(1 / OTHERS_A_SECOND):
            events = [placed(f"{self._name}-{number}"), short(f"{self._name}-{number}")]
            at = time.time()
            self.sent["/bench", json.loads(events[1])["id"]] = at
            self._subscriber.expect(events, at)
            self._queue.add(events)
            number += 1

    def milliseconds(self, since: float, until: float) -> list[float]:
        """Of what was sent in this time, as far as it was published."""
        keys = [key for key, at in self.sent.items() if since <= at < until and key in self._subscriber.seconds]
        return [1000 * self._subscriber.seconds[key] for key in keys]


def shortage(sku: str, available: int) -> bytes:
    event = {
        "specversion": "1.0", "id": sku, "source": "/bench", "type": "inventory.shortage",
        "time": "2026-02-01T00:00:00Z", "data": {"sku": sku, "availableQuantity": available},
    }  # fmt: skip
    return json.dumps(event).encode()


def served(engine: Engine) -> tuple[int, bool]:
    """How many orders were served, and whether the run is over."""
    with engine.connect() as connection:
        row = connection.execute(text("SELECT orders, finished_at FROM allocations")).first()
    return (row.orders, row.finished_at is not None) if row else (0, False)


def worker_megabytes(processes: Processes) -> float:
    """Resident memory of the largest of the worker's children."""
    children = [p for p in processes.family() if "worker" in p.cmdline()[-1:] and p.parent() in processes.family()]
    return max((p.memory_info().rss / 2**20 for p in children), default=0.0)


def run(url: str, redis_url: str, folder: Path, orders: int, kill: bool) -> dict[str, Any]:
    settings = Settings(redis_url=redis_url, database_url=url, log_level="warning")
    engine, client = bootstrap.engine(settings), bootstrap.redis(settings)
    client.flushall()
    migrations.upgrade(engine)
    with engine.begin() as connection:
        available = demand.load(connection, "DRY", orders) // 3
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    queue = bootstrap.queue(settings, client)
    queue.ensure_group()
    subscriber = Subscriber(bootstrap.outbox(settings, bootstrap.redis(settings)))
    subscriber.start()
    with Processes(settings, folder) as processes, Others(queue, subscriber, "other") as others:
        while not subscriber.received:
            time.sleep(0.1)
        idle = time.time()
        time.sleep(IDLE_SECONDS)
        begun = time.time()
        queue.add([shortage("DRY", available)])
        seen, killed = [(0, begun, 0.0)], not kill
        while not (progress := served(engine))[1]:
            seen.append((progress[0], time.time(), worker_megabytes(processes)))
            if not killed and progress[0] > orders * 0.4:
                processes.kill("worker")
                killed = True
            time.sleep(0.1)
        ended = time.time()
        while subscriber.received < unpublished(engine):
            time.sleep(0.1)
        published = time.time()
    before, meanwhile = others.milliseconds(idle, begun), others.milliseconds(begun, ended)
    subscriber.stop()
    with engine.connect() as connection:
        wrong = demand.wrong(connection, "DRY", available)
    seen.append((orders, ended, seen[-1][2]))
    memory, rates = [], []
    for first in range(4):
        quarter = [one for one in seen if orders * first / 4 <= one[0] <= orders * (first + 1) / 4]
        memory.append(max(mib for _, _, mib in quarter))
        rates.append((quarter[-1][0] - quarter[0][0]) / (quarter[-1][1] - quarter[0][1]))
    engine.dispose()
    client.close()
    return {
        "orders": orders,
        "killed": kill,
        "seconds": ended - begun,
        "orders_per_second": orders / (ended - begun),
        "seconds_until_published": published - begun,
        "orders_per_second_in_each_quarter": rates,
        "mib_in_each_quarter": memory,
        "others_median_ms_before": statistics.median(before),
        "others_median_ms": statistics.median(meanwhile),
        "others_p99_ms": statistics.quantiles(meanwhile, n=100)[98],
        "wrong_orders": wrong,
    }


def unpublished(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM cancellations")).scalar_one())


def main() -> None:
    sizes = [int(one) for one in sys.argv[1:]] or SIZES
    found = []
    logs.setup("warning", "auto", "bench")
    table = Table(
        "orders", "killed", "seconds", "orders/s", "in each quarter", "until all is published", "MiB in each quarter",
        "other events, ms", "their 99th", "wrong orders", title="One SKU runs short",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as postgres, RedisServer(Path(folder)) as redis:
        for orders, kill in [*((one, False) for one in sorted(sizes)), (sizes[0], True)]:
            row = run(postgres.create_database(f"bench_{orders}_{kill:d}"), redis.url, Path(folder), orders, kill)
            found.append(row)
            table.add_row(
                f"{orders:,}", "yes" if kill else "no", f"{row['seconds']:.1f}", f"{row['orders_per_second']:,.0f}",
                " / ".join(f"{rate:,.0f}" for rate in row["orders_per_second_in_each_quarter"]),
                f"{row['seconds_until_published']:.1f}",
                " / ".join(f"{mib:.0f}" for mib in row["mib_in_each_quarter"]),
                f"{row['others_median_ms_before']:.0f} → {row['others_median_ms']:.0f}",
                f"{row['others_p99_ms']:.0f}", str(row["wrong_orders"]),
            )  # fmt: skip
    tell("shortage", found, table)


if __name__ == "__main__":
    main()

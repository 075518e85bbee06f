"""`make bench`: all contestants in one go on the same servers, latency against load, and what a batch costs."""

import functools
import os
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from benchmarks import RESULTS, batches, latency, plot, tell
from benchmarks.contestants import Contestant
from benchmarks.contestants.empty import EmptyTasks
from benchmarks.contestants.limit import BulkSql
from benchmarks.contestants.naive import NaiveDesign
from benchmarks.contestants.shortpick import Shortpick
from benchmarks.events import BETWEEN, CLOSE, Load
from benchmarks.measured import Measured
from tests.servers import PostgresServer, RedisServer
from worker import logs

ROUNDS = int(os.environ.get("ROUNDS", "5"))
ORDERS = int(os.environ.get("ORDERS", "8000"))
ORDERS_OF_SLOW_ONES = 1000
ORDERS_EMBEDDED = 4000


def compare(redis: RedisServer, postgres: PostgresServer, folder: Path) -> tuple[dict[str, Measured], list[Any]]:
    """Round after round, each contestant once: what disturbs the machine disturbs them all. Then latency."""
    servers = {"postgres": psutil.Process(postgres.pid), "redis": psutil.Process(redis.pid)}
    shortpick = Shortpick(redis.url, postgres.create_database("shortpick"), folder)
    celery, naive = EmptyTasks(redis.url), NaiveDesign(redis.url, postgres.create_database("naive"))
    recording = postgres.create_database("recording")
    contestants: dict[str, tuple[Contestant, str, int, int]] = {
        "shortpick": (shortpick, shortpick.name, ORDERS, BETWEEN),
        "shortpick_close": (shortpick, "Shortpick, events of an order close together", ORDERS, CLOSE),
        "celery_empty": (celery, celery.name, ORDERS_OF_SLOW_ONES, BETWEEN),
        "naive": (naive, naive.name, ORDERS_OF_SLOW_ONES, BETWEEN),
    }
    for writers, key in ((1, "limit_of_one"), (2, "limit")):
        limit = BulkSql(recording, postgres.create_database(key), writers)
        contestants[key] = (limit, limit.name, ORDERS, BETWEEN)
    found = {key: Measured(name) for key, (_, name, _, _) in contestants.items()}
    for number in range(ROUNDS):
        for key, (contestant, _, orders, between) in contestants.items():
            load = Load(f"{key}-{number}", orders, between)
            with contestant:
                if isinstance(contestant, BulkSql):
                    contestant.prepare(load)
                else:
                    contestant.run(Load(f"{key}-warm-{number}", 500))
                measured = functools.partial(contestant.run, load)
                found[key].round(len(load.events), {**contestant.processes(), **servers}, measured)
    with shortpick:
        shortpick.run(Load("warm-latency", 500))
        return found, latency.measure(shortpick)


def embedded(redis: RedisServer, folder: Path) -> Measured:
    """The pipeline on SQLite."""
    shortpick = Shortpick(redis.url, f"sqlite:///{folder}/bench.db", folder)
    shortpick.redis.flushall()
    found = Measured("Shortpick on SQLite")
    with shortpick:
        shortpick.run(Load("warm", 500))
        for number in range(ROUNDS):
            load = Load(f"round-{number}", ORDERS_EMBEDDED)
            found.round(len(load.events), shortpick.processes(), functools.partial(shortpick.run, load))
    return found


def ratios(found: dict[str, Measured]) -> dict[str, float]:
    return {
        f"to_{key}": found["shortpick"].rate / found[key].rate
        for key in ("celery_empty", "naive", "limit", "limit_of_one")
    }


def told(found: dict[str, Measured], on_sqlite: Measured) -> Table:
    table = Table("", "events/s", "spread", "Shortpick is", "µs of CPU time an event", title="Throughput")
    own = found["shortpick"].rate
    for one in [*sorted(found.values(), key=lambda one: one.rate), on_sqlite]:
        cpu = one.microseconds()
        table.add_row(
            one.name, f"{one.rate:,.0f}", f"{one.spread:.0%}", f"{own / one.rate:.2f} ×",
            f"{sum(cpu.values()):.0f}: " + ", ".join(f"{name} {time:.0f}" for name, time in cpu.items()),
        )  # fmt: skip
    return table


def told_latency(curve: list[Any]) -> Table:
    table = Table("events/s", "cancellations", "median ms", "99th ms", "longest ms", title="From event to cancellation")
    for row in curve:
        times = (f"{row[name]:.1f}" for name in ("median_ms", "p99_ms", "max_ms"))
        table.add_row(latency.name_of(row), f"{row['cancellations']:,}", *times)
    return table


def told_batches(rows: list[Any]) -> Table:
    table = Table("database", "events", "statements", "round trips", "ms", "µs an event")
    table.title = "A batch, every event a cancellation"
    for row in rows:
        table.add_row(
            row["database"], str(row["events"]), "/".join(map(str, row["statements"])),
            "/".join(map(str, row["round_trips"])) if row["database"] == "postgresql" else "",
            f"{row['milliseconds']:.1f}", f"{1e6 / row['events_per_second']:.0f}",
        )  # fmt: skip
    return table


def main() -> None:
    logs.setup("warning", "auto", "bench")
    with tempfile.TemporaryDirectory() as name, PostgresServer() as postgres, RedisServer(Path(name)) as redis:
        folder = Path(name)
        found, curve = compare(redis, postgres, folder)
        on_sqlite = embedded(redis, folder)
        rows = [
            *batches.measure(f"sqlite:///{folder}/batches.db"),
            *batches.measure(postgres.create_database("batches")),
        ]
    results = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": psutil.cpu_count(), "python": platform.python_version()},
        "ratios": ratios(found),
        "throughput": {
            key: {"rates": one.rates, "median": one.rate, "cpu_microseconds": one.microseconds()}
            for key, one in {**found, "sqlite": on_sqlite}.items()
        },
        "latency": curve,
        "batches": rows,
    }
    tell("latest", results, told(found, on_sqlite), told_latency(curve), told_batches(rows))
    plot.write(results, RESULTS)


if __name__ == "__main__":
    main()

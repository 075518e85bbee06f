"""`make bench-growth`: throughput and latency with ever more orders in the tables, on PostgreSQL."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table
from sqlalchemy import Engine, text

from benchmarks import latency, tell
from benchmarks.contestants.shortpick import Shortpick
from benchmarks.events import Load
from benchmarks.measured import Measured
from tests.servers import PostgresServer, RedisServer
from worker import logs, migrations
from worker.streams import FIELD

SIZES = (10_000, 100_000, 1_000_000, 3_000_000)
ROUNDS = 5
ROUND_ORDERS = 6000
LATENCY_RATE = 2000


def fill(engine: Engine, orders: int) -> None:
    """Orders that came before: each of two lines, one of them cut, with its events, shipment and cancellation."""
    with engine.begin() as connection:
        for statement in _FILL:
            connection.execute(text(statement), {"orders": orders})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def measure(redis_url: str, postgres: PostgresServer, folder: Path, orders: int) -> dict[str, Any]:
    shortpick = Shortpick(redis_url, postgres.create_database(f"growth_{orders}"), folder)
    shortpick.redis.flushall()
    migrations.upgrade(shortpick.engine)
    fill(shortpick.engine, orders)
    # The stream ends where the ledger does; what came before was trimmed.
    shortpick.redis.xadd(shortpick.outbox.stream, {FIELD: "{}"}, id=f"{orders}-0")
    measured = Measured(shortpick.name)
    with shortpick:
        shortpick.run(Load("warm", 2000))
        for number in range(ROUNDS):
            load = Load(f"round-{number}", ROUND_ORDERS)
            measured.round(len(load.events), {}, lambda load=load: shortpick.run(load))  # type: ignore[misc]  # bound now
        at_load = latency.measure(shortpick, (LATENCY_RATE,))[0]
        memory = shortpick.megabytes()
    return {
        "orders": orders,
        "events_per_second": measured.rate,
        "spread": measured.spread,
        "latency_at": LATENCY_RATE,
        "median_ms": at_load["median_ms"],
        "p99_ms": at_load["p99_ms"],
        "mib": memory,
    }


def main() -> None:
    logs.setup("warning", "auto", "bench")
    sizes = [int(one) for one in sys.argv[1:]] or SIZES
    table = Table("orders before", "events/s", "spread", "median ms", "p99 ms", "MiB", title="Growth")
    found = []
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as postgres, RedisServer(Path(folder)) as redis:
        for orders in sizes:
            row = measure(redis.url, postgres, Path(folder), orders)
            found.append(row)
            table.add_row(
                f"{orders:,}", f"{row['events_per_second']:,.0f}", f"{row['spread']:.0%}",
                f"{row['median_ms']:.0f}", f"{row['p99_ms']:.0f}",
                ", ".join(f"{name} {mib:.0f}" for name, mib in row["mib"].items()),
            )  # fmt: skip
    tell("growth", found, table)


_EVENT = """
    INSERT INTO events (source, id, digest, type, order_id, time, entry_id, recorded_at, outcome, reason, facts,
                        decided_at)
    SELECT '/before', 'before-' || n || '-{type}', md5(n || '{type}') || md5('{type}' || n), '{type}', 'before-' || n,
           now() - interval '1 day', n || '-0', now() - interval '1 day', '{outcome}', '{reason}', '{{}}', now()
    FROM generate_series(1, :orders) AS n
"""
_FILL = (
    """
    INSERT INTO orders (order_id, placed_at, placed_digest, priority, sequence)
    SELECT 'before-' || n, now() - interval '1 day' + n * interval '1 ms', md5(n::text), 0, 1
    FROM generate_series(1, :orders) AS n
    """,
    """
    INSERT INTO order_items (order_id, item_id, original_item_id, line, sku, priority, placed_at, quantity, fulfilled,
                             open_quantity, cancelled, cancelled_reason, cancelled_by, cancelled_at, replaced_by)
    SELECT 'before-' || n, item, 'a', 1, 'SKU-' || n % 5000, 0, now() - interval '1 day' + n * interval '1 ms',
           units, 0, CASE WHEN gone THEN 0 ELSE units END, gone, CASE WHEN gone THEN 'out_of_stock' END,
           CASE WHEN gone THEN 'seller' END, CASE WHEN gone THEN now() END, CASE WHEN gone THEN 'a2' END
    FROM generate_series(1, :orders) AS n, (VALUES ('a', 10, true), ('a2', 4, false)) AS line (item, units, gone)
    """,
    """
    INSERT INTO order_items (order_id, item_id, original_item_id, line, sku, priority, placed_at, quantity, fulfilled,
                             open_quantity, cancelled)
    SELECT 'before-' || n, 'b', 'b', 2, 'SKU-' || n % 4999, 0, now() - interval '1 day' + n * interval '1 ms',
           2, 1, 1, false
    FROM generate_series(1, :orders) AS n
    """,
    """
    INSERT INTO fulfillments (order_id, fulfillment_id, time, lines, digest, source, event_id)
    SELECT 'before-' || n, 'f1', now(), '[["b", null, 1]]', md5(n::text), '/before', 'before-' || n
    FROM generate_series(1, :orders) AS n
    """,
    """
    INSERT INTO shipped_units (order_id, fulfillment_id, sku, quantity, time)
    SELECT 'before-' || n, 'f1', 'SKU-' || n % 4999, 1, now() FROM generate_series(1, :orders) AS n
    """,
    _EVENT.format(type="order.placed", outcome="recorded", reason="placed"),
    _EVENT.format(type="fulfillment.created", outcome="recorded", reason="shipped"),
    _EVENT.format(type="inventory.shortage", outcome="applied", reason="shortage"),
    """
    INSERT INTO cancellations (cancellation_id, order_id, sequence, operation, units, reason, cause_source, cause_id,
                               cancelled_at, payload, position)
    SELECT md5(n::text), 'before-' || n, 1, 'cancelItemPartially', 6, 'out_of_stock', '/before', 'before-' || n,
           now(), '{}', n
    FROM generate_series(1, :orders) AS n
    """,
    "UPDATE publication SET next_position = :orders + 1, appended_position = :orders",
)


if __name__ == "__main__":
    main()

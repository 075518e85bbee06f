"""Many orders that want one SKU, loaded in bulk, and what a shortage must leave to each, worked out by SQL alone."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from worker.storage import bulk
from worker.storage.tables import order_items, orders

START = datetime(2026, 1, 1, tzinfo=UTC)
LOAD_ROWS = 5000


def load(connection: Connection, sku: str, number: int) -> int:
    """Place so many orders of two lines, one of them of the SKU; returns the units that are wanted of it."""
    wanted = 0
    for first in range(0, number, LOAD_ROWS):
        numbers = range(first, min(first + LOAD_ROWS, number))
        placed = {n: {"placed_at": START + timedelta(seconds=n * 7919 % number), "priority": n % 3} for n in numbers}
        heads = [{"order_id": f"{sku}-{n:07}", "placed_digest": "loaded", **placed[n]} for n in numbers]
        items = [
            {
                "order_id": f"{sku}-{n:07}",
                "item_id": item_id,
                "original_item_id": item_id,
                "line": line,
                "sku": of,
                "quantity": quantity,
                "fulfilled": 0,
                "open_quantity": quantity,
                "cancelled": False,
                **placed[n],
            }
            for n in numbers
            for line, (item_id, of, quantity) in enumerate(
                [("a", sku, 1 + n % 4), ("b", f"other-{n % 50}", 2)], start=1
            )
        ]
        bulk.insert(connection, orders, heads)
        bulk.insert(connection, order_items, items)
        wanted += sum(1 + n % 4 for n in numbers)
    return wanted


def wrong(connection: Connection, sku: str, available: int) -> int:
    """How many orders of the loaded ones have other open units of the SKU than the oldest-first rule leaves them."""
    return int(connection.execute(text(_WRONG), {"sku": sku, "available": available}).scalar_one())


_WRONG = """
    WITH first AS (
        SELECT i.order_id, i.quantity, sum(i.quantity) OVER (
            ORDER BY o.priority DESC, o.placed_at, o.order_id ROWS UNBOUNDED PRECEDING
        ) - i.quantity AS before
        FROM order_items i JOIN orders o ON o.order_id = i.order_id
        WHERE i.sku = :sku AND i.item_id = i.original_item_id
    ), kept AS (
        SELECT order_id, sum(open_quantity) AS units FROM order_items WHERE sku = :sku GROUP BY order_id
    )
    SELECT count(*) FROM first JOIN kept ON kept.order_id = first.order_id
    WHERE kept.units <> CASE
        WHEN :available - before >= quantity THEN quantity WHEN :available > before THEN :available - before ELSE 0
    END
"""

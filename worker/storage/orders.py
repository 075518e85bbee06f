"""Orders with their items and fulfillments: locked, read and written for a whole batch at once."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from domain.items import OrderItem
from domain.operations import Terms
from domain.orders import Order
from domain.shipments import RecordedFulfillment, Shipment
from worker.storage import allocations, bulk
from worker.storage.tables import fulfillments, order_items, orders


def lock(connection: Connection, order_ids: Collection[str]) -> None:
    """Make sure that each order has a row (a stub until it is placed), and lock the rows in id order.

    Nothing may be read in the same statement: it would return other rows as they were before it waited for the lock.
    """
    bulk.insert(connection, orders, [{"order_id": one} for one in sorted(order_ids)], on_conflict="do nothing")
    lock_known(connection, order_ids)


def lock_known(connection: Connection, order_ids: Collection[str]) -> None:
    """Lock the rows of orders that have one, in id order."""
    if connection.dialect.name != "sqlite":  # there, the transaction holds the only write lock
        connection.execute(_LOCK, {"values": order_ids})


def load(connection: Connection, order_ids: Collection[str]) -> dict[str, Order | None]:
    """The orders by id; None for those that were not placed yet. For a decision, lock them first."""
    items: dict[str, dict[str, OrderItem]] = defaultdict(dict)
    for order_id, *columns in connection.execute(_ITEMS, {"values": order_ids}):
        item = _item(*columns)
        items[order_id][item.item_id] = item
    shipped: dict[str, dict[str, RecordedFulfillment]] = defaultdict(dict)
    for row in connection.execute(_SHIPPED, {"values": order_ids}):
        shipped[row.order_id][row.fulfillment_id] = RecordedFulfillment(row.digest, row.source, row.event_id)
    found: dict[str, Order | None] = dict.fromkeys(sorted(order_ids))
    for row in connection.execute(_PLACED, {"values": order_ids}):
        found[row.order_id] = _order(row, items[row.order_id], shipped[row.order_id])
    return found


def save(connection: Connection, before: Mapping[str, Order | None], after: Mapping[str, Order | None]) -> None:
    """Write what has changed, and what that releases for running shortages."""
    changed = [order for order_id, order in after.items() if order and order is not before[order_id]]
    rows, item_rows = [], []
    for order in changed:
        known = before[order.order_id]
        if known is None or known.sequence != order.sequence:
            rows.append(_order_row(order))
        item_rows += [_item_row(order, item) for item in order.items.values() if not _has(known, item)]
    bulk.insert(connection, orders, rows, on_conflict="update")
    bulk.insert(connection, order_items, item_rows, on_conflict="update")
    allocations.note_released(connection, before, changed)


def save_shipments(connection: Connection, shipments: Iterable[tuple[str, Shipment]]) -> None:
    """Write fulfillments, each with the id of its order."""
    bulk.insert(connection, fulfillments, [_shipment_row(order_id, shipment) for order_id, shipment in shipments])


def chains(items: Iterable[OrderItem]) -> list[OrderItem]:
    """Items in item order, each followed by those that replaced it (of which each has fewer units)."""
    return sorted(items, key=lambda item: (item.line, -item.quantity))


def page(connection: Connection, after: str, size: int) -> Sequence[str]:
    """The ids of placed orders that follow `after`, in id order, at most `size`."""
    statement = select(orders.c.order_id).where(orders.c.order_id > after, orders.c.placed_at.is_not(None))
    return connection.scalars(statement.order_by(orders.c.order_id).limit(size)).all()


def is_known(connection: Connection, order_id: str) -> bool:
    """Whether an event that names the order was recorded; it may not have been placed yet."""
    return connection.execute(select(orders.c.order_id).where(orders.c.order_id == order_id)).first() is not None


def shipments_of(connection: Connection, order_id: str) -> dict[str, Row[Any]]:
    """The fulfillments of an order, in the order of their times."""
    statement = select(fulfillments).where(fulfillments.c.order_id == order_id).order_by(fulfillments.c.time)
    return {row.fulfillment_id: row for row in connection.execute(statement)}


def _has(order: Order | None, item: OrderItem) -> bool:
    return order is not None and order.items.get(item.item_id) is item


def _order(row: Row[Any], items: Mapping[str, OrderItem], shipped: Mapping[str, RecordedFulfillment]) -> Order:
    return Order(
        order_id=row.order_id,
        placed_at=row.placed_at,
        placed_digest=row.placed_digest,
        items=items,
        fulfillments=shipped,
        partner=row.partner,
        priority=row.priority,
        attributes=row.attributes,
        sequence=row.sequence,
    )


# By place and not by name: there are more of these rows than of any others.
_ITEMS = select(
    *(
        order_items.c[name]
        for name in (
            *("order_id", "cancelled", "cancelled_by", "cancelled_reason", "cancelled_at", "cancelled_note"),
            *("item_id", "original_item_id", "line", "sku", "quantity", "fulfilled"),
            *("replaced_by", "attributes", "restocked_at"),
        )
    )
).where(bulk.among(order_items.c.order_id))
_SHIPPED = select(
    *(fulfillments.c[name] for name in ("order_id", "fulfillment_id", "digest", "source", "event_id"))
).where(bulk.among(fulfillments.c.order_id))
_PLACED = select(orders).where(bulk.among(orders.c.order_id), orders.c.placed_at.is_not(None))
_LOCK = select(orders.c.order_id).where(bulk.among(orders.c.order_id)).order_by(orders.c.order_id).with_for_update()


def _item(cancelled: bool, by: Any, reason: Any, at: Any, note: Any, *units: Any) -> OrderItem:
    item_id, original_item_id, line, sku, quantity, fulfilled, replaced_by, attributes, restocked_at = units
    terms = Terms(by, reason, at, note) if cancelled else None
    return OrderItem(
        item_id, original_item_id, line, sku, quantity, fulfilled, terms, replaced_by, attributes, restocked_at
    )


def _order_row(order: Order) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "placed_at": order.placed_at,
        "placed_digest": order.placed_digest,
        "partner": order.partner,
        "priority": order.priority,
        "attributes": order.attributes or None,
        "sequence": order.sequence,
    }


def _item_row(order: Order, item: OrderItem) -> dict[str, Any]:
    terms = item.cancelled
    return {
        "order_id": order.order_id,
        "item_id": item.item_id,
        "original_item_id": item.original_item_id,
        "line": item.line,
        "sku": item.sku,
        "priority": order.priority,
        "placed_at": order.placed_at,
        "quantity": item.quantity,
        "fulfilled": item.fulfilled,
        "open_quantity": item.open,
        "cancelled": terms is not None,
        "cancelled_reason": terms.reason_code if terms else None,
        "cancelled_note": terms.note if terms else None,
        "cancelled_by": terms.cancelled_by if terms else None,
        "cancelled_at": terms.cancelled_at if terms else None,
        "replaced_by": item.replaced_by,
        "attributes": item.attributes or None,
        "restocked_at": item.restocked_at,
    }


def _shipment_row(order_id: str, shipment: Shipment) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "fulfillment_id": shipment.fulfillment_id,
        "time": shipment.time,
        "lines": [[line.item_id, line.sku, line.quantity] for line in shipment.lines],
        "digest": shipment.digest,
        "source": shipment.source,
        "event_id": shipment.event_id,
    }

"""Goods that were reported as shipped and that no open quantity could take: for a person to resolve."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from domain.shipments import Conflict
from worker.storage import bulk
from worker.storage.tables import conflicts


def add(connection: Connection, found: Sequence[tuple[str, Conflict]], at: datetime) -> None:
    """Write conflicts, each with the id of its order."""
    rows = [
        {
            "order_id": order_id,
            "fulfillment_id": conflict.fulfillment_id,
            "item_id": conflict.item_id,
            "sku": conflict.sku,
            "quantity": conflict.quantity,
            "created_at": at,
        }
        for order_id, conflict in found
    ]
    bulk.insert(connection, conflicts, rows)


def listed(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    """The newest conflicts."""
    return connection.execute(select(conflicts).order_by(conflicts.c.conflict_id.desc()).limit(limit)).all()


def of_order(connection: Connection, order_id: str) -> Sequence[Row[Any]]:
    statement = select(conflicts).where(conflicts.c.order_id == order_id)
    return connection.execute(statement.order_by(conflicts.c.conflict_id)).all()

"""Goods that were reported as shipped and that no open quantity could take: for a person to resolve."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, select, update

from domain.shipments import Conflict
from worker.storage import bulk
from worker.storage.tables import conflicts

State = Literal["open", "resolved"]


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


def listed(connection: Connection, limit: int, state: State | None = None) -> Sequence[Row[Any]]:
    """The newest conflicts, in this state if one is given."""
    statement = select(conflicts).where(*([conflicts.c.state == state] if state else []))
    return connection.execute(statement.order_by(conflicts.c.conflict_id.desc()).limit(limit)).all()


def find(connection: Connection, conflict_id: int) -> Row[Any] | None:
    return connection.execute(select(conflicts).where(conflicts.c.conflict_id == conflict_id)).one_or_none()


def resolve(connection: Connection, conflict_id: int, by: str, resolution: str | None, at: datetime) -> bool:
    """Note what a person has done about an open conflict; False if it is not open."""
    values = {"state": "resolved", "resolved_by": by, "resolution": resolution, "resolved_at": at}
    meant = (conflicts.c.conflict_id == conflict_id, conflicts.c.state == "open")
    return connection.execute(update(conflicts).where(*meant).values(values)).rowcount == 1


def of_order(connection: Connection, order_id: str) -> Sequence[Row[Any]]:
    statement = select(conflicts).where(conflicts.c.order_id == order_id)
    return connection.execute(statement.order_by(conflicts.c.conflict_id)).all()

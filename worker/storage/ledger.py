"""Cancellations: written with the decision that made them, published by position."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select, text, update

from worker.storage import bulk
from worker.storage.tables import cancellations, publication

Published = Sequence[tuple[int, str]]
"""Positions and payloads."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A cancellation to be written. `payload` is the event as it will be published."""

    cancellation_id: str
    order_id: str
    sequence: int
    operation: str
    units: int
    reason: str
    cause_source: str
    cause_id: str
    cancelled_at: datetime
    payload: str


@dataclass(frozen=True, slots=True)
class Positions:
    """What has a position: `assigned` is the last one given, `appended` the last one known to be in the stream. A
    stream that was lost begins anew with `first`: what lies before was trimmed."""

    assigned: int
    appended: int
    first: int = 1


def add(connection: Connection, rows: Sequence[LedgerRow]) -> None:
    bulk.insert(connection, cancellations, [{name: getattr(row, name) for name in row.__slots__} for row in rows])


def assign_positions(connection: Connection, appended: int, limit: int) -> tuple[Positions, Published]:
    """Give the next positions to at most `limit` rows without one, in ledger order, and note how far the stream got.
    Returns how it stands then, and what was given a position.

    The lock comes first and alone: rows of one order cannot overtake each other, since their order's row was locked
    when they were written, and no two relays can give one position twice.
    """
    lock = select(publication).with_for_update()
    row = connection.execute(lock).one()
    assigned = connection.execute(_ASSIGN, {"last": row.next_position - 1, "limit": limit}).all()
    given = sorted((one.position, one.payload) for one in assigned)
    next_position, appended = row.next_position + len(given), max(appended, row.appended_position)
    if given or appended > row.appended_position:
        connection.execute(update(publication).values(next_position=next_position, appended_position=appended))
    return Positions(next_position - 1, appended, row.first_position), given


_ASSIGN = text(
    """
    UPDATE cancellations SET position = given.position
    FROM (
        SELECT ledger_id, :last + row_number() OVER (ORDER BY ledger_id) AS position
        FROM (SELECT ledger_id FROM cancellations WHERE position IS NULL ORDER BY ledger_id LIMIT :limit) AS next
    ) AS given
    WHERE cancellations.ledger_id = given.ledger_id
    RETURNING cancellations.position, cancellations.payload
    """
)


def positions(connection: Connection) -> Positions:
    row = connection.execute(select(publication)).one()
    return Positions(row.next_position - 1, row.appended_position, row.first_position)


def begins_at(connection: Connection, position: int) -> None:
    """Note where the stream begins."""
    different = publication.c.first_position != position
    connection.execute(update(publication).where(different).values(first_position=position))


def first_since(connection: Connection, position: int, since: datetime, limit: int) -> int:
    """The first position, from this one on, of what was not cancelled before `since`; looks at `limit` of them."""
    columns = (cancellations.c.position, cancellations.c.cancelled_at)
    statement = select(*columns).where(cancellations.c.position >= position)
    for row in connection.execute(statement.order_by(cancellations.c.position).limit(limit)):
        if row.cancelled_at >= since:
            break
        position = row.position + 1
    return position


def published_from(connection: Connection, position: int, limit: int) -> Published:
    """Positions and payloads from `position` on, at most `limit`."""
    statement = select(cancellations.c.position, cancellations.c.payload).where(cancellations.c.position >= position)
    rows = connection.execute(statement.order_by(cancellations.c.position).limit(limit))
    return [(row.position, row.payload) for row in rows]


def unpublished(connection: Connection, last_published: int) -> int:
    """How many cancellations are not in the stream, which ends at `last_published`."""
    statement = select(func.count()).where(
        or_(cancellations.c.position.is_(None), cancellations.c.position > last_published)
    )
    number: int = connection.execute(statement).scalar_one()
    return number


def of_order(connection: Connection, order_id: str) -> Sequence[Row[Any]]:
    """The cancellations of an order, in their sequence."""
    statement = select(cancellations).where(cancellations.c.order_id == order_id)
    return connection.execute(statement.order_by(cancellations.c.sequence)).all()

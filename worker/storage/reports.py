"""What is told after the fact: the cancellations page by page, and how much is left to do since when. Only reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, case, func, or_, select

from domain.policy import Paused
from worker.storage import allocations as stored_allocations
from worker.storage import holds as stored_holds
from worker.storage import ledger, pauses
from worker.storage import waiting as stored_waiting
from worker.storage.tables import allocations, cancellations, conflicts, dead_letters, holds, orders, waiting_events


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which cancellations are meant: those of a cause, from `since` on, and before `until`."""

    cause_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Amount:
    """How many there are, and since when the oldest of them."""

    number: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Due:
    """How many could be done and are not, since when the oldest of them could, and when any of them was last worked
    on."""

    number: int
    since: datetime | None
    moved: datetime | None = None


def cancelled(connection: Connection, chosen: Chosen, after: int, limit: int) -> Sequence[Row[Any]]:
    """At most `limit` cancellations that come after a ledger id, in ledger order."""
    c = cancellations.c
    columns = (c.ledger_id, c.order_id, c.operation, c.reason, c.cause_source, c.cause_id, c.cancelled_at, c.payload)
    statement: Select[Any] = select(*columns).where(c.ledger_id > after, *_meant(chosen, c.cause_id, c.cancelled_at))
    return connection.execute(statement.order_by(c.ledger_id).limit(limit)).all()


def shadowed(connection: Connection, chosen: Chosen, after: int, limit: int) -> Sequence[Row[Any]]:
    """At most `limit` shadow holds that come after a hold id, in their order; each with its order's partner."""
    h = holds.c
    columns = (h.hold_id, h.source, h.id, h.type, h.order_id, h.would, h.created_at, orders.c.partner)
    statement: Select[Any] = select(*columns).outerjoin_from(holds, orders, orders.c.order_id == h.order_id)
    statement = statement.where(h.state == "shadow", h.hold_id > after, *_meant(chosen, h.id, h.created_at))
    return connection.execute(statement.order_by(h.hold_id).limit(limit)).all()


def newest_times(connection: Connection, limit: int) -> Sequence[datetime]:
    """When the newest rows of the ledger were cancelled, the newest first."""
    statement = select(cancellations.c.cancelled_at).order_by(cancellations.c.ledger_id.desc()).limit(limit)
    return connection.scalars(statement).all()


def waiting(connection: Connection) -> Mapping[str, Amount]:
    """Events that wait, by what they wait for."""
    of, since = waiting_events.c.waits_for, waiting_events.c.since
    rows = connection.execute(select(of, func.count(), func.min(since)).group_by(of).order_by(of))
    return {waits_for: Amount(number, oldest) for waits_for, number, oldest in rows}


def shortages(connection: Connection) -> Amount:
    """Shortages of a SKU that are not carried out."""
    return _amount(connection, allocations.c.recorded_at, allocations.c.finished_at.is_(None))


def held(connection: Connection) -> Amount:
    """Cuts that a person must decide."""
    return _amount(connection, holds.c.created_at, holds.c.state == "open")


def approved(connection: Connection) -> Amount:
    """Held cuts that were approved, and are not carried out yet."""
    return _amount(connection, holds.c.decided_at, holds.c.state == "approved")


def unpublished(connection: Connection, last_published: int) -> Amount:
    """Cancellations that are not in the stream, which ends at `last_published`."""
    position = cancellations.c.position
    statement = select(func.min(cancellations.c.cancelled_at))
    oldest = connection.execute(statement.where(or_(position.is_(None), position > last_published))).scalar_one()
    return Amount(ledger.unpublished(connection, last_published), oldest)


def due_shortages(connection: Connection, at: datetime, paused: Paused) -> Due:
    """Shortages of a SKU that could be carried out."""
    due_at, moved_at = allocations.c.due_at, allocations.c.moved_at
    since = func.min(case((moved_at > due_at, moved_at), else_=due_at))
    statement = select(func.count(), since, func.max(moved_at)).where(stored_allocations.is_due(at, paused))
    number, oldest, moved = connection.execute(statement).one()
    return Due(number, _could_since(connection, oldest), moved)


def overdue(connection: Connection, at: datetime, paused: Paused) -> Due:
    """Waiting events whose time to wait is over."""
    found = [_amount(connection, waiting_events.c.until, one) for one in stored_waiting.is_due(at, paused)]
    oldest = min((one.since for one in found if one.since), default=None)
    return Due(sum(one.number for one in found), _could_since(connection, oldest))


def due_approved(connection: Connection, paused: Paused) -> Due:
    """Held cuts that were approved, and could be carried out."""
    found = _amount(connection, holds.c.decided_at, stored_holds.is_approved(paused))
    return Due(found.number, _could_since(connection, found.since))


def _could_since(connection: Connection, oldest: datetime | None) -> datetime | None:
    """A pause may have held it until it ended."""
    resumed = pauses.last_resumed(connection) if oldest else None
    return max(oldest, resumed) if oldest and resumed else oldest


def open_dead_letters(connection: Connection) -> Amount:
    return _amount(connection, dead_letters.c.created_at, dead_letters.c.state == "open")


def open_conflicts(connection: Connection) -> Amount:
    return _amount(connection, conflicts.c.created_at, conflicts.c.state == "open")


def _amount(connection: Connection, since: Column[datetime], condition: ColumnElement[bool]) -> Amount:
    number, oldest = connection.execute(select(func.count(), func.min(since)).where(condition)).one()
    return Amount(number, oldest)


def _meant(chosen: Chosen, cause_id: Column[str], at: Column[datetime]) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if chosen.cause_id is not None:
        conditions.append(cause_id == chosen.cause_id)
    if chosen.since is not None:
        conditions.append(at >= chosen.since)
    if chosen.until is not None:
        conditions.append(at < chosen.until)
    return conditions

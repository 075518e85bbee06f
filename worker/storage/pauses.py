"""Pauses: while one is in force, no cancellation is committed, neither by its source nor, without one, by any."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, literal, select, text, true, update

from domain.policy import Paused
from worker.storage.database import now
from worker.storage.tables import pauses

_LOCK = 0x53686F7274  # any number, as long as nothing else locks it


def enter(connection: Connection) -> tuple[datetime, Paused]:
    """Begin a transaction that may cancel: its time, and what is paused until it ends. It must be its first statement.

    `pause` waits for the end of all that have entered, and whoever enters later sees it: so nothing is cancelled after
    `pause` returned. The lock comes alone, since a statement that waits sees the rows as they were before. On SQLite
    the transaction holds the only write lock.
    """
    if connection.dialect.name == "sqlite":
        return now(connection), paused(connection)
    connection.execute(_SHARE, {"lock": _LOCK})
    found = connection.execute(_TIME_AND_PAUSES).all()
    return found[0].at.astimezone(UTC), _paused([row.source for row in found if row.pause_id is not None])


def pause(connection: Connection, source: str | None, reason: str, by: str) -> None:
    """Pause cuts; once this is committed, none is committed any more. In a transaction of its own."""
    if connection.dialect.name != "sqlite":
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))  # longer than a batch may take
        connection.execute(text("SET LOCAL statement_timeout = '90s'"))
        connection.execute(_EXCLUDE, {"lock": _LOCK})
    row = {"source": source, "reason": reason, "paused_by": by, "paused_at": now(connection)}
    connection.execute(insert(pauses).values(row))


def resume(connection: Connection, source: str | None, reason: str, by: str) -> int:
    """End the pauses of a source, or without one those of everything; returns how many were in force."""
    of = pauses.c.source.is_(None) if source is None else pauses.c.source == source
    values = {"resumed_by": by, "resumed_at": now(connection), "resumed_because": reason}
    return connection.execute(update(pauses).where(pauses.c.resumed_at.is_(None), of).values(values)).rowcount


def paused(connection: Connection) -> Paused:
    """What is paused, as far as can be told without a lock."""
    return _paused([row.source for row in in_force(connection)])


def in_force(connection: Connection) -> Sequence[Row[Any]]:
    """The pauses that last, the oldest first."""
    return connection.execute(select(pauses).where(pauses.c.resumed_at.is_(None)).order_by(pauses.c.pause_id)).all()


def last_resumed(connection: Connection) -> datetime | None:
    """When a pause ended last; until then, what it held could not be done."""
    last: datetime | None = connection.execute(select(func.max(pauses.c.resumed_at))).scalar_one()
    return last


def _paused(sources: Sequence[str | None]) -> Paused:
    return Paused(None in sources, frozenset(source for source in sources if source is not None))


_SHARE = text("SELECT pg_advisory_xact_lock_shared(:lock)")
_EXCLUDE = text("SELECT pg_advisory_xact_lock(:lock)")
# One statement for both, since every batch pays for it.
_TIME_AND_PAUSES = select(text("now() AS at"), pauses.c.pause_id, pauses.c.source).select_from(
    select(literal(1)).subquery().outerjoin(pauses, pauses.c.resumed_at.is_(None) & true())
)

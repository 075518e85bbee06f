"""Breakers: what was cancelled within the window, and which of them are open."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, tuple_, update

from domain.guardrails import Count, Key
from worker.storage import bulk
from worker.storage.database import now
from worker.storage.tables import breaker_counts, breakers

PARTS = 60
"""A window is counted in so many parts, and one more: never less than what lies in it."""


def lock(connection: Connection, keys: Collection[Key]) -> None:
    """Lock the breakers of these keys until the end of the transaction, in key order."""
    rows = [{"scope": scope, "name": name} for scope, name in sorted(keys)]
    bulk.insert(connection, breakers, rows, on_conflict="do nothing")
    if connection.dialect.name != "sqlite":  # there, the transaction holds the only write lock
        statement = select(breakers.c.scope).where(_of(keys)).order_by(breakers.c.scope, breakers.c.name)
        connection.execute(statement.with_for_update())


def counts(connection: Connection, keys: Collection[Key], at: datetime, window: timedelta) -> dict[Key, Count]:
    """What was cancelled within the window before `at`. Lock the breakers first."""
    found: dict[Key, Count] = {key: Count() for key in keys}
    for row in connection.execute(select(breakers).where(_of(keys))):
        found[row.scope, row.name].open = row.opened_at is not None
    of, parts = (breaker_counts.c.scope, breaker_counts.c.name), breaker_counts.c.since >= _part(at - window, window)
    sums = (func.sum(breaker_counts.c.orders).label("orders"), func.sum(breaker_counts.c.units).label("units"))
    statement = select(*of, *sums).where(tuple_(*of).in_(sorted(keys)), parts).group_by(*of)
    for row in connection.execute(statement):
        found[row.scope, row.name].orders, found[row.scope, row.name].units = int(row.orders), int(row.units)
    return found


def add(connection: Connection, added: Mapping[Key, Count], at: datetime, window: timedelta) -> None:
    """Count what is cancelled."""
    rows = [
        {"scope": scope, "name": name, "since": _part(at, window), "orders": count.orders, "units": count.units}
        for (scope, name), count in sorted(added.items())
    ]
    bulk.insert(connection, breaker_counts, rows, on_conflict="add")


def trip(connection: Connection, causes: Mapping[Key, tuple[str, str]], at: datetime) -> None:
    """Open breakers, each with the event that would have exceeded its limit."""
    rows = [
        {"scope": scope, "name": name, "opened_at": at, "cause_source": source, "cause_id": id_}
        for (scope, name), (source, id_) in causes.items()
    ]
    bulk.update(connection, breakers, rows)


def close(connection: Connection, key: Key, because: str, by: str) -> bool:
    """Close a breaker, whose count starts anew; False if it is not open."""
    values = {"opened_at": None, "closed_at": now(connection), "closed_by": by, "closed_because": because}
    condition = _of([key]) & breakers.c.opened_at.is_not(None)
    if not connection.execute(update(breakers).where(condition).values(values)).rowcount:
        return False
    of_key = (breaker_counts.c.scope == key[0]) & (breaker_counts.c.name == key[1])
    connection.execute(delete(breaker_counts).where(of_key))
    return True


def listed(connection: Connection) -> Sequence[Row[Any]]:
    """The breakers that have ever counted, those that are open first."""
    return connection.execute(
        select(breakers).order_by(breakers.c.opened_at.is_(None), breakers.c.scope, breakers.c.name)
    ).all()


def is_open(connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(
        select(breakers).where(breakers.c.opened_at.is_not(None)).order_by(breakers.c.opened_at)
    ).all()


def prune(connection: Connection, before: datetime) -> int:
    """Forget what no window holds any more."""
    return connection.execute(delete(breaker_counts).where(breaker_counts.c.since < before)).rowcount


def _of(keys: Collection[Key]) -> Any:
    return tuple_(breakers.c.scope, breakers.c.name).in_(sorted(keys))


def _part(at: datetime, window: timedelta) -> datetime:
    """The beginning of the part of a window that a time lies in."""
    width = max(window / PARTS, timedelta(milliseconds=1))
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return start + (at - start) // width * width

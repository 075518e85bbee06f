"""Events that cannot be decided yet: each with the order it is for, what it waits for, and until when."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from domain.policy import Paused
from worker.storage import bulk
from worker.storage.inbox import Key
from worker.storage.tables import waiting_events


@dataclass(frozen=True, slots=True)
class Waiting:
    """A waiting event as it came. `until` is when its time is over; of what is paused, it is when the
    event came. `waited` tells what it has waited for before, each with when that was over."""

    key: Key
    order_id: str
    entry_id: str
    waits_for: str
    raw: bytes
    since: datetime
    until: datetime
    waited: tuple[tuple[str, str], ...] = ()


def of_orders(connection: Connection, order_ids: Collection[str]) -> list[Waiting]:
    """What waits for these orders, in the order of arrival."""
    return _read(connection.execute(_OF_ORDERS, {"values": order_ids}))


def due(connection: Connection, at: datetime, paused: Paused, limit: int) -> list[Waiting]:
    """At most `limit` events whose time to wait was over at `at`, and of what is paused those that no pause holds any
    more; not locked."""
    found: list[Waiting] = []
    for condition in is_due(at, paused):
        if len(found) < limit:
            statement = select(waiting_events).where(condition).order_by(waiting_events.c.until)
            found += _read(connection.execute(statement.limit(limit - len(found))))
    return found


def is_due(at: datetime, paused: Paused) -> list[ColumnElement[bool]]:
    """What is due: that its time to wait was over at `at`, or that no pause holds it any more."""
    waits_for, until = waiting_events.c.waits_for, waiting_events.c.until
    timed = waits_for.in_(("order_not_placed", "fulfillments_missing", "grace"))
    held = waiting_events.c.source.in_(sorted(paused.sources))
    resumed = [] if paused.everything else [(waits_for == "paused") & ~held]
    return [timed & (until <= at), *resumed]


def save(connection: Connection, waiting: Sequence[Waiting]) -> None:
    """Write events that wait, or now wait for something else."""
    rows = [
        {
            "source": one.key[0],
            "id": one.key[1],
            "order_id": one.order_id,
            "entry_id": one.entry_id,
            "waits_for": one.waits_for,
            "event": one.raw.decode(),
            "since": one.since,
            "until": one.until,
            "waited": one.waited,
        }
        for one in waiting
    ]
    bulk.insert(connection, waiting_events, rows, on_conflict="update")


def remove(connection: Connection, keys: Collection[Key]) -> None:
    bulk.delete(connection, waiting_events, [{"source": source, "id": id_} for source, id_ in keys])


def count(connection: Connection) -> dict[str, int]:
    """How many events wait, by what they wait for."""
    statement = select(waiting_events.c.waits_for, func.count()).group_by(waiting_events.c.waits_for)
    return {row[0]: row[1] for row in connection.execute(statement)}


_OF_ORDERS = select(waiting_events).where(bulk.among(waiting_events.c.order_id))


def _read(rows: Iterable[Row[Any]]) -> list[Waiting]:
    found = [
        Waiting(
            key=(row.source, row.id),
            order_id=row.order_id,
            entry_id=row.entry_id,
            waits_for=row.waits_for,
            raw=row.event.encode(),
            since=row.since,
            until=row.until,
            waited=tuple((reason, end) for reason, end in row.waited),
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: arrival(one.entry_id))


def arrival(entry_id: str) -> tuple[int, int]:
    """A stream entry id as a pair that sorts by arrival."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)

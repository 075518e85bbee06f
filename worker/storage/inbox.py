"""Events: each claimed once by `(source, id)`, and what was decided about it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, tuple_

from domain.events import Event, OrderEvent, SkuEvent
from domain.outcomes import Facts, Outcome, Reason
from worker.storage import bulk
from worker.storage.tables import events, pruned_events

Key = tuple[str, str]
"""An event's `(source, id)`."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """An event that keeps the contract, with the queue entry it came in."""

    entry_id: str
    raw: bytes
    event: Event
    digest: str

    @property
    def key(self) -> Key:
        return self.event.key

    @property
    def order_id(self) -> str | None:
        return self.event.data.order_id if isinstance(self.event, OrderEvent) else None

    @property
    def sku(self) -> str | None:
        return self.event.data.sku if isinstance(self.event, SkuEvent) else None


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about an event, and when (UTC)."""

    key: Key
    order_id: str | None
    outcome: Outcome
    reason: Reason
    facts: Facts
    decided_at: datetime


def claim(connection: Connection, arrived: Sequence[Arrived], at: datetime) -> set[Key]:
    """Claim events, each key given once, and return the keys that nobody had claimed before.

    Waits for other transactions that claim the same; in key order, so that two of them cannot block each other.
    """
    rows = [
        {
            "source": one.event.source,
            "id": one.event.id,
            "digest": one.digest,
            "type": one.event.type,
            "order_id": one.order_id,
            "sku": one.sku,
            "time": one.event.time,
            "entry_id": one.entry_id,
            "recorded_at": at,
        }
        for one in sorted(arrived, key=lambda one: one.key)
    ]
    claimed = bulk.insert(connection, events, rows, on_conflict="do nothing", returning=("source", "id"))
    return {(row.source, row.id) for row in claimed}


def digests(connection: Connection, keys: Collection[Key]) -> dict[Key, str]:
    """The content digests of claimed events."""
    if not keys:
        return {}
    statement = select(events.c.source, events.c.id, events.c.digest)
    found = connection.execute(statement.where(tuple_(events.c.source, events.c.id).in_(sorted(keys))))
    return {(row.source, row.id): row.digest for row in found}


def recorded(connection: Connection, entry_ids: Collection[str]) -> set[str]:
    """Those of the queue entries whose event was recorded. Slow, and rarely needed: entry ids have no index."""
    return set(connection.scalars(select(events.c.entry_id).where(events.c.entry_id.in_(entry_ids))))


def save(connection: Connection, decided: Sequence[Decided]) -> None:
    """Write decisions beside their events; of several about one event the last one counts."""
    last = {one.key: one for one in decided}
    rows = [
        {
            "source": source,
            "id": id_,
            "outcome": one.outcome,
            "reason": one.reason,
            "facts": one.facts,
            "decided_at": one.decided_at,
        }
        for (source, id_), one in last.items()
    ]
    bulk.update(connection, events, rows)


def lock(connection: Connection, keys: Collection[Key]) -> dict[Key, str]:
    """Lock decided events until the end of the transaction; returns their outcomes."""
    if not keys:
        return {}
    statement = select(events.c.source, events.c.id, events.c.outcome)
    statement = statement.where(tuple_(events.c.source, events.c.id).in_(sorted(keys)))
    statement = statement.order_by(events.c.source, events.c.id)
    found = connection.execute(statement.with_for_update())
    return {(row.source, row.id): row.outcome for row in found}


def change(connection: Connection, outcomes: Mapping[Key, tuple[Outcome, Reason]], at: datetime) -> None:
    """Write another outcome and reason beside events; their facts stay."""
    rows = [
        {"source": source, "id": id_, "outcome": outcome, "reason": reason, "decided_at": at}
        for (source, id_), (outcome, reason) in outcomes.items()
    ]
    bulk.update(connection, events, rows)


def release(connection: Connection, keys: Collection[Key]) -> None:
    """Give up claims: a dead letter holds none, so that a mended event may come under the same id."""
    bulk.delete(connection, events, [{"source": source, "id": id_} for source, id_ in keys])


def of_order(connection: Connection, order_id: str) -> Sequence[Row[Any]]:
    """The events of an order with their decisions, as they were recorded."""
    statement = select(events).where(events.c.order_id == order_id)
    return connection.execute(statement.order_by(events.c.recorded_at)).all()


def knows_source(connection: Connection, source: str) -> bool:
    """Whether an event of this source was recorded; it may have been removed since."""
    found = (select(table.c.source).where(table.c.source == source).limit(1) for table in (events, pruned_events))
    return any(connection.execute(statement).first() is not None for statement in found)


def of_key(connection: Connection, key: Key) -> Row[Any] | None:
    """One event with its decision."""
    statement = select(events).where(events.c.source == key[0], events.c.id == key[1])
    return connection.execute(statement).one_or_none()

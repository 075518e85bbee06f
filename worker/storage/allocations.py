"""Shortages of a SKU: each with how far its run has come, and what it gave to each order."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, false, func, literal, select, text, tuple_, update

from domain.allocation import open_units
from domain.contract import SkuShortageData
from domain.events import SkuShortage
from domain.orders import Order
from domain.outcomes import Outcome, Reason
from domain.policy import HoldReason, Paused, Policy, Strategy
from worker.storage import bulk
from worker.storage.database import now
from worker.storage.inbox import Key
from worker.storage.pauses import paused
from worker.storage.tables import allocations, allotments, events

# As it stands in the index, or it would not be used.
_UNFINISHED = text("finished_at IS NULL")
_UNFINISHED_OF = (
    select(allocations).where(bulk.among(allocations.c.sku), _UNFINISHED).order_by(allocations.c.allocation_id)
)


@dataclass(frozen=True, slots=True)
class Place:
    """An order's place in the allocation order."""

    priority: int
    placed_at: datetime
    order_id: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """A shortage of a SKU. `orders`, `wanted`, `given`, `shipped` (units, after it happened), `kept` (units open when
    their turn was over, which serve nobody else), `cut_orders` and `cut_units` are of the orders that it has served so
    far, up to and including `last`; `moved_at` is when."""

    allocation_id: int
    event: SkuShortage
    happened_at: datetime
    due_at: datetime
    strategy: Strategy | None
    ship_complete: bool | None
    hold: HoldReason | None
    orders: int
    wanted: int
    given: int
    shipped: int
    kept: int
    cut_orders: int
    cut_units: int
    moved_at: datetime | None
    last: Place | None

    @property
    def sku(self) -> str:
        return self.event.data.sku

    @property
    def available(self) -> int:
        return self.event.data.available_quantity

    @property
    def begun(self) -> bool:
        return self.strategy is not None


@dataclass(frozen=True, slots=True)
class Allotted:
    """What an order was given, and what was decided of it."""

    allocation_id: int
    order_id: str
    rank: int
    wanted: int
    given: int
    left_units: int
    shipped: int
    cut_units: int
    outcome: Outcome
    reason: Reason
    facts: Any
    decided_at: datetime


def add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Write shortages that are to be carried out."""
    bulk.insert(connection, allocations, rows)


def lock(connection: Connection, sku: str) -> bool:
    """Lock the runs of a SKU until the end of the transaction; False if another transaction has them."""
    if connection.dialect.name == "sqlite":  # the transaction holds the only write lock
        return True
    statement = select(func.pg_try_advisory_xact_lock(func.hashtextextended(sku, 0)))
    return bool(connection.execute(statement).scalar_one())


def lock_some(connection: Connection, skus: Sequence[str]) -> list[str]:
    """Lock the runs of those of these SKUs that no other transaction has; returns them."""
    if connection.dialect.name == "sqlite":  # the transaction holds the only write lock
        return list(skus)
    return list(connection.scalars(_LOCK_SOME, {"skus": json.dumps(list(skus))}))


def unfinished_of(connection: Connection, skus: Collection[str]) -> list[Allocation]:
    """The shortages of these SKUs that are still to be carried out."""
    return [_allocation(row) for row in connection.execute(_UNFINISHED_OF, {"values": skus})]


def finish(connection: Connection, wanted: Mapping[int, int], policy: Policy, at: datetime) -> None:
    """End shortages that had enough for all, each with the units that were wanted."""
    rows = [
        {
            "allocation_id": allocation_id,
            "strategy": policy.strategy,
            "ship_complete": policy.ship_complete,
            "wanted": units,
            "given": units,
            "finished_at": at,
        }
        for allocation_id, units in wanted.items()
    ]
    bulk.update(connection, allocations, rows)


_LOCK_SOME = text(
    """
    SELECT value FROM json_array_elements_text(CAST(:skus AS json))
    WHERE pg_try_advisory_xact_lock(hashtextextended(value, 0))
    """
)


def unfinished(connection: Connection, sku: str) -> list[Allocation]:
    """The shortages of a SKU that are still to be carried out, in the order in which they were recorded."""
    statement = select(allocations).where(allocations.c.sku == sku, _UNFINISHED).order_by(allocations.c.allocation_id)
    return [_allocation(row) for row in connection.execute(statement)]


def due(connection: Connection, at: datetime, paused: Paused, idle: timedelta) -> Sequence[str]:
    """The SKUs with a shortage that is due, not paused, and not being carried out: it has not moved for so long."""
    moving = allocations.c.moved_at.is_not(None) & (allocations.c.moved_at > at - idle)
    statement = select(allocations.c.sku).where(is_due(at, paused), ~moving)
    return connection.scalars(statement.distinct().order_by(allocations.c.sku)).all()


def is_due(at: datetime, paused: Paused) -> ColumnElement[bool]:
    """That a shortage could be carried out at this moment."""
    if paused.everything:
        return false()
    condition = and_(_UNFINISHED, allocations.c.due_at <= at)
    return condition & allocations.c.source.not_in(sorted(paused.sources)) if paused.sources else condition


def hasten(connection: Connection, allocation: Allocation, due_at: datetime) -> None:
    """Have a shortage carried out earlier."""
    statement = update(allocations).where(allocations.c.allocation_id == allocation.allocation_id)
    connection.execute(statement.values(due_at=due_at))


def cutting(connection: Connection, keys: Collection[Key]) -> set[Key]:
    """Those of these events whose shortage has cut orders."""
    statement = select(allocations.c.source, allocations.c.id).where(allocations.c.cut_orders > 0)
    statement = statement.where(tuple_(allocations.c.source, allocations.c.id).in_(sorted(keys)))
    return {(row.source, row.id) for row in connection.execute(statement)} if keys else set()


def ship_complete(connection: Connection, allocation_ids: Collection[int]) -> dict[int, bool]:
    """By allocation, whether its orders ship complete or not at all."""
    statement = select(allocations.c.allocation_id, allocations.c.ship_complete)
    found = connection.execute(statement.where(allocations.c.allocation_id.in_(sorted(allocation_ids))))
    return {row.allocation_id: bool(row.ship_complete) for row in found} if allocation_ids else {}


def cut_more(connection: Connection, cuts: Sequence[tuple[int, str, int]]) -> None:
    """Note what approved holds of shortages have cut: allocation, order, units."""
    for allocation_id in sorted({one for one, _, _ in cuts}):
        units = [number for one, _, number in cuts if one == allocation_id]
        _add_cuts(connection, allocation_id, len(units), sum(units))
    rows = [{"allocation_id": one, "order_id": order_id, "cut_units": units} for one, order_id, units in cuts]
    bulk.update(connection, allotments, rows)


def save(
    connection: Connection,
    allocation: Allocation,
    finished_at: datetime | None,
    cut_orders: int = 0,
    cut_units: int = 0,
) -> None:
    """Write how far a run has come, and with `finished_at` that it is over. What it has cut now is added to what it
    had: approved holds of it add to that too."""
    names = ("strategy", "ship_complete", "hold", "orders", "wanted", "given", "shipped", "kept", "moved_at")
    values = {name: getattr(allocation, name) for name in names}
    if allocation.last:
        values |= {f"last_{field.name}": getattr(allocation.last, field.name) for field in fields(Place)}
    statement = update(allocations).where(allocations.c.allocation_id == allocation.allocation_id)
    connection.execute(statement.values(**values, finished_at=finished_at))
    if cut_orders:
        _add_cuts(connection, allocation.allocation_id, cut_orders, cut_units)


def _add_cuts(connection: Connection, allocation_id: int, orders: int, units: int) -> None:
    statement = update(allocations).where(allocations.c.allocation_id == allocation_id)
    more = {"cut_orders": allocations.c.cut_orders + orders, "cut_units": allocations.c.cut_units + units}
    connection.execute(statement.values(more))


def add_allotments(connection: Connection, rows: Sequence[Allotted]) -> None:
    bulk.insert(connection, allotments, [{name: getattr(row, name) for name in row.__slots__} for row in rows])


def note_released(connection: Connection, before: Mapping[str, Order | None], changed: Sequence[Order]) -> None:
    """Note of orders that a run has served by how much less of its SKU is open in them now: so the run need not look
    at all of them again at each of its steps. Their rows are locked, by a run as by anybody; so who changes an order
    after its turn finds its allotment here, and who changes it earlier changes what the run finds. (A run's own
    cuts come before their allotments, and are in what it notes itself.)"""
    known = [(old, order) for order in changed if (old := before[order.order_id])]
    skus = {item.sku for old, _ in known for item in old.current_items}
    begun: dict[str, list[tuple[int, datetime]]] = defaultdict(list)
    for allocation_id, sku, happened_at in connection.execute(_BEGUN, {"values": skus}) if skus else ():
        begun[sku].append((allocation_id, happened_at))
    rows = [
        {"allocation_id": allocation_id, "order_id": order.order_id, "released": units}
        for old, order in known
        for sku in {item.sku for item in old.current_items} & begun.keys()
        for allocation_id, happened_at in begun[sku]
        if (units := open_units(old, sku, happened_at) - open_units(order, sku, happened_at))
    ]
    bulk.update(connection, allotments, rows, add=True)


_BEGUN = select(allocations.c.allocation_id, allocations.c.sku, allocations.c.happened_at).where(
    bulk.among(allocations.c.sku), _UNFINISHED, allocations.c.last_order_id.is_not(None)
)


def of_order(connection: Connection, order_id: str) -> Sequence[Row[Any]]:
    """What an order was given by each shortage of a SKU, with the shortage and its event (which may have been removed
    since, if it cut nobody)."""
    names = ["source", "id", "sku", "available", "happened_at", "due_at", "orders", "strategy", "finished_at"]
    names += ["time", "recorded_at"]
    columns: list[ColumnElement[Any]] = [*allotments.columns, *(allocations.c[name] for name in names)]
    columns += [literal("inventory.shortage").label("type"), func.coalesce(events.c.entry_id, "0-0").label("entry_id")]
    statement = (
        select(*columns)
        .join(allocations, allocations.c.allocation_id == allotments.c.allocation_id)
        .outerjoin(events, (events.c.source == allocations.c.source) & (events.c.id == allocations.c.id))
        .where(allotments.c.order_id == order_id)
    )
    return connection.execute(statement.order_by(allotments.c.decided_at, allotments.c.allocation_id)).all()


def listed(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    """The newest shortages, each with what came of it so far (None, if it cut nobody and its event was removed)."""
    inner = ("kept", "last_priority", "last_placed_at", "last_order_id")
    shown: list[ColumnElement[Any]] = [one for one in allocations.columns if one.name not in inner]
    shown += [events.c.outcome, events.c.reason, events.c.facts]
    of_event = (events.c.source == allocations.c.source) & (events.c.id == allocations.c.id)
    statement = select(*shown).outerjoin(events, of_event)
    return connection.execute(statement.order_by(allocations.c.allocation_id.desc()).limit(limit)).all()


def pending(connection: Connection, order: Order) -> Sequence[Row[Any]]:
    """The shortages that may still cut an order: of a SKU that it wants, and not carried out for it yet."""
    skus = sorted({item.sku for item in order.current_items if item.open})
    served = select(literal(1)).where(
        allotments.c.allocation_id == allocations.c.allocation_id, allotments.c.order_id == order.order_id
    )
    statement = select(allocations).where(_UNFINISHED, allocations.c.sku.in_(skus), ~served.exists())
    statement = statement.where(allocations.c.happened_at >= order.placed_at)
    return connection.execute(statement.order_by(allocations.c.allocation_id)).all()


def figures(connection: Connection, allocation: Allocation) -> dict[str, int]:
    """What a run has come to, approved holds of it included."""
    names = ("orders", "wanted", "given", "cut_orders", "cut_units")
    statement = select(*(allocations.c[name] for name in names))
    row = connection.execute(statement.where(allocations.c.allocation_id == allocation.allocation_id)).one()
    return {name: int(row._mapping[name]) for name in names}


def unfinished_count(connection: Connection) -> tuple[int, int]:
    """How many shortages of a SKU are not carried out, and how many of them are due and not paused."""
    at, held = now(connection), paused(connection)
    rows = connection.execute(select(allocations.c.source, allocations.c.due_at).where(_UNFINISHED)).all()
    return len(rows), sum(row.due_at <= at and not held.holds(row.source) for row in rows)


def _allocation(row: Row[Any]) -> Allocation:
    last = Place(row.last_priority, row.last_placed_at, row.last_order_id) if row.last_order_id is not None else None
    names = [field.name for field in fields(Allocation) if field.name not in ("event", "last")]
    return Allocation(event=_event(row), last=last, **{name: row._mapping[name] for name in names})


def _event(row: Row[Any]) -> SkuShortage:
    """The shortage's event, which was valid when it came."""
    return SkuShortage.model_construct(
        specversion="1.0",
        id=row.id,
        source=row.source,
        type="inventory.shortage",
        time=row.time,
        traceparent=row.traceparent,
        data=SkuShortageData.model_construct(sku=row.sku, available_quantity=row.available),
    )

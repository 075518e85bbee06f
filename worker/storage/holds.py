"""Holds: cuts that a guardrail has stopped, until a person approves or rejects them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, case, false, func, or_, select, tuple_, update

from domain.outcomes import Outcome, Reason
from domain.policy import Paused
from worker.storage import bulk
from worker.storage.inbox import Key
from worker.storage.stock import Figures
from worker.storage.tables import holds

Verdict = Literal["approved", "rejected"]


@dataclass(frozen=True, slots=True)
class Hold:
    """A cut to be held. `event` is an event of this order, to be decided again; `would` what it would cancel."""

    source: str
    id: str
    type: str
    order_id: str
    sku: str | None
    allocation_id: int | None
    event: str
    happened_at: datetime
    why: str
    would: Sequence[Sequence[Any]]
    units: int
    created_at: datetime
    state: str

    @property
    def key(self) -> Key:
        return (self.source, self.id)


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a hold."""

    hold_id: int
    state: str
    outcome: Outcome
    reason: Reason
    ended_at: datetime


def add(connection: Connection, rows: Sequence[Hold]) -> None:
    bulk.insert(connection, holds, [{name: getattr(row, name) for name in row.__slots__} for row in rows])


def end(connection: Connection, ended: Sequence[Ended]) -> None:
    bulk.update(connection, holds, [{name: getattr(one, name) for name in one.__slots__} for one in ended])


def approved(connection: Connection, paused: Paused, limit: int) -> Sequence[Row[Any]]:
    """Approved holds that were not carried out and are not paused, the oldest first; not locked."""
    statement = select(holds).where(is_approved(paused))
    return connection.execute(statement.order_by(holds.c.hold_id).limit(limit)).all()


def is_approved(paused: Paused) -> ColumnElement[bool]:
    """That a hold could be carried out at this moment."""
    if paused.everything:
        return false()
    return (holds.c.state == "approved") & holds.c.source.not_in(sorted(paused.sources))


def still_approved(connection: Connection, hold_ids: Collection[int]) -> Sequence[Row[Any]]:
    """Those of them that nobody has carried out meanwhile. Lock their orders first."""
    statement = select(holds).where(holds.c.hold_id.in_(sorted(hold_ids)), holds.c.state == "approved")
    return connection.execute(statement.order_by(holds.c.hold_id)).all()


def supersede(connection: Connection, sku: str, figures: Figures, at: datetime) -> set[Key]:
    """End the undecided holds of a SKU's shortages that newer figures have overtaken; returns their events."""
    restocked = figures.restocked.get(sku)
    newer = [
        and_(holds.c.source == source, holds.c.happened_at < time)
        for (of, source), time in figures.newest.items()
        if of == sku
    ]
    keys: set[Key] = set()
    of_sku = and_(holds.c.sku == sku, holds.c.state == "open")
    for condition, outcome, reason in (
        (holds.c.happened_at < restocked if restocked else None, "void", "restocked"),
        (or_(*newer) if newer else None, "stale", "newer_figure"),
    ):
        if condition is not None:
            values = {"state": "superseded", "outcome": outcome, "reason": reason, "ended_at": at}
            ended = update(holds).where(of_sku, condition).values(values).returning(holds.c.source, holds.c.id)
            keys |= {(row.source, row.id) for row in connection.execute(ended)}
    return keys


def open_shortages(
    connection: Connection, *, order_ids: Collection[str] | None = None, before: datetime | None = None
) -> Sequence[Row[Any]]:
    """Undecided holds of shortages of single orders: of these orders, and that happened before a time."""
    statement = select(holds).where(
        holds.c.state == "open", holds.c.sku.is_(None), holds.c.type == "inventory.shortage"
    )
    if order_ids is not None:
        statement = statement.where(holds.c.order_id.in_(sorted(order_ids)))
    if before is not None:
        statement = statement.where(holds.c.happened_at < before)
    return connection.execute(statement.order_by(holds.c.hold_id)).all()


def skus(connection: Connection, of: Collection[str]) -> set[str]:
    """Those of these SKUs of which a cut is held that nobody has decided."""
    statement = select(holds.c.sku).where(holds.c.sku.in_(sorted(of)), holds.c.state == "open")
    return set(connection.scalars(statement.distinct()))


def select_ids(
    connection: Connection, hold_ids: Collection[int], cause_id: str | None, source: str | None, everything: bool
) -> list[int]:
    """The ids of the open holds that are meant: these, or those of a cause, or all."""
    chosen: list[ColumnElement[bool]] = [holds.c.state == "open"]
    if not everything:
        chosen.append(holds.c.id == cause_id if cause_id is not None else holds.c.hold_id.in_(sorted(hold_ids)))
    if source is not None:
        chosen.append(holds.c.source == source)
    return list(connection.scalars(select(holds.c.hold_id).where(*chosen).order_by(holds.c.hold_id)))


def decide(
    connection: Connection, hold_ids: Collection[int], verdict: Verdict, by: str, because: str, at: datetime
) -> Sequence[Row[Any]]:
    """Approve or reject those of these holds that are still open; returns their ids and events."""
    values = {"state": verdict, "decided_by": by, "decided_because": because, "decided_at": at}
    statement = update(holds).where(holds.c.hold_id.in_(sorted(hold_ids)), holds.c.state == "open").values(values)
    return connection.execute(statement.returning(holds.c.hold_id, holds.c.source, holds.c.id)).all()


def standing(connection: Connection, keys: Collection[Key]) -> Mapping[Key, Mapping[tuple[str, str | None], int]]:
    """Per event, how many holds it has by state and outcome."""
    statement = (
        select(holds.c.source, holds.c.id, holds.c.state, holds.c.outcome, func.count().label("number"))
        .where(tuple_(holds.c.source, holds.c.id).in_(sorted(keys)))
        .group_by(holds.c.source, holds.c.id, holds.c.state, holds.c.outcome)
    )
    found: dict[Key, dict[tuple[str, str | None], int]] = {key: {} for key in keys}
    for row in connection.execute(statement) if keys else []:
        found[row.source, row.id][row.state, row.outcome] = row.number
    return found


def totals(connection: Connection, key: Key) -> tuple[int, int]:
    """How many orders and units of an event are, or were, held."""
    statement = select(func.count(), func.coalesce(func.sum(holds.c.units), 0))
    row = connection.execute(statement.where(holds.c.source == key[0], holds.c.id == key[1])).one()
    return int(row[0]), int(row[1])


def by_cause(connection: Connection, states: Collection[str]) -> Sequence[Row[Any]]:
    """Holds in these states by what caused them, the largest first: a shortage of a SKU by itself, and what events of
    single orders have caused by their source and type (then without an `id`)."""
    cause = case((holds.c.sku.is_not(None), holds.c.id), else_=None)
    group = (holds.c.source, cause, holds.c.type, holds.c.sku, holds.c.why, holds.c.state)
    statement = select(
        holds.c.source,
        cause.label("id"),
        *group[2:],
        func.count().label("orders"),
        func.sum(holds.c.units).label("units"),
        func.min(holds.c.created_at).label("since"),
    )
    statement = statement.where(holds.c.state.in_(sorted(states))).group_by(*group)
    return connection.execute(statement.order_by(func.count().desc(), holds.c.source, cause)).all()


def listed(connection: Connection, states: Collection[str], limit: int) -> Sequence[Row[Any]]:
    """Holds in these states, the newest first."""
    statement = select(holds).where(holds.c.state.in_(sorted(states))).order_by(holds.c.hold_id.desc())
    return connection.execute(statement.limit(limit)).all()


def find(connection: Connection, hold_id: int) -> Row[Any] | None:
    return connection.execute(select(holds).where(holds.c.hold_id == hold_id)).one_or_none()


def of_order(connection: Connection, order_id: str) -> Sequence[Row[Any]]:
    return connection.execute(select(holds).where(holds.c.order_id == order_id).order_by(holds.c.hold_id)).all()


def count(connection: Connection) -> dict[str, int]:
    """How many holds there are, by state."""
    return {row[0]: row[1] for row in connection.execute(select(holds.c.state, func.count()).group_by(holds.c.state))}

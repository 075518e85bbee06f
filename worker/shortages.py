"""Shortages of a SKU, carried out: the orders that want it are served chunk by chunk, each chunk in one transaction.

A chunk is whole orders: picked in allocation order without a lock, locked in id order, and read again. Its checkpoint
commits with it, so a run that dies goes on where it was, and needs no more memory for many orders than for few.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from redis.exceptions import RedisError
from sqlalchemy import Connection

from domain.allocation import Allotment, allocate, overtaken, shortage_of
from domain.decisions import carry_out, decide
from domain.events import SkuShortage
from domain.orders import Order
from domain.outcomes import Outcome
from domain.policy import Moment, Policy
from worker.process import HOPELESS, Processor
from worker.record import tell_cancelled, tell_decided
from worker.settle import FAULTS, ledger_rows
from worker.stock import OVERTAKEN_BY
from worker.storage import allocations, inbox, ledger, orders, pauses, stock
from worker.storage.allocations import Allocation, Allotted
from worker.storage.database import TRANSIENT, now, reading, transaction
from worker.storage.inbox import Decided
from worker.storage.ledger import LedgerRow

log = structlog.get_logger(__name__)

SECONDS = 0.25
IDLE = timedelta(seconds=15)
"""A run that has not moved for so long has no message any more; whoever is asked to may carry it on."""


@dataclass(slots=True)
class Step:
    """What one transaction of a run did. `more`: there is something left that can be done now."""

    more: bool = False
    decided: list[Decided] = field(default_factory=list)
    cancelled: list[LedgerRow] = field(default_factory=list)


def run(
    processor: Processor, skus: Sequence[str], seconds: float = SECONDS, *, going_on: bool = True
) -> tuple[list[str], list[str]]:
    """Carry out shortages of these SKUs for about so long, so that other events have their turn. Returns the SKU that
    goes on, if one does, and those that had no turn. Without `going_on`, runs that another message carries on are left
    alone."""
    deadline = time.monotonic() + seconds
    for number, sku in enumerate(skus):
        own = going_on
        while (more := _carry_on(processor, sku, own)) and time.monotonic() < deadline:
            own = True
        if time.monotonic() >= deadline:
            return [sku] if more else [], list(skus[number + 1 :])
    return [], []


def _carry_on(processor: Processor, sku: str, going_on: bool) -> bool:
    """A step; one SKU that fails does not hold up the others. The clock asks for it again."""
    try:
        return run_once(processor, sku, going_on=going_on)
    except (*TRANSIENT, *HOPELESS, RedisError) as error:
        log.error("shortage.failed", sku=sku, exc_info=error)
        return False


def due(processor: Processor, idle: timedelta = IDLE) -> Sequence[str]:
    """The SKUs with a shortage that can be carried out now, and that nobody carries out."""
    with reading(processor.engine) as connection:
        return allocations.due(connection, now(connection), pauses.paused(connection), idle)


def run_once(processor: Processor, sku: str, *, going_on: bool = True) -> bool:
    """One transaction: end the shortages of the SKU that newer figures have overtaken, and of the first one that is due
    serve the next orders. Returns whether there is more to do now. Without `going_on`, a run that moves is left alone:
    a message carries it on."""
    with transaction(processor.engine) as connection:
        at, paused = pauses.enter(connection)
        if not allocations.lock(connection, sku):
            return False  # another worker is at it
        policy = replace(processor.policy, paused=paused)
        step = _step(connection, sku, policy, at, processor.orders_a_chunk, going_on)
    tell_decided(step.decided)
    tell_cancelled(step.cancelled)
    if step.cancelled:
        processor.outbox.wake_relay()
    return step.more


def _step(connection: Connection, sku: str, policy: Policy, at: datetime, chunk: int, going_on: bool) -> Step:
    step = Step()
    current = _current(connection, sku, at, step)
    left = [one for one in current if one.due_at <= at and not policy.paused.holds(one.event.source)]
    if left:
        first = left[0]
        moves = first.moved_at is not None and at - first.moved_at < IDLE
        if going_on or not moves:
            step.more = not _serve(connection, first, policy, at, chunk, step) or len(left) > 1
    inbox.save(connection, step.decided)
    return step


def _current(connection: Connection, sku: str, at: datetime, step: Step) -> list[Allocation]:
    """The shortages that are still to be carried out, after those are ended that newer figures have overtaken."""
    unfinished = allocations.unfinished(connection, sku)
    figures = stock.figures(connection, [sku] if unfinished else [])
    current, stale = [], []
    for one in unfinished:
        by = overtaken(one.happened_at, figures.newest[sku, one.event.source], figures.restocked.get(sku))
        if by is None:
            current.append(one)
            continue
        _finish(connection, one, by, OVERTAKEN_BY[by], at, step)
        if by == "stale":
            stale.append(one)
    return [_with_the_patience_left(connection, one, stale) for one in current]


def _with_the_patience_left(connection: Connection, one: Allocation, stale: Sequence[Allocation]) -> Allocation:
    """A figure that still tells of a shortage goes on with the grace of the one that it has overtaken: with a new one
    each time, a feed that reports more often than the grace lasts would never cut anything."""
    due_at = min([one.due_at, *(old.due_at for old in stale if old.event.source == one.event.source)])
    if due_at == one.due_at or _enough(connection, one):
        return one
    allocations.hasten(connection, one, due_at)
    return replace(one, due_at=due_at)


def _enough(connection: Connection, allocation: Allocation) -> bool:
    """Whether there is enough for all that want the SKU."""
    wanted, shipped = allocations.demand(connection, allocation), allocations.shipped_since(connection, allocation)
    return wanted <= allocation.available - shipped


def _serve(
    connection: Connection, allocation: Allocation, policy: Policy, at: datetime, chunk: int, step: Step
) -> bool:
    """Serve the next orders of a shortage; returns whether it is over."""
    if not allocation.begun:
        allocation = replace(allocation, strategy=policy.strategy, ship_complete=policy.ship_complete)
        if _enough(connection, allocation):
            wanted = allocations.demand(connection, allocation)
            _finish(connection, replace(allocation, wanted=wanted, given=wanted), "nothing", "enough", at, step)
            return True
    places = allocations.pick(connection, allocation, chunk)
    if places:
        allocation = _allot(connection, allocation, [place.order_id for place in places], at, step)
        allocation = replace(allocation, last=places[-1], moved_at=at)
    if len(places) < chunk:
        _finish(connection, allocation, "nothing", "no_cut", at, step)
        return True
    allocations.save(connection, allocation, None)
    return False


def _allot(
    connection: Connection, allocation: Allocation, order_ids: Sequence[str], at: datetime, step: Step
) -> Allocation:
    """Give these orders what is left for them, cut the rest; returns how far the run has come then."""
    orders.lock_known(connection, order_ids)
    known = orders.load(connection, order_ids)
    shipped = allocations.shipped_since_by(connection, allocation, order_ids)
    # From the present state, and not from what was given: what an order has given back serves the next one.
    used = allocations.kept(connection, allocation) + allocations.shipped_since(connection, allocation)
    policy = Policy(ship_complete=bool(allocation.ship_complete), strategy=allocation.strategy or "oldest_first")
    placed = [order for order in known.values() if order]
    left = max(0, allocation.available - used)
    allotments = allocate(placed, allocation.sku, left, policy, allocation.happened_at)
    cuts = [_cut(one, allocation.event, allocation.happened_at, policy, at) for one in allotments]
    rows = [
        cut.row(allocation, rank, shipped.get(cut.order.order_id, 0), at)
        for rank, cut in enumerate(cuts, start=allocation.orders + 1)
    ]
    step.cancelled += [row for cut in cuts for row in cut.cancelled]
    orders.save(connection, known, {**known, **{cut.order.order_id: cut.order for cut in cuts}})
    ledger.add(connection, step.cancelled)
    allocations.add_allotments(connection, rows)
    return replace(
        allocation,
        orders=allocation.orders + len(rows),
        wanted=allocation.wanted + sum(row.wanted for row in rows),
        given=allocation.given + sum(row.given for row in rows),
        shipped=allocation.shipped + sum(row.shipped for row in rows),
        cut_orders=allocation.cut_orders + sum(row.cut_units > 0 for row in rows),
        cut_units=allocation.cut_units + sum(row.cut_units for row in rows),
    )


def _cut(allotment: Allotment, event: SkuShortage, happened: datetime, policy: Policy, at: datetime) -> "_Cut":
    """Decide what an order's allotment means for it, as a shortage of that order, and do it in memory."""
    order = allotment.order
    cause = shortage_of(order, allotment.keeps, event)
    try:
        decision = decide(order, cause, policy, Moment(at, at, happened))
        change = carry_out(order, decision, at)
        after = change.order or order
        after.check_conservation()
        cancelled = ledger_rows(change, after, cause)
    except FAULTS as error:  # it concerns this order alone; the run goes on
        log.exception("event.unprocessable", source=event.source, event_id=event.id, order_id=order.order_id)
        return _Cut(allotment, order, [], "nothing", "unprocessable", {"error": type(error).__name__})
    facts = {name: value for name, value in decision.facts.items() if name != "figures"}
    return _Cut(allotment, after, cancelled, decision.outcome, decision.reason, facts)


@dataclass(frozen=True, slots=True)
class _Cut:
    """What came of an order's allotment."""

    allotment: Allotment
    order: Order
    cancelled: list[LedgerRow]
    outcome: Outcome
    reason: str
    facts: Mapping[str, Any]

    def row(self, allocation: Allocation, rank: int, shipped: int, at: datetime) -> Allotted:
        return Allotted(
            allocation_id=allocation.allocation_id,
            order_id=self.order.order_id,
            rank=rank,
            wanted=self.allotment.wanted,
            given=self.allotment.given,
            left_units=self.allotment.left,
            shipped=shipped,
            cut_units=sum(one.units for one in self.cancelled),
            outcome=self.outcome,
            reason=self.reason,
            facts=self.facts,
            decided_at=at,
        )


def _finish(
    connection: Connection, allocation: Allocation, outcome: str, reason: str, at: datetime, step: Step
) -> None:
    """End a run, and record what came of its event."""
    facts = {
        "sku": allocation.sku,
        "available": allocation.available,
        "shipped": allocations.shipped_since(connection, allocation),
        **{name: getattr(allocation, name) for name in ("orders", "wanted", "given", "cut_orders", "cut_units")},
    }
    if allocation.cut_orders:
        outcome, reason = "applied", "shortage" if reason == "no_cut" else reason
    allocations.save(connection, allocation, at)
    step.decided.append(Decided(allocation.event.key, None, outcome, reason, facts, at))

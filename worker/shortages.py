"""Shortages of a SKU, carried out: the orders that want it are served chunk by chunk, each chunk in one transaction.

A chunk is whole orders: picked in allocation order without a lock, locked in id order, and read again. Its checkpoint
commits with it, so a run that dies goes on where it was, and needs no more memory for many orders than for few.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection

from domain.allocation import Allotment, allocate, overtaken, shortage_of
from domain.decisions import carry_out, decide
from domain.events import SkuShortage
from domain.orders import Order
from domain.outcomes import Outcome
from domain.policy import Moment, Policy
from worker.process import Processor
from worker.record import tell_cancelled, tell_decided
from worker.settle import FAULTS, ledger_rows
from worker.stock import OVERTAKEN_BY
from worker.storage import allocations, inbox, ledger, orders, pauses, stock
from worker.storage.allocations import Allocation, Allotted
from worker.storage.database import now, reading, transaction
from worker.storage.inbox import Decided
from worker.storage.ledger import LedgerRow

log = structlog.get_logger(__name__)

SECONDS = 0.25


@dataclass(slots=True)
class Step:
    """What one transaction of a run did. `more`: there is something left that can be done now."""

    more: bool = False
    decided: list[Decided] = field(default_factory=list)
    cancelled: list[LedgerRow] = field(default_factory=list)


def run(processor: Processor, skus: Sequence[str], seconds: float = SECONDS) -> list[str]:
    """Carry out shortages of these SKUs for about so long, so that other events have their turn; returns the SKUs that
    are not done."""
    deadline = time.monotonic() + seconds
    for number, sku in enumerate(skus):
        while run_once(processor, sku):
            if time.monotonic() >= deadline:
                return list(skus[number:])
    return []


def due(processor: Processor) -> Sequence[str]:
    """The SKUs with a shortage that can be carried out now."""
    with reading(processor.engine) as connection:
        return allocations.due(connection, now(connection), pauses.paused(connection))


def run_once(processor: Processor, sku: str) -> bool:
    """One transaction: end the shortages of the SKU that newer figures have overtaken, and of the first one that is due
    serve the next orders. Returns whether there is more to do now."""
    with transaction(processor.engine) as connection:
        at, paused = pauses.enter(connection)
        if not allocations.lock(connection, sku):
            return False  # another worker is at it
        step = _step(connection, sku, replace(processor.policy, paused=paused), at, processor.orders_a_chunk)
    tell_decided(step.decided)
    tell_cancelled(step.cancelled)
    if step.cancelled:
        processor.outbox.wake_relay()
    return step.more


def _step(connection: Connection, sku: str, policy: Policy, at: datetime, chunk: int) -> Step:
    step = Step()
    unfinished = allocations.unfinished(connection, sku)
    figures = stock.figures(connection, [sku] if unfinished else [])
    left = []
    for one in unfinished:
        if by := overtaken(one.happened_at, figures.newest[sku, one.event.source], figures.restocked.get(sku)):
            _finish(connection, one, by, OVERTAKEN_BY[by], at, step)
        elif one.due_at <= at and not policy.paused.holds(one.event.source):
            left.append(one)
    if left:
        step.more = not _serve(connection, left[0], policy, at, chunk, step) or len(left) > 1
    inbox.save(connection, step.decided)
    return step


def _serve(
    connection: Connection, allocation: Allocation, policy: Policy, at: datetime, chunk: int, step: Step
) -> bool:
    """Serve the next orders of a shortage; returns whether it is over."""
    if not allocation.begun:
        allocation = replace(allocation, strategy=policy.strategy, ship_complete=policy.ship_complete)
        wanted, shipped = allocations.demand(connection, allocation), allocations.shipped_since(connection, allocation)
        if wanted <= allocation.available - shipped:
            allocation = replace(allocation, wanted=wanted, given=wanted, shipped=shipped)
            _finish(connection, allocation, "nothing", "enough", at, step)
            return True
    places = allocations.pick(connection, allocation, chunk)
    if places:
        allocation = _allot(connection, replace(allocation, last=places[-1]), [p.order_id for p in places], at, step)
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
    used = allocation.given + allocation.shipped + allocations.shipped_since(connection, allocation)
    policy = Policy(ship_complete=bool(allocation.ship_complete), strategy=allocation.strategy or "oldest_first")
    placed = [order for order in known.values() if order]
    allotments = allocate(placed, allocation.sku, max(0, allocation.available - used), policy)
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
        "shipped": allocation.shipped + allocations.shipped_since(connection, allocation),
        **{name: getattr(allocation, name) for name in ("orders", "wanted", "given", "cut_orders", "cut_units")},
    }
    if allocation.cut_orders:
        outcome, reason = "applied", "shortage" if reason == "no_cut" else reason
    allocations.save(connection, allocation, at)
    step.decided.append(Decided(allocation.event.key, None, outcome, reason, facts, at))

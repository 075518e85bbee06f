"""Shortages of a SKU, carried out: the orders that want it are served chunk by chunk, each chunk in one transaction.

A chunk is whole orders: picked in allocation order without a lock, locked in id order, and read again. Its checkpoint
commits with it, so a run that dies goes on where it was, and needs no more memory for many orders than for few.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from redis.exceptions import RedisError
from sqlalchemy import Connection

from domain.allocation import Allotment, allocate, overtaken, shortage_of
from domain.decisions import carry_out, decide
from domain.events import OrderShortage
from domain.guardrails import Gate, Tally, limited, tally_of
from domain.orders import Order
from domain.outcomes import Cut, Decision, Facts, Held, Outcome
from domain.policy import Breaker, HoldReason, Limits, Moment, Policy, Preflight
from worker import guard
from worker.guard import close_gate, open_gate
from worker.process import HOPELESS, Processor
from worker.record import outcome_of, record_causes, tell_cancelled, tell_decided, tell_held
from worker.settle import FAULTS, hold_of, ledger_rows, stopped
from worker.stock import OVERTAKEN_BY
from worker.storage import allocations, holds, inbox, ledger, orders, pauses, stock
from worker.storage.allocations import Allocation, Allotted
from worker.storage.database import TRANSIENT, now, reading, transaction
from worker.storage.holds import Hold
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
    holds: list[Hold] = field(default_factory=list)
    gate: Gate | None = None


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
    tell_held(step.holds)
    guard.tell(step.gate)
    if step.cancelled:
        processor.outbox.wake_relay()
    return step.more


def _step(connection: Connection, sku: str, policy: Policy, at: datetime, chunk: int, going_on: bool) -> Step:
    step = Step()
    current = _current(connection, sku, policy, at, step)
    left = [one for one in current if one.due_at <= at and not policy.paused.holds(one.event.source)]
    if left:
        first = left[0]
        moves = first.moved_at is not None and at - first.moved_at < IDLE
        if going_on or not moves:
            step.more = not _serve(connection, first, policy, at, chunk, step) or len(left) > 1
    inbox.save(connection, step.decided)
    return step


def _current(connection: Connection, sku: str, policy: Policy, at: datetime, step: Step) -> list[Allocation]:
    """The shortages that are still to be carried out, after those are ended that newer figures have overtaken."""
    unfinished = allocations.unfinished(connection, sku)
    figures = stock.figures(connection, [sku])
    record_causes(connection, holds.supersede(connection, sku, figures, at), at)
    current, stale = [], []
    for one in unfinished:
        by = overtaken(one.happened_at, figures.newest[sku, one.event.source], figures.restocked.get(sku))
        if by is None:
            current.append(one)
            continue
        _finish(connection, one, by, OVERTAKEN_BY[by], policy, at, step)
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
        allocation = replace(allocation, hold=_hold(connection, allocation, policy))
        if _enough(connection, allocation):
            wanted = allocations.demand(connection, allocation)
            _finish(connection, replace(allocation, wanted=wanted, given=wanted), "nothing", "enough", policy, at, step)
            return True
    places = allocations.pick(connection, allocation, chunk)
    cut: list[_Cut] = []
    if places:
        allocation, cut = _allot(connection, allocation, [place.order_id for place in places], policy, at, step)
        allocation = replace(allocation, last=places[-1], moved_at=at)
    over = len(places) < chunk
    allocations.save(connection, allocation, None, len(cut), sum(one.units for one in cut))
    if over:
        _finish(connection, allocation, "nothing", "no_cut", policy, at, step)
    return over


def _hold(connection: Connection, allocation: Allocation, policy: Policy) -> HoldReason | None:
    """The preflight: why to hold all that a shortage would cut, worked out before it cuts anything."""
    if policy.hold or policy.preflight == Preflight():
        return policy.hold
    wanted = allocations.demand(connection, allocation)
    left = max(0, allocation.available - allocations.shipped_since(connection, allocation))
    wanting, lacking, units = allocations.orders_to_cut(connection, allocation, left)
    units = units if allocation.ship_complete else max(0, wanted - left)
    return "preflight" if policy.preflight.exceeded(lacking, units, wanting, wanted) else None


def _allot(
    connection: Connection, allocation: Allocation, order_ids: Sequence[str], policy: Policy, at: datetime, step: Step
) -> tuple[Allocation, list["_Cut"]]:
    """Give these orders what is left for them, cut the rest; returns how far the run has come then, and what it cut."""
    orders.lock_known(connection, order_ids)
    known = orders.load(connection, order_ids)
    shipped = allocations.shipped_since_by(connection, allocation, order_ids)
    # From the present state, and not from what was given: what an order has given back serves the next one.
    used = allocations.kept(connection, allocation) + allocations.shipped_since(connection, allocation)
    policy = replace(
        policy,
        ship_complete=bool(allocation.ship_complete),
        strategy=allocation.strategy or "oldest_first",
        order_grace=timedelta(0),  # it has waited for its own
        hold=policy.hold or allocation.hold,
    )
    placed = [order for order in known.values() if order]
    left = max(0, allocation.available - used)
    allotments = allocate(placed, allocation.sku, left, policy, allocation.happened_at)
    cuts = [_cut(one, allocation, policy, at) for one in allotments]
    if _more_than_foreseen(cuts, allocation, policy.preflight.limits):
        allocation = replace(allocation, hold="preflight")
        cuts = [_cut(one, allocation, replace(policy, hold="preflight"), at) for one in allotments]
    cuts = _through_the_gate(connection, cuts, allocation, policy.breaker, at, step)
    rows = [
        cut.row(allocation, rank, shipped.get(cut.order.order_id, 0), at)
        for rank, cut in enumerate(cuts, start=allocation.orders + 1)
    ]
    step.cancelled += [row for cut in cuts for row in cut.cancelled]
    step.holds += [cut.hold for cut in cuts if cut.hold]
    orders.save(connection, known, {**known, **{cut.order.order_id: cut.order for cut in cuts}})
    ledger.add(connection, step.cancelled)
    holds.add(connection, step.holds)
    allocations.add_allotments(connection, rows)
    allocation = replace(
        allocation,
        orders=allocation.orders + len(rows),
        wanted=allocation.wanted + sum(row.wanted for row in rows),
        given=allocation.given + sum(row.given for row in rows),
        shipped=allocation.shipped + sum(row.shipped for row in rows),
    )
    return allocation, [cut for cut in cuts if cut.cancelled]


def _more_than_foreseen(cuts: Sequence["_Cut"], allocation: Allocation, limits: Limits) -> bool:
    """Whether a run cuts more than the preflight allows after all: orders were placed, or goods shipped, meanwhile."""
    cutting = [cut for cut in cuts if cut.cancelled]
    orders, units = len(cutting), sum(cut.units for cut in cutting)
    return orders > 0 and not limits.allow(allocation.cut_orders + orders, allocation.cut_units + units)


def _through_the_gate(
    connection: Connection, cuts: list["_Cut"], allocation: Allocation, breaker: Breaker, at: datetime, step: Step
) -> list["_Cut"]:
    """Hold those of the cuts that would exceed a limit."""
    keys = {key for cut in cuts if cut.cancelled for key in limited(cut.tally, breaker)}
    if not keys:
        return cuts
    step.gate = gate = open_gate(connection, keys, breaker, at)
    passed = []
    for cut in cuts:
        by = gate.admit(cut.tally, allocation.event.key) if cut.cancelled else None
        held = stopped(cut.decision, by) if by and isinstance(cut.decision, Cut) else None
        passed.append(_held(cut, held, allocation, at) if held else cut)
    close_gate(connection, gate, at)
    return passed


@dataclass(frozen=True, slots=True)
class _Cut:
    """What came of an order's allotment. `decision` is None if the program failed on it."""

    allotment: Allotment
    cause: OrderShortage
    decision: Decision | None
    order: Order
    cancelled: list[LedgerRow]
    tally: Tally
    facts: Facts
    hold: Hold | None = None

    @property
    def units(self) -> int:
        return sum(one.units for one in self.cancelled)

    def row(self, allocation: Allocation, rank: int, shipped: int, at: datetime) -> Allotted:
        return Allotted(
            allocation_id=allocation.allocation_id,
            order_id=self.order.order_id,
            rank=rank,
            wanted=self.allotment.wanted,
            given=self.allotment.given,
            left_units=self.allotment.left,
            shipped=shipped,
            cut_units=self.units,
            outcome=self.decision.outcome if self.decision else "nothing",
            reason=self.decision.reason if self.decision else "unprocessable",
            facts={name: value for name, value in self.facts.items() if name != "figures"},
            decided_at=at,
        )


def _cut(allotment: Allotment, allocation: Allocation, policy: Policy, at: datetime) -> _Cut:
    """Decide what an order's allotment means for it, as a shortage of that order, and do it in memory."""
    order, event = allotment.order, allocation.event
    cause = shortage_of(order, allotment.keeps, event)
    nothing = Tally(event.source, {})
    try:
        decision = decide(order, cause, policy, Moment(at, at, allocation.happened_at))
        change = carry_out(order, decision, at)
        after = change.order or order
        after.check_conservation()
        tally = tally_of(event.source, change.cancellations)
        cut = _Cut(allotment, cause, decision, after, ledger_rows(change, after, cause), tally, decision.facts)
        return _held(cut, decision, allocation, at) if isinstance(decision, Held) else cut
    except FAULTS as error:  # it concerns this order alone; the run goes on
        log.exception("event.unprocessable", source=event.source, event_id=event.id, order_id=order.order_id)
        return _Cut(allotment, cause, None, order, [], nothing, {"error": type(error).__name__})


def _held(cut: _Cut, decision: Held, allocation: Allocation, at: datetime) -> _Cut:
    """A cut that is held: the order stays as it is, and what it may keep is stored to be decided again."""
    raw = cut.cause.model_dump_json(by_alias=True, exclude_none=True)
    hold = hold_of(cut.allotment.order, cut.cause, raw, decision, allocation.happened_at, at)
    hold = replace(hold, sku=allocation.sku, allocation_id=allocation.allocation_id)
    return replace(cut, decision=decision, order=cut.allotment.order, cancelled=[], facts=decision.facts, hold=hold)


def _finish(
    connection: Connection,
    allocation: Allocation,
    outcome: Outcome,
    reason: str,
    policy: Policy,
    at: datetime,
    step: Step,
) -> None:
    """End a run, and record what came of its event: of all that it cut or held, and of holds decided meanwhile."""
    key = allocation.event.key
    allocations.save(connection, allocation, at)
    inbox.lock(connection, [key])  # who ends holds of it at this moment sees its outcome, or is seen
    figures = allocations.figures(connection, allocation)
    if figures["cut_orders"]:
        outcome, reason = "applied", "shortage" if reason == "no_cut" else reason
    elif standing := outcome_of(holds.standing(connection, [key])[key], cut=False):
        outcome, reason = standing
        reason = allocation.hold or reason if outcome == "held" else reason
    shipped = allocations.shipped_since(connection, allocation)
    facts: dict[str, Any] = {"sku": allocation.sku, "available": allocation.available, "shipped": shipped, **figures}
    if allocation.hold:
        held_orders, held_units = holds.totals(connection, key)
        facts["hold"] = {"why": allocation.hold, "orders": held_orders, "units": held_units}
        facts["hold"] |= {"limits": asdict(policy.preflight)} if allocation.hold == "preflight" else {}
    step.decided.append(Decided(key, None, outcome, reason, facts, at))

"""Shortages of a SKU, carried out: the orders that want it are served chunk by chunk, each chunk in one transaction.

A chunk is whole orders: picked in allocation order without a lock, locked in id order, and read again. Its checkpoint
commits with it, so a run that dies goes on where it was, and needs no more memory for many orders than for few.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from domain.allocation import overtaken
from domain.outcomes import Outcome, Reason, outcome_of
from domain.policy import HoldReason, Policy, Preflight
from worker import enough, guard, points
from worker.process import OF_ONE, Processor
from worker.record import record_causes, tell_cancelled, tell_decided, tell_held
from worker.restocks import void_of_sku
from worker.serving import Served, Step, serve
from worker.stock import OVERTAKEN_BY
from worker.storage import allocations, demand, holds, inbox, pauses, stock
from worker.storage.allocations import Allocation
from worker.storage.database import TRANSIENT, now, reading, transaction
from worker.storage.inbox import Decided

log = structlog.get_logger(__name__)

SECONDS = 0.25
IDLE = timedelta(seconds=15)
"""A run that has not moved for so long has no message any more; whoever is asked to may carry it on."""


def run(
    processor: Processor, skus: Sequence[str], seconds: float = SECONDS, *, going_on: bool = True
) -> tuple[list[str], list[str]]:
    """Carry out shortages of these SKUs for about so long, so that other events have their turn. Returns the SKU that
    goes on, if one does, and those that had no turn. Without `going_on`, runs that another message carries on are left
    alone."""
    deadline = time.monotonic() + seconds
    skus = _without_enough(processor, skus) if len(skus) > 1 else skus
    for number, sku in enumerate(skus):
        own = going_on
        while (more := _carry_on(processor, sku, own)) and time.monotonic() < deadline:
            own = True
        if time.monotonic() >= deadline:
            return [sku] if more else [], list(skus[number + 1 :])
    return [], []


def _without_enough(processor: Processor, skus: Sequence[str]) -> list[str]:
    """End the shortages of SKUs that have enough for all; returns the SKUs that need a run of their own."""
    try:
        with transaction(processor.engine) as connection:
            at, paused = pauses.enter(connection)
            decided = enough.end(connection, skus, replace(processor.policy, paused=paused), at)
    except TRANSIENT as error:
        log.warning("shortage.failed", skus=len(skus), error=type(error).__name__, detail=str(error))
        return list(skus)
    except OF_ONE as error:
        log.error("shortage.failed", skus=len(skus), exc_info=error)
        return list(skus)
    tell_decided(decided)
    ended = {one.facts["sku"] for one in decided}
    return [sku for sku in skus if sku not in ended]


def _carry_on(processor: Processor, sku: str, going_on: bool) -> bool:
    """A step; one SKU that fails does not hold up the others. The clock asks for it again."""
    try:
        return run_once(processor, sku, going_on=going_on)
    except TRANSIENT as error:
        log.warning("shortage.failed", sku=sku, error=type(error).__name__, detail=str(error))
        return False
    except OF_ONE as error:
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
        points.passed("run: before commit")
    points.passed("run: after commit")
    tell_decided(step.decided)
    tell_cancelled(step.cancelled)
    tell_held(step.holds)
    guard.tell(step.gate)
    if step.cancelled:
        processor.wake_relay()
    return step.more


def _step(connection: Connection, sku: str, policy: Policy, at: datetime, chunk: int, going_on: bool) -> Step:
    step = Step()
    current, void = _current(connection, sku, policy, at, step)
    left = [one for one in current if one.due_at <= at and not policy.paused.holds(one.event.source)]
    if left:
        first = left[0]
        moves = first.moved_at is not None and at - first.moved_at < IDLE
        if going_on or not moves:
            # After orders of void holds it locks no more: everybody locks orders in id order.
            step.more = void or not _serve(connection, first, policy, at, chunk, step) or len(left) > 1
    inbox.save(connection, step.decided)
    return step


def _current(
    connection: Connection, sku: str, policy: Policy, at: datetime, step: Step
) -> tuple[list[Allocation], bool]:
    """The shortages that are still to be carried out, after those are ended that newer figures have overtaken; and
    whether holds of single orders were void."""
    unfinished = allocations.unfinished(connection, sku)
    figures = stock.figures(connection, [sku])  # read after the shortages, so that theirs are among them
    void = void_of_sku(connection, sku, figures, policy, at)
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
    return [_with_the_patience_left(connection, one, stale) for one in current], void


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
    wanted, shipped = demand.wanted(connection, allocation), demand.shipped_since(connection, allocation)
    return wanted <= allocation.available - shipped


def _serve(
    connection: Connection, allocation: Allocation, policy: Policy, at: datetime, chunk: int, step: Step
) -> bool:
    """Serve the next orders of a shortage; returns whether it is over."""
    if not allocation.begun:
        allocation = replace(allocation, strategy=policy.strategy, ship_complete=policy.ship_complete)
        allocation = replace(allocation, hold=_hold(connection, allocation, policy))
        if _enough(connection, allocation):
            wanted = demand.wanted(connection, allocation)
            _finish(connection, replace(allocation, wanted=wanted, given=wanted), "nothing", "enough", policy, at, step)
            return True
    places = demand.pick(connection, allocation, chunk)
    cut: list[Served] = []
    if places:
        allocation, cut = serve(connection, allocation, [place.order_id for place in places], policy, at, step)
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
    wanted = demand.wanted(connection, allocation)
    left = max(0, allocation.available - demand.shipped_since(connection, allocation))
    wanting, lacking, units = demand.orders_to_cut(connection, allocation, left)
    units = units if allocation.ship_complete else max(0, wanted - left)
    return "preflight" if policy.preflight.exceeded(lacking, units, wanting, wanted) else None


def _finish(
    connection: Connection,
    allocation: Allocation,
    outcome: Outcome,
    reason: Reason,
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
    shipped = demand.shipped_since(connection, allocation)
    facts: dict[str, Any] = {"sku": allocation.sku, "available": allocation.available, "shipped": shipped, **figures}
    if allocation.hold:
        held_orders, held_units = holds.totals(connection, key)
        facts["hold"] = {"why": allocation.hold, "orders": held_orders, "units": held_units}
        facts["hold"] |= {"limits": asdict(policy.preflight)} if allocation.hold == "preflight" else {}
    step.decided.append(Decided(key, None, outcome, reason, facts, at))

"""Orders served by a shortage of a SKU: what each is given, what is cut of it, and what of that is held."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from domain.allocation import Allotment, allocate, open_units, shortage_of
from domain.decisions import carry_out, decide
from domain.events import OrderShortage
from domain.guardrails import Gate, Tally, limited, tally_of
from domain.orders import Order
from domain.outcomes import Cut, Decision, Facts, Held
from domain.policy import Breaker, Limits, Moment, Policy
from worker.effects import FAULTS, hold_of, ledger_rows, stopped
from worker.guard import close_gate, open_gate
from worker.storage import allocations, demand, holds, ledger, orders
from worker.storage.allocations import Allocation, Allotted
from worker.storage.holds import Hold
from worker.storage.inbox import Decided
from worker.storage.ledger import LedgerRow

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Step:
    """What one transaction of a run did. `more`: there is something left that can be done now."""

    more: bool = False
    decided: list[Decided] = field(default_factory=list)
    cancelled: list[LedgerRow] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    gate: Gate | None = None


def serve(
    connection: Connection, allocation: Allocation, order_ids: Sequence[str], policy: Policy, at: datetime, step: Step
) -> tuple[Allocation, list["Served"]]:
    """Give these orders what is left for them, cut the rest; returns how far the run has come then, and what it cut."""
    orders.lock_known(connection, order_ids)
    known = orders.load(connection, order_ids)
    shipped = demand.shipped_since_by(connection, allocation, order_ids)
    # Not from what was given alone: what an order has given back serves the next one.
    used = demand.used(connection, allocation)
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
        kept=allocation.kept + sum(cut.kept(allocation) for cut in cuts),
    )
    return allocation, [cut for cut in cuts if cut.cancelled]


def _more_than_foreseen(cuts: Sequence["Served"], allocation: Allocation, limits: Limits) -> bool:
    """Whether a run cuts more than the preflight allows after all: orders were placed, or goods shipped, meanwhile."""
    cutting = [cut for cut in cuts if cut.cancelled]
    orders, units = len(cutting), sum(cut.units for cut in cutting)
    return orders > 0 and not limits.allow(allocation.cut_orders + orders, allocation.cut_units + units)


def _through_the_gate(
    connection: Connection, cuts: list["Served"], allocation: Allocation, breaker: Breaker, at: datetime, step: Step
) -> list["Served"]:
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
class Served:
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

    def kept(self, allocation: Allocation) -> int:
        """Units that serve no other order: none, where orders ship complete and its cut is held, as if it were cut."""
        if self.hold and allocation.ship_complete:
            return 0
        return open_units(self.order, allocation.sku, allocation.happened_at)

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


def _cut(allotment: Allotment, allocation: Allocation, policy: Policy, at: datetime) -> Served:
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
        cut = Served(allotment, cause, decision, after, ledger_rows(change, after, cause), tally, decision.facts)
        return _held(cut, decision, allocation, at) if isinstance(decision, Held) else cut
    except FAULTS as error:  # it concerns this order alone; the run goes on
        log.exception("event.unprocessable", source=event.source, event_id=event.id, order_id=order.order_id)
        return Served(allotment, cause, None, order, [], nothing, {"error": type(error).__name__})


def _held(cut: Served, decision: Held, allocation: Allocation, at: datetime) -> Served:
    """A cut that is held: the order stays as it is, and what it may keep is stored to be decided again."""
    raw = cut.cause.model_dump_json(by_alias=True, exclude_none=True)
    hold = hold_of(cut.allotment.order, cut.cause, raw, decision, allocation.happened_at, at)
    hold = replace(hold, sku=allocation.sku, allocation_id=allocation.allocation_id)
    return replace(cut, decision=decision, order=cut.allotment.order, cancelled=[], facts=decision.facts, hold=hold)

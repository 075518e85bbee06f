"""Holds that a person has decided: approved ones are decided again from the present state, and carried out."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row

from domain.allocation import overtaken
from domain.decisions import carry_out, decide
from domain.errors import EventRejected
from domain.events import OrderEvent
from domain.orders import Order
from domain.outcomes import Held, Waiting
from domain.parsing import read_again
from domain.policy import Moment
from worker import points
from worker.effects import FAULTS, Rules, ledger_rows
from worker.process import OF_ONE, Processor
from worker.record import record_causes, tell_cancelled
from worker.stock import OVERTAKEN_BY
from worker.storage import allocations, holds, ledger, orders, pauses, stock
from worker.storage.database import now, reading, transaction
from worker.storage.holds import Ended, Verdict
from worker.storage.ledger import LedgerRow
from worker.storage.stock import Figures

log = structlog.get_logger(__name__)

BATCH = 500
SECONDS = 10.0


def give(engine: Engine, hold_ids: Collection[int], verdict: Verdict, by: str, because: str) -> int:
    """Approve or reject those of these holds that nobody has decided, in one transaction; returns how many. A rejected
    one is final for its event; an approved one is carried out by the workers."""
    with transaction(engine) as connection:
        at = now(connection)
        given = holds.decide(connection, hold_ids, verdict, by, because, at)
        if verdict == "rejected":
            record_causes(connection, {(row.source, row.id) for row in given}, at)
    return len(given)


def carry_out_approved(processor: Processor) -> int:
    """Carry out approved holds, for at most ten seconds at a time; returns how many."""
    if processor.policy.hold == "shadow":  # nothing is cancelled then, whoever has approved it
        return 0
    deadline = time.monotonic() + SECONDS
    done = 0
    while number := _carry_out_some(processor):
        done += number
        if time.monotonic() > deadline:
            break
    return done


@dataclass(slots=True)
class _Effects:
    after: dict[str, Order | None]
    ended: list[Ended] = field(default_factory=list)
    cancelled: list[LedgerRow] = field(default_factory=list)
    of_shortages: list[tuple[int, str, int]] = field(default_factory=list)


def _carry_out_some(processor: Processor) -> int:
    """The next ones; if they fail together on what may be the fault of one of them, order by order."""
    try:
        return carry_out_once(processor)
    except OF_ONE as error:
        log.error("holds.isolated", exc_info=error)
    with reading(processor.engine) as connection:
        order_ids = {row.order_id for row in holds.approved(connection, pauses.paused(connection), BATCH)}
    done = 0
    for order_id in sorted(order_ids):
        try:
            done += carry_out_once(processor, order_id)
        except OF_ONE as error:
            log.error("hold.unprocessable", order_id=order_id, exc_info=error)
    return done


def carry_out_once(processor: Processor, order_id: str | None = None) -> int:
    """The same in one transaction, for at most 500 holds, or for those of one order. Those of a SKU whose shortages
    another transaction carries out are left for later: it locks events before orders."""
    with transaction(processor.engine) as connection:
        at, paused = pauses.enter(connection)
        candidates = holds.approved(connection, paused, BATCH)
        candidates = [row for row in candidates if order_id in (None, row.order_id)]
        free = {sku for sku in {row.sku for row in candidates if row.sku} if allocations.lock(connection, sku)}
        candidates = [row for row in candidates if row.sku is None or row.sku in free]
        if not candidates:
            return 0
        order_ids = {row.order_id for row in candidates}
        orders.lock_known(connection, order_ids)
        rows = holds.still_approved(connection, [row.hold_id for row in candidates])
        known = orders.load(connection, order_ids)
        skus = {item.sku for order in known.values() if order for item in order.items.values()}
        figures = stock.figures(connection, skus | {row.sku for row in rows if row.sku})
        rules = processor.rules(at, paused, figures)
        rules = replace(rules, policy=replace(rules.policy, approved=True))
        complete = allocations.ship_complete(connection, {row.allocation_id for row in rows if row.allocation_id})
        effects = _decide(rows, known, figures, rules, complete)
        _save(connection, known, rows, effects, at)
        points.passed("verdicts: before commit")
    points.passed("verdicts: after commit")
    tell_cancelled(effects.cancelled)
    if effects.cancelled:
        processor.wake_relay()
    return len(effects.ended)


def _save(
    connection: Connection,
    known: Mapping[str, Order | None],
    rows: Sequence[Row[Any]],
    effects: _Effects,
    at: datetime,
) -> None:
    orders.save(connection, known, effects.after)
    ledger.add(connection, effects.cancelled)
    holds.end(connection, effects.ended)
    allocations.cut_more(connection, effects.of_shortages)
    record_causes(connection, {(row.source, row.id) for row in rows}, at)


def _decide(
    rows: Sequence[Row[Any]],
    known: Mapping[str, Order | None],
    figures: Figures,
    rules: Rules,
    complete: Mapping[int, bool],
) -> _Effects:
    """Decide each hold again, on the state that the ones before it left. `complete`: by allocation, whether its orders
    ship complete or not at all, as it was when the shortage began."""
    effects = _Effects(dict(known))
    for row in rows:
        policy = replace(rules.policy, ship_complete=complete.get(row.allocation_id, rules.policy.ship_complete))
        ended = _decide_one(row, figures, replace(rules, policy=policy), effects)
        effects.ended += [ended] if ended else []
    return effects


def _decide_one(row: Row[Any], figures: Figures, rules: Rules, effects: _Effects) -> Ended | None:
    """What becomes of a hold; None if it must wait on."""
    if row.sku is not None:  # a newer figure came, and its run has not ended the hold yet
        newest, restocked = figures.newest.get((row.sku, row.source)), figures.restocked.get(row.sku)
        if by := overtaken(row.happened_at, newest, restocked):
            return Ended(row.hold_id, "superseded", by, OVERTAKEN_BY[by], rules.at)
    order = effects.after[row.order_id]
    try:
        event = read_again(row.event)
        if not isinstance(event, OrderEvent):
            raise TypeError(f"a hold of an event of type {event.type}")
        decision = decide(order, event, rules.policy, _moment(row, figures, rules))
        if isinstance(decision, Waiting | Held):
            return None
        change = carry_out(order, decision, rules.at)
        if change.order:
            change.order.check_conservation()
        cancelled = ledger_rows(change, change.order, event) if change.order else []
    except (EventRejected, *FAULTS):
        log.exception("hold.unprocessable", hold_id=row.hold_id, order_id=row.order_id, source=row.source)
        return Ended(row.hold_id, "carried_out", "nothing", "unprocessable", rules.at)
    effects.after[row.order_id] = change.order
    effects.cancelled += cancelled
    if row.allocation_id is not None and cancelled:
        effects.of_shortages.append((row.allocation_id, row.order_id, sum(one.units for one in cancelled)))
    return Ended(row.hold_id, "carried_out", decision.outcome, decision.reason, rules.at)


def _moment(row: Row[Any], figures: Figures, rules: Rules) -> Moment:
    # What the SKU's own shortage has against it was looked at before; an item of the order may have been restocked.
    return Moment(rules.at, row.created_at, row.happened_at, {} if row.sku is not None else figures.restocked)

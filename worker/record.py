"""What a transaction decided, written and told."""

from collections.abc import Collection, Sequence
from datetime import datetime

import structlog
from sqlalchemy import Connection

from domain.outcomes import outcome_of
from worker import guard
from worker.effects import Effects
from worker.storage import allocations, conflicts, dead_letters, holds, inbox, ledger, orders, stock, waiting
from worker.storage.dead_letters import DeadLetter
from worker.storage.holds import Hold
from worker.storage.inbox import Decided, Key
from worker.storage.ledger import LedgerRow

log = structlog.get_logger(__name__)


def save(connection: Connection, effects: Effects, at: datetime) -> None:
    """Write everything, each kind with one statement."""
    orders.save(connection, effects.before, effects.after)
    orders.save_shipments(connection, effects.shipments)
    stock.add_shipped(connection, effects.shipped_units)
    ledger.add(connection, effects.cancelled)
    holds.add(connection, effects.holds)
    inbox.save(connection, effects.decided)
    inbox.release(connection, effects.released)
    waiting.save(connection, list(effects.waiting.values()))
    waiting.remove(connection, effects.no_longer_waiting)
    conflicts.add(connection, effects.conflicts, at)
    dead_letters.add(connection, effects.dead, at)


def tell(effects: Effects) -> None:
    """Log what was committed."""
    tell_decided(effects.decided)
    tell_cancelled(effects.cancelled)
    tell_held(effects.holds)
    guard.tell(effects.gate)
    tell_dead(effects.dead)


def record_causes(connection: Connection, keys: Collection[Key], at: datetime) -> None:
    """Record what came of events whose holds were decided, carried out or superseded. Of a shortage of a SKU that is
    still being carried out, its end will do it."""
    found = inbox.lock(connection, keys)  # of two that end holds of one event, the second sees what the first did
    standing = holds.standing(connection, keys)
    cut = allocations.cutting(connection, keys)
    rows = {}
    for key, outcome in found.items():
        now_is = outcome_of(standing[key], cut=key in cut)
        if outcome != "waiting" and now_is and now_is[0] != "held":
            rows[key] = now_is
    inbox.change(connection, rows, at)


def tell_held(rows: Sequence[Hold]) -> None:
    for row in rows:
        log.warning("cut.held", order_id=row.order_id, source=row.source, event_id=row.id, why=row.why, units=row.units)


def tell_decided(decided: Sequence[Decided]) -> None:
    """What was refused, and at level debug all the rest: of what was applied, each cancellation is told."""
    for one in decided:
        level = log.info if one.outcome == "refused" else log.debug
        level(
            "event.decided",
            source=one.key[0],
            event_id=one.key[1],
            outcome=one.outcome,
            reason=one.reason,
            **({"sku": one.facts["sku"]} if one.order_id is None else {"order_id": one.order_id}),
        )


def tell_cancelled(rows: Sequence[LedgerRow]) -> None:
    for row in rows:
        log.info(
            "order.cancelled",
            order_id=row.order_id,
            source=row.cause_source,
            event_id=row.cause_id,
            cancellation_id=row.cancellation_id,
            operation=row.operation,
            units=row.units,
        )


def tell_dead(letters: Sequence[DeadLetter]) -> None:
    for one in letters:
        source, event_id = one.key or (None, None)
        log.warning(
            "event.dead_letter",
            entry_id=one.entry_id,
            code=one.code,
            source=source,
            event_id=event_id,
            order_id=one.order_id,
        )

"""What a transaction decided, written and told."""

from collections.abc import Sequence
from datetime import datetime

import structlog
from sqlalchemy import Connection

from worker.settle import Effects
from worker.storage import conflicts, dead_letters, inbox, ledger, orders, stock, waiting
from worker.storage.dead_letters import DeadLetter
from worker.storage.inbox import Decided
from worker.storage.ledger import LedgerRow

log = structlog.get_logger(__name__)


def save(connection: Connection, effects: Effects, at: datetime) -> None:
    """Write everything, each kind with one statement."""
    orders.save(connection, effects.before, effects.after)
    orders.save_shipments(connection, effects.shipments)
    stock.add_shipped(connection, effects.shipped_units)
    ledger.add(connection, effects.cancelled)
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
    tell_dead(effects.dead)


def tell_decided(decided: Sequence[Decided]) -> None:
    for one in decided:
        level = log.info if one.outcome in ("applied", "refused") else log.debug
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

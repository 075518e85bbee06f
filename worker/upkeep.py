"""What runs by the clock: waiting events whose time is over, and queue entries that nobody needs any more."""

from datetime import timedelta

import structlog
from sqlalchemy import Engine

from worker.storage import dead_letters, inbox, orders, waiting
from worker.storage.database import now, reading, transaction
from worker.storage.dead_letters import DeadLetter
from worker.storage.waiting import Waiting
from worker.streams import Queue

log = structlog.get_logger(__name__)

BATCH = 500


def release_due(engine: Engine) -> int:
    """Turn events that have waited too long into dead letters; returns how many. Their ids are free again."""
    with transaction(engine) as connection:
        at = now(connection)
        candidates = waiting.overdue(connection, at, BATCH)
        order_ids = {one.order_id for one in candidates}
        orders.lock(connection, order_ids)
        # Only what still waits under the lock: the order may have been placed in between.
        due = [one for one in waiting.of_orders(connection, order_ids) if one.until <= at]
        letters = [
            DeadLetter(one.entry_id, one.raw, "waited_too_long", _sentence(one), one.key, one.order_id) for one in due
        ]
        dead_letters.add(connection, letters, at)
        waiting.remove(connection, [one.key for one in due])
        inbox.release(connection, [one.key for one in due])
    for one in due:
        log.warning(
            "event.dead_letter", code="waited_too_long", order_id=one.order_id, source=one.key[0], event_id=one.key[1]
        )
    return len(due)


def prune(engine: Engine, queue: Queue, retention: timedelta) -> int:
    """Remove queue entries that are older than the retention and that no group still needs; returns how many."""
    with reading(engine) as connection:
        oldest = now(connection) - retention
    trimmed = queue.trim(int(oldest.timestamp() * 1000))
    if trimmed:
        log.info("queue.pruned", entries=trimmed, older_than=oldest.isoformat())
    return trimmed


def _sentence(one: Waiting) -> str:
    hours = (one.until - one.since) / timedelta(hours=1)
    if one.waits_for == "order_not_placed":
        return (
            f"order {one.order_id!r} was not placed within {hours:g} hours; nothing was applied. "
            "Find out why its order.placed is missing, then send both"
        )
    return (
        f"not all fulfillments that it names for order {one.order_id!r} were reported within {hours:g} hours, so the "
        "rest was not cancelled (a shipment in it stays recorded). Send the missing fulfillments, then this event again"
    )

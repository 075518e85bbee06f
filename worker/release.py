"""Waiting events whose time has come: decided again, or dead letters where they have waited too long."""

import time
from collections.abc import Sequence
from datetime import timedelta

import structlog

from worker import points
from worker.effects import Effects
from worker.guard import guarded
from worker.process import OF_ONE, Processor
from worker.record import save, tell
from worker.settle import LIMITED, settle_waiting
from worker.storage import orders, pauses, stock, waiting
from worker.storage.database import now, reading, transaction
from worker.storage.dead_letters import DeadLetter
from worker.storage.waiting import Waiting

log = structlog.get_logger(__name__)

BATCH = 500
SECONDS = 10.0


def release_due(processor: Processor) -> int:
    """Release what is due, for at most ten seconds at a time; returns how many events. They are decided again from
    the state of this moment, or have waited too long: then they are dead letters, and their ids are free again."""
    deadline = time.monotonic() + SECONDS
    released = 0
    while number := _release_some(processor):
        released += number
        if time.monotonic() > deadline:
            break
    return released


def _release_some(processor: Processor) -> int:
    """The next ones; if they fail together on what may be the fault of one of them, order by order."""
    try:
        return release_once(processor)
    except OF_ONE as error:
        log.error("release.isolated", exc_info=error)
    with reading(processor.engine) as connection:
        due = waiting.due(connection, now(connection), pauses.paused(connection), BATCH)
    released = 0
    for order_id in sorted({one.order_id for one in due}):
        try:
            released += release_once(processor, order_id)
        except OF_ONE as error:
            log.error("event.unprocessable", order_id=order_id, exc_info=error)
    return released


def release_once(processor: Processor, order_id: str | None = None) -> int:
    """The same in one transaction, for the orders of at most 500 events, or for one of them."""
    with transaction(processor.engine) as connection:
        at, paused = pauses.enter(connection)
        due = waiting.due(connection, at, paused, BATCH)
        candidates = [one for one in due if order_id in (None, one.order_id)]
        if not candidates:
            return 0
        order_ids = {one.order_id for one in candidates}
        orders.lock(connection, order_ids)
        known = orders.load(connection, order_ids)
        # Only what still waits under the lock: the order may have been placed in between.
        waits = waiting.of_orders(connection, order_ids)
        late = [one for one in waits if one.waits_for in LIMITED and one.until <= at]
        skus = {item.sku for order in known.values() if order for item in order.items.values()}
        rules = processor.rules(at, paused, stock.figures(connection, skus))
        timely = [one for one in waits if one not in late]
        effects = guarded(connection, rules, lambda rules: settle_waiting(known, timely, rules))
        _bury(late, effects)
        save(connection, effects, at)
        points.passed("release: before commit")
    points.passed("release: after commit")
    tell(effects)
    if effects.cancelled:
        processor.wake_relay()
    moved_on = effects.no_longer_waiting | effects.waiting.keys()
    return sum(one.key in moved_on for one in candidates)


def _bury(late: Sequence[Waiting], effects: Effects) -> None:
    effects.dead += [
        DeadLetter(one.entry_id, one.raw, "waited_too_long", _sentence(one), one.key, one.order_id) for one in late
    ]
    keys = {one.key for one in late}
    effects.no_longer_waiting |= keys
    effects.released |= keys


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

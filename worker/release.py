"""Waiting events whose time has come: decided again, or dead letters where they have waited too long."""

import time
from collections.abc import Sequence
from datetime import timedelta

from worker.process import Processor
from worker.record import save, tell
from worker.settle import LIMITED, Effects, settle_waiting
from worker.storage import orders, pauses, stock, waiting
from worker.storage.database import transaction
from worker.storage.dead_letters import DeadLetter
from worker.storage.waiting import Waiting

BATCH = 500
SECONDS = 10.0


def release_due(processor: Processor) -> int:
    """Release what is due, for at most ten seconds at a time; returns how many events. They are decided again from
    the state of this moment, or have waited too long: then they are dead letters, and their ids are free again."""
    deadline = time.monotonic() + SECONDS
    released = 0
    while number := release_once(processor):
        released += number
        if time.monotonic() > deadline:
            break
    return released


def release_once(processor: Processor) -> int:
    """The same in one transaction, for the orders of at most 500 events."""
    with transaction(processor.engine) as connection:
        at, paused = pauses.enter(connection)
        candidates = waiting.due(connection, at, paused, BATCH)
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
        effects = settle_waiting(known, [one for one in waits if one not in late], rules)
        _bury(late, effects)
        save(connection, effects, at)
    tell(effects)
    if effects.cancelled:
        processor.outbox.wake_relay()
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

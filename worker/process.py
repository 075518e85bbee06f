"""The way of one batch: parse, claim, lock, decide and apply, save; commit, acknowledge, wake the relay."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError

from domain.policy import Policy
from worker.claims import claim, compare, parse_all
from worker.settle import FAULTS, Effects, Rules, settle, unprocessable
from worker.storage import conflicts, dead_letters, inbox, ledger, orders, waiting
from worker.storage.database import TRANSIENT, now, transaction
from worker.storage.dead_letters import DeadLetter
from worker.streams import Batch, Entry, Outbox, Queue

log = structlog.get_logger(__name__)

# What another try cannot mend: the database refuses the values, or the program trips over them.
HOPELESS = (DataError, IntegrityError, *FAULTS)


@dataclass(frozen=True, slots=True)
class Processor:
    """What a worker needs to process batches."""

    engine: Engine
    queue: Queue
    outbox: Outbox
    policy: Policy
    waiting_limit: timedelta
    max_lone_starts: int
    retry_idle_milliseconds: int


def process(processor: Processor, batch: Batch) -> int:
    """Process a batch, and return how many of its entries are done. Raises what another try may mend, after the
    start was given back: an outage condemns no event."""
    entries = processor.queue.start(batch.entry_ids)
    try:
        if batch.starts > processor.max_lone_starts:
            _give_up(processor, entries, batch.starts)
            cancelled = 0
        else:
            cancelled = process_entries(processor, entries)
    except TRANSIENT:
        processor.queue.give_back([one.entry_id for one in entries], batch.starts, processor.retry_idle_milliseconds)
        raise
    processor.queue.acknowledge([one.entry_id for one in entries])
    if cancelled:
        processor.outbox.wake_relay()
    return len(entries)


def process_entries(processor: Processor, entries: Sequence[Entry]) -> int:
    """Process entries in as few transactions as can be; returns how many cancellations came of it.

    If they fail on something that another try cannot mend, each is tried alone, and the one at fault is a dead letter.
    """
    cancelled = 0
    rest = entries
    while rest:
        try:
            effects, rest = _process_once(processor, rest)
        except HOPELESS as error:
            return cancelled + _one_by_one(processor, rest, error)
        cancelled += len(effects.cancelled)
    return cancelled


def _one_by_one(processor: Processor, entries: Sequence[Entry], error: Exception) -> int:
    if len(entries) > 1:
        log.warning("batch.isolated", entries=len(entries), error=type(error).__name__)
        return sum(process_entries(processor, [entry]) for entry in entries)
    log.error("event.unprocessable", entry_id=entries[0].entry_id, exc_info=error)
    _bury(processor, [DeadLetter(entries[0].entry_id, entries[0].raw, "unprocessable", unprocessable(error))])
    return 0


def _process_once(processor: Processor, entries: Sequence[Entry]) -> tuple[Effects, list[Entry]]:
    """One transaction. Also returns the entries that must wait for its end, since they share an id with one of it."""
    arrived, dead = parse_all(entries)
    with transaction(processor.engine) as connection:
        at = now(connection)
        claimed = claim(connection, arrived, at)
        order_ids = {one.order_id for one in claimed.fresh}
        orders.lock(connection, order_ids)
        known = orders.load(connection, order_ids)
        waits = waiting.of_orders(connection, order_ids)
        effects = settle(claimed.fresh, known, waits, Rules(processor.policy, at, processor.waiting_limit))
        freed, reused = compare(claimed, effects.released)
        effects.dead += dead + reused
        _save(connection, effects, at)
    _log(effects)
    return effects, [Entry(one.entry_id, one.raw) for one in claimed.repeats + freed]


def _save(connection: Connection, effects: Effects, at: datetime) -> None:
    orders.save(connection, effects.before, effects.after)
    orders.save_shipments(connection, effects.shipments)
    ledger.add(connection, effects.cancelled)
    inbox.save(connection, effects.decided)
    inbox.release(connection, effects.released)
    waiting.save(connection, list(effects.waiting.values()))
    waiting.remove(connection, effects.no_longer_waiting)
    conflicts.add(connection, effects.conflicts, at)
    dead_letters.add(connection, effects.dead, at)


def _give_up(processor: Processor, entries: Sequence[Entry], starts: int) -> None:
    """Entries that were started alone again and again, and never ended: they take the worker down with them."""
    sentence = (
        f"processing was started {starts} times and never ended: the worker died or ran out of time each time. "
        "Look for a worker that was killed for its memory; nothing of the event was applied"
    )
    with transaction(processor.engine) as connection:
        # What had committed, and died before its acknowledgement each time, is done.
        done = inbox.recorded(connection, [one.entry_id for one in entries])
    lost = [one for one in entries if one.entry_id not in done]
    _bury(processor, [DeadLetter(one.entry_id, one.raw, "worker_lost", sentence) for one in lost])


def _bury(processor: Processor, letters: Sequence[DeadLetter]) -> None:
    with transaction(processor.engine) as connection:
        dead_letters.add(connection, letters, now(connection))
    _log_dead(letters)


def _log(effects: Effects) -> None:
    for one in effects.decided:
        level = log.info if one.outcome in ("applied", "refused") else log.debug
        level(
            "event.decided",
            source=one.key[0],
            event_id=one.key[1],
            order_id=one.order_id,
            outcome=one.outcome,
            reason=one.reason,
        )
    for row in effects.cancelled:
        log.info(
            "order.cancelled",
            order_id=row.order_id,
            event_id=row.cause_id,
            cancellation_id=row.cancellation_id,
            operation=row.operation,
            units=row.units,
        )
    _log_dead(effects.dead)


def _log_dead(letters: Sequence[DeadLetter]) -> None:
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

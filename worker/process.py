"""The way of one batch: parse, claim, lock, decide and apply, save; commit, acknowledge, wake the relay."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError

from domain.events import OrderPlaced, OrderRestocked, OrderShortage
from domain.orders import Order
from domain.parsing import identify
from domain.policy import Paused, Policy
from worker import points
from worker.claims import claim, compare, parse_all
from worker.effects import FAULTS, Effects, Rules, unprocessable
from worker.guard import guarded
from worker.record import save, tell, tell_dead
from worker.restocks import void_of_orders
from worker.settle import settle
from worker.stock import figures_of, receive
from worker.storage import allocations, dead_letters, inbox, orders, pauses, stock, waiting
from worker.storage.database import TRANSIENT, now, transaction
from worker.storage.dead_letters import Code, DeadLetter
from worker.storage.inbox import Arrived
from worker.storage.stock import Figures
from worker.storage.waiting import Waiting
from worker.streams import Batch, Entry, Outbox, Queue

log = structlog.get_logger(__name__)

# What another try cannot mend: the database refuses the values, or the program trips over them.
HOPELESS = (DataError, IntegrityError, *FAULTS)
# What may be the fault of one of those that are tried together: the others are done without it.
OF_ONE = (MemoryError, *HOPELESS)


def _left_to_the_clock(skus: Sequence[str]) -> None:
    """No run is asked for; beat does it soon."""


@dataclass(frozen=True, slots=True)
class Processor:
    """What a worker needs to process batches. A shortage of a SKU is carried out for `orders_a_chunk` orders in one
    transaction. `start_runs` asks that the shortages of SKUs be carried out; it may fail
    to, since they are looked at by the clock too. No event is removed before its time lies `old_after` back."""

    engine: Engine
    queue: Queue
    outbox: Outbox
    policy: Policy
    waiting_limit: timedelta
    max_lone_starts: int
    retry_idle_milliseconds: int
    orders_a_chunk: int = 250
    old_after: timedelta = timedelta(days=6)
    start_runs: Callable[[Sequence[str]], None] = _left_to_the_clock

    def rules(self, at: datetime, paused: Paused, figures: Figures) -> Rules:
        """What a transaction decides by."""
        return Rules(replace(self.policy, paused=paused), at, self.waiting_limit, figures.restocked)

    def wake_relay(self) -> None:
        """Tell the relay that there is something to publish. It looks by itself too, so nothing fails if that fails."""
        try:
            self.outbox.wake_relay()
        except RedisError as error:
            log.warning("relay.not_woken", error=type(error).__name__, detail=str(error))


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
    points.passed("batch: acknowledged")
    if cancelled:
        processor.wake_relay()
    return len(entries)


def process_entries(processor: Processor, entries: Sequence[Entry]) -> int:
    """Process entries in as few transactions as can be; returns how many cancellations came of it.

    If they fail on something that another try cannot mend, each is tried alone, and the one at fault is a dead letter.
    """
    cancelled = 0
    rest = entries
    while rest:
        try:
            effects, skus, rest = _process_once(processor, rest)
        except HOPELESS as error:
            return cancelled + _one_by_one(processor, rest, error)
        # It is committed: whatever fails from here on, no event is at fault.
        tell(effects)
        if skus:
            processor.start_runs(skus)
        cancelled += len(effects.cancelled)
    return cancelled


def _one_by_one(processor: Processor, entries: Sequence[Entry], error: Exception) -> int:
    if len(entries) > 1:
        log.warning("batch.isolated", entries=len(entries), error=type(error).__name__)
        return sum(process_entries(processor, [entry]) for entry in entries)
    log.error("event.unprocessable", entry_id=entries[0].entry_id, exc_info=error)
    _bury(processor, [_letter(entries[0], "unprocessable", unprocessable(error))])
    return 0


def _process_once(processor: Processor, entries: Sequence[Entry]) -> tuple[Effects, Sequence[str], list[Entry]]:
    """One transaction. Also returns the SKUs that run short, and the entries that must wait for its end, since they
    share an id with one of it."""
    arrived, dead = parse_all(entries)
    with transaction(processor.engine) as connection:
        at, paused = pauses.enter(connection)
        points.passed("batch: before claim")
        claimed = claim(connection, arrived, at, processor.old_after)
        points.passed("batch: after claim")
        stock.note(connection, figures_of(claimed.fresh))
        order_ids = {one.order_id for one in claimed.fresh if one.order_id is not None}
        orders.lock(connection, order_ids)
        points.passed("batch: after lock")
        known = orders.load(connection, order_ids)
        waits = waiting.of_orders(connection, order_ids)
        figures = stock.figures(connection, _skus(claimed.fresh, known, waits))
        rules = processor.rules(at, paused, figures)
        effects = guarded(connection, rules, lambda rules: settle(claimed.fresh, known, waits, rules))
        received = receive(claimed.fresh, figures, rules)
        effects.decided += received.decided
        freed, reused = compare(claimed, effects.released)
        effects.dead += dead + claimed.too_old + reused
        save(connection, effects, at)
        allocations.add(connection, received.allocations)
        restocked = {one.order_id for one in claimed.fresh if isinstance(one.event, OrderRestocked) and one.order_id}
        if restocked:
            void_of_orders(connection, restocked, rules.policy, at)
        points.passed("batch: before commit")
    points.passed("batch: after commit")
    return effects, sorted(received.skus), [Entry(one.entry_id, one.raw) for one in claimed.repeats + freed]


def _skus(fresh: Sequence[Arrived], known: Mapping[str, Order | None], waits: Sequence[Waiting]) -> set[str]:
    """The SKUs whose figures count: those that events are about, and those of orders that a shortage may cut."""
    shortages = {one.order_id for one in fresh if isinstance(one.event, OrderShortage)}
    short = shortages | {one.order_id for one in waits if one.waits_for != "fulfillments_missing"}
    items = [item for order_id, order in known.items() if order and order_id in short for item in order.items.values()]
    placed = [one.event for one in fresh if isinstance(one.event, OrderPlaced) and one.order_id in short]
    in_orders = {item.sku for item in items} | {item.sku for event in placed for item in event.data.items}
    return in_orders | {one.sku for one in fresh if one.sku is not None}


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
    _bury(processor, [_letter(one, "worker_lost", sentence) for one in lost])


def _letter(entry: Entry, code: Code, sentence: str) -> DeadLetter:
    return DeadLetter(entry.entry_id, entry.raw, code, sentence, *identify(entry.raw))


def _bury(processor: Processor, letters: Sequence[DeadLetter]) -> None:
    with transaction(processor.engine) as connection:
        dead_letters.add(connection, letters, now(connection))
    tell_dead(letters)

"""Any history, and then everything is removed that may be, on both databases and a real Redis: nothing is lost, nothing
is done again, and the story of each order can still be told."""

import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from domain.policy import Protected
from tests import checker
from tests.builders import (
    Json,
    closed,
    final,
    placed,
    requested,
    restocked,
    shipped,
    shortage,
    sku_restocked,
    sku_shortage,
    to_bytes,
)
from tests.histories import at
from tests.integration.publishing import positions, run_some, wrong
from tests.model import Model
from tests.records import as_time
from worker import bootstrap, shortages, verdicts
from worker.process import Processor, process
from worker.relay import Relay
from worker.settings import Settings
from worker.streams import Batch, Outbox, Queue
from worker.upkeep import Retention, prune, prune_events

AT_ONCE = timedelta(days=-2)
EVERYTHING = Retention(AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE)
PRUNABLE = {"recorded", "nothing", "refused", "stale", "void"}
ORDERS = [f"o{n:02}" for n in range(14)]
SOURCES = ["/shop", "/wms", "/erp"]


@pytest.fixture
def engine(emptied_engine: Engine) -> Engine:
    return emptied_engine


@pytest.fixture
def database_url(emptied_engine: Engine) -> str:
    return emptied_engine.url.render_as_string(hide_password=False)


@pytest.fixture
def processor(settings: Settings, engine: Engine, redis: Redis, queue: Queue) -> Processor:
    plain = bootstrap.processor(settings, engine, redis)
    protected = Protected(orders=frozenset(ORDERS[::3]))
    return replace(plain, old_after=AT_ONCE, policy=replace(plain.policy, protected=protected))


@pytest.fixture
def relay(settings: Settings, engine: Engine, redis: Redis) -> Relay:
    return bootstrap.relay(settings, engine, redis)


def random_history(rng: random.Random) -> list[Json | bytes]:
    """Every kind of event and outcome, from several sources, in any order."""
    events: list[Json | bytes] = [b"not an event"]
    for order in ORDERS:
        lines = {"a": (rng.choice(["S1", "S2"]), rng.randint(1, 9)), "b": ("S3", rng.randint(1, 9))}
        kinds = [
            shortage(order, a=rng.randint(0, 9)),
            shortage(order, b=9),
            shortage(order, zz=1),
            shipped(order, "f1", a=rng.randint(1, 4)),
            shipped(order, "f2", b=rng.randint(8, 12)),
            final(shipped(order, "f3", b=1), "f1", "f3", *rng.choice([[], ["f4"]])),
            closed(order, "f1"),
            requested(order, b=rng.randint(0, 9)),
            restocked(order, "a"),
        ]
        events += rng.sample(kinds, rng.randint(2, len(kinds)))
        events += [placed(order, {"placedAt": at(0)}, **lines)] if rng.random() < 0.9 else []
    events += [sku_shortage(sku, rng.randint(0, 30)) for sku in ("S1", "S2", "S3", "S3")] + [sku_restocked("S2")]
    rng.shuffle(events)
    return [
        one if isinstance(one, bytes) else {**one, "source": rng.choice(SOURCES), "time": at(rng.randrange(600))}
        for one in events
    ]


def run(processor: Processor, events: list[Json | bytes], rng: random.Random) -> None:
    """Decide the events in batches, and carry out shortages."""
    raws = [one if isinstance(one, bytes) else to_bytes(one) for one in events]
    processor.queue.add(raws)
    while entries := processor.queue.read(rng.randint(1, 30), 1):
        process(processor, Batch([one.entry_id for one in entries]))
    for sku in shortages.due(processor, timedelta(0)):
        while shortages.run_once(processor, sku):
            pass


def decide_holds(processor: Processor) -> None:
    """Approve some and reject some."""
    held = [row.hold_id for row in rows(processor.engine, "SELECT hold_id FROM holds WHERE state = 'open'")]
    verdicts.give(processor.engine, held[::3], "approved", "ann", "a test")
    verdicts.give(processor.engine, held[1::3], "rejected", "ann", "a test")
    verdicts.carry_out_approved(processor)


def test_what_must_stay_stays_and_what_was_removed_is_recognised(
    processor: Processor, relay: Relay, outbox: Outbox, redis: Redis, shortpick: Callable[..., Any], rng: random.Random
) -> None:
    engine, queue, events = processor.engine, processor.queue, random_history(rng)
    run(processor, events, rng)
    decide_holds(processor)
    run_some(relay)
    assert wrong(engine, redis) == []
    before, recorded = state(engine), rows(engine, "SELECT * FROM events")
    prune(engine, queue, outbox, EVERYTHING)
    assert state(engine) == before
    assert (redis.xlen(queue.stream), positions(redis)) == (0, [])
    assert_only_what_may_be_was_removed(engine, recorded)
    assert wrong(engine, redis) == []
    for order_id in [row.order_id for row in rows(engine, "SELECT order_id FROM orders")]:
        ran = shortpick("why", order_id, "--json")
        (told,) = ran.json
        assert ran.code == 0
        assert len(told["fulfillments"]) == sum(
            "was handed to" in line for one in told["story"] for line in one["sentences"]
        )
    rng.shuffle(events)
    run(processor, events, rng)
    assert state(engine) == before  # nothing of it happens again
    assert {row.code for row in rows(engine, "SELECT code FROM dead_letters")} >= {"too_old", "not_json"}
    assert wrong(engine, redis) == []


def assert_only_what_may_be_was_removed(engine: Engine, recorded: list[Any]) -> None:
    held = {(row.source, row.id) for row in rows(engine, "SELECT source, id FROM holds")}
    causes = {(row.cause_source, row.cause_id) for row in rows(engine, "SELECT * FROM cancellations")}
    left = {(row.source, row.id) for row in rows(engine, "SELECT source, id FROM events")}
    newest = {row.source: as_time(row.newest_time) for row in rows(engine, "SELECT * FROM pruned_events")}
    removed = [row for row in recorded if (row.source, row.id) not in left]
    assert {(row.source, row.id) for row in removed} == {
        (row.source, row.id)
        for row in recorded
        if row.outcome in PRUNABLE and (row.source, row.id) not in held | causes
    }
    assert len(removed) > 10
    assert len(left) > 5
    assert held
    assert all(as_time(row.time) <= newest[row.source] for row in removed)
    assert {row.outcome for row in recorded} >= {"recorded", "nothing", "applied", "waiting"}


def state(engine: Engine) -> dict[str, list[str]]:
    """What stands of orders, of what was cancelled and of what waits."""
    names = ("orders", "order_items", "fulfillments", "cancellations", "conflicts", "waiting_events", "holds")
    names += ("stock_figures", "shipped_units", "allocations", "allotments")
    return {name: sorted(map(repr, rows(engine, f"SELECT * FROM {name}"))) for name in names}


def rows(engine: Engine, sql: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(sql)))


def test_batches_and_the_removal_of_all_that_is_old_go_on_beside_each_other(
    processor: Processor, redis: Redis, rng: random.Random
) -> None:
    """Each event is of a source of its own, so none makes another one too old; and each comes three times."""
    events = []
    for n in range(40):
        quantity, keep = rng.randint(3, 9), rng.randint(0, 3)
        order = f"order-{n}"
        events += [placed(order, a=("SA", quantity)), shortage(order, a=keep), shortage(order, a=9)]
        events += [shipped(order, "f1", a=keep)] if keep else []
    events = [{**one, "source": f"/{one['id']}"} for one in events]
    thrice = [to_bytes(one) for one in events * 3]
    rng.shuffle(thrice)
    begun, over = threading.Event(), threading.Event()

    def decide() -> None:
        while entries := processor.queue.read(7, 1):
            process(processor, Batch([one.entry_id for one in entries]))

    def remove() -> int:
        removed = 0
        while not over.is_set():
            removed += prune_events(processor.engine, None, AT_ONCE)
            if removed:
                begun.set()
        return removed

    with ThreadPoolExecutor(4) as pool:
        clock = pool.submit(remove)
        try:
            for part in (thrice[::2], thrice[1::2]):
                processor.queue.add(part)
                for worker in [pool.submit(decide) for _ in range(2)]:
                    worker.result(60)
                assert begun.wait(60)  # on SQLite it may not get the lock until the workers are done
        finally:
            over.set()
        assert clock.result() > 0
    codes = {row.code for row in rows(processor.engine, "SELECT DISTINCT code FROM dead_letters")}
    assert codes == {"too_old"}
    model = Model()
    for one in events:
        model.feed(json.loads(json.dumps(one)))
    with processor.engine.connect() as connection:
        assert checker.agreement(connection, model) == []
        unpublished = ("The positions are", "The published entries are")
        assert [one for one in checker.violations(connection, redis) if not one.startswith(unpublished)] == []

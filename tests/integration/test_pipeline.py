"""The whole way in one process: ingress, batches and relay on a real Redis and both databases, fed with real orders."""

import json
import random
import time
from collections.abc import Callable

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from tests import checker
from tests.data import DATA
from tests.model import Model
from worker import bootstrap
from worker.ingress import Ingress
from worker.process import Processor, process
from worker.relay import Relay
from worker.settings import Settings
from worker.streams import Batch, Queue

PATIENCE_SECONDS = 60
Messages = Callable[[list[Batch]], list[Batch]]


@pytest.fixture
def relay(settings: Settings, engine: Engine, redis: Redis) -> Relay:
    return bootstrap.relay(settings, engine, redis)


def test_the_retail_orders_come_out_right(
    processor: Processor, queue: Queue, relay: Relay, engine: Engine, redis: Redis
) -> None:
    queue.add(retail())
    run(processor, relay, batch_size=100)
    all_is_well(engine, redis)


def test_in_any_order_and_three_times_each_they_come_out_the_same(
    processor: Processor, queue: Queue, relay: Relay, engine: Engine, redis: Redis, rng: random.Random
) -> None:
    events = retail() * 3
    rng.shuffle(events)
    queue.add(events)
    run(processor, relay, batch_size=150)
    all_is_well(engine, redis)


def test_messages_that_are_lost_repeated_and_swapped_change_nothing(
    processor: Processor, queue: Queue, relay: Relay, engine: Engine, redis: Redis, rng: random.Random
) -> None:
    events = retail()
    rng.shuffle(events)
    queue.add(events)
    fates = {"lost": 0, "repeated": 0}

    def mishandle(batches: list[Batch]) -> list[Batch]:
        arriving: list[Batch] = []
        for batch in batches:
            fate = rng.random()
            if fate < 0.2:
                fates["lost"] += 1
            elif fate < 0.4:
                fates["repeated"] += 1
                arriving += [batch, batch]
            else:
                arriving.append(batch)
        rng.shuffle(arriving)
        return arriving

    run(processor, relay, batch_size=15, messages=mishandle)
    assert min(fates.values()) > 0
    all_is_well(engine, redis)


def test_bad_events_among_them_are_dead_letters_and_harm_no_neighbour(
    processor: Processor, queue: Queue, relay: Relay, engine: Engine, redis: Redis, rng: random.Random
) -> None:
    bad = [b"", b"\xff", b"[" * 60_000, b'{"specversion":"1.0"}', b"NaN", b"x" * 70_000, b'"\\ud800"', b"null", b"\x00"]
    events = retail()
    for one in bad:
        events.insert(rng.randrange(len(events)), one)
    queue.add(events)
    run(processor, relay, batch_size=100)
    all_is_well(engine, redis)
    with engine.connect() as connection:
        buried = [bytes(row.bytes) for row in connection.execute(text("SELECT bytes FROM dead_letters"))]
    assert sorted(buried) == sorted(bad)


def run(processor: Processor, relay: Relay, batch_size: int, messages: Messages = list) -> None:
    """Run until nothing is left to do. `messages` says what becomes of messages on their way."""
    sent: list[Batch] = []
    ingress = Ingress(
        queue=processor.queue,
        engine=processor.engine,
        dispatch=sent.append,
        batch_size=batch_size,
        batch_bytes=10**6,
        max_pending=10 * batch_size,
        redeliver_after_milliseconds=40,
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while processor.queue.has_unread() or processor.queue.pending():
        assert time.monotonic() < deadline, f"{processor.queue.pending()} entries are still pending"
        ingress.run_once(1)
        while len(sent) < 5 and processor.queue.has_unread() and ingress.run_once(1):
            pass
        arriving, sent[:] = messages(list(sent)), []
        for batch in arriving:
            process(processor, batch)
        relay.run_once()
    while relay.run_once():
        pass


def all_is_well(engine: Engine, redis: Redis) -> None:
    """The checker finds nothing, the model agrees, and what was published is the ledger."""
    model = Model()
    for raw in retail():
        model.feed(json.loads(raw))
    with engine.connect() as connection:
        assert checker.violations(connection, redis) == []
        assert checker.agreement(connection, model) == []
        ledger = connection.execute(text("SELECT position, payload FROM cancellations ORDER BY ledger_id")).all()
    published = [(entry_id.decode(), fields[b"event"].decode()) for entry_id, fields in redis.xrange("order.cancelled")]
    assert published == [(f"{row.position}-0", row.payload) for row in ledger]
    assert len(published) > 200


def retail() -> list[bytes]:
    return [
        line
        for name in ("retail-orders.ndjson", "retail-events.ndjson")
        for line in (DATA / name).read_bytes().splitlines()
    ]

"""What runs by the clock, on both databases and a real Redis: events that waited too long, entries nobody needs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from tests import checker
from tests.builders import Json, final, placed, shipped, shortage, to_bytes
from worker import release
from worker.process import Processor, process
from worker.release import release_due, release_once
from worker.storage import waiting
from worker.streams import Batch, Queue
from worker.upkeep import prune_queue

DAY = timedelta(days=1)


@pytest.fixture
def hurried(processor: Processor) -> Processor:
    """A processor whose events may not wait at all: they are due at once."""
    return replace(processor, waiting_limit=timedelta(0))


def test_what_waited_too_long_for_its_order_is_a_dead_letter(
    hurried: Processor, queue: Queue, engine: Engine, redis: Redis
) -> None:
    late = shortage("o1", a=1)
    play(hurried, late)
    assert release_due(hurried) == 1
    (letter,) = dead_letters(engine)
    assert (letter.code, bytes(letter.bytes), letter.order_id) == ("waited_too_long", to_bytes(late), "o1")
    assert (letter.source, letter.id) == (late["source"], late["id"])
    assert "'o1' was not placed within" in letter.sentence
    assert (rows(engine, "SELECT * FROM events"), rows(engine, "SELECT * FROM waiting_events")) == ([], [])
    assert release_due(hurried) == 0
    assert well(engine, redis) == []


def test_what_may_wait_on_is_left_alone(processor: Processor, engine: Engine) -> None:
    play(processor, shortage("o1", a=1))
    assert release_due(processor) == 0
    assert len(rows(engine, "SELECT * FROM waiting_events")) == 1


def test_of_several_only_what_is_due_is_released(processor: Processor, hurried: Processor, engine: Engine) -> None:
    play(processor, shortage("o1", a=1), shortage("o2", a=1))
    play(hurried, shortage("o1", a=0))
    assert release_due(hurried) == 1
    assert rows(engine, "SELECT order_id FROM waiting_events ORDER BY order_id") == [("o1",), ("o2",)]


def test_of_a_final_shipment_only_the_closing_is_a_dead_letter(
    hurried: Processor, engine: Engine, redis: Redis
) -> None:
    closing = final(shipped("o1", "f2", a=3), "f1", "f2")
    play(hurried, placed("o1", a=("SA", 5)), closing)
    assert release_due(hurried) == 1
    (letter,) = dead_letters(engine)
    assert (letter.code, bytes(letter.bytes)) == ("waited_too_long", to_bytes(closing))
    assert "not all fulfillments that it names for order 'o1' were reported" in letter.sentence
    assert rows(engine, "SELECT fulfilled, open_quantity FROM order_items") == [(3, 2)]
    assert rows(engine, "SELECT * FROM cancellations") == []
    assert well(engine, redis) == []


def test_a_final_shipment_that_was_released_may_be_sent_again_with_the_missing_one(
    hurried: Processor, processor: Processor, engine: Engine, redis: Redis
) -> None:
    closing = final(shipped("o1", "f2", a=3), "f1", "f2")
    play(hurried, placed("o1", a=("SA", 5)), closing)
    release_due(hurried)
    play(processor, shipped("o1", "f1", a=1), closing)
    assert rows(engine, "SELECT operation, units FROM cancellations") == [("cancelUnfulfilled", 1)]
    assert len(dead_letters(engine)) == 1
    assert well(engine, redis, published=False) == []


def test_what_was_released_may_be_sent_again_under_its_id(
    hurried: Processor, processor: Processor, engine: Engine
) -> None:
    late = shortage("o1", a=1)
    play(hurried, late)
    release_due(hurried)
    play(processor, placed("o1", a=("SA", 2)), late)
    assert rows(engine, "SELECT operation, units FROM cancellations") == [("cancelItemPartially", 1)]


def test_an_event_whose_order_was_placed_meanwhile_is_not_released(hurried: Processor, engine: Engine) -> None:
    play(hurried, shortage("o1", a=0), placed("o1", a=("SA", 2)))
    assert release_due(hurried) == 0
    assert rows(engine, "SELECT operation FROM cancellations") == [("cancelOrder",)]
    assert dead_letters(engine) == []


def test_more_than_one_batch_is_released_in_turn(
    hurried: Processor, engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "BATCH", 2)
    play(hurried, *(shortage(f"o{number}", a=1) for number in range(5)))
    released = [release_once(hurried) for _ in range(4)]
    assert released == [2, 2, 1, 0]
    assert well(engine, redis) == []


def test_the_sentence_tells_how_long_it_waited(processor: Processor, engine: Engine) -> None:
    play(processor, shortage("o1", a=1))
    with engine.begin() as connection:
        (one,) = waiting.of_orders(connection, ["o1"])
        past = datetime.now(UTC) - 2 * DAY
        waiting.save(connection, [replace(one, since=past, until=past + processor.waiting_limit)])
    release_due(processor)
    assert "within 24 hours" in dead_letters(engine)[0].sentence


def test_what_is_old_read_and_done_is_pruned(queue: Queue, engine: Engine, redis: Redis) -> None:
    ids = [old(redis, queue, days=3), old(redis, queue, days=2), old(redis, queue, days=0)]
    queue.read(3, 100)
    queue.acknowledge(ids)
    assert prune_queue(engine, queue, DAY) == 2
    assert left(redis, queue) == ids[2:]
    assert prune_queue(engine, queue, DAY) == 0


def test_the_retention_decides_what_is_old(queue: Queue, engine: Engine, redis: Redis) -> None:
    ids = [old(redis, queue, days=days) for days in (9, 6, 2)]
    queue.read(3, 100)
    queue.acknowledge(ids)
    assert prune_queue(engine, queue, 7 * DAY) == 1
    assert prune_queue(engine, queue, 3 * DAY) == 1
    assert left(redis, queue) == ids[2:]


def test_what_is_old_but_not_done_is_not_pruned(queue: Queue, engine: Engine, redis: Redis) -> None:
    done, pending, unread = (old(redis, queue, days=days) for days in (9, 8, 7))
    queue.read(2, 100)
    queue.acknowledge([done])
    assert prune_queue(engine, queue, DAY) == 1
    assert left(redis, queue) == [pending, unread]
    assert queue.start([pending])[0].raw == b"old"


def test_what_another_group_still_needs_is_not_pruned(queue: Queue, engine: Engine, redis: Redis) -> None:
    ids = [old(redis, queue, days=days) for days in (9, 8, 7)]
    queue.read(3, 100)
    queue.acknowledge(ids)
    other = Queue(redis, queue.stream, "audit")
    other.ensure_group()
    assert prune_queue(engine, queue, DAY) == 0
    other.read(2, 100)
    other.acknowledge([ids[1]])
    assert prune_queue(engine, queue, DAY) == 0
    other.acknowledge([ids[0]])
    assert prune_queue(engine, queue, DAY) == 2
    assert left(redis, queue) == ids[2:]


def test_what_was_pruned_changes_nothing_of_what_was_decided(
    processor: Processor, queue: Queue, engine: Engine, redis: Redis
) -> None:
    play(processor, placed("o1", a=("SA", 2)), shortage("o2", a=1))
    assert prune_queue(engine, queue, -DAY) == 2
    play(processor, placed("o2", a=("SA", 2)), shortage("o1", a=1))
    assert rows(engine, "SELECT order_id FROM cancellations ORDER BY order_id") == [("o1",), ("o2",)]


def test_before_anything_was_sent_there_is_nothing_to_prune(engine: Engine, redis: Redis) -> None:
    assert prune_queue(engine, Queue(redis, "never.used", "shortpick"), DAY) == 0


def play(processor: Processor, *events: Json) -> None:
    processor.queue.add([to_bytes(event) for event in events])
    entries = processor.queue.read(len(events), 1000)
    assert process(processor, Batch([entry.entry_id for entry in entries])) == len(events)


def old(redis: Redis, queue: Queue, days: int) -> str:
    """Add an entry that came so many days ago, if the stream has none that is younger."""
    at = datetime.now(UTC) - timedelta(days=days)
    entry_id: Any = redis.xadd(queue.stream, {"event": b"old"}, id=f"{int(at.timestamp() * 1000)}-0")
    return str(entry_id.decode())


def left(redis: Redis, queue: Queue) -> list[str]:
    entries: Any = redis.xrange(queue.stream)
    return [entry_id.decode() for entry_id, _ in entries]


def well(engine: Engine, redis: Redis, *, published: bool = True) -> list[str]:
    """What the checker finds; without a relay, cancellations cannot have been published."""
    with engine.connect() as connection:
        found = checker.violations(connection, redis)
    about_publication = ("The positions are", "The published entries are")
    return [one for one in found if published or not one.startswith(about_publication)]


def rows(engine: Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def dead_letters(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM dead_letters ORDER BY dead_letter_id")))

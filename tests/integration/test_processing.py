"""What happens to a batch's entries around its transaction: acknowledged, given back, or given up."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from tests.builders import Json, placed, shipped, shortage, to_bytes
from tests.integration.batches import starts_of
from tests.servers import PostgresServer, RedisServer
from worker import bootstrap, migrations
from worker.process import Processor, process, process_entries
from worker.settings import Settings
from worker.storage import database
from worker.streams import Batch, Outbox, Queue

WAKE_LIST = "order.cancelled.wake"
PATIENCE_SECONDS = 15


def test_what_is_done_is_acknowledged_and_counted(processor: Processor, queue: Queue, engine: Engine) -> None:
    assert process(processor, sent(queue, placed(a=("SA", 2)), shortage("o1", a=1))) == 2
    assert queue.pending() == 0
    assert rows(engine, "SELECT outcome FROM events ORDER BY outcome") == [("applied",), ("recorded",)]


def test_nothing_is_acknowledged_before_the_commit(processor: Processor, queue: Queue, engine: Engine) -> None:
    pending_at_commit: list[int] = []
    event.listen(engine, "commit", lambda _: pending_at_commit.append(queue.pending()))
    process(processor, sent(queue, placed(a=("SA", 2)), shortage("o1", a=1), {"not": "an event"}))
    assert pending_at_commit == [3]
    assert queue.pending() == 0


def test_an_entry_that_was_acknowledged_already_is_skipped(processor: Processor, queue: Queue, engine: Engine) -> None:
    batch = sent(queue, placed(a=("SA", 2)), shortage("o1", a=1))
    process(processor, batch)
    before = everything(engine)
    assert process(processor, batch) == 0
    assert process(processor, replace(batch, starts=100)) == 0
    assert everything(engine) == before


def test_of_a_batch_only_what_is_not_acknowledged_is_done(processor: Processor, queue: Queue, engine: Engine) -> None:
    batch = sent(queue, placed("o1", a=("SA", 2)), placed("o2", a=("SA", 2)))
    queue.acknowledge(batch.entry_ids[:1])
    assert process(processor, batch) == 1
    assert rows(engine, "SELECT order_id FROM orders") == [("o2",)]


def test_what_was_committed_but_not_acknowledged_is_recognised(
    processor: Processor, queue: Queue, engine: Engine
) -> None:
    batch = sent(queue, placed(a=("SA", 2)), shortage("o1", a=1), {"not": "an event"})
    process_entries(processor, queue.start(batch.entry_ids))  # and then the worker was killed
    before = everything(engine)
    for entry_id in batch.entry_ids:
        assert process(processor, Batch([entry_id], 1)) == 1
    assert everything(engine) == before
    assert queue.pending() == 0


def test_a_bad_event_is_a_dead_letter_and_its_neighbours_are_done(
    processor: Processor, queue: Queue, engine: Engine
) -> None:
    queue.add([to_bytes(placed("o1", a=("SA", 2))), b"\xff", to_bytes(shortage("o1", a=0))])
    assert process(processor, read(queue, 3)) == 3
    assert [(letter.code, bytes(letter.bytes)) for letter in dead_letters(engine)] == [("not_json", b"\xff")]
    assert rows(engine, "SELECT operation FROM cancellations") == [("cancelOrder",)]


def test_an_entry_that_was_started_alone_too_often_is_a_dead_letter(
    processor: Processor, queue: Queue, engine: Engine
) -> None:
    raw = to_bytes(placed(a=("SA", 2)))
    queue.add([raw])
    batch = read(queue, 1)
    assert process(processor, replace(batch, starts=processor.max_lone_starts + 1)) == 1
    (letter,) = dead_letters(engine)
    assert (letter.code, bytes(letter.bytes)) == ("worker_lost", raw)
    assert queue.pending() == 0
    assert rows(engine, "SELECT * FROM events") == []


def test_the_last_of_its_starts_still_counts(processor: Processor, queue: Queue, engine: Engine) -> None:
    batch = sent(queue, placed(a=("SA", 2)))
    process(processor, replace(batch, starts=processor.max_lone_starts))
    assert dead_letters(engine) == []
    assert rows(engine, "SELECT order_id FROM orders") == [("o1",)]


def test_a_given_up_event_that_had_been_committed_is_no_dead_letter(
    processor: Processor, queue: Queue, engine: Engine
) -> None:
    """A worker that dies each time after its commit and before the acknowledgement has lost nothing."""
    process(processor, sent(queue, placed(a=("SA", 2))))
    batch = sent(queue, shortage("o1", a=0))
    for _ in range(processor.max_lone_starts + 1):
        process_entries(processor, queue.start(batch.entry_ids))
    (overdue,) = queue.take_overdue(0, 10)
    process(processor, Batch([overdue.entry_id], overdue.starts))
    assert rows(engine, "SELECT operation FROM cancellations") == [("cancelOrder",)]
    assert dead_letters(engine) == []
    assert queue.pending() == 0


def test_the_relay_is_woken_only_when_something_was_cancelled(processor: Processor, queue: Queue, redis: Redis) -> None:
    process(processor, sent(queue, placed(a=("SA", 2)), shortage("o1", a=2)))
    assert redis.llen(WAKE_LIST) == 0
    batch = sent(queue, shortage("o1", a=1))
    process(processor, batch)
    assert redis.llen(WAKE_LIST) == 1
    redis.delete(WAKE_LIST)
    process(processor, batch)
    assert redis.llen(WAKE_LIST) == 0


def test_the_relay_is_woken_after_the_commit(processor: Processor, queue: Queue, engine: Engine, redis: Redis) -> None:
    process(processor, sent(queue, placed(a=("SA", 2))))
    woken_at_commit: list[int] = []
    event.listen(engine, "commit", lambda _: woken_at_commit.append(int(redis.llen(WAKE_LIST))))
    process(processor, sent(queue, shortage("o1", a=1)))
    assert woken_at_commit == [0]
    assert redis.llen(WAKE_LIST) == 1


@pytest.fixture
def impatient(settings: Settings, queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processor]:
    """A processor that waits for a lock for a moment only."""
    monkeypatch.setitem(database.POSTGRESQL_OPTIONS, "lock_timeout", "50ms")
    monkeypatch.setattr(database, "SQLITE_BUSY_SECONDS", 0.05)
    engine = bootstrap.engine(settings)
    yield bootstrap.processor(settings, engine, redis)
    engine.dispose()


@pytest.mark.parametrize("starts", [0, 3])
def test_after_a_lock_that_took_too_long_the_start_is_given_back(
    starts: int, impatient: Processor, processor: Processor, queue: Queue, engine: Engine
) -> None:
    process(processor, sent(queue, placed(a=("SA", 2))))
    batch = replace(sent(queue, shortage("o1", a=0)), starts=starts)
    with engine.begin() as connection:
        connection.execute(text("UPDATE orders SET priority = 1 WHERE order_id = 'o1'"))
        with pytest.raises(OperationalError):
            process(impatient, batch)
    assert starts_of(queue.take_overdue(impatient.retry_idle_milliseconds, 10)) == {batch.entry_ids[0]: starts}
    assert process(impatient, batch) == 1
    assert rows(engine, "SELECT operation FROM cancellations") == [("cancelOrder",)]


def test_an_outage_condemns_no_event_however_long_it_lasts(impatient: Processor, queue: Queue, engine: Engine) -> None:
    batch = sent(queue, placed(a=("SA", 2)), {"not": "an event"})
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE orders RENAME TO gone"))
    for _ in range(impatient.max_lone_starts + 3):
        overdue = queue.take_overdue(0, 10)
        assert {one.starts for one in overdue} == {0}
        with pytest.raises(Exception, match="orders"):
            process(impatient, Batch([one.entry_id for one in overdue]))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO orders"))
    assert process(impatient, batch) == 2
    assert [letter.code for letter in dead_letters(engine)] != ["worker_lost"]


def test_a_given_up_entry_whose_dead_letter_cannot_be_written_is_given_back(
    impatient: Processor, queue: Queue, engine: Engine
) -> None:
    batch = replace(sent(queue, placed(a=("SA", 2))), starts=6)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE dead_letters RENAME TO gone"))
    with pytest.raises(Exception, match="dead_letters"):
        process(impatient, batch)
    assert starts_of(queue.take_overdue(0, 10)) == {batch.entry_ids[0]: 6}


def test_a_terminated_connection_gives_the_start_back_and_leaves_nothing_half_done(
    postgres_url: str, redis_url: str
) -> None:
    settings = Settings(redis_url=redis_url, database_url=postgres_url)
    engine, redis = bootstrap.engine(settings), bootstrap.redis(settings)
    queue = bootstrap.queue(settings, redis)
    queue.ensure_group()
    processor = bootstrap.processor(settings, engine, redis)
    process(processor, sent(queue, placed("o1", a=("SA", 2))))
    batch = sent(queue, placed("o2", a=("SA", 2)), shortage("o1", a=0))
    holder = database.create(postgres_url)
    with holder.begin() as connection, InThread(lambda: process(processor, batch)) as processing:
        connection.execute(text("SELECT 1 FROM orders WHERE order_id = 'o1' FOR UPDATE"))
        processing.go()
        waiting = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        wait_for(lambda: bool(connection.execute(waiting).all()), "the batch to wait for the order's lock")
        with pytest.raises(OperationalError):
            processing.result()
    assert rows(engine, "SELECT order_id FROM orders") == [("o1",)]
    assert {one.starts for one in queue.take_overdue(0, 10)} == {0}
    assert process(processor, batch) == 2
    assert rows(engine, "SELECT operation FROM cancellations") == [("cancelOrder",)]
    for opened in (holder, engine):
        opened.dispose()
    redis.close()


def test_a_stopped_postgresql_gives_the_start_back_and_goes_on_when_it_is_back(redis_url: str) -> None:
    with PostgresServer(fsync=False) as server:
        settings = Settings(redis_url=redis_url, database_url=server.create_database("shortpick"))
        engine, redis = bootstrap.engine(settings), bootstrap.redis(settings)
        migrations.upgrade(engine)
        queue = bootstrap.queue(settings, redis)
        queue.ensure_group()
        processor = bootstrap.processor(settings, engine, redis)
        process(processor, sent(queue, placed(a=("SA", 2))))
        batch = sent(queue, shortage("o1", a=0))
        server.stop()
        for _ in range(2):
            with pytest.raises(OperationalError):
                process(processor, batch)
        assert starts_of(queue.take_overdue(processor.retry_idle_milliseconds, 10)) == {batch.entry_ids[0]: 0}
        server.start()
        assert process(processor, batch) == 1
        assert rows(engine, "SELECT operation FROM cancellations") == [("cancelOrder",)]
        engine.dispose()
        redis.close()


def test_a_redis_that_dies_before_the_acknowledgement_costs_nothing(
    database_url: str, engine: Engine, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, appendfsync="always") as server:
        settings = Settings(redis_url=server.url, database_url=database_url)
        redis = bootstrap.redis(settings)
        queue = bootstrap.queue(settings, redis)
        queue.ensure_group()
        processor = bootstrap.processor(settings, engine, redis)
        process(processor, sent(queue, placed(a=("SA", 2))))
        batch = sent(queue, shortage("o1", a=0))
        event.listen(engine, "commit", lambda _: server.kill(), once=True)
        with pytest.raises(RedisError):
            process(processor, batch)
        server.start()
        assert rows(engine, "SELECT operation FROM cancellations") == [("cancelOrder",)]
        assert queue.pending() == 1
        assert process(processor, Batch(batch.entry_ids, 1)) == 1
        assert rows(engine, "SELECT operation FROM cancellations") == [("cancelOrder",)]
        assert (queue.pending(), dead_letters(engine)) == (0, [])
        redis.close()


def test_a_full_batch_of_bad_events_fits_into_sqlite_as_it_comes(sqlite_url: str, redis_url: str) -> None:
    """SQLite's own limit of variables in a statement is 32,766; some distributions raise it."""
    settings = Settings(redis_url=redis_url, database_url=sqlite_url, batch_size=5000)
    engine, redis = bootstrap.engine(settings), bootstrap.redis(settings)

    def as_it_comes(connection: sqlite3.Connection, _: Any) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)

    event.listen(engine, "connect", as_it_comes)
    queue = bootstrap.queue(settings, redis)
    queue.ensure_group()
    queue.add([b"bad"] * settings.batch_size)
    processor = bootstrap.processor(settings, engine, redis)
    try:
        assert process(processor, read(queue, settings.batch_size)) == settings.batch_size
    except OperationalError as error:  # whose own text is the whole statement, 700 KB of it
        pytest.fail(str(error.orig), pytrace=False)
    assert rows(engine, "SELECT count(*) FROM dead_letters") == [(settings.batch_size,)]
    engine.dispose()
    redis.close()


@pytest.mark.parametrize("table", ["dead_letters", "conflicts"])
def test_what_the_database_complains_of_does_not_quote_the_event(
    table: str, impatient: Processor, queue: Queue, engine: Engine
) -> None:
    """Celery, ingress and relay log the error's text; an event's body never stands in a log."""
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO gone"))
    batch = sent(queue, placed("o1", a=("SA", 1)), shipped("o1", "f1", b=777_777), {"note": "call 777777"})
    with pytest.raises(DBAPIError, match=table) as told:
        process(impatient, batch)
    assert "777777" not in str(told.value)


def test_an_outbox_that_wakes_nobody_disturbs_nothing(processor: Processor, queue: Queue, outbox: Outbox) -> None:
    """Ten batches, no relay: the list stays at one element, and the stream is the relay's alone."""
    for number in range(10):
        process(processor, sent(queue, placed(f"o{number}", a=("SA", 2)), shortage(f"o{number}", a=0)))
    assert outbox.last_position() == 0


class InThread:
    """A call that another thread makes once it is told to."""

    def __init__(self, call: Callable[[], int]) -> None:
        self._started = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._future: Future[int] = self._pool.submit(lambda: call() if self._started.wait(PATIENCE_SECONDS) else -1)

    def __enter__(self) -> "InThread":
        return self

    def __exit__(self, *_: object) -> None:
        self._started.set()
        self._pool.shutdown()

    def go(self) -> None:
        self._started.set()

    def result(self) -> int:
        return self._future.result(PATIENCE_SECONDS)


def sent(queue: Queue, *events: Json) -> Batch:
    """Events on the queue, read and to be processed."""
    queue.add([to_bytes(one) for one in events])
    return read(queue, len(events))


def read(queue: Queue, count: int) -> Batch:
    entries = queue.read(count, 1000)
    assert len(entries) == count
    return Batch([entry.entry_id for entry in entries])


def rows(engine: Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def dead_letters(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT code, bytes FROM dead_letters ORDER BY dead_letter_id")))


def everything(engine: Engine) -> dict[str, list[Any]]:
    tables = ("orders", "order_items", "events", "cancellations", "waiting_events", "dead_letters", "conflicts")
    return {name: rows(engine, f"SELECT * FROM {name} ORDER BY 1, 2") for name in tables}


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)

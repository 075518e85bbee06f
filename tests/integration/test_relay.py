"""The ledger's publisher on both databases and a real Redis: no gap, no duplicate, no swap, and no silence."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from redis import Redis
from sqlalchemy import Engine, text

from tests.builders import placed, shortage, to_bytes
from tests.servers import RedisServer
from worker import bootstrap
from worker import relay as relay_module
from worker.process import Processor, process
from worker.relay import Relay, StreamDiverged
from worker.settings import Settings, SettingsError, load
from worker.storage import ledger
from worker.storage.database import transaction
from worker.streams import Batch, ForeignEntry, Outbox

STREAM = "order.cancelled"
PATIENCE_SECONDS = 20
Cancel = Callable[[int], None]


@pytest.fixture
def cancel(processor: Processor) -> Cancel:
    """Commit so many more cancellations: of new orders, one each."""
    numbers = count(1)

    def cancel(how_many: int) -> None:
        names = [f"order-{next(numbers)}" for _ in range(how_many)]
        processor.queue.add([to_bytes(placed(name, a=("SA", 1))) for name in names])
        processor.queue.add([to_bytes(shortage(name, a=0)) for name in names])
        entries = processor.queue.read(2 * how_many, 1000)
        process(processor, Batch([entry.entry_id for entry in entries]))

    return cancel


@pytest.fixture
def relay(settings: Settings, engine: Engine, redis: Redis) -> Relay:
    return bootstrap.relay(settings, engine, redis)


@pytest.fixture
def new_relay(settings: Settings, engine: Engine, redis: Redis) -> Callable[[], Relay]:
    """A relay process that starts anew: it knows nothing."""
    return lambda: bootstrap.relay(settings, engine, redis)


def test_where_nothing_was_cancelled_there_is_nothing_to_publish(relay: Relay, redis: Redis) -> None:
    assert relay.run_once() == 0
    assert not redis.exists(STREAM)


def test_positions_are_given_from_one_on_in_ledger_order(
    relay: Relay, cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    cancel(3)
    assert relay.run_once() == 3
    cancel(2)
    assert [relay.run_once(), relay.run_once()] == [2, 0]
    assert positions(engine) == [1, 2, 3, 4, 5]
    published_is_the_ledger(engine, redis, 5)


def test_a_cancellation_that_did_not_commit_is_not_published(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    cancel(1)
    with engine.connect() as connection:
        copy = (
            "INSERT INTO cancellations SELECT 99, 'c', order_id, 99, operation, units, reason, cause_source, cause_id, "
        )
        connection.execute(text(copy + "cancelled_at, payload, NULL FROM cancellations"))
        connection.rollback()
    until_published(new_relay(), redis, 1)
    published_is_the_ledger(engine, redis, 1)


def test_more_than_one_batch_is_published_one_after_the_other(
    relay: Relay, cancel: Cancel, engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "BATCH", 4)
    cancel(10)
    assert [relay.run_once() for _ in range(4)] == [4, 4, 2, 0]
    published_is_the_ledger(engine, redis, 10)


def test_two_relays_in_turn_publish_as_one(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    one, other = new_relay(), new_relay()
    for turn in range(1, 7):
        cancel(2)
        until_published(one if turn % 2 else other, redis, 2 * turn)
        published_is_the_ledger(engine, redis, 2 * turn)


def test_a_relay_tells_only_of_what_it_appended_itself(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    one, other = new_relay(), new_relay()
    cancel(1)
    appended = one.run_once()
    cancel(1)
    appended += other.run_once()
    appended += one.run_once()
    assert appended == 2
    published_is_the_ledger(engine, redis, 2)


def test_three_relays_at_once_publish_as_one(
    settings: Settings, engine: Engine, redis: Redis, cancel: Cancel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "BATCH", 3)
    total, ended = 45, threading.Event()

    def publish() -> int:
        appended, own = 0, bootstrap.redis(settings)
        relay = bootstrap.relay(settings, engine, own)
        while not ended.is_set():
            appended += bool(relay.run_once())
        own.close()
        return appended

    with ThreadPoolExecutor(3) as pool:
        relays = [pool.submit(publish) for _ in range(3)]
        try:
            for _ in range(total // 5):
                cancel(5)
            wait_for(lambda: redis.xlen(STREAM) >= total or any(one.done() for one in relays), "all to be published")
        finally:
            ended.set()
        assert sum(one.result(PATIENCE_SECONDS) for one in relays) > 1
    published_is_the_ledger(engine, redis, total)


def test_a_relay_that_dies_between_positions_and_append_leaves_no_gap(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    cancel(2)
    with transaction(engine) as connection:
        assert ledger.assign_positions(connection, 0, 500)[0].assigned == 2
    cancel(1)
    until_published(new_relay(), redis, 3)
    published_is_the_ledger(engine, redis, 3)


def test_a_relay_that_dies_in_the_middle_of_its_appends_leaves_no_gap(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    cancel(3)
    with transaction(engine) as connection:
        ledger.assign_positions(connection, 0, 500)
    redis.xadd(STREAM, {"event": payloads(engine)[0]}, id="1-0")
    assert new_relay().run_once() == 2
    published_is_the_ledger(engine, redis, 3)


def test_a_deleted_stream_is_appended_again_from_the_first_and_loudly(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    cancel(3)
    until_published(new_relay(), redis, 3, and_once_more=True)
    redis.delete(STREAM)
    with structlog.testing.capture_logs() as logs:
        until_published(new_relay(), redis, 3)
    (told,) = (line for line in logs if line["event"] == "relay.stream_lost_entries")
    assert (told["log_level"], told["ends_at"], told["published_before"]) == ("error", 0, 3)
    published_is_the_ledger(engine, redis, 3)


def test_a_deleted_stream_is_appended_again_when_the_next_one_is_cancelled(
    relay: Relay, cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    cancel(3)
    until_published(relay, redis, 3, and_once_more=True)
    redis.delete(STREAM)
    cancel(1)
    with structlog.testing.capture_logs() as logs:
        until_published(relay, redis, 4)
    assert "relay.stream_lost_entries" in {line["event"] for line in logs}
    published_is_the_ledger(engine, redis, 4)


def test_a_deleted_stream_is_appended_again_though_nothing_more_is_cancelled(
    relay: Relay, cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    cancel(3)
    until_published(relay, redis, 3, and_once_more=True)
    redis.delete(STREAM)
    for _ in range(5):
        relay.run_once()
    published_is_the_ledger(engine, redis, 3)


def test_a_part_that_redis_lost_is_appended_again_and_loudly(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    cancel(4)
    until_published(new_relay(), redis, 4, and_once_more=True)
    redis.delete(STREAM)
    for number, payload in enumerate(payloads(engine)[:2], start=1):
        redis.xadd(STREAM, {"event": payload}, id=f"{number}-0")
    with structlog.testing.capture_logs() as logs:
        assert new_relay().run_once() == 2
    (told,) = (line for line in logs if line["event"] == "relay.stream_lost_entries")
    assert (told["log_level"], told["ends_at"], told["published_before"]) == ("error", 2, 4)
    published_is_the_ledger(engine, redis, 4)


def test_a_relay_that_starts_anew_says_nothing_of_losses_where_there_are_none(
    new_relay: Callable[[], Relay], cancel: Cancel, redis: Redis
) -> None:
    cancel(2)
    until_published(new_relay(), redis, 2, and_once_more=True)
    redis.xtrim(STREAM, maxlen=0, approximate=False)
    with structlog.testing.capture_logs() as logs:
        assert new_relay().run_once() == 0
    assert [line for line in logs if line["log_level"] in ("warning", "error")] == []


def test_what_another_relay_publishes_meanwhile_is_not_taken_for_a_loss(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    other = new_relay()
    cancel(2)

    class Overtaken(Outbox):
        """The other relay publishes, and notes it, just after this one has seen where the stream ends."""

        def last_position(self) -> int:
            end = super().last_position()
            until_published(other, redis, 2, and_once_more=True)
            return end

    with structlog.testing.capture_logs() as logs:
        assert Relay(engine, Overtaken(redis, STREAM)).run_once() == 0
    assert "relay.stream_lost_entries" not in {line["event"] for line in logs}
    published_is_the_ledger(engine, redis, 2)


def test_after_trimming_to_nothing_it_goes_on(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    relay = new_relay()
    cancel(2)
    until_published(relay, redis, 2)
    for last, publisher in ((3, relay), (4, new_relay())):
        redis.xtrim(STREAM, maxlen=0, approximate=False)
        cancel(1)
        assert publisher.run_once() == 1
        assert list(published(redis)) == [f"{last}-0"]
    assert positions(engine) == [1, 2, 3, 4]


@pytest.mark.parametrize("known_before", [True, False])
def test_a_stream_that_is_ahead_of_the_ledger_stops_it(
    known_before: bool, new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    relay = new_relay()
    if known_before:
        cancel(2)
        until_published(relay, redis, 2)
    redis.xadd(STREAM, {"event": "foreign"}, id="7-0")
    cancel(1)
    before = published(redis)
    with pytest.raises(StreamDiverged) as told:
        run_some(relay)
    sentence = str(told.value)
    assert STREAM in sentence
    assert "position 7" in sentence
    assert f"only up to {positions(engine)[-1] if positions(engine) else 0}" in sentence
    assert "Nothing is published" in sentence
    assert published(redis) == before


def test_an_old_copy_of_the_database_stops_it(
    new_relay: Callable[[], Relay], cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    cancel(3)
    until_published(new_relay(), redis, 3)
    with engine.begin() as connection:
        for statement in (
            "DELETE FROM cancellations WHERE position = 3",
            "UPDATE publication SET next_position = 3, appended_position = 2",
        ):
            connection.execute(text(statement))
    with pytest.raises(StreamDiverged, match="an old copy of it was restored"):
        new_relay().run_once()


def test_a_last_entry_that_is_not_the_ledgers_stops_it(
    new_relay: Callable[[], Relay], cancel: Cancel, redis: Redis
) -> None:
    cancel(2)
    until_published(new_relay(), redis, 2)
    redis.xdel(STREAM, "1-0", "2-0")
    redis.delete(STREAM)
    redis.xadd(STREAM, {"event": "foreign"}, id="2-0")
    cancel(1)
    with pytest.raises(StreamDiverged, match=r"the entry at position 2 of the stream order\.cancelled is not"):
        new_relay().run_once()
    assert published(redis) == {"2-0": b"foreign"}


def test_a_foreign_entry_at_the_next_position_is_not_taken_for_its_own(
    relay: Relay, cancel: Cancel, redis: Redis
) -> None:
    """The relay has just published; somebody else then writes the very position that comes next."""
    cancel(1)
    until_published(relay, redis, 1)
    redis.xadd(STREAM, {"event": "foreign"}, id="2-0")
    cancel(1)
    with pytest.raises(StreamDiverged):
        run_some(relay)
    assert list(published(redis)) == ["1-0", "2-0"]


@pytest.mark.parametrize("entry_id", ["5-3", "2-1"])
@pytest.mark.parametrize("known_before", [True, False])
def test_an_id_that_is_no_position_stops_it(
    known_before: bool, entry_id: str, new_relay: Callable[[], Relay], cancel: Cancel, redis: Redis
) -> None:
    relay = new_relay()
    if known_before:
        cancel(1)
        until_published(relay, redis, 1)
    redis.xadd(STREAM, {"event": "foreign"}, id=entry_id)
    cancel(1)
    length = redis.xlen(STREAM)
    with pytest.raises(ForeignEntry, match=entry_id):
        run_some(relay)
    assert redis.xlen(STREAM) == length


def test_a_stopped_relay_goes_on_by_itself_once_a_person_has_decided(
    relay: Relay, cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    redis.xadd(STREAM, {"event": "foreign"}, id="5-3")
    cancel(2)
    with pytest.raises(ForeignEntry):
        relay.run_once()
    redis.delete(STREAM)
    until_published(relay, redis, 2)
    published_is_the_ledger(engine, redis, 2)


def test_it_publishes_each_commit_until_told_to_stop(
    relay: Relay, cancel: Cancel, engine: Engine, redis: Redis
) -> None:
    with running(relay):
        for number in (2, 4, 6):
            cancel(2)
            wait_for(lambda number=number: redis.xlen(STREAM) == number, "the cancellations to be published")
    published_is_the_ledger(engine, redis, 6)


def test_it_complains_of_a_foreign_entry_and_runs_on(relay: Relay, cancel: Cancel, redis: Redis) -> None:
    redis.xadd(STREAM, {"event": "foreign"}, id="5-3")
    cancel(1)
    with structlog.testing.capture_logs() as logs:
        with running(relay):
            wait_for(lambda: any(line["event"] == "relay.stopped" for line in logs), "a complaint")
    (told, *_) = (line for line in logs if line["event"] == "relay.stopped")
    assert told["log_level"] == "error"
    assert "5-3" in told["detail"]
    assert redis.xlen(STREAM) == 1


def test_it_survives_that_redis_is_killed_and_started_again(
    processor: Processor, cancel: Cancel, engine: Engine, database_url: str, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, appendfsync="always") as server:
        settings = Settings(redis_url=server.url, database_url=database_url)
        redis = bootstrap.redis(settings)
        with running(bootstrap.relay(settings, engine, redis)):
            cancel(2)
            wait_for(lambda: redis.xlen(STREAM) == 2, "the first to be published")
            server.kill()
            cancel(2)
            server.start()
            wait_for(lambda: redis.xlen(STREAM) == 4, "the rest to be published")
        published_is_the_ledger(engine, redis, 4)
        redis.close()


def test_a_short_timeout_for_redis_is_refused_or_bears_that_nothing_is_published(
    settings: Settings, engine: Engine
) -> None:
    """Waiting to be woken is a blocking command: it must not outlast its client's timeout."""
    try:
        chosen = load(**{**settings.model_dump(), "redis_timeout_seconds": 0.2})
    except SettingsError:
        return
    with bootstrap.redis(chosen) as client:
        bootstrap.outbox(chosen, client).wait_for_wake(relay_module.WAIT_SECONDS)


@contextmanager
def running(relay: Relay) -> Iterator[None]:
    """Run it in a thread; it must still live at the end, and stop when told."""
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(relay.run, stopping)
        try:
            yield
            assert not run.done()
        finally:
            stopping.set()
        run.result(PATIENCE_SECONDS)


def run_some(relay: Relay) -> None:
    """As often as its loop would in a moment: what it misses once it may notice next time."""
    for _ in range(4):
        relay.run_once()


def until_published(relay: Relay, redis: Redis, position: int, *, and_once_more: bool = False) -> None:
    """Run it until the stream ends there. A relay notes how far the stream got when it runs once more."""
    for _ in range(5):
        relay.run_once()
        if redis.exists(STREAM) and redis.xinfo_stream(STREAM)["last-generated-id"] == f"{position}-0".encode():
            break
    else:
        pytest.fail(f"the stream does not end at {position}: it holds {list(published(redis))}")
    if and_once_more:
        assert relay.run_once() == 0


def published(redis: Redis) -> dict[str, bytes]:
    entries: Any = redis.xrange(STREAM)
    return {entry_id.decode(): fields[b"event"] for entry_id, fields in entries}


def published_is_the_ledger(engine: Engine, redis: Redis, length: int) -> None:
    expected = {f"{number}-0": payload.encode() for number, payload in enumerate(payloads(engine), start=1)}
    assert len(expected) == length
    assert list(published(redis).items()) == list(expected.items())
    assert positions(engine) == list(range(1, length + 1))


def payloads(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT payload FROM cancellations ORDER BY ledger_id")).scalars())


def positions(engine: Engine) -> list[int]:
    """Those that were given, in ledger order."""
    statement = "SELECT position FROM cancellations WHERE position IS NOT NULL ORDER BY ledger_id"
    with engine.connect() as connection:
        return list(connection.execute(text(statement)).scalars())


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)

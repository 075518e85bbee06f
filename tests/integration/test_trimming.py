"""The outgoing stream is trimmed by age, on both databases and a real Redis: never what a group needs, never a gap."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog.testing
from redis import Redis
from sqlalchemy import Engine, text

from tests.integration.publishing import STREAM, Publisher, positions, run_some, wrong
from worker import bootstrap, upkeep
from worker.process import Processor
from worker.publication import StreamDiverged
from worker.relay import Relay
from worker.settings import Settings
from worker.storage.tables import stored
from worker.streams import ForeignEntry, Outbox
from worker.upkeep import prune_cancelled

DAY = timedelta(days=1)
AT_ONCE = -DAY
Publish = Callable[..., None]


@pytest.fixture
def engine(emptied_engine: Engine) -> Engine:
    return emptied_engine


@pytest.fixture
def database_url(emptied_engine: Engine) -> str:
    return emptied_engine.url.render_as_string(hide_password=False)


@pytest.fixture
def relay(settings: Settings, engine: Engine, redis: Redis) -> Relay:
    return bootstrap.relay(settings, engine, redis)


@pytest.fixture
def publish(processor: Processor, engine: Engine, relay: Relay) -> Publish:
    """Cancel so many more orders, as if so many days ago, and publish that."""
    publisher = Publisher(processor, relay)

    def publish(how_many: int, days_ago: float = 0) -> None:
        names = publisher.publish(how_many)
        with engine.begin() as connection:
            at = stored(datetime.now(UTC) - timedelta(days=days_ago))
            statement = text("UPDATE cancellations SET cancelled_at = :at WHERE order_id >= :first")
            connection.execute(statement, {"at": at, "first": names[0]})

    return publish


def test_what_is_old_is_trimmed_and_the_rest_stays(
    publish: Publish, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(3, days_ago=9)
    publish(2, days_ago=5)
    publish(1)
    assert prune_cancelled(engine, outbox, 10 * DAY) == 0
    assert prune_cancelled(engine, outbox, 7 * DAY) == 3
    assert prune_cancelled(engine, outbox, 7 * DAY) == 0
    assert positions(redis) == [4, 5, 6]
    assert first_position(engine) == 4
    assert wrong(engine, redis) == []


def test_an_older_cancellation_behind_a_younger_one_stays_until_that_one_goes(
    publish: Publish, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    """It committed late. What lies between two entries of a stream is never removed."""
    publish(1, days_ago=9)
    publish(1, days_ago=6)
    publish(1, days_ago=9)
    assert prune_cancelled(engine, outbox, 7 * DAY) == 1
    assert positions(redis) == [2, 3]


def test_a_stream_that_was_trimmed_to_nothing_goes_on(
    publish: Publish, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(3)
    assert prune_cancelled(engine, outbox, AT_ONCE) == 3
    assert (positions(redis), first_position(engine)) == ([], 4)
    assert wrong(engine, redis) == []
    publish(2)
    assert positions(redis) == [4, 5]
    assert wrong(engine, redis) == []


def test_what_a_group_has_not_read_and_acknowledged_stays_and_is_told(
    publish: Publish, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(6)
    for name, read, acknowledged in (("refunds", 6, 6), ("mail", 4, 2)):
        redis.xgroup_create(STREAM, name, "0")
        redis.xreadgroup(name, "one", {STREAM: ">"}, read)
        redis.xack(STREAM, name, *(f"{number}-0" for number in range(1, acknowledged + 1)))
    with structlog.testing.capture_logs() as logs:
        assert prune_cancelled(engine, outbox, AT_ONCE) == 2
    assert positions(redis) == [3, 4, 5, 6]
    (told,) = (line for line in logs if line["event"] == "cancelled.kept")
    assert (told["log_level"], told["group"]) == ("warning", "mail")
    assert wrong(engine, redis) == []
    redis.xack(STREAM, "mail", "3-0", "4-0")
    assert prune_cancelled(engine, outbox, AT_ONCE) == 2
    assert positions(redis) == [5, 6]
    redis.xgroup_destroy(STREAM, "mail")
    with structlog.testing.capture_logs() as logs:
        assert prune_cancelled(engine, outbox, AT_ONCE) == 2
    assert [line["event"] for line in logs] == ["cancelled.pruned"]


def test_a_group_that_never_read_keeps_everything(
    publish: Publish, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    redis.xgroup_create(STREAM, "new", "0", mkstream=True)
    publish(3)
    assert prune_cancelled(engine, outbox, AT_ONCE) == 0
    delivered: Any = redis.xreadgroup("new", "one", {STREAM: ">"}, 10)
    assert len(delivered[0][1]) == 3


def test_much_is_trimmed_chunk_by_chunk(
    publish: Publish, engine: Engine, outbox: Outbox, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CHUNK", 4)
    publish(10)
    assert prune_cancelled(engine, outbox, AT_ONCE, deadline=0) == 4
    assert (positions(redis), first_position(engine)) == ([5, 6, 7, 8, 9, 10], 5)
    assert prune_cancelled(engine, outbox, AT_ONCE) == 6


def test_of_a_stream_that_is_not_its_own_nothing_is_trimmed(
    publish: Publish, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(2)
    redis.xadd(STREAM, {"event": "foreign"}, id="3-0")
    with pytest.raises(StreamDiverged):
        prune_cancelled(engine, outbox, AT_ONCE)
    redis.xadd(STREAM, {"event": "foreign"}, id="3-7")
    with pytest.raises(ForeignEntry):
        prune_cancelled(engine, outbox, AT_ONCE)
    assert redis.xlen(STREAM) == 4


def test_where_nothing_was_published_there_is_nothing_to_trim(engine: Engine, outbox: Outbox, redis: Redis) -> None:
    assert prune_cancelled(engine, outbox, AT_ONCE) == 0
    assert not redis.exists(STREAM)
    assert first_position(engine) == 1


# A stream that is lost after it was trimmed


def test_a_lost_stream_begins_where_it_had_begun(
    publish: Publish, relay: Relay, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(3, days_ago=9)
    publish(3)
    prune_cancelled(engine, outbox, 7 * DAY)
    before = redis.xrange(STREAM)
    redis.delete(STREAM)
    with structlog.testing.capture_logs() as logs:
        run_some(relay)
    assert redis.xrange(STREAM) == before
    assert positions(redis) == [4, 5, 6]
    (told,) = (line for line in logs if line["event"] == "relay.stream_lost_entries")
    assert (told["ends_at"], told["appended_from"], told["published_before"]) == (0, 4, 6)
    assert wrong(engine, redis) == []


def test_what_was_trimmed_and_not_noted_is_appended_once_more_and_noted_then(
    publish: Publish, relay: Relay, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    """The worker died between the two."""
    publish(2, days_ago=9)
    publish(2)
    prune_cancelled(engine, outbox, 7 * DAY)
    with engine.begin() as connection:
        connection.execute(text("UPDATE publication SET first_position = 1"))
    redis.delete(STREAM)
    run_some(relay)
    assert positions(redis) == [1, 2, 3, 4]
    assert prune_cancelled(engine, outbox, 7 * DAY) == 2
    assert first_position(engine) == 3
    assert wrong(engine, redis) == []


def test_what_a_slow_group_needed_is_appended_again_though_it_is_old(
    publish: Publish, relay: Relay, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(4)
    redis.xgroup_create(STREAM, "mail", "2-0")
    prune_cancelled(engine, outbox, AT_ONCE)
    redis.delete(STREAM)
    redis.xgroup_create(STREAM, "mail", "2-0", mkstream=True)  # as a subscriber does that finds its group gone
    run_some(relay)
    delivered: Any = redis.xreadgroup("mail", "one", {STREAM: ">"}, 10)
    assert [entry_id for entry_id, _ in delivered[0][1]] == [b"3-0", b"4-0"]


def test_a_stream_that_is_lost_after_it_was_trimmed_to_nothing_goes_on(
    publish: Publish, relay: Relay, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(3)
    prune_cancelled(engine, outbox, AT_ONCE)
    redis.delete(STREAM)
    run_some(relay)
    assert positions(redis) == []
    publish(1)
    assert positions(redis) == [4]
    assert wrong(engine, redis) == []


def test_a_stream_that_lost_only_its_end_has_no_gap(
    publish: Publish, relay: Relay, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    """An old copy of Redis was restored: from before the trimming."""
    publish(2)
    old = redis.dump(STREAM)
    publish(4)
    prune_cancelled(engine, outbox, AT_ONCE)
    redis.restore(STREAM, 0, old, replace=True)
    run_some(relay)
    assert positions(redis) == [1, 2, 3, 4, 5, 6]
    prune_cancelled(engine, outbox, 7 * DAY)
    assert first_position(engine) == 1
    assert wrong(engine, redis) == []


def test_of_two_relays_one_begins_a_lost_stream(
    publish: Publish, settings: Settings, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(5)
    redis.xgroup_create(STREAM, "mail", "3-0")
    prune_cancelled(engine, outbox, AT_ONCE)
    redis.delete(STREAM)
    relays = [bootstrap.relay(settings, engine, redis) for _ in range(2)]
    for _ in range(3):
        for one in relays:
            one.run_once()
    assert positions(redis) == [4, 5]


def first_position(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT first_position FROM publication")).scalar_one())

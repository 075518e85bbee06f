"""The stream commands on a real Redis: what counts as a start, what is lost, and how the outgoing stream grows."""

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.integration.batches import starts_of
from tests.servers import RedisServer
from worker.streams import Entry, ForeignEntry, Outbox, Queue

LONG = 10**6
"""Milliseconds that no entry of these tests has been idle."""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """No test here needs more of a database than that settings name one."""
    return sqlite_url


def test_to_read_is_no_start(queue: Queue) -> None:
    (one,) = read(queue, b"one")
    assert starts_of(queue.take_overdue(0, 10)) == {one.entry_id: 0}


def test_each_start_counts(queue: Queue) -> None:
    (one,) = read(queue, b"one")
    for starts in (1, 2, 3):
        assert queue.start([one.entry_id]) == [one]
        assert starts_of(queue.take_overdue(0, 10)) == {one.entry_id: starts}


def test_to_take_what_is_overdue_is_no_start(queue: Queue) -> None:
    (one,) = read(queue, b"one")
    queue.start([one.entry_id])
    for _ in range(5):
        assert starts_of(queue.take_overdue(0, 10)) == {one.entry_id: 1}


def test_to_take_what_is_overdue_makes_its_idle_time_start_anew(queue: Queue) -> None:
    (one,) = read(queue, b"one")
    queue.give_back([one.entry_id], 0, LONG)
    assert starts_of(queue.take_overdue(LONG, 10)) == {one.entry_id: 0}
    assert queue.take_overdue(LONG, 10) == []


def test_a_start_makes_the_idle_time_start_anew(queue: Queue) -> None:
    (one,) = read(queue, b"one")
    queue.give_back([one.entry_id], 0, LONG)
    queue.start([one.entry_id])
    assert queue.take_overdue(LONG, 10) == []


def test_what_is_given_back_has_its_starts_of_before_and_is_overdue_sooner(queue: Queue) -> None:
    one, two = read(queue, b"one", b"two")
    queue.start([one.entry_id, two.entry_id])
    queue.start([one.entry_id, two.entry_id])
    assert queue.take_overdue(LONG, 10) == []
    queue.give_back([one.entry_id], 1, LONG)
    assert starts_of(queue.take_overdue(LONG, 10)) == {one.entry_id: 1}
    assert starts_of(queue.take_overdue(0, 10)) == {one.entry_id: 1, two.entry_id: 2}


def test_a_start_that_is_given_back_can_be_repeated_for_ever(queue: Queue) -> None:
    (one,) = read(queue, b"one")
    for _ in range(20):
        assert queue.start([one.entry_id]) == [one]
        queue.give_back([one.entry_id], 0, 0)
    assert starts_of(queue.take_overdue(0, 10)) == {one.entry_id: 0}


def test_an_acknowledged_entry_is_never_overdue_and_cannot_be_started(queue: Queue) -> None:
    (one,) = read(queue, b"one")
    queue.acknowledge([one.entry_id])
    queue.acknowledge([one.entry_id])
    assert queue.start([one.entry_id]) == []
    queue.give_back([one.entry_id], 3, LONG)
    assert (queue.take_overdue(0, 10), queue.pending()) == ([], 0)


def test_no_more_is_taken_than_was_asked_for_and_the_oldest_first(queue: Queue) -> None:
    entries = read(queue, *(b"%d" % number for number in range(5)))
    assert [one.entry_id for one in queue.take_overdue(0, 2)] == [one.entry_id for one in entries[:2]]


def test_two_who_look_at_once_do_not_both_take_an_entry(queue: Queue, redis: Redis) -> None:
    entries = read(queue, b"one", b"two")
    queue.give_back([one.entry_id for one in entries], 0, LONG)
    other = Queue(redis, queue.stream, queue.group)
    assert len(queue.take_overdue(LONG, 10)) + len(other.take_overdue(LONG, 10)) == 2


def test_what_was_deleted_is_lost_before_it_was_started(queue: Queue, redis: Redis) -> None:
    one, two = read(queue, b"one", b"two")
    redis.xdel(queue.stream, one.entry_id)
    overdue = queue.take_overdue(0, 10)
    assert [(found.entry_id, found.size) for found in overdue] == [
        (one.entry_id, None),
        (two.entry_id, len(b"event" + b"two")),
    ]


def test_what_was_deleted_after_it_was_dispatched_is_skipped_and_stays_to_be_told(queue: Queue, redis: Redis) -> None:
    one, two = read(queue, b"one", b"two")
    redis.xdel(queue.stream, one.entry_id)
    assert queue.start([one.entry_id, two.entry_id]) == [two]
    assert queue.pending() == 2
    assert [found.entry_id for found in queue.take_overdue(0, 10) if found.size is None] == [one.entry_id]


def test_what_is_there_is_not_lost_though_it_is_empty(queue: Queue, redis: Redis) -> None:
    (one,) = read(queue, b"")
    redis.xadd(queue.stream, {"other": "x"})
    (two,) = queue.read(10, 1)
    assert [entry.entry_id for entry in queue.start([one.entry_id, two.entry_id])] == [one.entry_id, two.entry_id]
    assert None not in [found.size for found in queue.take_overdue(0, 10)]


def test_a_read_waits_no_longer_than_it_was_told(queue: Queue) -> None:
    assert queue.read(10, 20) == []


def test_positions_are_entry_ids(outbox: Outbox, redis: Redis) -> None:
    assert outbox.last_position() == 0
    assert outbox.append(1, ["a", "b", "c"])
    assert published(redis, outbox) == {"1-0": b"a", "2-0": b"b", "3-0": b"c"}
    assert outbox.last_position() == 3
    assert (outbox.entry(2), outbox.entry(4)) == (b"b", None)
    assert outbox.read(after=1, count=1, block_milliseconds=None) == [(2, b"b")]


@pytest.mark.parametrize("position", [1, 2, 4, 100])
def test_with_a_wrong_predecessor_nothing_is_appended(position: int, outbox: Outbox, redis: Redis) -> None:
    outbox.append(1, ["a", "b"])
    assert not outbox.append(position, ["x", "y"])
    assert published(redis, outbox) == {"1-0": b"a", "2-0": b"b"}


def test_an_empty_stream_takes_only_the_first_position(outbox: Outbox, redis: Redis) -> None:
    assert not outbox.append(2, ["x"])
    assert published(redis, outbox) == {}


def test_a_reply_that_is_lost_and_a_repeat_do_no_harm(outbox: Outbox, redis: Redis) -> None:
    outbox.append(1, ["a", "b"])
    assert not outbox.append(1, ["a", "b"])
    assert outbox.append(3, ["c"])
    assert list(published(redis, outbox).values()) == [b"a", b"b", b"c"]


def test_large_positions_are_exact(outbox: Outbox, redis: Redis) -> None:
    redis.xadd(outbox.stream, {"event": "a"}, id=f"{2**50}-0")
    assert outbox.append(2**50 + 1, ["b"])
    assert outbox.entry(2**50 + 1) == b"b"


@pytest.mark.parametrize("text", ["", "é ☃ 😀", "\x00\r\n", "x" * 200_000])
def test_an_event_is_published_byte_for_byte(text: str, outbox: Outbox) -> None:
    outbox.append(1, [text])
    assert outbox.entry(1) == text.encode()


def test_trimming_to_nothing_does_not_lower_the_end(outbox: Outbox, redis: Redis) -> None:
    outbox.append(1, ["a", "b"])
    redis.xtrim(outbox.stream, maxlen=0, approximate=False)
    assert outbox.last_position() == 2
    assert outbox.append(3, ["c"])
    assert published(redis, outbox) == {"3-0": b"c"}


def test_after_its_deletion_the_stream_starts_anew(outbox: Outbox, redis: Redis) -> None:
    outbox.append(1, ["a", "b"])
    redis.delete(outbox.stream)
    assert outbox.last_position() == 0
    assert not outbox.append(3, ["c"])
    assert outbox.append(1, ["a", "b", "c"])


def test_a_stream_can_begin_with_any_position(outbox: Outbox, redis: Redis) -> None:
    redis.xgroup_create(outbox.stream, "mail", "0", mkstream=True)  # it exists, and never had an entry
    assert outbox.begin(41)
    assert (outbox.first_position(), outbox.last_position()) == (None, 40)
    assert not outbox.append(1, ["x"])
    assert outbox.append(41, ["a", "b"])
    assert published(redis, outbox) == {"41-0": b"a", "42-0": b"b"}
    assert outbox.first_position() == 41
    assert redis.xreadgroup("mail", "one", {outbox.stream: ">"})[0][1][0] == (b"41-0", {b"event": b"a"})


def test_a_stream_that_begins_with_one_needs_nothing(outbox: Outbox, redis: Redis) -> None:
    assert outbox.begin(1)
    assert not redis.exists(outbox.stream)
    assert outbox.append(1, ["a"])


def test_a_stream_begins_once(outbox: Outbox, redis: Redis) -> None:
    outbox.append(1, ["a"])
    redis.xtrim(outbox.stream, maxlen=0, approximate=False)
    for position in (1, 2, 9):
        assert not outbox.begin(position)
    assert outbox.last_position() == 1


def test_where_a_stream_begins_outlives_a_crash_of_redis(
    outbox: Outbox, redis: Redis, redis_server: RedisServer
) -> None:
    redis.config_set("appendfsync", "always")
    outbox.begin(41)
    redis_server.kill()
    redis_server.start()
    assert outbox.last_position() == 40


def test_a_group_lags_until_it_has_acknowledged_what_is_asked_for(outbox: Outbox, redis: Redis) -> None:
    assert outbox.lagging(5) == []
    outbox.append(1, ["a", "b", "c"])
    redis.xgroup_create(outbox.stream, "mail", "0")
    redis.xgroup_create(outbox.stream, "refunds", "3-0")
    assert (outbox.lagging(4), outbox.lagging(1)) == (["mail"], [])
    redis.xreadgroup("mail", "one", {outbox.stream: ">"}, 3)
    redis.xack(outbox.stream, "mail", "1-0", "3-0")
    assert (outbox.lagging(2), outbox.lagging(3)) == ([], ["mail"])
    redis.xack(outbox.stream, "mail", "2-0")
    assert outbox.lagging(4) == []


@pytest.mark.parametrize("entry_id", ["5-3", "0-1"])
def test_an_id_that_is_no_position_is_a_foreign_entry(entry_id: str, outbox: Outbox, redis: Redis) -> None:
    redis.xadd(outbox.stream, {"event": "x"}, id=entry_id)
    with pytest.raises(ForeignEntry, match=f"{outbox.stream} ends with entry {entry_id}, which Shortpick did not"):
        outbox.last_position()


def test_a_foreign_end_is_never_taken_for_ones_own_append(outbox: Outbox, redis: Redis) -> None:
    outbox.append(1, ["a", "b"])
    redis.xadd(outbox.stream, {"event": "x"}, id="3-7")
    with pytest.raises(ForeignEntry):
        outbox.append(3, ["c"])
    assert list(published(redis, outbox)) == ["1-0", "2-0", "3-7"]


def test_a_key_of_another_type_is_an_error_and_no_empty_stream(outbox: Outbox, redis: Redis) -> None:
    redis.set(outbox.stream, "a text")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        outbox.last_position()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        outbox.append(1, ["a"])


def test_the_stream_outlives_a_crash_of_redis_and_goes_on(
    outbox: Outbox, redis: Redis, redis_server: RedisServer
) -> None:
    redis.config_set("appendfsync", "always")
    outbox.append(1, ["a"])
    redis.xtrim(outbox.stream, maxlen=0, approximate=False)
    redis_server.kill()
    redis_server.start()
    assert outbox.last_position() == 1
    assert outbox.append(2, ["b"])


def read(queue: Queue, *events: bytes) -> list[Entry]:
    """Add events, and read them as the group."""
    queue.add(events)
    entries = queue.read(len(events), 1000)
    assert [entry.raw for entry in entries] == list(events)
    return entries


def published(redis: Redis, outbox: Outbox) -> dict[str, bytes]:
    return {entry_id.decode(): fields[b"event"] for entry_id, fields in redis.xrange(outbox.stream)}

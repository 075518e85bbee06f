"""The queue and the wake list as far as a fake Redis can tell; what counts starts needs a real one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer

from domain.errors import InvalidEvent
from domain.parsing import parse
from tests.builders import NOW
from worker.streams import FIELD, REMEMBERED_SECONDS, Entry, Outbox, Queue

STREAM = "order.events"
LATER = 10**6
"""A time after all entries of these tests."""


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def redis(server: FakeServer) -> Iterator[FakeRedis]:
    with FakeRedis(server=server, protocol=2) as client:
        yield client


@pytest.fixture
def queue(redis: FakeRedis) -> Queue:
    queue = Queue(redis, STREAM, "shortpick")
    queue.ensure_group()
    return queue


def test_what_was_sent_before_the_group_existed_is_read(redis: FakeRedis) -> None:
    queue = Queue(redis, STREAM, "shortpick")
    queue.add([b"early"])
    queue.ensure_group()
    assert [entry.raw for entry in queue.read(10, 1)] == [b"early"]


def test_to_ensure_the_group_again_leaves_it_where_it_was(queue: Queue) -> None:
    queue.add([b"one"])
    queue.read(10, 1)
    queue.ensure_group()
    assert queue.pending() == 1
    assert queue.read(10, 1) == []


def test_a_group_cannot_be_ensured_on_a_key_of_another_type(redis: FakeRedis) -> None:
    redis.set(STREAM, "a text")
    with pytest.raises(Exception, match="WRONGTYPE"):
        Queue(redis, STREAM, "shortpick").ensure_group()


def test_what_was_added_under_a_name_is_not_added_again(queue: Queue, redis: FakeRedis) -> None:
    first = queue.add_once({"a": b"one", "b": b"\xff\x00"})
    second = queue.add_once({"b": b"\xff\x00", "c": b"three"})
    assert second["b"] == first["b"]
    assert queue.add_once({}) == {}
    assert queue.read(10, 1) == [
        Entry(first["a"], b"one"),
        Entry(first["b"], b"\xff\x00"),
        Entry(second["c"], b"three"),
    ]
    assert 0 < redis.ttl(f"{STREAM}.added") <= REMEMBERED_SECONDS


def test_what_is_remembered_no_more_is_added_again(queue: Queue, redis: FakeRedis) -> None:
    (first,) = queue.add_once({"a": b"one"}).values()
    redis.delete(f"{STREAM}.added")
    (second,) = queue.add_once({"a": b"one"}).values()
    assert first != second


def test_entries_are_read_once_in_order_and_byte_for_byte(queue: Queue) -> None:
    events = [b"\xff\x00", b"", "é".encode(), b"\r\n"]
    queue.add(events)
    assert [entry.raw for entry in queue.read(3, 1) + queue.read(3, 1)] == events
    assert queue.read(3, 1) == []


def test_of_an_entry_without_the_field_nothing_is_lost(queue: Queue, redis: FakeRedis) -> None:
    redis.xadd(STREAM, {"other": "x", "more": b"\xff"}, id="7-0")
    assert queue.read(10, 1) == [Entry("7-0", b"other: x\nmore: \xff")]
    assert queue.start(["7-0"]) == [Entry("7-0", b"other: x\nmore: \xff")]


def test_fields_beside_the_event_are_ignored(queue: Queue, redis: FakeRedis) -> None:
    redis.xadd(STREAM, {"other": "x", "event": "y"}, id="7-0")
    assert queue.read(10, 1) == queue.start(["7-0"]) == [Entry("7-0", b"y")]


@pytest.mark.parametrize("fields", [["other", "{}"], ["event", "{}", "event", "{}"], ["Event", "{}", "x", "y"]])
def test_an_entry_without_just_one_field_for_its_event_is_started_with_all_that_it_holds(
    fields: list[str], queue: Queue, redis: FakeRedis
) -> None:
    redis.execute_command("XADD", STREAM, "7-0", *fields)
    queue.read(10, 1)
    (entry,) = queue.start(["7-0"])
    assert all(part.encode() in entry.raw for part in fields)
    with pytest.raises(InvalidEvent, match="not one JSON object"):
        parse(entry.raw, NOW)


def test_it_is_told_whether_there_are_entries_that_nobody_read(queue: Queue) -> None:
    assert not queue.has_unread()
    queue.add([b"one", b"two"])
    queue.read(1, 1)
    assert queue.has_unread()
    queue.read(1, 1)
    assert not queue.has_unread()


def test_a_start_skips_what_is_acknowledged_and_what_was_never_read(queue: Queue) -> None:
    queue.add([b"one", b"two", b"three"])
    one, two = queue.read(2, 1)
    queue.acknowledge([one.entry_id])
    unread = f"{10**15}-0"
    assert queue.start([one.entry_id, two.entry_id, unread]) == [two]


def test_nothing_to_acknowledge_or_to_give_back_is_no_error(queue: Queue) -> None:
    queue.add([b"one"])
    queue.read(1, 1)
    queue.acknowledge([])
    queue.give_back([], 0, 0)
    assert queue.pending() == 1


def test_an_acknowledged_entry_cannot_be_given_back(queue: Queue) -> None:
    queue.add([b"one"])
    ids = [entry.entry_id for entry in queue.read(1, 1)]
    queue.acknowledge(ids)
    queue.give_back(ids, 0, 0)
    assert queue.pending() == 0


def test_what_is_old_read_and_acknowledged_is_trimmed(queue: Queue, redis: FakeRedis) -> None:
    done(queue, *numbered(redis, 3))
    assert queue.trim(LATER) == 3
    assert left(redis) == []


def test_what_is_younger_than_the_time_is_not_trimmed(queue: Queue, redis: FakeRedis) -> None:
    done(queue, *numbered(redis, 4))
    assert queue.trim(3) == 2
    assert left(redis) == ["3-0", "4-0"]


def test_what_a_group_has_not_read_is_not_trimmed(queue: Queue, redis: FakeRedis) -> None:
    numbered(redis, 3)
    queue.acknowledge([entry.entry_id for entry in queue.read(1, 1)])
    assert queue.trim(LATER) == 1
    assert left(redis) == ["2-0", "3-0"]


def test_nothing_is_trimmed_while_a_group_has_read_nothing(queue: Queue, redis: FakeRedis) -> None:
    numbered(redis, 3)
    assert queue.trim(LATER) == 0
    assert left(redis) == ["1-0", "2-0", "3-0"]


def test_what_is_pending_and_all_after_it_is_not_trimmed(queue: Queue, redis: FakeRedis) -> None:
    numbered(redis, 4)
    queue.read(4, 1)
    queue.acknowledge(["1-0", "3-0", "4-0"])
    assert queue.trim(LATER) == 1
    assert left(redis) == ["2-0", "3-0", "4-0"]


def test_entries_of_one_millisecond_are_told_apart(queue: Queue, redis: FakeRedis) -> None:
    for number in range(12):
        redis.xadd(STREAM, {FIELD: b"x"}, id=f"5-{number}")
    queue.read(12, 1)
    queue.acknowledge([f"5-{number}" for number in range(12) if number != 10])
    assert queue.trim(LATER) == 10
    assert left(redis) == ["5-10", "5-11"]


def test_ids_are_compared_as_numbers(queue: Queue, redis: FakeRedis) -> None:
    numbered(redis, 12)
    queue.read(12, 1)
    queue.acknowledge([f"{number}-0" for number in range(1, 13) if number not in (9, 10)])
    assert queue.trim(LATER) == 8
    assert left(redis)[0] == "9-0"


@pytest.mark.parametrize("slow_group_sorts", ["first", "last"])
def test_the_slowest_group_decides_what_is_trimmed(slow_group_sorts: str, queue: Queue, redis: FakeRedis) -> None:
    done(queue, *numbered(redis, 3))
    slow = Queue(redis, STREAM, {"first": "a", "last": "z"}[slow_group_sorts])
    slow.ensure_group()
    slow.acknowledge([entry.entry_id for entry in slow.read(1, 1)])
    assert queue.trim(LATER) == 1
    assert left(redis) == ["2-0", "3-0"]


def test_what_another_group_has_pending_is_not_trimmed(queue: Queue, redis: FakeRedis) -> None:
    done(queue, *numbered(redis, 3))
    other = Queue(redis, STREAM, "other")
    other.ensure_group()
    other.read(3, 1)
    other.acknowledge(["1-0", "3-0"])
    assert queue.trim(LATER) == 1
    assert left(redis) == ["2-0", "3-0"]


def test_a_group_that_becomes_idle_while_trimming_is_looked_at_does_no_harm(
    redis: FakeRedis, server: FakeServer
) -> None:
    class AcknowledgedMeanwhile(FakeRedis):
        def xinfo_groups(self, name: Any) -> Any:
            groups = super().xinfo_groups(name)
            self.xack(STREAM, "shortpick", "1-0", "2-0")
            return groups

    with AcknowledgedMeanwhile(server=server, protocol=2) as client:
        queue = Queue(client, STREAM, "shortpick")
        queue.ensure_group()
        numbered(redis, 2)
        queue.read(2, 1)
        assert queue.trim(LATER) in (0, 2)
    assert redis.xpending(STREAM, "shortpick")["pending"] == 0


def test_where_nothing_was_ever_sent_there_is_nothing_to_trim(redis: FakeRedis) -> None:
    assert Queue(redis, STREAM, "shortpick").trim(LATER) == 0


@pytest.mark.parametrize("others", [(), ("analytics",)])
def test_before_its_own_group_has_read_anything_nothing_is_trimmed(others: tuple[str, ...], redis: FakeRedis) -> None:
    numbered(redis, 2)
    for name in others:
        other = Queue(redis, STREAM, name)
        other.ensure_group()
        other.acknowledge([entry.entry_id for entry in other.read(2, 1)])
    assert Queue(redis, STREAM, "shortpick").trim(LATER) == 0
    assert left(redis) == ["1-0", "2-0"]


def test_the_wake_list_holds_one_element_however_often_it_is_told(redis: FakeRedis) -> None:
    outbox = Outbox(redis, "order.cancelled")
    for _ in range(5):
        outbox.wake_relay()
    assert redis.llen("order.cancelled.wake") == 1


def test_a_wake_that_came_first_is_not_missed_and_is_used_up(redis: FakeRedis) -> None:
    outbox = Outbox(redis, "order.cancelled")
    outbox.wake_relay()
    outbox.wait_for_wake(60)
    assert redis.llen("order.cancelled.wake") == 0


def test_to_wake_the_relay_leaves_the_stream_alone(redis: FakeRedis) -> None:
    outbox = Outbox(redis, "order.cancelled")
    outbox.wake_relay()
    assert outbox.last_position() == 0
    assert not redis.exists("order.cancelled")


READS: list[Callable[[Outbox], object]] = [
    lambda outbox: outbox.entry(1),
    lambda outbox: outbox.read(after=0, count=10, block_milliseconds=None) or None,
]


@pytest.mark.parametrize("read", READS)
def test_a_stream_that_does_not_exist_reads_as_empty(read: Callable[[Outbox], object], redis: FakeRedis) -> None:
    assert read(Outbox(redis, "order.cancelled")) is None


def numbered(redis: FakeRedis, count: int) -> list[str]:
    """Entries 1-0, 2-0, 3-0 …: the first milliseconds of 1970."""
    ids = [f"{number}-0" for number in range(1, count + 1)]
    for entry_id in ids:
        redis.xadd(STREAM, {FIELD: b"x"}, id=entry_id)
    return ids


def done(queue: Queue, *entry_ids: str) -> None:
    queue.read(len(entry_ids), 1)
    queue.acknowledge(entry_ids)


def left(redis: FakeRedis) -> list[str]:
    return [entry_id.decode() for entry_id, _ in redis.xrange(STREAM)]

"""How the pipeline stands, read from Redis and the database: what `status` and `doctor` tell of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.exceptions import ResponseError
from sqlalchemy import Connection, Row

from worker.cli.context import Pipeline
from worker.storage import breakers, ledger, pauses, reports
from worker.storage.database import now
from worker.storage.reports import Amount, Due
from worker.streams import CONSUMER

OLD = timedelta(minutes=5)
"""What could be done and has waited for longer may be stuck."""
SILENT_AFTER = timedelta(seconds=30)
COUNTED_ENTRIES = 10_000
"""Where Redis cannot tell how many entries are unread, no more of them are counted."""
ENTRIES_A_READ = 500
NEWEST = 1000
RATE_OVER = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue as Redis tells of it. `at` is its clock."""

    at: datetime
    has_group: bool
    idle: timedelta | None
    """Since the group last read; None if it never did."""
    idle_is_exact: bool
    """Before version 7.2, Redis does not count a read that found nothing."""
    unread: Amount
    unread_at_least: bool
    """Whether there may be more of them than were counted."""
    pending: Amount
    events_per_second: float

    @property
    def silent(self) -> bool:
        """Whether nobody reads the queue, as far as can be told."""
        if self.idle is None:  # ingress makes the group first of all, and then reads
            return not self.has_group or self.unread.number > 0
        return self.idle > SILENT_AFTER and (self.idle_is_exact or self.unread.number > 0)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the database tells. `at` is its clock."""

    at: datetime
    pauses: Sequence[Row[Any]]
    breakers: Sequence[Row[Any]]
    waiting: dict[str, Amount]
    left: dict[str, Amount]
    """The other things that are not done, by name."""
    cancellations_per_second: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """What could be done at this moment, and is not."""

    waiting: Due
    shortages: Due
    approved: Due


def look_at_queue(p: Pipeline) -> QueueStatus:
    redis: Any = p.redis  # its stubs allow for an asynchronous client in every reply
    stream, name = p.queue.stream, p.queue.group
    at = redis_time(redis)
    newest = [sent_at(entry_id) for entry_id, _ in redis.xrevrange(stream, count=NEWEST)]
    rate = per_second(newest, at)
    group = consumer_group(p)
    unread, at_least = _unread(redis, stream, group)
    if group is None:
        return QueueStatus(at, False, None, False, unread, at_least, Amount(0, None), rate)
    consumers = redis.xinfo_consumers(stream, name)
    consumer = next((one for one in consumers if one["name"] == CONSUMER.encode()), None)
    pending = redis.xpending(stream, name)
    return QueueStatus(
        at=at,
        has_group=True,
        idle=timedelta(milliseconds=consumer["idle"]) if consumer else None,
        idle_is_exact=consumer is not None and "inactive" in consumer,
        unread=unread,
        unread_at_least=at_least,
        pending=Amount(pending["pending"], sent_at(pending["min"]) if pending["min"] else None),
        events_per_second=rate,
    )


def consumer_group(p: Pipeline) -> Any:
    """What XINFO tells of the queue's group; None if there is none."""
    redis: Any = p.redis
    try:
        groups = redis.xinfo_groups(p.queue.stream)
    except ResponseError as error:
        if "no such key" not in str(error):
            raise
        return None
    return next((one for one in groups if one["name"] == p.queue.group.encode()), None)


def redis_time(redis: Any) -> datetime:
    seconds, microseconds = redis.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def _unread(redis: Any, stream: str, group: Any) -> tuple[Amount, bool]:
    """Entries that the group was never given; without a group, all of them. At most `COUNTED_ENTRIES` are counted where
    Redis does not know the number: then True, as there may be more."""
    last = group["last-delivered-id"] if group else b"0-0"
    first = redis.xrange(stream, b"(" + last, "+", 1)
    if not first:
        return Amount(0, None), False
    since = sent_at(first[0][0])
    number = redis.xlen(stream) if last == b"0-0" else group.get("lag")
    if number is not None:
        return Amount(number, since), False
    number = 0
    while number < COUNTED_ENTRIES:
        found = redis.xrange(stream, b"(" + last, "+", min(ENTRIES_A_READ, COUNTED_ENTRIES - number))
        if not found:
            return Amount(number, since), False
        number, last = number + len(found), found[-1][0]
    return Amount(number, since), True


def sent_at(entry_id: bytes) -> datetime:
    """When an entry came: its id begins with the milliseconds since 1970. A foreign id may be beyond the calendar."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(entry_id.partition(b"-")[0]))
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def look_at_records(connection: Connection, published: int | None) -> Recorded:
    """What is not done, given where the stream ends; None where it ends with what somebody else wrote."""
    at = now(connection)
    last = ledger.positions(connection).appended if published is None else published
    return Recorded(
        at=at,
        pauses=pauses.in_force(connection),
        breakers=breakers.is_open(connection),
        waiting=dict(reports.waiting(connection)),
        left={
            "shortages": reports.shortages(connection),
            "held": reports.held(connection),
            "approved": reports.approved(connection),
            "unpublished": reports.unpublished(connection, last),
            "dead_letters": reports.open_dead_letters(connection),
            "conflicts": reports.open_conflicts(connection),
        },
        cancellations_per_second=per_second(reports.newest_times(connection, NEWEST), at),
    )


def look_at_backlog(connection: Connection, shadow: bool) -> Backlog:
    """In shadow mode, nothing that was approved is carried out."""
    at, paused = now(connection), pauses.paused(connection)
    return Backlog(
        waiting=reports.overdue(connection, at, paused),
        shortages=reports.due_shortages(connection, at, paused),
        approved=Due(0, None) if shadow else reports.due_approved(connection, paused),
    )


def per_second(newest: Sequence[datetime], at: datetime) -> float:
    """How many there were a second lately, told by the times of the newest ones, at most `NEWEST`. If these do not
    reach back `RATE_OVER`, it is told over the time that they do reach back."""
    recent = [time for time in newest if at - time <= RATE_OVER]
    reached = at - min(recent) if len(recent) == NEWEST else RATE_OVER
    return len(recent) / max(reached.total_seconds(), 0.001)

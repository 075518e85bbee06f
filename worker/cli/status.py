"""`shortpick status`: whether it runs, what has stopped, what is left to do, and how fast it goes, on one screen."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from redis.exceptions import ResponseError
from sqlalchemy import Connection, Row

from domain.outgoing import rfc3339
from worker.cli.context import Json, Pipeline, StateDir, emit, json_fields, messages, pipeline, say, say_table
from worker.cli.wording import lasting, when
from worker.storage import breakers, ledger, pauses, reports
from worker.storage.database import now, reading
from worker.storage.reports import Amount
from worker.streams import CONSUMER, ForeignEntry

SILENT_AFTER = timedelta(seconds=30)
COUNTED_ENTRIES = 10_000
"""Where Redis cannot tell how many entries are unread, no more of them are counted."""
ENTRIES_A_READ = 500
NEWEST = 1000
RATE_OVER = timedelta(seconds=60)

WAITING_FOR = {
    "order_not_placed": "waiting for their order to be placed",
    "fulfillments_missing": "waiting for fulfillments that they name",
    "grace": "waiting for the end of their grace",
    "paused": "waiting until cancellations are resumed",
}


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


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Whether it runs, what has stopped, what is left to do and since when, and how fast it goes."""
    with pipeline(state_dir) as p:
        queue = _queue(p)
        published = _last_in_stream(p)
        with reading(p.engine) as connection:
            recorded = _recorded(connection, published)
    if as_json:
        emit(_json(queue, recorded))
    else:
        _tell(p, queue, recorded)


def _queue(p: Pipeline) -> QueueStatus:
    redis: Any = p.redis  # its stubs allow for an asynchronous client in every reply
    stream, name = p.queue.stream, p.queue.group
    seconds, microseconds = redis.time()
    at = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)
    newest = [_sent_at(entry_id) for entry_id, _ in redis.xrevrange(stream, count=NEWEST)]
    rate = per_second(newest, at)
    try:
        groups = redis.xinfo_groups(stream)
    except ResponseError as error:
        if "no such key" not in str(error):
            raise
        groups = []
    group = next((one for one in groups if one["name"] == name.encode()), None)
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
        pending=Amount(pending["pending"], _sent_at(pending["min"]) if pending["min"] else None),
        events_per_second=rate,
    )


def _unread(redis: Any, stream: str, group: Any) -> tuple[Amount, bool]:
    """Entries that the group was never given; without a group, all of them. At most `COUNTED_ENTRIES` are counted where
    Redis does not know the number: then True, as there may be more."""
    last = group["last-delivered-id"] if group else b"0-0"
    first = redis.xrange(stream, b"(" + last, "+", 1)
    if not first:
        return Amount(0, None), False
    since = _sent_at(first[0][0])
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


def _sent_at(entry_id: bytes) -> datetime:
    """When an entry came: its id begins with the milliseconds since 1970. A foreign id may be beyond the calendar."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(entry_id.partition(b"-")[0]))
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _last_in_stream(p: Pipeline) -> int | None:
    """None if the stream ends with what somebody else wrote."""
    try:
        return p.outbox.last_position()
    except ForeignEntry as error:
        messages.print(f"{error}; nothing is published until a person decides", style="bold red", markup=False)
        return None


def _recorded(connection: Connection, published: int | None) -> Recorded:
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


def per_second(newest: Sequence[datetime], at: datetime) -> float:
    """How many there were a second lately, told by the times of the newest ones, at most `NEWEST`. If these do not
    reach back `RATE_OVER`, it is told over the time that they do reach back."""
    recent = [time for time in newest if at - time <= RATE_OVER]
    reached = at - min(recent) if len(recent) == NEWEST else RATE_OVER
    return len(recent) / max(reached.total_seconds(), 0.001)


def _json(queue: QueueStatus, recorded: Recorded) -> dict[str, Any]:
    return {
        "at": rfc3339(recorded.at),
        "ingress": {
            "hasGroup": queue.has_group,
            "silent": queue.silent,
            "secondsSinceRead": queue.idle.total_seconds() if queue.idle is not None else None,
        },
        "pauses": [json_fields(_without(row, "resumed")) for row in recorded.pauses],
        "breakers": [json_fields(_without(row, "closed")) for row in recorded.breakers],
        "unread": {**_amount(queue.unread), "atLeast": queue.unread_at_least},
        "pending": _amount(queue.pending),
        "waiting": {waits_for: _amount(one) for waits_for, one in recorded.waiting.items()},
        **json_fields({name: _amount(one) for name, one in recorded.left.items()}),
        "eventsPerSecond": round(queue.events_per_second, 3),
        "cancellationsPerSecond": round(recorded.cancellations_per_second, 3),
    }


def _without(row: Row[Any], beginning: str) -> dict[str, Any]:
    """A row without the columns that tell of its end."""
    return {name: value for name, value in row._mapping.items() if not name.startswith(beginning)}


def _amount(one: Amount) -> dict[str, Any]:
    return {"count": one.number, "oldestAt": rfc3339(one.since) if one.since else None}


def _tell(p: Pipeline, queue: QueueStatus, recorded: Recorded) -> None:
    say(_running(p, queue), "bold red" if queue.silent else "")
    for row in recorded.breakers:
        say(
            f"BREAKER OPEN since {when(row.opened_at)}: {_of(row)}; the cause was event {row.cause_id!r} of "
            f"{row.cause_source!r}. What it stops is held: shortpick breaker list",
            "bold red",
        )
    say()
    waiting = recorded.waiting or {"": Amount(0, None)}
    rows: list[tuple[str, Amount, datetime]] = [
        ("unread in the queue", queue.unread, queue.at),
        ("read, and not decided", queue.pending, queue.at),
        *((WAITING_FOR.get(one, f"waiting {one}".strip()), waiting[one], recorded.at) for one in waiting),
        ("shortages of a SKU, not carried out", recorded.left["shortages"], recorded.at),
        ("held until a person decides", recorded.left["held"], recorded.at),
        ("approved, and not carried out", recorded.left["approved"], recorded.at),
        ("cancelled, and not published", recorded.left["unpublished"], recorded.at),
        ("dead letters open", recorded.left["dead_letters"], recorded.at),
        ("conflicts open", recorded.left["conflicts"], recorded.at),
    ]
    cells = [[what, one.number, lasting(at - one.since) if one.since else None] for what, one, at in rows]
    if queue.unread_at_least:
        cells[0][1] = f"{queue.unread.number:,} or more"
    say_table(["what", "how many", "the oldest since"], cells)
    say()
    came, made = _rate(queue.events_per_second), _rate(recorded.cancellations_per_second)
    say(f"A second, over the last minute: {came} events came, {made} cancellations were made.")


def _rate(per_second: float) -> str:
    return f"{per_second:,.1f}" if per_second >= 1 or not per_second else f"{per_second:.2f}"


def _running(p: Pipeline, queue: QueueStatus) -> str:
    """Whether ingress reads."""
    start = "is `shortpick ingress` running?"
    if queue.idle is None:
        never = "Nothing was ever read from the queue"
        return f"{never} ({start})" if queue.silent else f"{never}, and nothing is unread."
    span = lasting(queue.idle)
    if not queue.silent:
        if queue.idle <= SILENT_AFTER:
            return "Running: ingress reads the queue."
        return f"Ingress last found something in the queue {span} ago; nothing has come since."
    if queue.pending.number >= max(1, p.settings.max_pending // 2):
        start = "it waits while so much is pending; is `shortpick worker` running?"
    return f"ingress has not read for {span} ({start})"


def _of(row: Row[Any]) -> str:
    return "everything" if row.scope == "everything" else f"{_SCOPES.get(row.scope, row.scope)} {row.name!r}"


_SCOPES = {"sku": "SKU"}

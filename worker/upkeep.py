"""What runs by the clock: what is old and nobody needs any more is removed, a little at a time.

What was done is never forgotten: the ledger stays, and every event that cancelled something or was held. Each chunk is
a transaction of its own, so that batches wait for none of it.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf

import structlog
from sqlalchemy import Connection, Engine

from worker.publication import StreamDiverged, verified_end
from worker.storage import breakers, ledger, retention
from worker.storage.database import now, reading, transaction
from worker.streams import ForeignEntry, Outbox, Queue

log = structlog.get_logger(__name__)

CHUNK = 1000
SECONDS = 10.0
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what nobody needs is kept. Events and dead letters are kept so long after their queue entry is gone."""

    queue: timedelta
    events: timedelta
    dead_letters: timedelta
    cancelled: timedelta
    counts: timedelta


def prune(engine: Engine, queue: Queue, outbox: Outbox, kept: Retention, seconds: float = SECONDS) -> None:
    """Remove what is older than its retention, for about so long at a time."""
    deadline = time.monotonic() + seconds
    prune_queue(engine, queue, kept.queue)
    with transaction(engine) as connection:
        breakers.prune(connection, now(connection) - kept.counts)
    try:
        prune_cancelled(engine, outbox, kept.cancelled, deadline)
    except (StreamDiverged, ForeignEntry) as error:
        log.error("cancelled.not_pruned", detail=str(error))
    oldest = queue.oldest()
    prune_dead_letters(engine, oldest, kept.dead_letters, deadline)
    prune_events(engine, oldest, kept.events, deadline)


def prune_queue(engine: Engine, queue: Queue, kept: timedelta) -> int:
    """Remove queue entries that are older and that no group still needs; returns how many."""
    with reading(engine) as connection:
        before = now(connection) - kept
    trimmed = queue.trim(int(before.timestamp() * 1000))
    if trimmed:
        log.info("queue.pruned", entries=trimmed, older_than=before.isoformat())
    return trimmed


def prune_cancelled(engine: Engine, outbox: Outbox, kept: timedelta, deadline: float = inf) -> int:
    """Remove entries of the outgoing stream that were cancelled earlier and that no group still needs; returns how
    many. Raises `StreamDiverged` or `ForeignEntry`: another's entries are not ours to remove."""
    end = verified_end(engine, outbox).position
    trimmed = 0
    while (first := outbox.first_position()) is not None:
        with reading(engine) as connection:
            before = now(connection) - kept
            keep_from = min(ledger.first_since(connection, first, before, CHUNK), end + 1)
        number = outbox.trim(keep_from)
        trimmed += number
        for group in outbox.lagging(keep_from):
            log.warning("cancelled.kept", group=group, first_position=first, detail=_LAGGING)
        if number < CHUNK or time.monotonic() > deadline:
            break
    _note_first(engine, outbox)
    if trimmed:
        log.info("cancelled.pruned", entries=trimmed, older_than=before.isoformat())
    return trimmed


def _note_first(engine: Engine, outbox: Outbox) -> None:
    """Note where the stream begins, so that it begins there too if it is lost. Noted after entries were trimmed: what
    is appended again may be too much, and never too little."""
    if end := outbox.last_position():
        first = outbox.first_position() or end + 1
        with transaction(engine) as connection:
            ledger.begins_at(connection, first)


def prune_dead_letters(engine: Engine, oldest: int | None, kept: timedelta, deadline: float = inf) -> int:
    """Remove dead letters that are older; returns how many. `oldest`: when the first entry of the queue came
    (milliseconds since 1970)."""
    removed = 0
    while number := _remove_dead_letters(engine, oldest, kept):
        removed += number
        if time.monotonic() > deadline:
            break
    if removed:
        log.info("dead_letters.pruned", dead_letters=removed)
    return removed


def _remove_dead_letters(engine: Engine, oldest: int | None, kept: timedelta) -> int:
    with transaction(engine) as connection:
        return retention.remove_dead_letters(connection, _counted_from(connection, oldest) - kept, CHUNK)


def prune_events(engine: Engine, oldest: int | None, kept: timedelta, deadline: float = inf) -> int:
    """Remove events that are older, by their own time and by that of their decision, and that cancelled nothing;
    returns how many. `oldest`: when the first entry of the queue came (milliseconds since 1970)."""
    removed, upto = 0, _BEGINNING
    while True:
        with transaction(engine) as connection:
            if not retention.lock(connection):
                break  # another worker is at it
            before = _counted_from(connection, oldest) - kept
            number, end = retention.remove_events(connection, upto, before, CHUNK)
        removed += number
        if end is None or time.monotonic() > deadline:
            break
        upto = end
    if removed:
        log.info("events.pruned", events=removed, older_than=before.isoformat(), finished=end is None)
    return removed


def _counted_from(connection: Connection, oldest: int | None) -> datetime:
    """From when retention counts back: from now, but not from after the first entry of the queue came. So whatever is
    in the queue, and may be read again, finds its event; and none becomes too old by waiting there."""
    at = now(connection)
    if oldest is None or oldest >= int(at.timestamp() * 1000):  # a foreign id may be beyond the calendar
        return at
    return _BEGINNING + timedelta(milliseconds=oldest)


_LAGGING = (
    "entries older than the retention stay, since this group has not read and acknowledged them; if nobody reads for "
    "it any more, destroy it (XGROUP DESTROY)"
)

"""Does the pipeline get on? A worker may look alive and do nothing; so what is old is looked at twice, and is stuck if
nothing of its kind was done meanwhile.

Of a backlog, however long, some is done every moment. What waits for its time, or until a pause ends, could not be done
yet, and is not old.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from worker.cli.context import Pipeline
from worker.cli.standing import OLD, consumer_group, look_at_backlog, redis_time, sent_at
from worker.cli.wording import lasting
from worker.settings import Settings
from worker.storage import reports
from worker.storage.database import now, reading
from worker.storage.reports import Due
from worker.streams import ForeignEntry

LOOK_SECONDS, LOOK_EVERY_SECONDS = 2.0, 0.25
PENDING_LOOKED_AT = 5000


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one kind: how much there is, since when the oldest of it could have been done, and marks of which one is
    gone after some of it was done. `at` is the clock that `since` is of."""

    number: int
    since: datetime | None
    at: datetime
    marks: frozenset[object] = frozenset()

    @property
    def age(self) -> timedelta:
        return self.at - self.since if self.number and self.since else timedelta(0)


Looked = Mapping[str, Work]
"""Work by its kind, one of `STUCK`."""

_CLOCKWORK = "(are `shortpick worker` and `shortpick beat` running?)"
_OLDEST = "{number} in all, the oldest for {age}"
STUCK = {
    "unread": "nothing is read from the queue, where the oldest entry came {age} ago (is `shortpick ingress` running?)",
    "pending": "what was read from the queue is not decided: {number} in all, the oldest came {age} ago "
    "(is `shortpick worker` running?)",
    "unpublished": f"cancellations are not published: {_OLDEST} (is `shortpick relay` running?)",
    "shortages": f"SKU shortages that are due are not carried out: {_OLDEST} {_CLOCKWORK}",
    "approved": f"approved cuts are not carried out: {_OLDEST} {_CLOCKWORK}",
    "waiting": f"events that have waited for their time are not decided: {_OLDEST} {_CLOCKWORK}",
}


def patience(settings: Settings) -> timedelta:
    """How long work may lie untouched by default: long enough for an event that takes its worker down with it to be
    tried as often as it may."""
    return max(OLD, timedelta(seconds=(settings.max_lone_starts + 2) * settings.redeliver_after_seconds))


def stuck_work(p: Pipeline, max_age: timedelta) -> list[str]:
    """What is stuck. Only if something is old it is looked at again, until some of it was done, at most two seconds."""
    before = after = _look(p)
    deadline = time.monotonic() + LOOK_SECONDS
    while (found := stuck(before, after, max_age)) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_SECONDS)
        after = _look(p)
    return found


def stuck(before: Looked, after: Looked, max_age: timedelta) -> list[str]:
    """Of two looks, the kinds of work that are old and of which nothing was done in between."""
    return [
        STUCK[kind].format(number=f"{work.number:,}", age=lasting(work.age))
        for kind, work in after.items()
        if work.age > max_age and kind in before and not done(before[kind], work)
    ]


def done(before: Work, after: Work) -> bool:
    """Whether some of the work was done between two looks. That there is more of it now says nothing."""
    return after.number < before.number or after.since != before.since or bool(before.marks - after.marks)


def _look(p: Pipeline) -> Looked:
    looked = _queue(p)
    with reading(p.engine) as connection:
        at, backlog = now(connection), look_at_backlog(connection, p.settings.shadow)
        for kind in ("waiting", "shortages", "approved"):
            due: Due = getattr(backlog, kind)
            looked[kind] = Work(due.number, due.since, at, frozenset({due.moved}))
        try:
            last = p.outbox.last_position()
        except ForeignEntry:  # the relay has stopped, which was told
            return looked
        left = reports.unpublished(connection, last)
        looked["unpublished"] = Work(left.number, left.since, at, frozenset({last}))
    return looked


def _queue(p: Pipeline) -> dict[str, Work]:
    redis: Any = p.redis  # its stubs allow for an asynchronous client in every reply
    stream, name = p.queue.stream, p.queue.group
    at, group = redis_time(redis), consumer_group(p)
    delivered = group["last-delivered-id"] if group else b"0-0"
    pending = redis.xpending_range(stream, name, "-", "+", PENDING_LOOKED_AT) if group else []
    ids = [one["message_id"] for one in pending]
    unread = [entry_id for entry_id, _ in redis.xrange(stream, b"(" + delivered, "+", 1)]
    return {
        # While much is pending nothing more is read; so what is decided counts as well.
        "unread": Work(len(unread), _oldest(unread), at, frozenset([delivered, *ids])),
        "pending": Work(len(ids), _oldest(ids), at, frozenset(ids)),
    }


def _oldest(ids: Sequence[bytes]) -> datetime | None:
    return sent_at(ids[0]) if ids else None

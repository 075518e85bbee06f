"""The queue's reader: entries in, batches out. What stays pending too long is dispatched again."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event as Flag

import structlog
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Engine

from domain.contract import MAX_EVENT_BYTES
from worker import points
from worker.storage import dead_letters
from worker.storage.database import TRANSIENT, now, transaction
from worker.storage.dead_letters import DeadLetter
from worker.streams import Batch, Entry, Queue

log = structlog.get_logger(__name__)

BLOCK_MILLISECONDS = 1000
PAUSE_AFTER_ERROR_SECONDS = 1.0
PAUSE_HELD_BACK_SECONDS = 0.005
LEAST_LINGER_SECONDS, MOST_LINGER_SECONDS = 0.02, 0.1
LINGER_SECONDS_AN_ENTRY = 0.000125
"""How long the next batch may gather while the workers have something to do anyhow: longer, the more is pending. The
cost is per batch: without it, 500 events a second came one by one, which was more than two cores could do (seen)."""


class DispatchFailed(Exception):
    """The message could not be handed to Celery; its entries stay pending and are dispatched again."""


@dataclass(slots=True)
class Ingress:
    """`dispatch` hands a batch to Celery; it raises `DispatchFailed` if it cannot."""

    queue: Queue
    engine: Engine
    dispatch: Callable[[Batch], None]
    batch_size: int
    batch_bytes: int
    max_pending: int
    redeliver_after_milliseconds: int
    _held_back: bool = False
    _linger_seconds: float = 0.0
    _next_look_at_overdue: float = 0.0

    def run(self, stopping: Flag) -> None:
        """Go on until told to stop. Outages of Redis or the database are waited out."""
        grouped = False
        while not stopping.is_set():
            try:
                if not grouped:
                    self.queue.ensure_group()
                    grouped = True
                self.run_once(BLOCK_MILLISECONDS)
                pause = PAUSE_HELD_BACK_SECONDS if self._held_back else self._linger_seconds
                if pause:
                    stopping.wait(pause)
            except (RedisError, DispatchFailed, *TRANSIENT) as error:
                # A lost group (Redis came back empty) shows as a ResponseError, and is made again.
                grouped = grouped and not isinstance(error, ResponseError)
                log.warning("ingress.unavailable", error=type(error).__name__, detail=str(error))
                stopping.wait(PAUSE_AFTER_ERROR_SECONDS)

    def run_once(self, block_milliseconds: int) -> int:
        """Dispatch what is overdue, then what is new; returns how many entries were dispatched."""
        return self._dispatch_overdue() + self._dispatch_new(block_milliseconds)

    def _dispatch_new(self, block_milliseconds: int) -> int:
        pending = self.queue.pending()
        if not self._has_room(pending):
            return 0
        entries = self.queue.read(self.batch_size, block_milliseconds)
        self._linger_seconds = _linger_seconds(pending) if 0 < len(entries) < self.batch_size else 0
        if entries:
            points.passed("ingress: read")
        for batch in self._batches([(one.entry_id, len(one.raw)) for one in self._without_oversize(entries)]):
            self.dispatch(batch)
            points.passed("ingress: dispatched")
        return len(entries)

    def _has_room(self, pending: int) -> bool:
        """Whether to read more. Once too much is pending, wait until half of it is done: to fill each gap at once
        would make ever smaller batches, and the cost is per batch."""
        self._held_back = pending >= (max(1, self.max_pending // 2) if self._held_back else self.max_pending)
        return not self._held_back

    def _dispatch_overdue(self) -> int:
        """Never held back by what is pending: this is how pending entries are done at last."""
        if time.monotonic() < self._next_look_at_overdue:
            return 0
        self._next_look_at_overdue = time.monotonic() + min(1.0, self.redeliver_after_milliseconds / 4000)
        overdue = self.queue.take_overdue(self.redeliver_after_milliseconds, self.batch_size)
        if not overdue:
            return 0
        self._bury([DeadLetter(one.entry_id, b"", "bytes_lost", _BYTES_LOST) for one in overdue if one.size is None])
        left = [one for one in overdue if one.size is not None]
        never_started = [(one.entry_id, one.size or 0) for one in left if one.starts == 0]
        log.warning("ingress.redelivered", entries=len(left), started_before=len(left) - len(never_started))
        for batch in self._batches(never_started):
            self.dispatch(batch)
        for one in left:
            if one.starts > 0:  # it may be what took the worker down: it travels alone, and can harm no neighbour
                self.dispatch(Batch([one.entry_id], one.starts))
        return len(left)

    def _without_oversize(self, entries: Sequence[Entry]) -> list[Entry]:
        """An entry over the size limit is not dispatched: its dead letter is written at once."""
        oversize = [one for one in entries if len(one.raw) > MAX_EVENT_BYTES]
        self._bury(
            [
                DeadLetter(
                    one.entry_id, one.raw, "too_large", _TOO_LARGE.format(size=len(one.raw), limit=MAX_EVENT_BYTES)
                )
                for one in oversize
            ]
        )
        return [one for one in entries if len(one.raw) <= MAX_EVENT_BYTES]

    def _batches(self, entries: Sequence[tuple[str, int]]) -> Iterator[Batch]:
        """Entries, given with their bytes, as batches within the byte limit."""
        batch: list[str] = []
        size = 0
        for entry_id, bytes_ in entries:
            if batch and size + bytes_ > self.batch_bytes:
                yield Batch(batch)
                batch, size = [], 0
            batch.append(entry_id)
            size += bytes_
        if batch:
            yield Batch(batch)

    def _bury(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        with transaction(self.engine) as connection:
            dead_letters.add(connection, letters, now(connection))
        self.queue.acknowledge([one.entry_id for one in letters])
        for one in letters:
            log.warning("event.dead_letter", entry_id=one.entry_id, code=one.code)


def _linger_seconds(pending: int) -> float:
    return min(max(LEAST_LINGER_SECONDS, pending * LINGER_SECONDS_AN_ENTRY), MOST_LINGER_SECONDS) if pending else 0


_BYTES_LOST = (
    "the entry was deleted from the queue before it was processed, and its bytes are gone; "
    "find out who deletes from the queue, and send the event again"
)
_TOO_LARGE = "the event has {size} bytes; at most {limit} are allowed"

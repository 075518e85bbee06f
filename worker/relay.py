"""The ledger's publisher: gives committed cancellations their positions, and appends them to the outgoing stream.

Positions come from one locked row, and the stream takes an entry only right after its predecessor; so neither a relay
that dies anywhere nor several relays at once can make a duplicate, a gap or a swap.
"""

from dataclasses import dataclass
from threading import Event as Flag

import structlog
from redis.exceptions import RedisError
from sqlalchemy import Engine

from worker import points
from worker.storage import ledger
from worker.storage.database import TRANSIENT, reading, transaction
from worker.streams import ForeignEntry, Outbox

log = structlog.get_logger(__name__)

BATCH = 500
WAIT_SECONDS = 1.0


class StreamDiverged(Exception):
    """The outgoing stream and the ledger tell different stories; a person must decide which one is right."""


@dataclass(slots=True)
class Relay:
    """`run_once` publishes what there is; only `run` waits."""

    engine: Engine
    outbox: Outbox
    _appended: int | None = None

    def run(self, stopping: Flag) -> None:
        """Go on until told to stop. Outages are waited out; a stream that diverged is complained of, never repaired."""
        while not stopping.is_set():
            try:
                if not self.run_once():
                    self.outbox.wait_for_wake(WAIT_SECONDS)
            except (StreamDiverged, ForeignEntry) as error:
                self._appended = None
                log.error("relay.stopped", detail=str(error))
                stopping.wait(5 * WAIT_SECONDS)
            except (RedisError, *TRANSIENT) as error:
                self._appended = None
                log.warning("relay.unavailable", error=type(error).__name__, detail=str(error))
                stopping.wait(WAIT_SECONDS)

    def run_once(self) -> int:
        """Assign positions, append what the stream lacks; returns how many entries were appended. Raises
        `StreamDiverged` or `ForeignEntry`."""
        if self._appended is None:
            self._appended = self._verified_end()
        with transaction(self.engine) as connection:
            positions = ledger.assign_positions(connection, self._appended, BATCH)
        points.passed("relay: positions given")
        if positions.assigned <= self._appended:
            if self.outbox.last_position() != self._appended:  # it was changed under us: look again
                self._appended = None
            return 0
        with reading(self.engine) as connection:
            rows = ledger.published_from(connection, self._appended + 1, BATCH)
        last = rows[-1][0]
        points.passed("relay: before append")
        if not self.outbox.append(self._appended + 1, [payload for _, payload in rows]):
            self._appended = None  # another relay was faster, or the stream was changed: look again
            return 0
        points.passed("relay: appended")
        self._appended = last
        log.info("relay.published", entries=len(rows), position=last)
        return len(rows)

    def _verified_end(self) -> int:
        """Where the stream ends, after making sure that it is the ledger's own."""
        end = verified_end(self.engine, self.outbox)
        if end.lost:
            log.error(
                "relay.stream_lost_entries",
                stream=self.outbox.stream,
                ends_at=end.position,
                published_before=end.published_before,
                detail="Redis has lost what was published; the missing entries are appended again. "
                "Check its persistence",
            )
        return end.position


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """Where the stream ends, and how far a relay had seen it reach before."""

    position: int
    published_before: int

    @property
    def lost(self) -> int:
        """How many entries Redis has lost at the end; the relay appends them again."""
        return max(0, self.published_before - self.position)


def verified_end(engine: Engine, outbox: Outbox) -> StreamEnd:
    """Where the stream ends, after making sure that it is the ledger's own; only reads. Raises `StreamDiverged` or
    `ForeignEntry`."""
    with reading(engine) as connection:  # before the stream is looked at: another relay may append meanwhile
        published_before = ledger.positions(connection).appended
    end = outbox.last_position()
    in_stream = outbox.entry(end) if end else None
    with reading(engine) as connection:  # and after it: what is in the stream was given its position before
        assigned = ledger.positions(connection).assigned
        rows = ledger.published_from(connection, end, 1) if end else []
    if end > assigned:
        raise StreamDiverged(
            f"the stream {outbox.stream} ends at position {end}, but the database has given positions only up to "
            f"{assigned}: it is another database, or an old copy of it was restored. "
            f"Nothing is published. Connect the right database, or give this one its own stream "
            "(SHORTPICK_CANCELLED_STREAM)"
        )
    if in_stream is not None and in_stream != (rows[0][1].encode() if rows else None):
        raise StreamDiverged(
            f"the entry at position {end} of the stream {outbox.stream} is not the cancellation that the database has "
            f"there: somebody else wrote it, or it is another database. Nothing is published. Compare "
            f"`shortpick tail --from {end} --no-follow` with the database before you decide which to keep"
        )
    return StreamEnd(end, published_before)

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
from worker.storage.ledger import Positions
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
        end = self.outbox.last_position()
        with reading(self.engine) as connection:
            positions = ledger.positions(connection)
            rows = ledger.published_from(connection, end, 1) if end else []
        self._check(end, positions, rows[0][1].encode() if rows else None)
        if end < positions.appended:
            log.error(
                "relay.stream_lost_entries",
                stream=self.outbox.stream,
                ends_at=end,
                published_before=positions.appended,
                detail="Redis has lost what was published; the missing entries are appended again. "
                "Check its persistence",
            )
        return end

    def _check(self, end: int, positions: Positions, in_ledger: bytes | None) -> None:
        stream = self.outbox.stream
        if end > positions.assigned:
            raise StreamDiverged(
                f"the stream {stream} ends at position {end}, but the database has given positions only up to "
                f"{positions.assigned}: it is another database, or an old copy of it was restored. "
                f"Nothing is published. Connect the right database, or give this one its own stream "
                "(SHORTPICK_CANCELLED_STREAM)"
            )
        in_stream = self.outbox.entry(end) if end else None
        if in_stream is not None and in_stream != in_ledger:
            raise StreamDiverged(
                f"the entry at position {end} of the stream {stream} is not the cancellation that the database has "
                f"there: somebody else wrote it, or it is another database. Nothing is published. Compare "
                f"`shortpick tail --from {end} --no-follow` with the database before you decide which to keep"
            )

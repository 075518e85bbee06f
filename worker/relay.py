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
from worker.publication import StreamDiverged, verified_end
from worker.storage import ledger
from worker.storage.database import TRANSIENT, reading, transaction
from worker.streams import ForeignEntry, Outbox

log = structlog.get_logger(__name__)

BATCH = 500
WAIT_SECONDS = 1.0


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
            self._appended = self._end()
        with transaction(self.engine) as connection:
            positions, rows = ledger.assign_positions(connection, self._appended, BATCH)
            points.passed("relay: before commit")
        points.passed("relay: positions given")
        if positions.assigned <= self._appended:
            if self.outbox.last_position() != self._appended:  # it was changed under us: look again
                self._appended = None
            return 0
        if positions.assigned - len(rows) > self._appended:  # some were given before, and not appended
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

    def _end(self) -> int:
        """Where the stream ends. One that was lost, or never had an entry, begins where it began before."""
        end = verified_end(self.engine, self.outbox)
        if end.lost:
            log.error(
                "relay.stream_lost_entries",
                stream=self.outbox.stream,
                ends_at=end.position,
                published_before=end.published_before,
                appended_from=end.position + 1 if end.position else end.first,
                detail="Redis has lost what was published; the missing entries are appended again. "
                "Check its persistence",
            )
        if end.position or end.first == 1:
            return end.position
        # If another relay, or `shortpick republish`, has begun it meanwhile, its end is looked at again.
        return end.first - 1 if self.outbox.begin(end.first) else self._end()

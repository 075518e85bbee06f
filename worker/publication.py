"""Whether the outgoing stream is the ledger's own, and where it ends."""

from dataclasses import dataclass

from sqlalchemy import Engine

from worker.storage import ledger
from worker.storage.database import reading
from worker.streams import Outbox


class StreamDiverged(Exception):
    """The outgoing stream and the ledger tell different stories; a person must decide which one is right."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """Where the stream ends (0: it never had an entry), and how far a relay had seen it reach before. In the ledger,
    `assigned` is the last position that was given; a stream that was lost begins anew with `first`."""

    position: int
    published_before: int
    assigned: int = 0
    first: int = 1

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
        positions = ledger.positions(connection)
        rows = ledger.published_from(connection, end, 1) if end else []
    if end > positions.assigned:
        raise StreamDiverged(
            f"the stream {outbox.stream} ends at position {end}, but the database has given positions only up to "
            f"{positions.assigned}: it is another database, or an old copy of it was restored. "
            f"Nothing is published. Connect the right database, or give this one its own stream "
            "(SHORTPICK_CANCELLED_STREAM)"
        )
    if in_stream is not None and in_stream != (rows[0][1].encode() if rows else None):
        raise StreamDiverged(
            f"the entry at position {end} of the stream {outbox.stream} is not the cancellation that the database has "
            f"there: somebody else wrote it, or it is another database. Nothing is published. Compare "
            f"`shortpick tail --from {end} --no-follow` with the database before you decide which to keep"
        )
    return StreamEnd(end, published_before, positions.assigned, positions.first)

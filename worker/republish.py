"""A lost outgoing stream, filled again from the ledger: the same events at the same positions, from where one says on.

Relays may run meanwhile: a stream is begun once, and takes an entry only right after its predecessor, whoever adds it.
"""

from collections.abc import Iterator

from sqlalchemy import Engine

from worker.publication import verified_end
from worker.storage import ledger
from worker.storage.database import reading, transaction
from worker.streams import Outbox

BATCH = 500


class CannotRepublish(Exception):
    """It would make a gap or a duplicate; the message says what to do instead."""


def begin(engine: Engine, outbox: Outbox, position: int) -> int:
    """Make sure that `position` is the next that the stream takes; returns the last one that was ever given. Raises
    `CannotRepublish`, and `StreamDiverged` or `ForeignEntry`."""
    found = verified_end(engine, outbox)
    end = found.position
    if position > found.assigned + 1:
        raise CannotRepublish(
            f"position {position} was not given yet: the last one is {found.assigned}, so the stream would have a "
            f"gap. Give at most {found.assigned + 1}"
        )
    if end:
        if position != end + 1:
            raise CannotRepublish(_not_next(outbox, position, end))
    elif outbox.begin(position):
        with transaction(engine) as connection:
            ledger.begins_at(connection, position)
    else:
        raise CannotRepublish(_not_next(outbox, position, outbox.last_position()))
    return found.assigned


def fill(engine: Engine, outbox: Outbox, position: int) -> Iterator[int]:
    """Append what has positions from `position` on; gives the last position in the stream after each step. Raises
    `CannotRepublish` if the stream is lost meanwhile, and `ForeignEntry`."""
    end = position - 1
    while True:
        with reading(engine) as connection:
            rows = ledger.published_from(connection, end + 1, BATCH)
        if not rows:
            return
        if outbox.append(end + 1, [payload for _, payload in rows]):
            end = rows[-1][0]
        elif (other_end := outbox.last_position()) > end:
            end = other_end  # a relay was faster
        else:
            raise CannotRepublish(f"the stream {outbox.stream} was deleted while it was filled. Run the command again")
        yield end


def _not_next(outbox: Outbox, position: int, end: int) -> str:
    """`end` is where the stream ends."""
    if position > end:
        return (
            f"the stream {outbox.stream} ends at position {end}, so it would have a gap before {position}. "
            f"Give {end + 1}, or leave it to `shortpick relay`, which appends what is missing"
        )
    return (
        f"the stream {outbox.stream} ends at position {end} already, and nothing can be added before its end; what is "
        f"missing after it is appended by `shortpick relay`, or with --from {end + 1}. If the stream must begin at "
        f"{position}, stop the relay, delete the stream (DEL {outbox.stream}: its groups go with it), and run the "
        "command again"
    )

"""What is removed by age, and what is remembered of it: per source, the newest `time` among its removed events.

An event that is not newer may be one of them that comes again: nobody could tell any more whether it was acted on.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, text

from worker.storage import bulk
from worker.storage.tables import dead_letters, events, holds, pruned_events

_LOCK = 0x7072756E65  # any number, as long as nothing else locks it

# As it stands in the index, or it would not be used.
_PRUNABLE = text("outcome IN ('nothing', 'recorded', 'refused', 'stale', 'void')")
_NEWEST_REMOVED = select(pruned_events).where(bulk.among(pruned_events.c.source))


def lock(connection: Connection) -> bool:
    """Lock the removal of events until the end of the transaction; False if another transaction is at it."""
    if connection.dialect.name == "sqlite":  # the transaction holds the only write lock
        return True
    return bool(connection.execute(select(func.pg_try_advisory_xact_lock(_LOCK))).scalar_one())


def remove_events(connection: Connection, after: datetime, before: datetime, limit: int) -> tuple[int, datetime | None]:
    """Remove events that were decided after `after`, of `limit` of them or a batch more those whose own time and
    decision lie before `before`; returns how many, and until when they had been decided (None: there are no more).

    What cancelled something, waits, or was ever held stays. What is remembered of the removed ones commits with their
    removal: whoever waits for it to claim one of them anew, and then looks, finds it.
    """
    decided_at = events.c.decided_at
    of_turn = (_PRUNABLE, decided_at > after, decided_at < before)
    first = select(decided_at).where(*of_turn).order_by(decided_at).limit(limit).subquery()
    upto: datetime | None = connection.execute(select(func.max(first.c.decided_at))).scalar_one()
    if upto is None:
        return 0, None
    held = select(holds.c.hold_id).where(holds.c.source == events.c.source, holds.c.id == events.c.id).exists()
    chosen = delete(events).where(*of_turn, decided_at <= upto, events.c.time < before, ~held)
    removed = connection.execute(chosen.returning(events.c.source, events.c.time)).all()
    newest: dict[str, datetime] = {}
    for source, time in removed:
        newest[source] = max(time, newest.get(source, time))
    rows = [{"source": source, "newest_time": time} for source, time in sorted(newest.items())]
    bulk.insert(connection, pruned_events, rows, on_conflict="keep greatest")
    return len(removed), upto


def newest_removed(connection: Connection, sources: Collection[str]) -> dict[str, datetime]:
    """By source, of those of which events were removed, the newest time among these. Claim first, and then look."""
    return {row.source: row.newest_time for row in connection.execute(_NEWEST_REMOVED, {"values": sources})}


def remove_dead_letters(connection: Connection, before: datetime, limit: int) -> int:
    """Remove at most `limit` dead letters that are older than `before`; returns how many."""
    created_at = dead_letters.c.created_at
    old = select(dead_letters.c.dead_letter_id).where(created_at < before).order_by(created_at).limit(limit)
    return connection.execute(delete(dead_letters).where(dead_letters.c.dead_letter_id.in_(old))).rowcount

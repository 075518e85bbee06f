"""What runs by the clock: queue entries and counts that nobody needs any more."""

from datetime import timedelta

import structlog
from sqlalchemy import Engine

from worker.storage import breakers
from worker.storage.database import now, reading, transaction
from worker.streams import Queue

log = structlog.get_logger(__name__)


def prune(engine: Engine, queue: Queue, retention: timedelta, window: timedelta = timedelta(days=1)) -> int:
    """Remove queue entries that are older than the retention and that no group still needs; returns how many. Also
    counts of the breaker that lie well before its window."""
    with reading(engine) as connection:
        oldest = now(connection) - retention
    trimmed = queue.trim(int(oldest.timestamp() * 1000))
    with transaction(engine) as connection:
        breakers.prune(connection, now(connection) - 2 * window)
    if trimmed:
        log.info("queue.pruned", entries=trimmed, older_than=oldest.isoformat())
    return trimmed

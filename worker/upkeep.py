"""What runs by the clock: queue entries that nobody needs any more."""

from datetime import timedelta

import structlog
from sqlalchemy import Engine

from worker.storage.database import now, reading
from worker.streams import Queue

log = structlog.get_logger(__name__)


def prune(engine: Engine, queue: Queue, retention: timedelta) -> int:
    """Remove queue entries that are older than the retention and that no group still needs; returns how many."""
    with reading(engine) as connection:
        oldest = now(connection) - retention
    trimmed = queue.trim(int(oldest.timestamp() * 1000))
    if trimmed:
        log.info("queue.pruned", entries=trimmed, older_than=oldest.isoformat())
    return trimmed

"""A worker process that kills itself at a point: `python -m tests.integration.killed POINT REDIS DATABASE ENTRY…`."""

import os
import signal
import sys

from sqlalchemy import event

from worker import bootstrap
from worker.process import process
from worker.settings import Settings
from worker.streams import Batch

# SQLAlchemy's "commit" comes just before the COMMIT is sent, and "checkin" when the connection is given back after it.
POINTS = {
    "after the claim": "before_cursor_execute",
    "before the commit": "commit",
    "after the commit": "checkin",
}


def main(point: str, redis_url: str, database_url: str, *entry_ids: str) -> None:
    settings = Settings(redis_url=redis_url, database_url=database_url)
    engine, redis = bootstrap.engine(settings), bootstrap.redis(settings)

    def kill(*arguments: object) -> None:
        if point != "after the claim" or "INTO orders" in str(arguments[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, POINTS[point], kill)
    process(bootstrap.processor(settings, engine, redis), Batch(entry_ids))


if __name__ == "__main__":
    main(*sys.argv[1:])

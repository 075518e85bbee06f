"""A worker process that kills itself at a point: `python -m tests.integration.killed POINT REDIS DATABASE ENTRY…`."""

import os
import signal
import sys

from worker import bootstrap, points
from worker.process import process
from worker.settings import Settings
from worker.streams import Batch

POINTS: tuple[points.Point, ...] = ("batch: after claim", "batch: before commit", "batch: after commit")


def main(point: str, redis_url: str, database_url: str, *entry_ids: str) -> None:
    settings = Settings(redis_url=redis_url, database_url=database_url)
    engine, redis = bootstrap.engine(settings), bootstrap.redis(settings)

    def kill(passed: points.Point) -> None:
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    points.hook = kill
    process(bootstrap.processor(settings, engine, redis), Batch(entry_ids))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Shortpick itself, with every process, from XADD to the published cancellation."""

from pathlib import Path

import psutil
from redis import Redis

from benchmarks.contestants import wait_for
from benchmarks.events import Load
from tests.end_to_end.processes import NAMES, Processes
from worker import bootstrap, migrations
from worker.settings import Settings

ADDED_AT_ONCE = 1000


class Shortpick:
    name = "Shortpick"

    def __init__(self, redis_url: str, database_url: str, folder: Path) -> None:
        self.settings = Settings(redis_url=redis_url, database_url=database_url)
        self.engine = bootstrap.engine(self.settings)
        self.redis: Redis = bootstrap.redis(self.settings)
        self.queue = bootstrap.queue(self.settings, self.redis)
        self.outbox = bootstrap.outbox(self.settings, self.redis)
        logs = folder / "logs-{}".format(str(self.engine.url.database).replace("/", "-"))
        logs.mkdir()
        self._processes = Processes(self.settings, logs)
        self._cancelled = 0

    def __enter__(self) -> "Shortpick":
        migrations.upgrade(self.engine)
        self.queue.ensure_group()
        self.note_published()
        self._processes.__enter__()
        wait_for(self._processes.worker_is_ready, "the worker to be ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.__exit__()
        self.engine.dispose()
        self.redis.close()

    def processes(self) -> dict[str, psutil.Process]:
        return {name: self._processes.process(name) for name in NAMES} | {"sender": psutil.Process()}

    def run(self, load: Load) -> None:
        for first in range(0, len(load.events), ADDED_AT_ONCE):
            self.queue.add(load.events[first : first + ADDED_AT_ONCE])
        self._cancelled += load.orders
        wait_for(lambda: self.outbox.last_position() >= self._cancelled and self.is_quiet(), "all to be published")

    def note_published(self) -> None:
        """Something else than `run` has sent events."""
        self._cancelled = self.outbox.last_position()

    def megabytes(self) -> dict[str, float]:
        """Resident memory of each process, of the worker that of its largest child."""
        family = {name: [one, *one.children()] for name, one in self.processes().items()}
        return {name: max(one.memory_info().rss for one in of) / 2**20 for name, of in family.items()}

    def is_quiet(self) -> bool:
        return not self.queue.has_unread() and self.queue.pending() == 0

"""Transactions that meet: threads with connections of their own, which can be stopped at a point until others wait."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from tests.builders import Json
from tests.integration.batches import Batches
from worker.storage import database

PATIENCE_SECONDS = 8  # below PostgreSQL's lock_timeout, which would end a wait by itself


class Racer:
    """A thread with an engine of its own."""

    def __init__(self, url: str) -> None:
        self.engine = database.create(url)
        self.begun, self.stopped = Event(), Event()
        self._go = Event()
        self._pool = ThreadPoolExecutor(1)
        self._future: Future[Any] | None = None
        event.listen(self.engine, "before_cursor_execute", lambda *_: self.begun.set())  # on SQLite: BEGIN IMMEDIATE

    def start(self, call: Callable[[Engine], Any]) -> "Racer":
        self._future = self._pool.submit(call, self.engine)
        return self

    def feed(self, *events: Json | bytes, size: int | None = None) -> "Racer":
        """Start to process these events."""
        return self.start(lambda engine: Batches(engine).feed(*events, size=size))

    def stop_before_commit(self) -> "Racer":
        """Make it stop there, the first time, until it is told to `go`."""
        event.listen(self.engine, "commit", lambda _: self._stop())
        return self

    def fail_at_commit(self) -> "Racer":
        """Make it stop there, and fail when it is told to `go`."""

        def fail(_: Connection) -> None:
            self._stop()
            raise RuntimeError("it fails at the commit")

        event.listen(self.engine, "commit", fail)
        return self

    def stop_before(self, statement: str) -> "Racer":
        """Make it stop before a statement that begins so, the first time, until it is told to `go`."""

        def stop(_: Connection, __: Any, sent: str, *___: Any) -> None:
            if sent.startswith(statement):
                self._stop()

        event.listen(self.engine, "before_cursor_execute", stop)
        return self

    def wait_until_stopped(self) -> None:
        if not self.stopped.wait(PATIENCE_SECONDS):
            self.result()  # what it failed of tells more
            raise AssertionError("it never came to the point where it should stop")

    def go(self) -> None:
        self._go.set()

    def result(self) -> Any:
        assert self._future is not None
        return self._future.result(PATIENCE_SECONDS)

    def close(self) -> None:
        self.go()
        self._pool.shutdown()
        self.engine.dispose()

    def _stop(self) -> None:
        if not self.stopped.is_set():
            self.stopped.set()
            self._go.wait(PATIENCE_SECONDS)


class Race:
    """Racers on one database, and a look at which of them wait for a lock."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.watch = database.create(url, pool_size=3)
        self._racers: list[Racer] = []

    def racer(self) -> Racer:
        self._racers.append(Racer(self.url))
        return self._racers[-1]

    def racers(self, number: int) -> list[Racer]:
        return [self.racer() for _ in range(number)]

    def wait_until_blocked(self, *racers: Racer) -> None:
        """Wait until all of these, and no others, wait for a lock: in the middle of their transactions on PostgreSQL,
        at the beginning on SQLite, where BEGIN IMMEDIATE takes the only lock."""
        if self.watch.dialect.name == "sqlite":
            assert all(racer.begun.wait(PATIENCE_SECONDS) for racer in racers)
            return
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (blocked := self._blocked()) != len(racers):
            assert time.monotonic() < deadline, f"{blocked} wait for a lock, not {len(racers)}"
            time.sleep(0.002)

    def _blocked(self) -> int:
        with database.reading(self.watch) as connection:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            number: int = connection.execute(text(waiting)).scalar_one()
        return number

    @contextmanager
    def holding(self, statement: str) -> Iterator[None]:
        """Hold the locks that a statement takes, and then undo it."""
        with self.watch.connect() as connection:
            connection.execute(text(statement))
            yield
            connection.rollback()

    def close(self) -> None:
        for racer in self._racers:
            racer.close()
        self.watch.dispose()

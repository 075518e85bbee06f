"""`shortpick health`: is it alive, is it ready, does it get on? For a monitor, or a container's health check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import typer
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, TimeoutError

from worker import migrations
from worker.cli.context import Json, Pipeline, StateDir, emit, say, unchecked
from worker.cli.progress import patience, stuck_work
from worker.cli.standing import consumer_group
from worker.publication import StreamDiverged, verified_end
from worker.storage.database import describe, reading
from worker.streams import ForeignEntry

WAIT_SECONDS = 2
"""For a server to answer."""


@dataclass(frozen=True, slots=True)
class Health:
    """For each question the problems that were found, or None where it could not be told."""

    live: list[str]
    ready: list[str] | None
    progress: list[str] | None

    @property
    def healthy(self) -> bool:
        return self.live == self.ready == self.progress == []

    def questions(self) -> Mapping[str, list[str] | None]:
        return {name: getattr(self, name) for name in self.__slots__}


def register(app: typer.Typer) -> None:
    app.command()(health)


def health(
    max_age: Annotated[
        int | None,
        typer.Option(
            "--max-age",
            help="Seconds that work may lie there while none of its kind is done; five minutes or more by default.",
            min=0,
        ),
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Whether it is alive, ready, and gets on; the exit code is 0 if so, else 1. Takes two seconds at most where the
    servers answer."""
    with unchecked(state_dir, WAIT_SECONDS) as p:
        found = examine(p, patience(p.settings) if max_age is None else timedelta(seconds=max_age))
    if as_json:
        emit({"healthy": found.healthy, **{name: _json(problems) for name, problems in found.questions().items()}})
    else:
        for name, problems in found.questions().items():
            answer = "not told" if problems is None else f"no: {'; '.join(problems)}" if problems else "yes"
            say(f"{name:10} {answer}", "bold red" if problems else "")
    if not found.healthy:
        raise typer.Exit(1)


def _json(problems: list[str] | None) -> dict[str, Any]:
    return {"ok": None if problems is None else not problems, "problems": problems or []}


def examine(p: Pipeline, max_age: timedelta) -> Health:
    """Each question presupposes the one before."""
    live = _told(lambda: _redis(p)) + _told(lambda: _database(p))
    if live:
        return Health(live, None, None)
    tables = _told(lambda: _tables(p))
    ready = tables + _told(lambda: _group(p)) + ([] if tables else _told(lambda: _stream(p)))
    return Health(live, ready, None if tables else _told(lambda: stuck_work(p, max_age)))


def _told(look: Callable[[], list[str]]) -> list[str]:
    """The problems that a look finds; if it cannot be taken, that is one."""
    try:
        return look()
    except RedisError as error:
        return [f"Redis does not answer as it should: {error}"]
    except (DBAPIError, TimeoutError) as error:
        return [f"the database does not answer as it should: {describe(error)}"]


def _redis(p: Pipeline) -> list[str]:
    p.redis.ping()
    return []


def _database(p: Pipeline) -> list[str]:
    with reading(p.engine) as connection:
        connection.execute(select(1))
    return []


def _tables(p: Pipeline) -> list[str]:
    with reading(p.engine) as connection:
        found = migrations.version(connection)
    return [] if found == "current" else ["the database's tables are not of this version (shortpick doctor tells more)"]


def _group(p: Pipeline) -> list[str]:
    return [] if consumer_group(p) else ["the queue has no consumer group (was `shortpick ingress` ever started?)"]


def _stream(p: Pipeline) -> list[str]:
    try:
        verified_end(p.engine, p.outbox)
    except (StreamDiverged, ForeignEntry) as error:
        return [f"the relay has stopped: {error}"]
    return []

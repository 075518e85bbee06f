"""`shortpick doctor`: is everything as it must be, what is wrong, and what to change? One line for each check."""

import platform
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

import typer
from redis.exceptions import NoPermissionError, RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, TimeoutError

from worker import migrations
from worker.app import broker_trouble
from worker.cli.context import Failure, Json, Pipeline, StateDir, emit, messages, say, unchecked
from worker.cli.doctor_database import look_at_database
from worker.cli.doctor_pipeline import (
    THIS_MACHINE,
    of_backlog,
    of_clocks,
    of_people,
    of_queue,
    of_stops,
    of_stream,
    read_clock,
)
from worker.cli.doctor_redis import look_at_redis
from worker.cli.doctor_settings import of_settings
from worker.cli.findings import Finding, fault, ok, warning
from worker.cli.standing import look_at_backlog, look_at_queue, look_at_records, redis_time
from worker.cli.status import running
from worker.cli.wording import counted
from worker.publication import StreamDiverged, verified_end
from worker.settings import Settings
from worker.storage.database import describe, reading
from worker.storage.tables import UtcTime
from worker.streams import ForeignEntry

STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}
UNREACHABLE = "What depends on it was not looked at."


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Check settings, servers, tables, clocks and streams, and say what to change. The exit code is 1 if there are
    faults."""
    try:
        with unchecked(state_dir) as p:
            found = list(examine(p))
    except Failure as error:  # without settings there is nothing to look at
        found = [Finding("fault", "settings", f"{error}.")]
    for one in found:
        if as_json:
            emit(one.as_json())
        else:
            say(f"{one.level:8} {one.check:22} {one.says} {one.change or ''}".rstrip(), STYLES[one.level])
    faults, warnings = (sum(one.level == level for one in found) for level in ("fault", "warning"))
    messages.print(f"{counted(faults, 'fault')}, {counted(warnings, 'warning')}.")
    if faults:
        raise typer.Exit(1)


def examine(p: Pipeline) -> Iterator[Finding]:
    """All that is found. What does not answer is told once, and what depends on it left out."""
    yield from of_settings(p.settings)
    yield _program()
    redis, database = _attempt("redis", lambda: _redis(p)), _attempt("database", lambda: _database(p))
    yield from (*redis, *database, *_broker(p.settings))
    has_redis, has_database = (found[0].level == "ok" for found in (redis, database))
    if has_redis or has_database:
        yield from _attempt("clocks", lambda: _clocks(p, has_redis, has_database))
    if has_redis:
        yield from _attempt("queue", lambda: _queue(p))
    if has_database and _tables_are_current(p):
        yield from _attempt("records", lambda: _records(p))
        if has_redis:
            yield from _attempt("outgoing stream", lambda: _stream(p))


def _attempt(check: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds; if it cannot be made, why."""
    found: list[Finding] = []
    try:
        for one in look():
            found.append(one)
    except NoPermissionError as error:
        found.append(warning(check, f"It cannot be told: Redis forbids to look ({error}).", "Allow it to this user."))
    except RedisError as error:
        said = str(error).rstrip(".")
        change = f"Is Redis running, and is SHORTPICK_REDIS_URL right? {UNREACHABLE}"
        found.append(fault(check, f"Redis does not answer as it should: {said}.", change))
    except (DBAPIError, TimeoutError) as error:
        change = f"Is the database running, and is SHORTPICK_DATABASE_URL right? {UNREACHABLE}"
        found.append(fault(check, f"The database does not answer as it should: {describe(error)}.", change))
    return found


def _program() -> Finding:
    try:
        installed = version("shortpick")
    except PackageNotFoundError:
        installed = "of an unknown version (it is not installed as a package)"
    return ok("program", f"Shortpick {installed}, Python {platform.python_version()}.")


def _redis(p: Pipeline) -> Iterator[Finding]:
    p.redis.ping()
    yield ok("redis", "It answers.")
    yield from look_at_redis(p.redis)


def _database(p: Pipeline) -> Iterator[Finding]:
    with reading(p.engine) as connection:
        connection.execute(select(1))
        yield ok("database", "It answers.")
        yield from look_at_database(connection)


def _tables_are_current(p: Pipeline) -> bool:
    with reading(p.engine) as connection:
        return migrations.version(connection) == "current"


def _broker(settings: Settings) -> Iterator[Finding]:
    """Celery's broker, if it is another one."""
    if settings.broker_url in (None, settings.redis_url):
        return
    if trouble := broker_trouble(settings):
        change = "Is it running, and is SHORTPICK_BROKER_URL right?"
        yield fault("broker", f"It does not answer as it should: {trouble.rstrip('.')}.", change)
    else:
        yield ok("broker", "It answers.")


def _clocks(p: Pipeline, has_redis: bool, has_database: bool) -> Iterator[Finding]:
    clocks = {"this machine": THIS_MACHINE}
    if has_redis:
        clocks["Redis"] = read_clock(lambda: redis_time(p.redis))
    if has_database and p.engine.dialect.name == "postgresql":  # SQLite has this machine's
        with reading(p.engine) as connection:
            connection.execute(select(1))  # connecting takes its time
            told = select(func.clock_timestamp(type_=UtcTime))
            clocks["the database"] = read_clock(lambda: connection.execute(told).scalar_one())
    if len(clocks) > 1:
        yield of_clocks(clocks)


def _queue(p: Pipeline) -> Iterator[Finding]:
    queue = look_at_queue(p)
    yield from of_queue(queue, running(p, queue))


def _records(p: Pipeline) -> Iterator[Finding]:
    with reading(p.engine) as connection:
        recorded = look_at_records(connection, _published(p))
        yield from of_stops(recorded)
        yield from of_people(recorded)
        yield from of_backlog(recorded, look_at_backlog(connection, p.settings.shadow))


def _published(p: Pipeline) -> int | None:
    """None if the stream does not tell, which is told elsewhere."""
    try:
        return p.outbox.last_position()
    except (ForeignEntry, RedisError):
        return None


def _stream(p: Pipeline) -> Iterator[Finding]:
    try:
        yield of_stream(p.outbox.stream, verified_end(p.engine, p.outbox))
    except (StreamDiverged, ForeignEntry) as error:
        said = str(error)
        yield fault("outgoing stream", f"{said[:1].upper()}{said[1:]}.", "A person must decide; nothing is published.")

"""What commands share: which pipeline they talk to, and how they speak."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.alias_generators import to_camel
from redis import Redis
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection, Engine

from domain.outgoing import rfc3339
from worker import bootstrap, embedded, migrations
from worker.cli.wording import of_source, shown, when
from worker.settings import Settings, SettingsError, load
from worker.storage import pauses
from worker.storage.database import reading
from worker.streams import Outbox, Queue

# Lines are folded only for a terminal: a cut id or sentence is of no use to another program, or in a log.
out = Console(
    soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 10_000, highlight=False, emoji=False
)
messages = Console(stderr=True, soft_wrap=not sys.stderr.isatty(), highlight=False, emoji=False)

StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir", help="The embedded pipeline running in this folder; otherwise the SHORTPICK_ settings."
    ),
]
LARGEST_ID = 2**63 - 1
Limit = Annotated[int, typer.Option("--limit", help="At most so many, the newest first.", min=1)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]


class Failure(Exception):
    """A command cannot go on; the message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline that a command talks to."""

    settings: Settings
    engine: Engine
    redis: Redis
    queue: Queue
    outbox: Outbox


@contextmanager
def pipeline(state_dir: Path | None) -> Iterator[Pipeline]:
    """The pipeline in `state_dir`, or that of the environment's settings, whose tables are of this version."""
    with unchecked(state_dir) as p:
        with reading(p.engine) as connection:
            match migrations.version(connection):
                case "ahead":
                    raise migrations.NewerTables(migrations.NewerTables.__doc__)
                case "none" | "behind":
                    raise Failure("the database's tables are not of this version; run: shortpick db upgrade")
            tell_pauses(connection)
        yield p


@contextmanager
def unchecked(state_dir: Path | None, wait_seconds: int | None = None) -> Iterator[Pipeline]:
    """The same, whatever state it is in. Connects when it is first used; `wait_seconds` bounds how long that may take,
    where it is to be less than usual."""
    settings = embedded.settings_of(state_dir) if state_dir else settings_of_environment()
    if wait_seconds:
        settings = settings.model_copy(update={"redis_timeout_seconds": wait_seconds})
    try:
        engine = bootstrap.engine(settings, wait_seconds)
    except ModuleNotFoundError as error:
        raise Failure(f"{error}; install the database's driver: pip install 'shortpick[postgres]'") from None
    redis = bootstrap.redis(settings)
    try:
        yield Pipeline(settings, engine, redis, bootstrap.queue(settings, redis), bootstrap.outbox(settings, redis))
    finally:
        engine.dispose()
        redis.close()


def tell_pauses(connection: Connection) -> None:
    """Whatever a person looks at, they must know that cancellations are stopped."""
    for one in pauses.in_force(connection):
        messages.print(
            f"PAUSED since {when(one.paused_at)}: cancellations {of_source(one.source)} wait. "
            f"{one.paused_by} paused them: {shown(one.reason)}",
            style="bold yellow",
            markup=False,
        )


def settings_of_environment() -> Settings:
    """The settings of the environment, for commands that can name an embedded pipeline instead."""
    try:
        return load()
    except SettingsError as error:
        raise Failure(f"{error}; set it (see .env.example), or name an embedded pipeline with --state-dir") from None


def say(line: str = "", style: str = "") -> None:
    """A line of data for people. What came with an event is escaped: it can neither control the terminal nor style."""
    out.print(Text(shown(line), style=style))


def say_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people; columns of numbers stand to the right, and long cells go on in the next line."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[place], int) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else shown(str(cell))) for cell in row))
    out.print(table)


def say_rows(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], as_json: bool, hint: str, none: str
) -> None:
    """Rows of the database, under the names that `columns` gives to theirs; then what else there is to know."""
    if as_json:
        for row in rows:
            emit(json_fields(row))
    elif rows:
        say_table(list(columns), [[readable(row[name]) for name in columns.values()] for row in rows])
        messages.print(hint, markup=False)
    else:
        messages.print(none, markup=False)


def readable(value: object) -> object:
    return when(value) if isinstance(value, datetime) else value


def emit(value: Mapping[str, Any]) -> None:
    """A line of JSON on standard output; in ASCII, so that nothing in it can control a terminal."""
    sys.stdout.write(json.dumps(value) + "\n")


def json_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON: names in camel case as in the events, times in RFC 3339."""
    return {to_camel(name): rfc3339(value) if isinstance(value, datetime) else value for name, value in row.items()}

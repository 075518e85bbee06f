"""What commands share: which pipeline they talk to, and how they speak."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from redis import Redis
from rich.console import Console
from sqlalchemy import Engine

from worker import bootstrap, embedded, migrations
from worker.settings import Settings, SettingsError, load
from worker.storage.database import reading
from worker.streams import Outbox, Queue

out = Console(soft_wrap=not sys.stdout.isatty(), highlight=False)
messages = Console(stderr=True, highlight=False)

StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir", help="The embedded pipeline running in this folder; otherwise the SHORTPICK_ settings."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]


class Failure(Exception):
    """A command cannot go on; the message is one sentence that says what to do."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


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
    """The pipeline in `state_dir`, or that of the environment's settings. Connects when it is first used."""
    settings = embedded.settings_of(state_dir) if state_dir else settings_of_environment()
    engine = bootstrap.engine(settings)
    redis = bootstrap.redis(settings)
    try:
        with reading(engine) as connection:
            if migrations.missing(connection):
                raise Failure("the database's tables are not of this version; run: shortpick db upgrade")
        yield Pipeline(settings, engine, redis, bootstrap.queue(settings, redis), bootstrap.outbox(settings, redis))
    finally:
        engine.dispose()
        redis.close()


def settings_of_environment() -> Settings:
    """The settings of the environment, for commands that can name an embedded pipeline instead."""
    try:
        return load()
    except SettingsError as error:
        raise Failure(f"{error}; set it (see .env.example), or name an embedded pipeline with --state-dir") from None

"""`shortpick`: the commands, and what becomes of their errors."""

import sys

import typer
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, TimeoutError

from worker.cli import (
    breaker,
    cancel,
    conflicts,
    dead_letters,
    demo,
    doctor,
    drain,
    events,
    health,
    holds,
    orders,
    pauses,
    processes,
    report,
    republish,
    shortages,
    status,
    tail,
    why,
)
from worker.cli.context import Failure, messages
from worker.embedded import EmbeddedError
from worker.migrations import NewerTables
from worker.settings import SettingsError
from worker.storage.database import describe
from worker.streams import ForeignEntry

app = typer.Typer(
    name="shortpick",
    help="Decides which cancel operation each order needs when stock runs short, applies it once, and publishes it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _module in (
    processes,
    demo,
    events,
    drain,
    orders,
    why,
    tail,
    cancel,
    pauses,
    holds,
    breaker,
    report,
    status,
    doctor,
    health,
    republish,
    dead_letters,
    conflicts,
    shortages,
):
    _module.register(app)


def run() -> None:
    """Run the command line; every expected error is one sentence on standard error, and a non-zero exit code."""
    try:
        app()
    except (Failure, EmbeddedError, SettingsError, NewerTables, ForeignEntry) as error:
        _fail(str(error))
    except RedisError as error:
        said = str(error).rstrip(".")
        _fail(f"Redis does not answer as it should: {said}. Is it running, and is SHORTPICK_REDIS_URL right?")
    except (DBAPIError, TimeoutError) as error:
        _fail(f"the database does not answer as it should: {describe(error)}. Is SHORTPICK_DATABASE_URL right?")


def _fail(sentence: str) -> None:
    messages.print(f"shortpick: {sentence}", style="red", markup=False)
    sys.exit(1)

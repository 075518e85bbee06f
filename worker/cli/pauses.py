"""`shortpick pause` and `shortpick resume`: stop every cancellation, or those of one source, and go on."""

import getpass
import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from sqlalchemy import Row
from sqlalchemy.exc import OperationalError

from worker.cli.context import Failure, StateDir, messages, pipeline
from worker.cli.wording import of_source
from worker.storage import inbox, pauses
from worker.storage.database import describe, reading, transaction

Source = Annotated[
    str | None, typer.Option("--source", help="Only cuts that events of this source cause; otherwise all.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for those who find it so.")]
By = Annotated[str, typer.Option("--by", help="Who does it; otherwise the user of this machine.")]


def register(app: typer.Typer) -> None:
    app.command()(pause)
    app.command()(resume)


def pause(reason: Reason, source: Source = None, by: By = "", state_dir: StateDir = None) -> None:
    """Stop cancellations. Once this has returned none is committed any more; what had been committed is published.

    Placements and shipments go on being recorded. Cuts wait, and are decided again after `shortpick resume`.
    """
    with pipeline(state_dir) as p:
        try:
            with transaction(p.engine) as connection:
                pauses.pause(connection, source, reason, by or user())
        except OperationalError as error:
            what = "NOT paused: a batch has not ended"
            if error.connection_invalidated:
                what = "the connection was lost, so it is not known whether cancellations are paused"
            raise Failure(f"{what} ({describe(error)}). Run it again") from None
        with reading(p.engine) as connection:
            known = source is None or inbox.knows_source(connection, source)
    if not known:
        messages.print(
            f"No event of source {source!r} has come so far; is it spelled right?", style="yellow", markup=False
        )
    messages.print(f"Cancellations {of_source(source)} are paused. Go on with: {_resume(source)}", markup=False)


def resume(reason: Reason, source: Source = None, by: By = "", state_dir: StateDir = None) -> None:
    """Go on with cancellations. What has waited is decided again, from the state of then."""
    with pipeline(state_dir) as p:
        with transaction(p.engine) as connection:
            ended = pauses.resume(connection, source, reason, by or user())
        with reading(p.engine) as connection:
            left = pauses.in_force(connection)
    if not ended:
        raise Failure(f"cancellations {of_source(source)} are not paused{_others(left)}")
    every = p.settings.release_due_every_seconds
    messages.print(
        f"Cancellations {of_source(source)} go on{_others(left)}. What has waited is decided again, beginning within "
        f"{every:g} seconds.",
        markup=False,
    )


def user() -> str:
    """Who runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"user {os.getuid()}"


def _others(left: Sequence[Row[Any]]) -> str:
    """What is paused beside it."""
    scopes = sorted({of_source(one.source) for one in left})
    return f"; those {' and '.join(scopes)} are still paused" if scopes else ""


def _resume(source: str | None) -> str:
    return "shortpick resume --reason …" + (f" --source {source}" if source else "")

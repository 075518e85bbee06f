"""`shortpick pause` and `shortpick resume`: stop every cancellation, or those of one source, and go on."""

import getpass
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from sqlalchemy import Row

from worker.cli.context import Failure, StateDir, messages, pipeline
from worker.cli.wording import of_source
from worker.storage import pauses
from worker.storage.database import reading, transaction

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
        with transaction(p.engine) as connection:
            pauses.pause(connection, source, reason, by or getpass.getuser())
    messages.print(f"Cancellations {of_source(source)} are paused. Go on with: {_resume(source)}", markup=False)


def resume(reason: Reason, source: Source = None, by: By = "", state_dir: StateDir = None) -> None:
    """Go on with cancellations. What has waited is decided again, from the state of then."""
    with pipeline(state_dir) as p:
        with transaction(p.engine) as connection:
            ended = pauses.resume(connection, source, reason, by or getpass.getuser())
        with reading(p.engine) as connection:
            left = pauses.in_force(connection)
    if not ended:
        raise Failure(f"cancellations {of_source(source)} are not paused{_others(left)}")
    every = p.settings.release_due_every_seconds
    messages.print(
        f"Cancellations {of_source(source)} go on{_others(left)}. What has waited is decided again within "
        f"{every:g} seconds.",
        markup=False,
    )


def _others(left: Sequence[Row[Any]]) -> str:
    """What is paused beside it."""
    scopes = sorted({of_source(one.source) for one in left})
    return f"; those {' and '.join(scopes)} are still paused" if scopes else ""


def _resume(source: str | None) -> str:
    return "shortpick resume --reason …" + (f" --source {source}" if source else "")

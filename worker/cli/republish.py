"""`shortpick republish`: fill a lost outgoing stream again from the ledger."""

import sys
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from worker.cli.context import Failure, Pipeline, StateDir, messages, pipeline
from worker.publication import StreamDiverged
from worker.republish import CannotRepublish, begin, fill


def register(app: typer.Typer) -> None:
    app.command()(republish)


def republish(
    position: Annotated[int, typer.Option("--from", help="The position that the stream begins with.", min=1)],
    state_dir: StateDir = None,
) -> None:
    """Fill the outgoing stream again after it was lost: the same events, byte for byte, at the same positions.

    The relay does so by itself, from where the stream had begun before. This command is for another beginning. It
    refuses whatever would make a gap or a duplicate.
    """
    with pipeline(state_dir) as p:
        try:
            end = _fill(p, position, begin(p.engine, p.outbox, position))
        except (StreamDiverged, CannotRepublish) as error:
            raise Failure(str(error)) from None
        first = p.outbox.first_position()
    if first is None:
        messages.print(f"The stream {p.outbox.stream} is empty, and goes on with position {end + 1}.", markup=False)
    else:
        messages.print(f"The stream {p.outbox.stream} holds positions {first} to {end}.", markup=False)


def _fill(p: Pipeline, position: int, last: int) -> int:
    """Returns the last position in the stream."""
    end = position - 1
    columns = (TextColumn("appending"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=messages, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=max(0, last - end))
        for end in fill(p.engine, p.outbox, position):
            progress.update(task, completed=end - position + 1)
    return end

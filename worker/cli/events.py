"""`shortpick events`: send events to the queue, or check them before."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from domain.errors import InvalidEvent
from domain.parsing import parse
from worker.cli.context import Failure, Json, StateDir, emit, messages, pipeline, say
from worker.cli.wording import counted

CHUNK = 500

File = Annotated[str, typer.Argument(metavar="FILE|-", help="NDJSON: one CloudEvent a line; - reads standard input.")]

events = typer.Typer(help="Send events to the queue, or check them before.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(events, name="events")


@events.command()
def send(file: File, state_dir: StateDir = None) -> None:
    """Send each line as it is; what is wrong with it, its dead letter will tell. Blank lines are left out."""
    with _opened(file) as source, pipeline(state_dir) as p:
        events = (line.rstrip(b"\r\n") for line in source if line.strip())
        sent = 0
        with Progress(
            SpinnerColumn(),
            TextColumn("sending"),
            MofNCompleteColumn(),
            console=messages,
            transient=True,
            disable=not sys.stderr.isatty(),
        ) as progress:
            task = progress.add_task("", total=None)
            while chunk := list(islice(events, CHUNK)):
                p.queue.add(chunk)
                sent += len(chunk)
                progress.update(task, completed=sent)
        messages.print(f"Sent {counted(sent, 'event')} to {p.queue.stream}.")


@events.command()
def validate(file: File, as_json: Json = False) -> None:
    """Check each line against the contract; exit code 1 if one of them is wrong."""
    good = wrong = 0
    with _opened(file) as source:
        for number, line in enumerate(source, start=1):
            if not line.strip():
                continue
            fault = _fault(line.rstrip(b"\r\n"))
            if fault is None:
                good += 1
                continue
            wrong += 1
            _tell(number, *fault, as_json)
    messages.print(f"{good} good, {wrong} wrong.")
    if wrong:
        messages.print("What each code means, and what to do: docs/reasons.md")
        raise typer.Exit(1)


def _fault(raw: bytes) -> tuple[str, str] | None:
    """Code and sentence of what is wrong with an event, or None."""
    try:
        parse(raw, datetime.now(UTC))
    except InvalidEvent as error:
        return error.code, str(error)
    return None


def _tell(number: int, code: str, sentence: str, as_json: bool) -> None:
    if as_json:
        emit({"line": number, "code": code, "sentence": sentence})
    else:
        say(f"line {number}: {code}: {sentence}")


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as source:
            yield source
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from None

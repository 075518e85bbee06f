"""Commands that decide about many things at once: the number is confirmed, and they go on chunk by chunk."""

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from worker.cli.context import Failure, messages
from worker.cli.wording import counted

CHUNK = 100

Expect = Annotated[
    int | None, typer.Option("--expect", help="How many there must be; without it the number is asked for.", min=0)
]
Everything = Annotated[bool, typer.Option("--all", help="All that are open.")]


def confirm(number: int, noun: str, done: str, expect: int | None) -> None:
    """Of more than one the number must be known, or typed: nobody decides thousands by mistake. `done` is what will be
    done to them: `approved`."""
    if number == 1 and expect is None:
        return
    if expect is None:
        if not sys.stdin.isatty():
            raise Failure(f"{counted(number, noun)} would be {done}; confirm it with --expect {number}")
        typed = typer.prompt(f"{counted(number, noun)} will be {done}. Type the number to go on", err=True)
        expect = int(typed) if typed.strip().isdigit() else -1
    if expect != number:
        raise Failure(f"there are {counted(number, noun)}, not {max(expect, 0)}; nothing was decided")


def in_chunks(ids: Sequence[int], doing: str) -> Iterator[Sequence[int]]:
    """For a transaction each: killed in the middle, the command can be run again for the rest."""
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=messages, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=len(ids))
        for first in range(0, len(ids), CHUNK):
            yield ids[first : first + CHUNK]
            progress.update(task, completed=min(first + CHUNK, len(ids)))

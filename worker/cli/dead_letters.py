"""`shortpick dead-letters`: events that came to nothing, to be put on the queue again or dismissed by a person."""

import base64
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer
from sqlalchemy import Row

from domain.parsing import identify
from worker import retries
from worker.cli import dead_letter_story
from worker.cli.bulk import Everything, Expect, confirm, in_chunks
from worker.cli.context import (
    LARGEST_ID,
    Failure,
    Json,
    Limit,
    Pipeline,
    StateDir,
    emit,
    json_fields,
    messages,
    pipeline,
    readable,
    say,
    say_rows,
)
from worker.cli.pauses import By, user
from worker.cli.wording import counted, explained, is_are, listed, shown_bytes
from worker.retries import Fault
from worker.storage import dead_letters as stored
from worker.storage import inbox
from worker.storage.database import now, reading, transaction

SHOWN_BYTES = 4000

dead_letters = typer.Typer(help="Events that could not be acted on.", no_args_is_help=True)

Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="As `dead-letters list` shows it.")]
Ids = Annotated[
    list[int] | None,
    typer.Argument(metavar="[ID]…", min=1, max=LARGEST_ID, help="As `dead-letters list` shows them."),
]
Code = Annotated[str | None, typer.Option("--code", help="Those of this code.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded, and told by `shortpick why`.")]


def register(app: typer.Typer) -> None:
    app.add_typer(dead_letters, name="dead-letters")


@dead_letters.command("list")
def list_dead_letters(
    state: Annotated[Literal["open", "retried", "dismissed", "all"], typer.Option("--state", help="Only those.")] = (
        "open"
    ),
    code: Code = None,
    limit: Limit = 50,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """The newest dead letters that nobody has dealt with."""
    chosen = None if state == "all" else state
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        rows = [dict(row._mapping) for row in stored.listed(connection, limit, chosen, code)]
        total = sum(stored.count(connection, chosen, code).values())
    columns = {
        "id": "dead_letter_id",
        "when": "created_at",
        "state": "state",
        "code": "code",
        "order": "order_id",
        "event": "id",
        "what happened": "sentence",
    }
    kind = ("" if chosen is None else f"{chosen} ") + "dead letter"
    hint = f"{counted(total, kind)} in all; shortpick dead-letters show ID tells more, and what to do."
    say_rows(rows, columns, as_json, hint, f"No {kind}s.")


@dead_letters.command()
def show(
    dead_letter_id: Id,
    raw: Annotated[bool, typer.Option("--raw", help="Only the original bytes, as they came.")] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """One dead letter, with the bytes as they came, and what was done about it."""
    with pipeline(state_dir) as p:
        fields = _find(p, dead_letter_id)
        if fields is None:
            raise Failure(_unknown(dead_letter_id))
        content: bytes = fields.pop("bytes")
        told = _dealt_with(p, fields, content)
    if raw:
        sys.stdout.buffer.write(content)
        return
    if as_json:
        emit({**json_fields(fields), "bytes": base64.b64encode(content).decode()})
        return
    for name, value in fields.items():
        say(f"{name.replace('_', ' '):>15}  {'–' if value is None else readable(value)}")
    say(f"{'bytes':>15}  {shown_bytes(content, SHOWN_BYTES)}")
    say(f"{'what to do':>15}  {explained(fields['code'])}")
    for sentence in told:
        say(sentence)
    if len(content) > SHOWN_BYTES:
        messages.print(f"Only the first {SHOWN_BYTES} bytes are shown; --raw writes them all.")


@dead_letters.command()
def retry(
    reason: Reason,
    dead_letter_ids: Ids = None,
    code: Code = None,
    everything: Everything = False,
    expect: Expect = None,
    by: By = "",
    state_dir: StateDir = None,
) -> None:
    """Put dead letters on the queue again, with the bytes as they came. What would come to nothing again stays open.

    They are decided anew, from the present state of their orders and by the figures that they tell of, however old.
    """
    done, in_vain = 0, dict[int, Fault]()
    with pipeline(state_dir) as p:
        chosen = _chosen(p, dead_letter_ids or [], code, everything)
        confirm(len(chosen), "dead letter", "put on the queue again", expect)
        for chunk in in_chunks(chosen, "on the queue again"):
            one = retries.retry(p.engine, p.queue, chunk, by or user(), reason)
            done += one.done
            in_vain |= one.in_vain
    if len(chosen) == len(in_vain):
        raise Failure(f"nothing was put on the queue; {_left(in_vain)}")
    messages.print(f"{is_are(done, 'dead letter')} on the queue again; dead-letters show ID tells what comes of it.")
    if in_vain:
        messages.print(f"But {_left(in_vain)}", markup=False)
    _tell_others(len(chosen) - done - len(in_vain))


@dead_letters.command()
def dismiss(
    reason: Reason,
    dead_letter_ids: Ids = None,
    code: Code = None,
    everything: Everything = False,
    expect: Expect = None,
    by: By = "",
    state_dir: StateDir = None,
) -> None:
    """Note that nothing is to be done about dead letters any more, as when a mended event was sent. They are kept."""
    done = 0
    with pipeline(state_dir) as p:
        chosen = _chosen(p, dead_letter_ids or [], code, everything)
        confirm(len(chosen), "dead letter", "dismissed", expect)
        for chunk in in_chunks(chosen, "dismissed"):
            with transaction(p.engine) as connection:
                done += stored.dismiss(connection, chunk, by or user(), reason, now(connection))
    messages.print(f"{counted(done, 'dead letter')} dismissed.")
    _tell_others(len(chosen) - done)


def _chosen(p: Pipeline, ids: Sequence[int], code: str | None, everything: bool) -> list[int]:
    """The open dead letters that are meant; from here on it is these, whatever comes meanwhile."""
    if sum((bool(ids), code is not None, everything)) != 1:
        raise Failure("say which dead letters are meant: their ids, or --code CODE, or --all")
    with reading(p.engine) as connection:
        chosen = stored.select_ids(connection, ids, code, everything)
    others = [_not_open(p, one) for one in ids if one not in chosen]
    if not chosen:
        of_code = f" of code {code!r}" if code else ""
        raise Failure("; ".join(others) or f"no dead letter{of_code} is open; shortpick dead-letters list --state all")
    for sentence in others:
        messages.print(f"Left out: {sentence}", markup=False)
    return chosen


def _not_open(p: Pipeline, dead_letter_id: int) -> str:
    row = _find(p, dead_letter_id)
    if row is None:
        return _unknown(dead_letter_id)
    return f"dead letter {dead_letter_id} is not open: {dead_letter_story.decided(row)}"


def _unknown(dead_letter_id: int) -> str:
    return f"there is no dead letter {dead_letter_id}; shortpick dead-letters list shows which there are"


def _find(p: Pipeline, dead_letter_id: int) -> dict[str, Any] | None:
    with reading(p.engine) as connection:
        return _fields(stored.find(connection, dead_letter_id))


def _dealt_with(p: Pipeline, row: dict[str, Any], content: bytes) -> list[str]:
    """What a person did about a dead letter, and what came of it."""
    key, _ = identify(content)
    with reading(p.engine) as connection:
        again = stored.of_entry(connection, row["retried_as"]) if row["retried_as"] else None
        event = inbox.of_key(connection, key) if key else None
    return dead_letter_story.dealt_with(row, _fields(again), _fields(event))


def _fields(row: Row[Any] | None) -> dict[str, Any] | None:
    return dict(row._mapping) if row else None


def _left(in_vain: Mapping[int, Fault]) -> str:
    """Which dead letters stay as they are, and why."""
    if len(in_vain) == 1:
        ((dead_letter_id, fault),) = in_vain.items()
        return (
            f"dead letter {dead_letter_id} stays open, since it would come to nothing again ({fault.code}): "
            f"{fault.sentence}. What to do: {explained(fault.code)}"
        )
    codes = [f"{number} {code}" for code, number in Counter(one.code for one in in_vain.values()).most_common()]
    return (
        f"{len(in_vain)} dead letters stay open, since they would come to nothing again: {listed(codes)}. "
        "What to do: docs/reasons.md#dead-letters"
    )


def _tell_others(number: int) -> None:
    if number:
        messages.print(f"{counted(number, 'dead letter')} had been dealt with by somebody else meanwhile.")

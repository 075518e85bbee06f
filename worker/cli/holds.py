"""`shortpick holds`: cuts that a guardrail has stopped, to be approved or rejected by a person."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from worker import verdicts
from worker.cli import story
from worker.cli.bulk import Everything, Expect, confirm, in_chunks
from worker.cli.context import Failure, Json, StateDir, emit, json_fields, messages, pipeline, say, say_table
from worker.cli.pauses import user
from worker.cli.wording import counted, when
from worker.storage import holds as stored
from worker.storage.database import reading
from worker.storage.holds import Verdict

holds = typer.Typer(help="Cuts that a guardrail has stopped.", no_args_is_help=True)

Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]…", help="As `holds list --each` shows them.", min=1)]
Cause = Annotated[str | None, typer.Option("--cause", help="All holds of the event with this id.")]
Source = Annotated[str | None, typer.Option("--source", help="Only those whose event is of this source.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded, and told by `shortpick why`.")]
By = Annotated[str, typer.Option("--by", help="Who decides; otherwise the user of this machine.")]


def register(app: typer.Typer) -> None:
    app.add_typer(holds, name="holds")


@holds.command("list")
def list_holds(
    each: Annotated[bool, typer.Option("--each", help="Each hold, the newest first, instead of their causes.")] = False,
    every_state: Annotated[bool, typer.Option("--every-state", help="Also those that were decided.")] = False,
    limit: Annotated[int, typer.Option("--limit", help="At most so many with --each.", min=1)] = 50,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """What is held, by the event that caused it."""
    states = (
        ("open", "approved", "rejected", "superseded", "carried_out", "shadow") if every_state else ("open", "approved")
    )
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        found = stored.listed(connection, states, limit) if each else stored.by_cause(connection, states)
    rows = [dict(row._mapping) for row in found]
    if as_json:
        for row in rows:
            emit(json_fields(row))
    elif not rows:
        messages.print("Nothing is held.")
    elif each:
        say_table(
            ("id", "order", "units", "why", "state", "since", "event"),
            [
                (r["hold_id"], r["order_id"], r["units"], r["why"], r["state"], when(r["created_at"]), r["id"])
                for r in rows
            ],
        )
    else:
        for row in rows:
            say(story.held_cause(row))
        messages.print(
            "Decide with: shortpick holds approve|reject --cause EVENT (or --all --source SOURCE) --reason …"
        )


@holds.command()
def show(
    hold_id: Annotated[int, typer.Argument(metavar="ID", min=1, help="As `holds list --each` shows it.")],
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """One hold, with what it would cancel."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        row = stored.find(connection, hold_id)
    if row is None:
        raise Failure(f"there is no hold {hold_id}; shortpick holds list --each shows which there are")
    fields = dict(row._mapping)
    if as_json:
        emit(json_fields(fields))
        return
    say(f"Hold {hold_id}: order {row.order_id!r}, event {row.id!r} of {row.source!r} ({row.type})", style="bold")
    for sentence in story.hold(fields):
        say(f"   {sentence}")


@holds.command()
def approve(
    reason: Reason,
    hold_ids: Ids = None,
    cause: Cause = None,
    source: Source = None,
    everything: Everything = False,
    expect: Expect = None,
    by: By = "",
    state_dir: StateDir = None,
) -> None:
    """Let cuts be made after all. Each is decided again from the present state of its order, by the workers."""
    _decide("approved", reason, hold_ids, cause, source, everything, expect, by, state_dir)
    messages.print("The workers decide them again within seconds; a pause holds them back.")


@holds.command()
def reject(
    reason: Reason,
    hold_ids: Ids = None,
    cause: Cause = None,
    source: Source = None,
    everything: Everything = False,
    expect: Expect = None,
    by: By = "",
    state_dir: StateDir = None,
) -> None:
    """Let cuts never be made. This is final for their events; a new event may ask for the same again."""
    _decide("rejected", reason, hold_ids, cause, source, everything, expect, by, state_dir)


def _decide(
    verdict: Verdict,
    reason: str,
    hold_ids: Sequence[int] | None,
    cause: str | None,
    source: str | None,
    everything: bool,
    expect: int | None,
    by: str,
    state_dir: Any,
) -> None:
    if sum((bool(hold_ids), cause is not None, everything)) != 1:
        raise Failure("say which holds are meant: their ids, or --cause EVENT, or --all")
    with pipeline(state_dir) as p:
        with reading(p.engine) as connection:  # from here on it is these, whatever is held meanwhile
            chosen = stored.select_ids(connection, hold_ids or [], cause, source, everything)
        if not chosen:
            raise Failure("none of these is held and undecided; shortpick holds list shows what is")
        confirm(len(chosen), "hold", verdict, expect)
        decider = by or user()
        done = sum(verdicts.give(p.engine, chunk, verdict, decider, reason) for chunk in in_chunks(chosen, verdict))
    messages.print(f"{counted(done, 'hold')} {verdict}.")
    if done < len(chosen):
        messages.print(f"{counted(len(chosen) - done, 'hold')} had been decided by somebody else meanwhile.")

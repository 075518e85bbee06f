"""`shortpick conflicts`: goods shipped that no open quantity could take, and what a person has done about them."""

from typing import Annotated, Literal

import typer

from worker.cli.context import LARGEST_ID, Failure, Json, Limit, StateDir, messages, pipeline, say_rows
from worker.cli.pauses import By, user
from worker.cli.wording import shown, when
from worker.storage import conflicts as stored
from worker.storage.database import now, reading, transaction

conflicts = typer.Typer(help="Goods shipped that no open quantity could take.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(conflicts, name="conflicts")


@conflicts.command("list")
def list_conflicts(
    state: Annotated[Literal["open", "resolved", "all"], typer.Option("--state", help="Only those.")] = "open",
    limit: Limit = 50,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """The newest conflicts that nobody has resolved."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        rows = [dict(row._mapping) for row in stored.listed(connection, limit, None if state == "all" else state)]
    columns = {
        "id": "conflict_id",
        "when": "created_at",
        "order": "order_id",
        "fulfillment": "fulfillment_id",
        "item": "item_id",
        "SKU": "sku",
        "units too many": "quantity",
        "state": "state",
        "what was done": "resolution",
    }
    hint = "shortpick why ORDER tells how it came; shortpick conflicts resolve ID --note … when it is settled."
    say_rows(rows, columns, as_json, hint, "No conflicts." if state == "all" else f"No {state} conflicts.")


@conflicts.command()
def resolve(
    conflict_id: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="As `conflicts list` shows it.")
    ],
    note: Annotated[
        str | None, typer.Option("--note", help="What was done; it is recorded, and told by `shortpick why`.")
    ] = None,
    by: By = "",
    state_dir: StateDir = None,
) -> None:
    """Note that a conflict is settled: the parcel was stopped, the buyer keeps it …"""
    with pipeline(state_dir) as p:
        with transaction(p.engine) as connection:
            resolved = stored.resolve(connection, conflict_id, by or user(), note, now(connection))
        with reading(p.engine) as connection:
            row = stored.find(connection, conflict_id)
    if row is None:
        raise Failure(f"there is no conflict {conflict_id}; shortpick conflicts list shows which there are")
    if not resolved:
        done = f": {shown(row.resolution)}" if row.resolution else ""
        raise Failure(
            f"conflict {conflict_id} was resolved already, by {shown(row.resolved_by)} at {when(row.resolved_at)}{done}"
        )
    messages.print(f"Conflict {conflict_id} of order {row.order_id!r} is resolved.", markup=False)

"""`shortpick dead-letters` and `conflicts`: what needs a person; and `shortages`: SKUs that ran short."""

import base64
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from worker.cli.context import Failure, Json, StateDir, emit, json_fields, messages, pipeline, say, say_table
from worker.cli.wording import counted, shown_bytes, when
from worker.storage import allocations
from worker.storage import conflicts as stored_conflicts
from worker.storage import dead_letters as stored
from worker.storage.database import reading

SHOWN_BYTES = 4000
LARGEST_ID = 2**63 - 1

Limit = Annotated[int, typer.Option("--limit", help="At most so many, the newest first.", min=1)]

dead_letters = typer.Typer(help="Events that could not be acted on.", no_args_is_help=True)
conflicts = typer.Typer(help="Goods shipped that no open quantity could take.", no_args_is_help=True)


shortages = typer.Typer(help="Shortages of a SKU, and what came of them.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(shortages, name="shortages")
    app.add_typer(dead_letters, name="dead-letters")
    app.add_typer(conflicts, name="conflicts")


@dead_letters.command("list")
def list_dead_letters(limit: Limit = 50, as_json: Json = False, state_dir: StateDir = None) -> None:
    """The newest dead letters."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        rows = [dict(row._mapping) for row in stored.listed(connection, limit)]
        total = sum(stored.count(connection).values())
    columns = {
        "id": "dead_letter_id",
        "when": "created_at",
        "code": "code",
        "order": "order_id",
        "event": "id",
        "what to do": "sentence",
    }
    hint = f"{counted(total, 'dead letter')} in all; shortpick dead-letters show ID tells more."
    _list(rows, columns, as_json, hint, "No dead letters.")


@dead_letters.command()
def show(
    dead_letter_id: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="As `dead-letters list` shows it.")
    ],
    raw: Annotated[bool, typer.Option("--raw", help="Only the original bytes, as they came.")] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """One dead letter, with the bytes as they came."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        row = stored.find(connection, dead_letter_id)
    if row is None:
        raise Failure(f"there is no dead letter {dead_letter_id}; shortpick dead-letters list shows which there are")
    fields = dict(row._mapping)
    content: bytes = fields.pop("bytes")
    if raw:
        sys.stdout.buffer.write(content)
        return
    if as_json:
        emit({**json_fields(fields), "bytes": base64.b64encode(content).decode()})
        return
    for name, value in fields.items():
        say(f"{name.replace('_', ' '):>15}  {'–' if value is None else _readable(value)}")
    say(f"{'bytes':>15}  {shown_bytes(content, SHOWN_BYTES)}")
    if len(content) > SHOWN_BYTES:
        messages.print(f"Only the first {SHOWN_BYTES} bytes are shown; --raw writes them all.")


@conflicts.command("list")
def list_conflicts(limit: Limit = 50, as_json: Json = False, state_dir: StateDir = None) -> None:
    """The newest conflicts."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        rows = [dict(row._mapping) for row in stored_conflicts.listed(connection, limit)]
    columns = {
        "id": "conflict_id",
        "when": "created_at",
        "order": "order_id",
        "fulfillment": "fulfillment_id",
        "item": "item_id",
        "SKU": "sku",
        "units too many": "quantity",
        "state": "state",
    }
    _list(rows, columns, as_json, "shortpick why ORDER tells how it came.", "No conflicts.")


@shortages.command("list")
def list_shortages(limit: Limit = 50, as_json: Json = False, state_dir: StateDir = None) -> None:
    """The newest shortages of a SKU that were to be carried out."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        rows = [dict(row._mapping) for row in allocations.listed(connection, limit)]
    for row in rows:
        row["shipped_since"] = (row.pop("facts") or {}).get("shipped")
    columns = {
        "SKU": "sku",
        "as at": "happened_at",
        "available": "available",
        "shipped since": "shipped_since",
        "outcome": "outcome",
        "why": "reason",
        "orders served": "orders",
        "units wanted": "wanted",
        "units given": "given",
        "orders cut": "cut_orders",
        "units cut": "cut_units",
        "due": "due_at",
        "event": "id",
    }
    _list(rows, columns, as_json, "shortpick why ORDER tells what came to an order.", "No shortages of a SKU.")


def _list(rows: Sequence[Mapping[str, Any]], columns: dict[str, str], as_json: bool, hint: str, none: str) -> None:
    if as_json:
        for row in rows:
            emit(json_fields(row))
    elif rows:
        say_table(list(columns), [[_readable(row[name]) for name in columns.values()] for row in rows])
        messages.print(hint)
    else:
        messages.print(none)


def _readable(value: object) -> object:
    return when(value) if isinstance(value, datetime) else value

"""`shortpick dead-letters` and `shortpick conflicts`: what needs a person."""

import base64
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy import Row

from domain.outgoing import rfc3339
from worker.cli.context import Failure, Json, StateDir, messages, out, pipeline
from worker.storage import conflicts as stored_conflicts
from worker.storage import dead_letters as stored
from worker.storage.database import reading

SHOWN_BYTES = 4000

Limit = Annotated[int, typer.Option("--limit", help="At most so many, the newest first.", min=1)]

dead_letters = typer.Typer(help="Events that could not be acted on.", no_args_is_help=True)
conflicts = typer.Typer(help="Goods shipped that no open quantity could take.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(dead_letters, name="dead-letters")
    app.add_typer(conflicts, name="conflicts")


@dead_letters.command("list")
def list_dead_letters(limit: Limit = 50, as_json: Json = False, state_dir: StateDir = None) -> None:
    """The newest dead letters."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        rows = stored.listed(connection, limit)
        total = sum(stored.count(connection).values())
    columns = {"id": "dead_letter_id", "when": "created_at", "code": "code", "event": "id", "what to do": "sentence"}
    _list(
        rows, columns, as_json, f"{total} dead letters; shortpick dead-letters show ID tells more.", "No dead letters."
    )


@dead_letters.command()
def show(
    dead_letter_id: Annotated[int, typer.Argument(metavar="ID", help="As `dead-letters list` shows it.")],
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
        encoded = base64.b64encode(content).decode()
        sys.stdout.write(json.dumps({**fields, "bytes": encoded}, default=_as_json) + "\n")
        return
    for name, value in fields.items():
        out.print(f"{name:>15}  {_shown(value)}", markup=False)
    out.print(f"{'bytes':>15}  {_shown(content[:SHOWN_BYTES].decode(errors='backslashreplace'))}", markup=False)
    if len(content) > SHOWN_BYTES:
        messages.print(f"The first {SHOWN_BYTES} of {len(content)} bytes are shown; --raw writes them all.")


@conflicts.command("list")
def list_conflicts(limit: Limit = 50, as_json: Json = False, state_dir: StateDir = None) -> None:
    """The newest conflicts."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        rows = stored_conflicts.listed(connection, limit)
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


def _list(rows: Sequence[Row[Any]], columns: dict[str, str], as_json: bool, hint: str, none: str) -> None:
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(dict(row._mapping), default=_as_json, ensure_ascii=False) + "\n")
        return
    if not rows:
        messages.print(none)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in columns:
        table.add_column(header, no_wrap=header == "when")
    for row in rows:
        table.add_row(*(Text(_shown(row._mapping[name])) for name in columns.values()))
    out.print(table)
    messages.print(hint)


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _as_json(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")

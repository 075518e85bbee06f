"""`shortpick shortages`: SKUs that ran short, and what came of it."""

import typer

from worker.cli.context import Json, Limit, StateDir, pipeline, say_rows
from worker.storage import allocations
from worker.storage.database import reading

shortages = typer.Typer(help="Shortages of a SKU, and what came of them.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(shortages, name="shortages")


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
    say_rows(rows, columns, as_json, "shortpick why ORDER tells what came to an order.", "No shortages of a SKU.")

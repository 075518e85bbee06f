"""`shortpick why`: the story of an order, as a timeline."""

import json
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection

from domain.orders import Order
from domain.outgoing import rfc3339
from worker.cli import story
from worker.cli.context import Failure, Json, StateDir, out, pipeline
from worker.cli.orders import as_json as order_as_json
from worker.storage import conflicts, dead_letters, inbox, ledger, orders
from worker.storage.database import reading
from worker.storage.waiting import arrival

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Records:
    """All that is recorded of an order."""

    order: Order | None
    events: Rows
    cancellations: Rows
    conflicts: Rows
    dead_letters: Rows


def register(app: typer.Typer) -> None:
    app.command()(why)


def why(
    order: Annotated[str, typer.Argument(metavar="ORDER", help="The order's id.")],
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """What happened to an order: each event, what was decided and why, and what was published where."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        records = _records(connection, order)
    if records.order is None and not records.events and not records.dead_letters:
        raise Failure(f"nothing is known of an order {order!r}")
    if as_json:
        sys.stdout.write(json.dumps(_json(records), default=_encode, ensure_ascii=False) + "\n")
    else:
        _tell(order, records)


def _records(connection: Connection, order_id: str) -> Records:
    events = [dict(row._mapping) for row in inbox.of_order(connection, order_id)]
    letters = [dict(row._mapping) for row in dead_letters.of_order(connection, order_id)]
    return Records(
        order=orders.load(connection, [order_id])[order_id],
        events=sorted(events, key=lambda row: arrival(row["entry_id"])),
        cancellations=[dict(row._mapping) for row in ledger.of_order(connection, order_id)],
        conflicts=[dict(row._mapping) for row in conflicts.of_order(connection, order_id)],
        dead_letters=[{name: value for name, value in row.items() if name != "bytes"} for row in letters],
    )


def _tell(order_id: str, records: Records) -> None:
    _line(f"Order {order_id}", style="bold")
    if records.order is None:
        _line("It was not placed yet: what came for it waits for its order.placed.")
    for event in records.events:
        _line()
        _line(f"{_time(event['recorded_at'])}  {event['type']}  ", style="bold")
        _line(f"    event {event['id']} of {event['source']}, {_time(event['time'])}: {event['outcome']}", style="dim")
        for sentence in story.decision(event):
            _line(f"    {sentence}")
        for row in records.cancellations:
            if (row["cause_source"], row["cause_id"]) == (event["source"], event["id"]):
                _line(f"    → {story.cancellation(row)}", style="red")
    if records.conflicts or records.dead_letters:
        _line()
    for row in records.conflicts:
        _line(story.conflict(row), style="yellow")
    for row in records.dead_letters:
        _line(story.dead_letter(row), style="yellow")
    if records.order:
        _line()
        _stand(records.order)


def _stand(order: Order) -> None:
    """The order as it stands."""
    table = Table(
        "item", "SKU", "ordered", "shipped", "cancelled", "open", box=None, header_style="bold", pad_edge=False
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for item_id, totals in order.totals().items():
        numbers = (totals.ordered, totals.fulfilled, totals.cancelled, totals.open)
        table.add_row(Text(_shown(item_id)), Text(_shown(order.items[item_id].sku)), *map(str, numbers))
    out.print(table)
    if order.entirely_cancelled:
        _line("The order is entirely cancelled.")
    elif order.shipped:
        _line("The order is shipped: nothing of it is open any more.")
    else:
        _line(f"{story.units(order.open)} still open.")


def _line(text: str = "", style: str | None = None) -> None:
    out.print(Text(_shown(text), style=style or ""))


def _shown(text: str) -> str:
    """Text from events, without anything that a terminal would act on."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _json(records: Records) -> dict[str, Any]:
    return {
        "order": order_as_json(records.order) if records.order else None,
        "events": records.events,
        "cancellations": [{**row, "payload": json.loads(row["payload"])} for row in records.cancellations],
        "conflicts": records.conflicts,
        "deadLetters": records.dead_letters,
    }


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")

"""`shortpick orders`: orders as they stand."""

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from domain.orders import Order, OrderItem
from domain.outgoing import rfc3339
from worker.cli.context import Failure, StateDir, pipeline
from worker.storage import orders as stored
from worker.storage.database import reading

PAGE = 500

orders = typer.Typer(help="Orders as they stand.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(orders, name="orders")


@orders.command()
def export(
    order: Annotated[str | None, typer.Option("--order", help="Only this order.")] = None, state_dir: StateDir = None
) -> None:
    """Every order with its items and totals, one JSON object a line, by order id."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        last, page = "", [order] if order else stored.page(connection, "", PAGE)
        while page:
            loaded = stored.load(connection, page)
            if order and loaded[order] is None:
                raise Failure(f"there is no order {order!r}")
            for order_id in page:
                if found := loaded[order_id]:
                    sys.stdout.write(json.dumps(as_json(found), ensure_ascii=False) + "\n")
            last = page[-1]
            page = [] if order else stored.page(connection, last, PAGE)


def as_json(order: Order) -> dict[str, Any]:
    """An order as `orders export` writes it."""
    return {
        "orderId": order.order_id,
        "hasCancellations": order.has_cancellations,
        "shipped": order.shipped,
        "entirelyCancelled": order.entirely_cancelled,
        "items": [_item(item) for item in stored.chains(order.items.values())],
        "totals": {item_id: asdict(totals) for item_id, totals in order.totals().items()},
    }


def _item(item: OrderItem) -> dict[str, Any]:
    terms = item.cancelled
    return {
        "itemId": item.item_id,
        "originalItemId": item.original_item_id,
        "sku": item.sku,
        "quantity": item.quantity,
        "fulfilled": item.fulfilled,
        "cancelled": terms is not None,
        "cancelledReason": terms.reason_code if terms else None,
        "cancelledBy": terms.cancelled_by if terms else None,
        "cancelledAt": rfc3339(terms.cancelled_at) if terms else None,
    }

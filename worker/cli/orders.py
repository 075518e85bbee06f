"""`shortpick orders`: orders as they stand."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from domain.items import OrderItem
from domain.orders import Order
from domain.outgoing import rfc3339
from worker.cli.context import Failure, Pipeline, StateDir, emit, pipeline
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
    with pipeline(state_dir) as p:
        for found in _every(p) if order is None else [_one(p, order)]:
            emit(as_json(found))


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


def _every(p: Pipeline) -> Iterator[Order]:
    """By pages, so that memory stays flat; a transaction each, so that a slow reader of the output holds none open."""
    last = ""
    while True:
        with reading(p.engine) as connection:
            page = stored.page(connection, last, PAGE)
            loaded = stored.load(connection, page)
        if not page:
            return
        yield from (order for order_id in page if (order := loaded[order_id]))
        last = page[-1]


def _one(p: Pipeline, order_id: str) -> Order:
    with reading(p.engine) as connection:
        order = stored.load(connection, [order_id])[order_id]
        known = stored.is_known(connection, order_id)
    if order:
        return order
    if known:
        raise Failure(f"order {order_id!r} was not placed yet; `shortpick why` tells what has come for it")
    raise Failure(f"there is no order {order_id!r}")

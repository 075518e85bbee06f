"""What new stock does to held shortages of single orders: those that would cut only what was restocked since are void.

(Holds of a SKU's own shortages are ended by the run of that SKU.)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from domain.decisions import decide
from domain.events import OrderShortage
from domain.orders import Order
from domain.outcomes import Void
from domain.parsing import read_again
from domain.policy import Moment, Policy
from worker.record import record_causes
from worker.storage import holds, orders, stock
from worker.storage.holds import Ended
from worker.storage.stock import Figures


def void_of_orders(connection: Connection, order_ids: Collection[str], policy: Policy, at: datetime) -> None:
    """After items of these orders were restocked, which are locked."""
    _void(connection, holds.open_shortages(connection, order_ids=order_ids), policy, at)


def void_of_sku(connection: Connection, sku: str, figures: Figures, policy: Policy, at: datetime) -> bool:
    """After a SKU was restocked. Returns whether holds were void, and locks the orders of those alone."""
    restocked = figures.restocked.get(sku)
    if restocked is None:
        return False
    rows = [row for row in holds.open_shortages(connection, before=restocked) if _is_of(row, sku)]
    order_ids = {row.order_id for row in _void_of(connection, rows, policy, at)}
    if not order_ids:
        return False
    orders.lock_known(connection, order_ids)
    _void(connection, holds.open_shortages(connection, order_ids=order_ids), policy, at)
    return True


def _is_of(row: Row[Any], sku: str) -> bool:
    return any(of == sku for _, _, of, _ in row.would)


def _void(connection: Connection, rows: Sequence[Row[Any]], policy: Policy, at: datetime) -> None:
    void = _void_of(connection, rows, policy, at)
    holds.end(connection, [Ended(row.hold_id, "superseded", "void", "restocked", at) for row in void])
    record_causes(connection, {(row.source, row.id) for row in void}, at)


def _void_of(connection: Connection, rows: Sequence[Row[Any]], policy: Policy, at: datetime) -> list[Row[Any]]:
    """Those of these holds that would cut only what was restocked."""
    if not rows:
        return []
    known = orders.load(connection, {row.order_id for row in rows})
    figures = stock.figures(
        connection, {item.sku for order in known.values() if order for item in order.items.values()}
    )
    return [row for row in rows if _is_void(row, known, figures, replace(policy, approved=True), at)]


def _is_void(row: Row[Any], known: Mapping[str, Order | None], figures: Figures, policy: Policy, at: datetime) -> bool:
    event = read_again(row.event)
    if not isinstance(event, OrderShortage):
        return False
    moment = Moment(at, row.created_at, row.happened_at, figures.restocked)
    return isinstance(decide(known[row.order_id], event, policy, moment), Void)

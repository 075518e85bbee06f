"""Which orders lose when a SKU runs short: the units that are left serve the open demand in a named total order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from domain.contract import OrderShortageData, ReportedLine
from domain.events import OrderShortage, SkuShortage
from domain.items import OrderItem
from domain.orders import Order
from domain.policy import Policy, Strategy


@dataclass(frozen=True, slots=True)
class Allotment:
    """What one order is given of a SKU, in units: `given` of the `wanted` that are open, with `left` of them left.
    `keeps` is absolute: per item, what it keeps in all, shipped units included; so a repeat does no harm."""

    order: Order
    left: int
    wanted: int
    given: int
    keeps: Mapping[str, int]


def allocate(
    orders: Iterable[Order], sku: str, left: int, policy: Policy, happened: datetime | None = None
) -> list[Allotment]:
    """Give `left` units to the orders' open lines of the SKU, in allocation order; orders without one are left out. So
    are lines that were restocked after the figure `happened`: it can neither cut them, nor do they use it up.

    Where orders ship complete or not at all, one that cannot be given all it wants is given nothing: what it could
    not use serves the next ones.
    """
    allotments = []
    for order in in_allocation_order(orders, policy.strategy):
        lines = open_lines(order, sku, happened)
        if not lines:
            continue
        wanted = sum(line.open for line in lines)
        given = min(wanted, left)
        if policy.ship_complete and given < wanted:
            given = 0
        allotments.append(Allotment(order, left, wanted, given, dict(_keeps(lines, given))))
        left -= given
    return allotments


def in_allocation_order(orders: Iterable[Order], strategy: Strategy) -> list[Order]:
    """Higher priority first; then by time of placing and order id: the oldest first, or the newest first."""
    by_time = sorted(orders, key=lambda order: (order.placed_at, order.order_id), reverse=strategy == "newest_first")
    return sorted(by_time, key=lambda order: -order.priority)


def open_lines(order: Order, sku: str, happened: datetime | None = None) -> list[OrderItem]:
    """The order's items of a SKU of which something is open, in item order, but those restocked after `happened`."""
    lines = [item for item in order.current_items if item.sku == sku and item.open]
    return [one for one in lines if happened is None or one.restocked_at is None or one.restocked_at <= happened]


def open_units(order: Order, sku: str, happened: datetime | None = None) -> int:
    """The open units of these."""
    return sum(line.open for line in open_lines(order, sku, happened))


def shortage_of(order: Order, keeps: Mapping[str, int], event: SkuShortage) -> OrderShortage:
    """What a shortage of a SKU comes to for one order, as a shortage of that order, to be decided like any other."""
    lines = [
        ReportedLine.model_construct(item_id=item_id, sku=None, fulfillable_quantity=keep)
        for item_id, keep in keeps.items()
    ]
    return OrderShortage.model_construct(
        specversion=event.specversion,
        id=event.id,
        source=event.source,
        time=event.time,
        traceparent=event.traceparent,
        type=event.type,
        data=OrderShortageData.model_construct(order_id=order.order_id, items=tuple(lines)),
    )


def overtaken(
    happened: datetime, newest: datetime | None, restocked: datetime | None
) -> Literal["void", "stale"] | None:
    """Whether a figure is out of date: void after a restock of its SKU, by whichever source, stale after a newer
    figure of its own source, which is `newest`. Of equal times neither is newer."""
    if restocked is not None and happened < restocked:
        return "void"
    if newest is not None and happened < newest:
        return "stale"
    return None


def _keeps(lines: Iterable[OrderItem], given: int) -> Iterator[tuple[str, int]]:
    for line in lines:
        more = min(line.open, given)
        given -= more
        yield line.item_id, line.fulfilled + more

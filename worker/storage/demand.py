"""The open demand of a SKU as a shortage finds it: who wants how much, in allocation order, and what is used up."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Tuple, case, func, literal, select, text, tuple_

from worker.storage.allocations import Allocation, Place
from worker.storage.tables import UtcTime, allotments, order_items, shipped_units

# As it stands in the index, or it would not be used.
_OPEN = text("open_quantity > 0")


def wanted(connection: Connection, allocation: Allocation) -> int:
    """Units of the SKU that are open, in orders that were placed before the shortage happened."""
    statement = select(func.coalesce(func.sum(order_items.c.open_quantity), 0)).where(*_wanting(allocation))
    return int(connection.execute(statement).scalar_one())


def orders_to_cut(connection: Connection, allocation: Allocation, left: int) -> tuple[int, int, int]:
    """How many orders want the SKU, how many of them cannot be given all they want of what is left, and all the open
    units of the latter, of other SKUs too. (Where orders ship complete, some of them may be served, since what one
    cannot use serves the next.)"""
    newest_first = allocation.strategy == "newest_first"
    place = (order_items.c.placed_at, order_items.c.order_id)
    turn = (order_items.c.priority.desc(), *(column.desc() if newest_first else column for column in place))
    units = func.sum(order_items.c.open_quantity)
    upto = func.sum(units).over(order_by=turn).label("upto")
    served = (
        select(upto, order_items.c.order_id)
        .where(*_wanting(allocation))
        .group_by(order_items.c.priority, *place)
        .subquery()
    )
    lacking = func.coalesce(func.sum(case((served.c.upto > left, 1), else_=0)), 0)
    row = connection.execute(select(func.count().label("orders"), lacking.label("lacking")).select_from(served)).one()
    losing = select(served.c.order_id).where(served.c.upto > left)
    total = select(func.coalesce(func.sum(order_items.c.open_quantity), 0)).where(order_items.c.order_id.in_(losing))
    return int(row.orders), int(row.lacking), int(connection.execute(total).scalar_one())


def shipped_since(connection: Connection, allocation: Allocation) -> int:
    """Units of the SKU shipped after the shortage happened, by whichever order."""
    statement = select(func.coalesce(func.sum(shipped_units.c.quantity), 0)).where(*_since(allocation))
    return int(connection.execute(statement).scalar_one())


def kept(connection: Connection, allocation: Allocation) -> int:
    """Units of the SKU that are open in the orders up to and including the last one that was served: what they were
    given, less what they have shipped or lost since."""
    last = allocation.last
    if last is None:
        return 0
    place, cursor = _cursor(last)
    before = place >= cursor if allocation.strategy == "newest_first" else place <= cursor
    served = (order_items.c.priority > last.priority) | ((order_items.c.priority == last.priority) & before)
    statement = select(func.coalesce(func.sum(order_items.c.open_quantity), 0)).where(*_wanting(allocation), served)
    units = int(connection.execute(statement).scalar_one())
    return units - _held(connection, allocation) if allocation.ship_complete else units


def _held(connection: Connection, allocation: Allocation) -> int:
    """Units that are open only because their cut is held."""
    open_units = func.sum(order_items.c.open_quantity)
    held = (
        select((open_units - allotments.c.given).label("units"))
        .join(allotments, allotments.c.order_id == order_items.c.order_id)
        .where(*_wanting(allocation), allotments.c.allocation_id == allocation.allocation_id)
        .where(allotments.c.outcome == "held")
        .group_by(allotments.c.order_id, allotments.c.given)
        .having(open_units > allotments.c.given)
        .subquery()
    )
    return int(connection.execute(select(func.coalesce(func.sum(held.c.units), 0))).scalar_one())


def shipped_since_by(connection: Connection, allocation: Allocation, order_ids: Collection[str]) -> dict[str, int]:
    """The same, by each of these orders that shipped any."""
    statement = (
        select(shipped_units.c.order_id, func.sum(shipped_units.c.quantity))
        .where(*_since(allocation), shipped_units.c.order_id.in_(sorted(order_ids)))
        .group_by(shipped_units.c.order_id)
    )
    return {order_id: int(units) for order_id, units in connection.execute(statement)}


def pick(connection: Connection, allocation: Allocation, size: int) -> list[Place]:
    """The next orders that want the SKU, in allocation order, at most `size`; not locked.

    One priority after the other, so that one index serves both strategies.
    """
    found: list[Place] = []
    last = allocation.last
    if last:
        found = _of_priority(connection, allocation, last.priority, last, size)
    priority = last.priority if last else None
    while len(found) < size:
        priority = _next_priority(connection, allocation, priority)
        if priority is None:
            break
        found += _of_priority(connection, allocation, priority, None, size - len(found))
    return found


def _wanting(allocation: Allocation) -> list[Any]:
    """Open lines that the shortage is about: placed before it, and not restocked after it."""
    restocked_at, happened_at = order_items.c.restocked_at, allocation.happened_at
    restocked = restocked_at.is_not(None) & (restocked_at > happened_at)
    return [order_items.c.sku == allocation.sku, _OPEN, order_items.c.placed_at <= happened_at, ~restocked]


def _cursor(last: Place) -> tuple[Tuple, Tuple]:
    """The columns of an order's place within its priority, and a value to compare them with."""
    columns = (order_items.c.placed_at, order_items.c.order_id)
    value = tuple_(literal(last.placed_at, UtcTime()), literal(last.order_id, order_items.c.order_id.type))
    return tuple_(*columns), value


def _since(allocation: Allocation) -> list[ColumnElement[bool]]:
    return [shipped_units.c.sku == allocation.sku, shipped_units.c.time > allocation.happened_at]


def _of_priority(
    connection: Connection, allocation: Allocation, priority: int, after: Place | None, size: int
) -> list[Place]:
    place = (order_items.c.placed_at, order_items.c.order_id)
    statement = select(*place).where(*_wanting(allocation), order_items.c.priority == priority).group_by(*place)
    newest_first = allocation.strategy == "newest_first"
    if after:
        columns, cursor = _cursor(after)
        statement = statement.where(columns < cursor if newest_first else columns > cursor)
    statement = statement.order_by(*(column.desc() if newest_first else column for column in place)).limit(size)
    return [Place(priority, row.placed_at, row.order_id) for row in connection.execute(statement)]


def _next_priority(connection: Connection, allocation: Allocation, below: int | None) -> int | None:
    statement = select(func.max(order_items.c.priority)).where(*_wanting(allocation))
    statement = statement.where(order_items.c.priority < below) if below is not None else statement
    priority: int | None = connection.execute(statement).scalar_one()
    return priority

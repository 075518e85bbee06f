"""The open demand of a SKU as a shortage finds it: who wants how much, in allocation order, and what is used up."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Table, Tuple, case, func, literal, select, text, tuple_

from worker.storage import bulk
from worker.storage.allocations import Allocation, Place
from worker.storage.tables import UtcTime, allocations, allotments, holds, order_items, shipped_units

# As it stands in the index, or it would not be used.
_OPEN = text("open_quantity > 0")


def wanted(connection: Connection, allocation: Allocation) -> int:
    """Units of the SKU that are open, in orders that were placed before the shortage happened."""
    statement = select(func.coalesce(func.sum(order_items.c.open_quantity), 0)).where(*_wanting(allocation))
    return int(connection.execute(statement).scalar_one())


def wanted_of_each(connection: Connection, of: Sequence[Allocation]) -> dict[int, int]:
    """The same for many shortages, by allocation."""
    restocked = order_items.c.restocked_at.is_not(None) & (order_items.c.restocked_at > allocations.c.happened_at)
    wanting = (
        (order_items.c.sku == allocations.c.sku)
        & _OPEN
        & (order_items.c.placed_at <= allocations.c.happened_at)
        & ~restocked
    )
    return _sums(connection, of, order_items, order_items.c.open_quantity, wanting)


def shipped_since_each(connection: Connection, of: Sequence[Allocation]) -> dict[int, int]:
    """Units of its SKU that were shipped after each of many shortages happened."""
    since = (shipped_units.c.sku == allocations.c.sku) & (shipped_units.c.time > allocations.c.happened_at)
    return _sums(connection, of, shipped_units, shipped_units.c.quantity, since)


def _sums(
    connection: Connection,
    of: Sequence[Allocation],
    table: Table,
    units: ColumnElement[Any],
    condition: ColumnElement[bool],
) -> dict[int, int]:
    ids = [one.allocation_id for one in of]
    statement = (
        select(allocations.c.allocation_id, func.coalesce(func.sum(units), 0))
        .outerjoin(table, condition)
        .where(allocations.c.allocation_id.in_(ids))
        .group_by(allocations.c.allocation_id)
    )
    return {allocation_id: int(number) for allocation_id, number in connection.execute(statement)} if ids else {}


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
    return int(connection.execute(select(_shipped(allocation))).scalar_one())


def used(connection: Connection, allocation: Allocation) -> int:
    """Units that are not left for orders which were not served yet: what has shipped since, and what is open now in
    the orders that were served, which is what they kept less what they have shipped or lost since.

    One statement, which sees one state: between two, an order's units could go from open to shipped, and count twice.
    """
    parts = _shipped(allocation) + allocation.kept - _released(allocation)
    if allocation.ship_complete:
        parts = parts + _kept_after_all(allocation)
    return int(connection.execute(select(parts)).scalar_one())


def _shipped(allocation: Allocation) -> ScalarSelect[Any]:
    statement = select(func.coalesce(func.sum(shipped_units.c.quantity), 0)).where(*_since(allocation))
    return statement.scalar_subquery()


def _released(allocation: Allocation) -> ScalarSelect[Any]:
    of_run = (allotments.c.allocation_id == allocation.allocation_id, text("released <> 0"))
    statement = select(func.coalesce(func.sum(allotments.c.released), 0)).where(*of_run)
    if allocation.ship_complete:  # then what is held was not kept
        statement = statement.where(allotments.c.outcome != "held")
    return statement.scalar_subquery()


def _kept_after_all(allocation: Allocation) -> ScalarSelect[Any]:
    """Units that are open in orders whose cut is held no more: since it was rejected, or approved in vain."""
    decided = (holds.c.allocation_id == allocation.allocation_id, text("state IN ('rejected', 'carried_out')"))
    statement = select(func.coalesce(func.sum(order_items.c.open_quantity), 0))
    statement = statement.join(holds, holds.c.order_id == order_items.c.order_id)
    return statement.where(*_wanting(allocation), *decided).scalar_subquery()


def shipped_since_by(connection: Connection, allocation: Allocation, order_ids: Collection[str]) -> dict[str, int]:
    """Units of the SKU shipped after the shortage happened, by each of these orders that shipped any."""
    statement = (
        select(shipped_units.c.order_id, func.sum(shipped_units.c.quantity))
        .where(*_since(allocation), bulk.among(shipped_units.c.order_id))
        .group_by(shipped_units.c.order_id)
    )
    return {order_id: int(units) for order_id, units in connection.execute(statement, {"values": order_ids})}


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

"""The checker's part about shortages of a SKU, where what each gave and cut follows from the orders that it served in
turn; and about holds, where nothing is cut that nobody has approved."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import Row

from tests.records import Rows, Tables, first_difference, from_json, grouped, key_of, name_of, sums


def wrong_allocations(tables: Tables, ledger: Rows) -> Iterator[str]:
    orders = {order.order_id: order for order in tables["orders"]}
    allotments = grouped((allotment.allocation_id, allotment) for allotment in tables["allotments"])
    cuts = grouped(((row.cause_source, row.cause_id), (row.order_id, row.units)) for row in ledger)
    shipped_units = grouped((row.sku, row) for row in tables["shipped_units"])
    items = grouped(((item.order_id, item.sku), item) for item in tables["order_items"])
    for allocation in tables["allocations"]:
        served = sorted(allotments.pop(allocation.allocation_id, []), key=lambda allotment: allotment.rank)
        yield from _wrong_figures(allocation, served)
        yield from _wrong_cuts(allocation, served, sums(cuts.get((allocation.source, allocation.id), [])))
        yield from _wrong_gifts(allocation, served)
        since = [row for row in shipped_units.get(allocation.sku, []) if row.time > allocation.happened_at]
        yield from _wrong_shipments(allocation, served, sums((row.order_id, row.quantity) for row in since))
        yield from _wrong_turns(allocation, served, orders)
        if allocation.finished_at is None:
            yield from _wrong_count(allocation, served, items)
        yield from _cut_after_preflight(allocation, served)
    for allotment in (allotment for left in allotments.values() for allotment in left):
        yield f"The allotment of order {allotment.order_id} belongs to no allocation."


def _wrong_figures(allocation: Row[Any], served: Rows) -> Iterator[str]:
    """Where there was enough for all, none is served by itself, and only the row tells what was given."""
    name = name_of(allocation)
    if difference := first_difference([one.rank for one in served], range(1, len(served) + 1)):
        yield f"Event {name}: the ranks are not 1 to n: {difference}."
    summed = ["wanted", "given", "shipped", "cut_units"]
    if allocation.finished_at is not None and not served:
        summed = ["cut_units"]
        if allocation.wanted != allocation.given:
            yield f"Event {name} served no order, and gave {allocation.given} of {allocation.wanted} units."
    expected = {"orders": len(served), "cut_orders": sum(one.cut_units > 0 for one in served)}
    expected |= {figure: sum(getattr(one, figure) for one in served) for figure in summed}
    for figure, number in expected.items():
        if getattr(allocation, figure) != number:
            yield f"Event {name} counts {getattr(allocation, figure)} {figure}, its allotments {number}."


def _wrong_count(allocation: Row[Any], served: Rows, items: dict[tuple[str, str], list[Row[Any]]]) -> Iterator[str]:
    """A run that goes on counts along what is open in the orders that it has served; where orders ship complete, but for
    those whose cut was held."""
    served = [one for one in served if not (allocation.ship_complete and one.outcome == "held")]
    open_ = sum(
        item.open_quantity
        for one in served
        for item in items.get((one.order_id, allocation.sku), [])
        if item.restocked_at is None or item.restocked_at <= allocation.happened_at
    )
    counted = allocation.kept - sum(one.released for one in served)
    if counted != open_:
        yield f"Event {name_of(allocation)} counts {counted} units open in the orders it has served; it is {open_}."


def _wrong_cuts(allocation: Row[Any], served: Rows, cut: dict[str, int]) -> Iterator[str]:
    """`cut`: units by order, by the ledger rows that the event caused."""
    name = name_of(allocation)
    for one in served:
        if one.cut_units != cut.get(one.order_id, 0):
            units = cut.get(one.order_id, 0)
            yield f"Event {name} cut {one.cut_units} units of order {one.order_id}, its ledger has {units}."
        # Where orders ship complete, one that is cut loses what it wants of other SKUs as well.
        if one.cut_units > one.wanted - one.given and not allocation.ship_complete:
            lacking = one.wanted - one.given
            yield f"Event {name} cut {one.cut_units} units of order {one.order_id}, which lacked {lacking}."
    for order_id in sorted(cut.keys() - {one.order_id for one in served}):
        yield f"Event {name} cut order {order_id}, which it did not serve."


def _wrong_gifts(allocation: Row[Any], served: Rows) -> Iterator[str]:
    """Each order is given what it wants of what is left. A transaction serves several orders, those that were decided at
    one time; between two of them more may ship, or be given back, so what is left then is known from its record alone."""
    name = name_of(allocation)
    for _, together in groupby(served, key=lambda one: one.decided_at):
        left = None
        for one in together:
            left = one.left_units if left is None else left
            if not 0 <= one.left_units <= allocation.available:
                yield f"Event {name} had {one.left_units} units left for order {one.order_id}, of {allocation.available}."
            if one.left_units != left:
                yield f"Event {name} had {one.left_units} units left for order {one.order_id}, and not {left}."
            due = min(one.wanted, one.left_units)
            if allocation.ship_complete and due < one.wanted:
                due = 0
            if one.given != due:
                units = f"{one.given} of the {one.wanted} units it wanted"
                yield f"Event {name} gave order {one.order_id} {units}, with {one.left_units} left."
            left -= one.given


def _wrong_shipments(allocation: Row[Any], served: Rows, since: dict[str, int]) -> Iterator[str]:
    """`since`: units of the SKU that orders have shipped after it happened, until today; a run knew at most these."""
    name = name_of(allocation)
    for one in served:
        if one.shipped > (shipped := since.get(one.order_id, 0)):
            units = f"{one.shipped} units that order {one.order_id} shipped"
            yield f"Event {name} counts {units}, which has shipped {shipped} since."


def _wrong_turns(allocation: Row[Any], served: Rows, orders: dict[str, Row[Any]]) -> Iterator[str]:
    """Orders come in allocation order."""
    name, newest_first = name_of(allocation), allocation.strategy == "newest_first"
    placed = []
    for one in served:
        order = orders.get(one.order_id)
        if order is None or order.placed_at is None:
            yield f"Event {name} served order {one.order_id}, which was not placed."
            continue
        placed.append(order)
        if order.placed_at > allocation.happened_at:
            yield f"Event {name} served order {one.order_id}, which was placed after it."
    by_time = sorted(placed, key=lambda order: (order.placed_at, order.order_id), reverse=newest_first)
    turns = [order.order_id for order in sorted(by_time, key=lambda order: -order.priority)]
    if difference := first_difference([order.order_id for order in placed], turns):
        yield f"Event {name} served orders out of turn: {difference}."


def _cut_after_preflight(allocation: Row[Any], served: Rows) -> Iterator[str]:
    """Once it has held a cut, it holds all those that follow."""
    has_held = False
    for one in served:
        has_held |= (one.outcome, one.reason) == ("held", "preflight")
        if has_held and one.outcome == "applied":
            yield f"Event {name_of(allocation)} cut order {one.order_id}, after its preflight had held other cuts."


def wrong_holds(tables: Tables, ledger: Rows) -> Iterator[str]:
    """What an event cut of an order while its cut was held, and what was approved and is not in the ledger."""
    yield from _wrong_held(tables, ledger)
    cut = sums(((row.cause_source, row.cause_id, row.order_id), row.units) for row in ledger)
    for hold in tables["holds"]:
        name, units = f"Hold {hold.hold_id} of order {hold.order_id}", cut.get((hold.source, hold.id, hold.order_id), 0)
        approved = hold.state == "carried_out" and hold.outcome == "applied"
        if units and not approved:
            yield f"{name} is {hold.state}, and its event cut {units} units."
        if approved and not units:
            yield f"{name} was carried out, and its event cut nothing."
        if hold.state in ("approved", "rejected", "carried_out") and not (hold.decided_by and hold.decided_because):
            yield f"{name} is {hold.state}, and nobody knows by whom and why."
        if hold.units != (would := sum(line[3] for line in from_json(hold.would))):
            yield f"{name} counts {hold.units} units, and would cancel {would}."


def _wrong_held(tables: Tables, ledger: Rows) -> Iterator[str]:
    """An event is held as long as it has cut nothing, and nobody has decided about some cut of it."""
    causes = {(row.cause_source, row.cause_id) for row in ledger}
    undecided = {key_of(hold) for hold in tables["holds"] if hold.state in ("open", "approved", "shadow")} - causes
    for event in tables["events"]:
        is_undecided = key_of(event) in undecided
        if event.outcome not in (None, "waiting") and (event.outcome == "held") != is_undecided:
            yield f"Event {name_of(event)} ended as {event.outcome}, and {'a' if is_undecided else 'no'} cut of it is undecided."

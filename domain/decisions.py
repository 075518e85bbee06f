"""What an event means for its order: `decide` says what to do, `carry_out` does it, both on immutable values.

The rules are those of the contract ("What is decided"); an order that was not placed yet is None.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, assert_never

from domain import errors
from domain.contract import ReportedLine
from domain.events import (
    CancellationRequested,
    FulfillmentClosed,
    FulfillmentCreated,
    OrderEvent,
    OrderPlaced,
    OrderRestocked,
    OrderShortage,
    digest,
)
from domain.items import OrderItem
from domain.operations import (
    CancelItem,
    CancelItemPartially,
    CancelOrder,
    CancelUnfulfilled,
    Operation,
    Terms,
)
from domain.orders import Order
from domain.outcomes import Change, Cut, Decision, Facts, Held, Nothing, Recorded, Refused, Void, Waiting
from domain.policy import Moment, Policy
from domain.shipments import Restock, Shipment, ShippedLine


def decide(order: Order | None, event: OrderEvent, policy: Policy, moment: Moment | None = None) -> Decision:
    """What `event` means for `order`. Raises an `EventRejected` if it cannot be acted on at all.

    `moment` is when; without it the event is decided as if it had been recorded and decided at its own time.
    """
    moment = moment or Moment(event.time, event.time, event.time)
    decision = _decide(order, event, policy, moment)
    return _held_back(order, decision, event, policy, moment) if isinstance(decision, Cut) else decision


def _decide(order: Order | None, event: OrderEvent, policy: Policy, moment: Moment) -> Decision:
    if isinstance(event, OrderPlaced):
        return _decide_placed(order, event)
    if order is None:
        return Waiting("order_not_placed", {})
    match event:
        case OrderShortage():
            return _decide_shortage(order, event, policy, moment)
        case OrderRestocked():
            return _decide_restock(order, event, moment)
        case FulfillmentCreated():
            return _decide_fulfillment(order, event)
        case FulfillmentClosed():
            return _decide_closing(order, event)
        case CancellationRequested():
            return _decide_request(order, event)
        case _:
            assert_never(event)


def _held_back(order: Order | None, cut: Cut, event: OrderEvent, policy: Policy, moment: Moment) -> Decision:
    """A cut that may not be made yet, or not without a person: what it would do is worked out anew then. A shipment in
    it is recorded now."""
    # A transaction that began earlier may decide what a later one recorded: `now` may lie before `since`.
    in_grace = isinstance(event, OrderShortage) and max(timedelta(0), moment.now - moment.since) < policy.order_grace
    if in_grace and not policy.approved:
        return Waiting("grace", cut.facts, cut.shipment)
    if policy.paused.holds(event.source):
        return Waiting("paused", cut.facts, cut.shipment)
    if policy.approved and policy.hold != "shadow":
        return cut
    if policy.hold:
        return Held(policy.hold, cut, cut.facts)
    if order and (order.order_id in policy.protected.orders or order.partner in policy.protected.partners):
        return Held("protected", cut, cut.facts)
    return cut


def carry_out(order: Order | None, decision: Decision, at: datetime) -> Change:
    """Do what was decided: record first, then cancel, in the order of the operations. `at` is when (UTC)."""
    match decision:
        case Recorded(fact=OrderPlaced() as placed):
            return Change(_placed(placed))
        case Recorded(fact=Shipment() as shipment) | Waiting(shipment=Shipment() as shipment):
            return _record(order, shipment)
        case Recorded(fact=Restock() as restock):
            return Change(_placed_already(order).restock(restock))
        case Held(cut=Cut(shipment=Shipment() as shipment)):
            return _record(order, shipment)
        case Cut():
            change = _record(order, decision.shipment) if decision.shipment else Change(order)
            return _apply(change, decision, at)
        case Recorded() | Nothing() | Waiting() | Refused() | Void() | Held():
            return Change(order)
        case _:
            assert_never(decision)


def shipment_of(event: FulfillmentCreated) -> Shipment:
    """The goods of a fulfillment; a line that is given twice is summed."""
    units: dict[tuple[str | None, str | None], int] = {}
    for line in event.data.items:
        name = (line.item_id, line.sku)
        units[name] = units.get(name, 0) + line.quantity
    lines = tuple(ShippedLine(item_id, sku, quantity) for (item_id, sku), quantity in units.items())
    return Shipment(event.data.fulfillment_id, event.time, lines, event.source, event.id)


def _placed(event: OrderPlaced) -> Order:
    data = event.data
    items = {
        item.item_id: OrderItem(item.item_id, item.item_id, line, item.sku, item.quantity, attributes=item.attributes)
        for line, item in enumerate(data.items, start=1)
    }
    return Order(data.order_id, data.placed_at, digest(event), items, {}, data.partner, data.priority, data.attributes)


def _placed_already(order: Order | None) -> Order:
    if order is None:
        raise ValueError("all but the placing is decided on only after the order was placed")
    return order


def _record(order: Order | None, shipment: Shipment) -> Change:
    after, conflicts = _placed_already(order).record(shipment)
    return Change(after, conflicts=conflicts, shipment=shipment)


def _apply(change: Change, cut: Cut, at: datetime) -> Change:
    order, cancellations = _placed_already(change.order), []
    terms = Terms(cut.cancelled_by, cut.reason_code, at, cut.note)
    for operation in cut.operations:
        order, cancellation = order.apply(operation, terms)
        cancellations.append(cancellation)
    return Change(order, tuple(cancellations), change.conflicts, change.shipment)


def _decide_placed(order: Order | None, event: OrderPlaced) -> Decision:
    if order is None:
        return Recorded(event, "placed", {"items": len(event.data.items)})
    if order.placed_digest != digest(event):
        raise errors.PlacedDifferently(order.order_id)
    return Nothing("already_placed", {})


def _decide_shortage(order: Order, event: OrderShortage, policy: Policy, moment: Moment) -> Decision:
    keeps: dict[str, int] = {}
    for line in event.data.items:
        for item, keep in _keeps(order, line):
            keeps[item.item_id] = min(keep, keeps.get(item.item_id, keep))
    items = {item_id: order.items[item_id] for item_id in keeps}
    facts: dict[str, Any] = {
        "figures": [[line.name, line.fulfillable_quantity] for line in event.data.items],
        "keeps": [
            [item_id, items[item_id].quantity, items[item_id].fulfilled, keep] for item_id, keep in keeps.items()
        ],
    }
    short = {item_id: keep for item_id, keep in keeps.items() if keep < items[item_id].quantity}
    cuts = {item_id: keep for item_id, keep in short.items() if not _restocked_since(items[item_id], moment)}
    if not short:
        return Nothing("no_cut", facts)
    if len(cuts) < len(short):
        facts["restocked"] = sorted(short.keys() - cuts)
    if not cuts:
        return Void("restocked", facts)
    if policy.ship_complete:
        cuts = {item.item_id: item.fulfilled for item in order.current_items if item.open}
        facts["ship_complete"] = True
    return Cut(_operations(order, cuts), "seller", "out_of_stock", "shortage", facts)


def _restocked_since(item: OrderItem, moment: Moment) -> bool:
    """Whether there was new stock for an item after the shortage happened."""
    times = (item.restocked_at, moment.restocked.get(item.sku))
    return any(time is not None and moment.happened < time for time in times)


def _decide_restock(order: Order, event: OrderRestocked, moment: Moment) -> Decision:
    restock = Restock(tuple(line.item_id for line in event.data.items), moment.happened)
    facts = {"items": list(restock.item_ids)}
    if order.restock(restock).items == order.items:
        return Nothing("already_restocked", facts)
    return Recorded(restock, "restocked", facts)


def _keeps(order: Order, line: ReportedLine) -> list[tuple[OrderItem, int]]:
    """Per item that the line means, the units it may keep: first what is fulfilled, then the rest in item order.
    An item that is cancelled for good can lose nothing more, and is left out."""
    if line.item_id is not None:
        named = [item] if (item := order.current(line.item_id)) else []
    else:
        named = [item for item in order.current_items if item.sku == line.sku]
    if not named:
        raise errors.ShortageOfUnknownLine(line.name)
    left = line.fulfillable_quantity - sum(item.fulfilled for item in named)
    keeps = []
    for item in named:
        if item.cancelled:
            continue
        more = max(0, min(left, item.open))
        left -= more
        keeps.append((item, item.fulfilled + more))
    return keeps


def _operations(order: Order, cuts: Mapping[str, int]) -> tuple[Operation, ...]:
    """How cuts are issued (the contract's table): the whole order at once where nothing of it stays open."""
    cut = sum(order.items[item_id].quantity - keep for item_id, keep in cuts.items())
    if cut == order.open:
        return (CancelUnfulfilled(),) if order.fulfilled else (CancelOrder(),)
    in_item_order = sorted(cuts, key=lambda item_id: order.items[item_id].line)
    return tuple(
        CancelItemPartially(item_id, cuts[item_id]) if cuts[item_id] else CancelItem(item_id)
        for item_id in in_item_order
    )


def _decide_fulfillment(order: Order, event: FulfillmentCreated) -> Decision:
    shipment = shipment_of(event)
    known = order.fulfillments.get(shipment.fulfillment_id)
    if known and known.digest != shipment.digest:
        raise errors.FulfillmentReused(shipment.fulfillment_id)
    fresh = None if known else shipment
    after, conflicts = order.record(shipment) if fresh else (order, ())
    facts: dict[str, Any] = {
        "fulfillment": shipment.fulfillment_id,
        "units": sum(line.quantity for line in shipment.lines),
    }
    if conflicts:
        facts["conflicts"] = [[c.item_id or c.sku, c.quantity] for c in conflicts]
    if event.data.fulfillment_ids is not None:
        closing = _close(after, event.data.fulfillment_ids, facts, fresh)
        if not isinstance(closing, Nothing):
            return closing
        facts["closed"] = True
    if fresh or (known and (known.source, known.event_id) == event.key):
        return Recorded(fresh, "shipped", facts)
    return Nothing("already_recorded", facts)


def _decide_closing(order: Order, event: FulfillmentClosed) -> Decision:
    return _close(order, event.data.fulfillment_ids, {})


def _close(
    order: Order, fulfillment_ids: tuple[str, ...], facts: Facts, shipment: Shipment | None = None
) -> Cut | Waiting | Nothing:
    """Nothing more will ship: the rest is cancelled, but not before everything that did ship is known."""
    missing = sorted(set(fulfillment_ids) - order.fulfillments.keys())
    if missing:
        return Waiting("fulfillments_missing", {**facts, "missing": missing}, shipment)
    facts = {**facts, "open": order.open, "fulfilled": order.fulfilled}
    if not order.open:
        return Nothing("nothing_open", facts)
    return Cut((CancelUnfulfilled(),), "seller", "short_shipped", "closed", facts, shipment=shipment)


def _decide_request(order: Order, event: CancellationRequested) -> Decision:
    data = event.data
    operations: tuple[Operation, ...]
    if data.items:
        operations = tuple(
            CancelItemPartially(item.item_id, item.new_quantity) if item.new_quantity else CancelItem(item.item_id)
            for item in data.items
        )
    else:
        operations = (CancelUnfulfilled(),) if data.unfulfilled_only else (CancelOrder(),)
    facts = {"by": data.cancelled_by, "operations": [[operation.name, operation.item_id] for operation in operations]}
    decision = Cut(operations, data.cancelled_by, data.reason.code, "requested", facts, data.reason.note)
    try:
        carry_out(order, decision, event.time)
    except errors.OperationRefused as refusal:
        return Refused(refusal.code, {**facts, "rule": str(refusal)})
    return decision

"""Events and orders in few words, and a way to play events against one order in memory.

Items are keyword arguments: `placed("o1", a=("SA", 10))`, `shortage("o1", a=4)`. What else belongs into `data` is given
as a dictionary before them: `requested("o1", {"unfulfilledOnly": True})`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, cast
from uuid import NAMESPACE_OID, uuid5

from domain.decisions import carry_out, decide, shipment_of
from domain.errors import EventRejected
from domain.events import Event, FulfillmentCreated, OrderEvent
from domain.operations import Cancellation, Terms
from domain.orders import Order
from domain.outcomes import Outcome
from domain.outgoing import order_cancelled, published
from domain.parsing import parse
from domain.policy import Policy
from domain.shipments import Conflict, Shipment

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TIME = "2026-01-01T00:00:00Z"
TERMS = Terms("seller", "manual", NOW)

Json = dict[str, Any]
_numbers = count(1)


def event(type: str, data: Any, *, id: str | None = None, source: str = "/test", time: str = TIME) -> Json:
    """A CloudEvent; without an `id` it gets one that no other event has."""
    id = id or f"e{next(_numbers)}"
    return {"specversion": "1.0", "id": id, "source": source, "type": type, "time": time, "data": data}


def again(event: Json) -> Json:
    """The same content under another event id."""
    return {**event, "id": f"e{next(_numbers)}"}


def placed(order_id: str = "o1", more: Json | None = None, /, **items: tuple[str, int]) -> Json:
    lines = [{"itemId": item_id, "sku": sku, "quantity": units} for item_id, (sku, units) in items.items()]
    return event("order.placed", {"orderId": order_id, "placedAt": TIME, "items": lines, **(more or {})})


def shortage(order_id: str, /, **figures: int) -> Json:
    return shortage_of(order_id, [("itemId", item_id, figure) for item_id, figure in figures.items()])


def sku_shortage_of_order(order_id: str, /, **figures: int) -> Json:
    return shortage_of(order_id, [("sku", sku, figure) for sku, figure in figures.items()])


def shortage_of(order_id: str, lines: list[tuple[str, str, int]]) -> Json:
    """A shortage whose lines say how they are named: `("itemId", "a", 4)` or `("sku", "SA", 4)`."""
    items = [{how: name, "fulfillableQuantity": figure} for how, name, figure in lines]
    return event("inventory.shortage", {"orderId": order_id, "items": items})


def shipped(order_id: str, fulfillment_id: str, /, **units: int) -> Json:
    return shipped_of(order_id, fulfillment_id, [("itemId", item_id, quantity) for item_id, quantity in units.items()])


def sku_shipped(order_id: str, fulfillment_id: str, /, **units: int) -> Json:
    return shipped_of(order_id, fulfillment_id, [("sku", sku, quantity) for sku, quantity in units.items()])


def shipped_of(order_id: str, fulfillment_id: str, lines: list[tuple[str, str, int]]) -> Json:
    """A fulfillment whose lines say how they are named."""
    items = [{how: name, "quantity": quantity} for how, name, quantity in lines]
    return event("fulfillment.created", {"orderId": order_id, "fulfillmentId": fulfillment_id, "items": items})


def final(shipment: Json, *fulfillment_ids: str) -> Json:
    """This shipment as the last one of its order; `fulfillment_ids` are all of them."""
    return {**shipment, "data": {**shipment["data"], "final": True, "fulfillmentIds": list(fulfillment_ids)}}


def closed(order_id: str, /, *fulfillment_ids: str) -> Json:
    return event("fulfillment.closed", {"orderId": order_id, "fulfillmentIds": list(fulfillment_ids)})


def requested(order_id: str, more: Json | None = None, /, **new_quantities: int | None) -> Json:
    """A request of the buyer: for the whole order, or for these items (None: no `newQuantity` is given)."""
    items = [
        {"itemId": item_id} if units is None else {"itemId": item_id, "newQuantity": units}
        for item_id, units in new_quantities.items()
    ]
    data: Json = {"orderId": order_id, "cancelledBy": "buyer", "reason": {"code": "buyer_request"}}
    return event("cancellation.requested", data | ({"items": items} if items else {}) | (more or {}))


def sku_shortage(sku: str, available: int, *, source: str = "/test", time: str = TIME) -> Json:
    """For all open demand of a SKU there are so many units, as at `time`."""
    return event("inventory.shortage", {"sku": sku, "availableQuantity": available}, source=source, time=time)


def sku_restocked(sku: str, *, source: str = "/test", time: str = TIME) -> Json:
    return event("inventory.restocked", {"sku": sku}, source=source, time=time)


def restocked(order_id: str, /, *item_ids: str, time: str = TIME) -> Json:
    items = [{"itemId": item_id} for item_id in item_ids]
    return event("inventory.restocked", {"orderId": order_id, "items": items}, time=time)


def to_bytes(event: Any) -> bytes:
    return json.dumps(event).encode()


def parsed(event: Json) -> Event:
    return parse(to_bytes(event), NOW)


def order(**items: tuple[str, int]) -> Order:
    """Order "o1", just placed."""
    return play(placed("o1", **items)).placed_order


def shipment(fulfillment_id: str, /, **units: int) -> Shipment:
    return shipment_of(cast(FulfillmentCreated, parsed(shipped("o1", fulfillment_id, **units))))


def new_id(order_id: str, item_id: str) -> str:
    """The id of the item that takes the place of `item_id`, by the contract's formula."""
    return str(uuid5(NAMESPACE_OID, f"{order_id}/{item_id}"))


@dataclass
class Played:
    """One order in memory, and what came of its events so far."""

    policy: Policy = field(default_factory=Policy)
    order: Order | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    """Of each event when it arrived."""
    ended: dict[str, Outcome] = field(default_factory=dict)
    """By event id, the outcome so far: what waited and was released is not `waiting` any more."""
    cancellations: list[Cancellation] = field(default_factory=list)
    published: list[Json] = field(default_factory=list)
    """What goes out for each of `cancellations`."""
    conflicts: list[Conflict] = field(default_factory=list)
    waiting: list[OrderEvent] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    """Codes of events that waited and then turned out to be dead letters."""

    @property
    def placed_order(self) -> Order:
        assert self.order is not None
        return self.order

    @property
    def units(self) -> Mapping[str, tuple[int, int, int]]:
        """Per item as first ordered: fulfilled, cancelled, open."""
        return {item_id: (t.fulfilled, t.cancelled, t.open) for item_id, t in self.placed_order.totals().items()}

    @property
    def operations(self) -> list[str]:
        return [cancellation.operation.name for cancellation in self.cancellations]

    def take(self, raw: Json) -> None:
        """Decide on an event and carry it out, then try again what waits, in order of arrival, until none can go.
        Raises an `EventRejected`, in which case nothing has changed."""
        event = cast(OrderEvent, parsed(raw))
        outcome = self._decide(event)
        self.outcomes.append(outcome)
        if outcome == "waiting":
            self.waiting.append(event)
        while any(self._retry(waiting) for waiting in self.waiting):
            pass

    def _retry(self, event: OrderEvent) -> bool:
        """Whether anything came of it: an event may wait on, but leave its shipment."""
        before = self.order
        try:
            if self._decide(event) == "waiting":
                return self.order != before
        except EventRejected as rejection:
            self.rejected.append(rejection.code)
        self.waiting = [other for other in self.waiting if other is not event]
        return True

    def _decide(self, event: OrderEvent) -> Outcome:
        decision = decide(self.order, event, self.policy)
        change = carry_out(self.order, decision, NOW)
        if change.order is not None:
            change.order.check_conservation()
            outgoing = [order_cancelled(cancellation, change.order, event) for cancellation in change.cancellations]
            self.published += [json.loads(published(message)) for message in outgoing]
        self.order = change.order
        self.cancellations += change.cancellations
        self.conflicts += change.conflicts
        self.ended[event.id] = decision.outcome
        return decision.outcome


def play(*events: Json, policy: Policy | None = None) -> Played:
    """Play events of one order, in this order of arrival, from before it was placed."""
    played = Played(policy or Policy())
    for raw in events:
        played.take(raw)
    return played

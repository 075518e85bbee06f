"""A shop that places orders, ships and runs short; what it sends is decided by its seed alone."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from domain.outgoing import rfc3339

SKUS = 200
RARE_SKUS = ("RARE-A", "RARE-B", "RARE-C")
"""They run dry: there is less of them than what all orders want together."""
REASONS = ("out_of_stock", "buyer_request", "cancelled_elsewhere", "manual")

Step = tuple[str, dict[str, Any]]
"""An event's type and data."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An event as it goes to the queue. `kind` is its type, or "duplicate" or "broken"."""

    kind: str
    raw: bytes


class Shop:
    """Orders with skewed demand, each with a story of its own; their events mingle, and some overtake each other."""

    def __init__(self, seed: int, start: datetime) -> None:
        self._rng = random.Random(seed)
        self._start = start
        self._skus = [f"SKU-{number:03}" for number in range(1, SKUS + 1)]
        self._demand = [1 / rank for rank in range(1, SKUS + 1)]
        self._sent = 0
        self._wanted = dict.fromkeys(RARE_SKUS, 0)

    def events(self, orders: int) -> Iterator[Sent]:
        """Everything that happens around so many orders, in the order in which it is sent."""
        timed: list[tuple[float, Step]] = []
        for number in range(1, orders + 1):
            at = float(number)
            for step in self._story(number):
                timed.append((at, step))
                at += self._rng.uniform(5, 60)
            if number in (orders // 2, orders):
                timed += [(number + 0.5, step) for step in self._runs_dry()]
        for _, (type_, data) in sorted(timed, key=lambda one: one[0]):
            raw = self._event(type_, data)
            yield Sent(type_, raw)
            if self._rng.random() < 0.03:
                yield Sent("duplicate", self._again(raw, type_, data))
            if self._rng.random() < 0.01:
                yield Sent("broken", self._broken(data.get("orderId", "order-00001")))

    def _story(self, number: int) -> list[Step]:
        """The events of one order."""
        order = self._placed(number)
        tell = self._rng.choices(
            (self._ships, self._falls_short, self._sells_out, self._is_closed, self._ends_short, self._is_asked_for,
             self._is_overtaken, self._ships_too_late, self._wants_a_rare_thing),
            (30, 22, 8, 8, 10, 14, 6, 2, 8),
        )[0]  # fmt: skip
        return tell(order)

    def _placed(self, number: int) -> dict[str, Any]:
        skus = self._rng.choices(self._skus, self._demand, k=self._rng.choice((1, 1, 2, 2, 3, 4, 6)))
        items = [
            {"itemId": str(line), "sku": sku, "quantity": self._rng.choice((1, 1, 2, 3, 6, 12))}
            for line, sku in enumerate(skus, start=1)
        ]
        placed: dict[str, Any] = {"orderId": f"order-{number:05}", "placedAt": self._time(), "items": items}
        if self._rng.random() < 0.3:
            placed |= {"partner": self._rng.choice(("northwind", "tailspin", "contoso")), "priority": 1}
        if self._rng.random() < 0.2:
            placed["attributes"] = {"currency": "EUR", "channel": "web"}
        return placed

    def _ships(self, order: dict[str, Any]) -> list[Step]:
        """Everything ships, at once or in two parcels."""
        if self._rng.random() < 0.6:
            return [("order.placed", order), _shipment(order, "f1", _all(order), names=["f1"])]
        first, second = _split(order)
        return [("order.placed", order), _shipment(order, "f1", first), _shipment(order, "f2", second, ["f1", "f2"])]

    def _falls_short(self, order: dict[str, Any]) -> list[Step]:
        """One line is short, by item or by SKU; what is kept ships. Sometimes the shortage is reported twice."""
        item = self._rng.choice(order["items"])
        units = sum(one["quantity"] for one in order["items"] if one["sku"] == item["sku"])
        if self._rng.random() < 0.3:
            line = {"sku": item["sku"], "fulfillableQuantity": self._rng.randrange(units)}
        else:
            line = {"itemId": item["itemId"], "fulfillableQuantity": self._rng.randrange(item["quantity"])}
        short = ("inventory.shortage", {"orderId": order["orderId"], "items": [line]})
        again = [short] if self._rng.random() < 0.1 else []
        return [("order.placed", order), short, *again]

    def _sells_out(self, order: dict[str, Any]) -> list[Step]:
        """Nothing of the order can be fulfilled."""
        lines = [{"itemId": item["itemId"], "fulfillableQuantity": 0} for item in order["items"]]
        return [("order.placed", order), ("inventory.shortage", {"orderId": order["orderId"], "items": lines})]

    def _is_closed(self, order: dict[str, Any]) -> list[Step]:
        """A part ships, then the warehouse closes the order; the closing may overtake the shipment."""
        first, _ = _split(order)
        closed = ("fulfillment.closed", {"orderId": order["orderId"], "fulfillmentIds": ["f1"]})
        rest = [_shipment(order, "f1", first), closed]
        return [("order.placed", order), *(rest if self._rng.random() < 0.7 else reversed(rest))]

    def _ends_short(self, order: dict[str, Any]) -> list[Step]:
        """The last shipment does not hold everything."""
        first, _ = _split(order)
        return [("order.placed", order), _shipment(order, "f1", first, ["f1"])]

    def _is_asked_for(self, order: dict[str, Any]) -> list[Step]:
        """Somebody asks for a cancellation, of any form; sometimes of what has shipped, which is refused."""
        item = self._rng.choice(order["items"])
        forms: list[dict[str, Any]] = [{}, {"unfulfilledOnly": True}, {"items": [{"itemId": item["itemId"]}]}]
        if item["quantity"] > 1:
            keep = self._rng.randrange(1, item["quantity"])
            forms.append({"items": [{"itemId": item["itemId"], "newQuantity": keep}]})
        by = self._rng.choice(("buyer", "seller"))
        asked = {"orderId": order["orderId"], "cancelledBy": by, "reason": {"code": self._rng.choice(REASONS)}}
        shipped = [_shipment(order, "f1", _split(order)[0])] if self._rng.random() < 0.4 else []
        return [("order.placed", order), *shipped, ("cancellation.requested", asked | self._rng.choice(forms))]

    def _is_overtaken(self, order: dict[str, Any]) -> list[Step]:
        """The order is heard of before it is placed."""
        placed, short = self._falls_short(order)[:2]
        return [short, placed]

    def _ships_too_late(self, order: dict[str, Any]) -> list[Step]:
        """Goods ship after the order was cancelled: a conflict."""
        return [*self._sells_out(order), _shipment(order, "f1", _split(order)[0])]

    def _wants_a_rare_thing(self, order: dict[str, Any]) -> list[Step]:
        """One line is of a SKU that will run dry, and nothing ships before that."""
        item = self._rng.choice(order["items"])
        item["sku"] = self._rng.choice(RARE_SKUS)
        self._wanted[item["sku"]] += item["quantity"]
        return [("order.placed", order)]

    def _runs_dry(self) -> list[Step]:
        """A count of the stock finds less than what is wanted; of the last SKU there is more again soon after."""
        steps: list[Step] = [
            ("inventory.shortage", {"sku": sku, "availableQuantity": wanted * 2 // 3})
            for sku, wanted in self._wanted.items()
        ]
        return [*steps, ("inventory.restocked", {"sku": RARE_SKUS[-1]})]

    def _again(self, raw: bytes, type_: str, data: dict[str, Any]) -> bytes:
        """The same bytes, or the same content under another id."""
        return raw if self._rng.random() < 0.7 else self._event(type_, data)

    def _broken(self, order_id: str) -> bytes:
        """Something that cannot be acted on."""
        line = {"itemId": "1", "fulfillableQuantity": 0, "location": "berlin"}
        return self._rng.choice(
            (
                b'{"specversion": "1.0", "id":',
                self._event("inventory.shortage", {"orderId": order_id, "items": [line]}),
                self._event("inventory.shortage", {"orderId": order_id, "items": [{**_nothing_of("no-such-item")}]}),
                self._event("order.shipped", {"orderId": order_id}),
                self._event("inventory.shortage", {"sku": self._skus[0], "availableQuantity": -1}),
                self._event("fulfillment.closed", {"orderId": order_id, "fulfillmentIds": []}, id_="1"),
            )
        )

    def _event(self, type_: str, data: dict[str, Any], id_: str | None = None) -> bytes:
        self._sent += 1
        event = {
            "specversion": "1.0",
            "id": id_ or str(self._sent),
            "source": "/shop/simulated",
            "type": type_,
            "time": self._time(),
            "data": data,
        }
        return json.dumps(event, separators=(",", ":")).encode()

    def _time(self) -> str:
        """The shop's clock: it moves on with every event."""
        return rfc3339(self._start + timedelta(milliseconds=self._sent))


def _all(order: dict[str, Any]) -> list[tuple[str, int]]:
    return [(item["itemId"], item["quantity"]) for item in order["items"]]


def _split(order: dict[str, Any]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """An order's units in two parcels: of each line the larger half, and the rest."""
    first = [(item_id, quantity - quantity // 2) for item_id, quantity in _all(order)]
    second = [(item_id, quantity // 2) for item_id, quantity in _all(order) if quantity > 1]
    if second:
        return first, second
    return first[:1], first[1:] or first[:1]


def _shipment(order: dict[str, Any], id_: str, lines: list[tuple[str, int]], names: list[str] | None = None) -> Step:
    """A fulfillment; with `names`, which are all of the order's, it is the last one."""
    items = [{"itemId": item_id, "quantity": quantity} for item_id, quantity in lines]
    data: dict[str, Any] = {"orderId": order["orderId"], "fulfillmentId": id_, "items": items}
    return "fulfillment.created", data | ({"final": True, "fulfillmentIds": names} if names else {})


def _nothing_of(item_id: str) -> dict[str, Any]:
    return {"itemId": item_id, "fulfillableQuantity": 0}

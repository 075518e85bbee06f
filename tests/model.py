"""What must come of a history of events, straight from the contract: the worker is judged against it.

It shares nothing with the worker, not even the idea of items that replace each other: a line as first ordered stays one
line, with three figures and the ids its items have had, and all that an operation does is to lower what is kept of it.
It takes valid events, and repeats of them. It knows neither SKU-wide shortages nor restocks, and says so.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_OID, uuid5

Json = dict[str, Any]
_KNOWN = {"order.placed", "inventory.shortage", "fulfillment.created", "fulfillment.closed", "cancellation.requested"}


class _DeadLetter(Exception):
    """The event cannot be taken at its word; nothing has changed."""


class Model:
    """All orders, and in `conflicts` what is left for a person to resolve."""

    def __init__(self) -> None:
        self.conflicts: list[Json] = []
        self._orders: dict[str, _Order] = {}
        self._claimed: set[tuple[str, str]] = set()

    def feed(self, event: Json) -> None:
        """Take one CloudEvent as parsed JSON, and whatever waited for it."""
        name, order_id = (event["source"], event["id"]), event["data"].get("orderId")
        if order_id is None or event["type"] not in _KNOWN:
            raise NotImplementedError(f"the model does not know what comes of {event}")
        if name in self._claimed:
            return
        self._claimed.add(name)
        order = self._orders.setdefault(order_id, _Order(order_id, self.conflicts))
        order.waiting.append(event)
        # Whenever one goes, those that still wait are tried again, the oldest first.
        while any(self._goes(order, waiting) for waiting in list(order.waiting)):
            pass

    def totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """Units per placed order and item as first ordered: ordered, fulfilled, cancelled, open."""
        return {order.order_id: order.totals() for order in self._orders.values() if order.lines}

    def flags(self) -> dict[str, dict[str, bool]]:
        """Per placed order, what `order.cancelled` tells of it."""
        return {order.order_id: order.flags() for order in self._orders.values() if order.lines}

    def _goes(self, order: "_Order", event: Json) -> bool:
        """Whether anything came of a waiting event."""
        try:
            rest = order.take(event)
        except _DeadLetter:
            rest = []
            self._claimed.discard((event["source"], event["id"]))  # mended, it may come again under its id
        at = order.waiting.index(event)
        order.waiting[at : at + 1] = rest
        return rest != [event]


@dataclass
class _Line:
    """A line as first ordered. `quantity` is what is not cancelled of it; the last of `ids` names that item now."""

    order_id: str
    sku: str
    ordered: int
    quantity: int
    ids: list[str]
    fulfilled: int = 0

    @property
    def open(self) -> int:
        return self.quantity - self.fulfilled

    def totals(self) -> dict[str, int]:
        cancelled = self.ordered - self.quantity
        return {"ordered": self.ordered, "fulfilled": self.fulfilled, "cancelled": cancelled, "open": self.open}

    def keep(self, units: int) -> None:
        """Cancel what is above `units`, but never what shipped. Where something stays, it has a new id."""
        kept = max(self.fulfilled, min(units, self.quantity))
        if 0 < kept < self.quantity:
            self.ids.append(str(uuid5(NAMESPACE_OID, f"{self.order_id}/{self.ids[-1]}")))
        self.quantity = kept


@dataclass
class _Order:
    order_id: str
    conflicts: list[Json]
    lines: list[_Line] = field(default_factory=list)
    shipments: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    waiting: list[Json] = field(default_factory=list)

    def totals(self) -> dict[str, dict[str, int]]:
        return {line.ids[0]: line.totals() for line in self.lines}

    def flags(self) -> dict[str, bool]:
        cut, gone = any(n.quantity < n.ordered for n in self.lines), not any(n.quantity for n in self.lines)
        shipped = any(n.fulfilled for n in self.lines) and not any(n.open for n in self.lines)
        return {"hasCancellations": cut, "shipped": shipped, "entirelyCancelled": gone}

    def take(self, event: Json) -> list[Json]:
        """What is left to do of the event: nothing, all of it (it waits), or the closing of a final shipment."""
        data = event["data"]
        match event["type"]:
            case "order.placed" if not self.lines:
                rows = [(item["itemId"], item["sku"], item["quantity"]) for item in data["items"]]
                self.lines = [_Line(self.order_id, sku, units, units, [item_id]) for item_id, sku, units in rows]
            case "order.placed":
                pass  # the same again, or a dead letter
            case _ if not self.lines:
                return [event]
            case "inventory.shortage":
                self._run_short(data["items"])
            case "fulfillment.created":
                self._ship(data["fulfillmentId"], data["items"])
                return [{**event, "type": "fulfillment.closed"}] if data.get("final") else []
            case "fulfillment.closed":
                if not set(data["fulfillmentIds"]) <= self.shipments.keys():
                    return [event]
                self._request({"unfulfilledOnly": True})
            case "cancellation.requested":
                self._request(data)
        return []

    def _run_short(self, items: list[Json]) -> None:
        figures = {_name(item): item["fulfillableQuantity"] for item in items}
        if len(figures) < len(items) or not all(self._named(name) for name in figures):
            raise _DeadLetter
        kept: dict[str, int] = {}
        for name, figure in figures.items():
            left = figure - sum(line.fulfilled for line in self._named(name))
            for line in self._named(name):
                given = max(0, min(left, line.open))
                left -= given
                kept[line.ids[0]] = min(line.fulfilled + given, kept.get(line.ids[0], line.quantity))
        for line in self.lines:
            line.keep(kept.get(line.ids[0], line.quantity))

    def _ship(self, fulfillment_id: str, items: list[Json]) -> None:
        shipped: Counter[tuple[str, str]] = Counter()
        for item in items:
            shipped[_name(item)] += item["quantity"]
        if self.shipments.setdefault(fulfillment_id, shipped) != shipped:
            raise _DeadLetter
        if self.shipments[fulfillment_id] is not shipped:
            return
        excess = {name: _fill(self._named(name), units) for name, units in shipped.items()}
        for name, units in excess.items():
            skus = {line.sku for line in self._named(name)}
            left = _fill([line for line in self.lines if line.sku in skus], units)
            conflict = {"orderId": self.order_id, "fulfillmentId": fulfillment_id, name[0]: name[1], "quantity": left}
            self.conflicts += [conflict] if left else []

    def _request(self, request: Json) -> None:
        """Carry it out on a copy of the lines, which counts unless the rules refuse any of it."""
        lines = deepcopy(self.lines)
        if "items" in request:
            granted = all(_cut(lines, item["itemId"], item.get("newQuantity") or 0) for item in request["items"])
        else:
            untouched = not any(line.fulfilled for line in lines)
            granted = any(line.open for line in lines) and (untouched or request.get("unfulfilledOnly", False))
            for line in lines:
                line.keep(0)
        self.lines = lines if granted else self.lines

    def _named(self, name: tuple[str, str]) -> list[_Line]:
        kind, value = name
        return [line for line in self.lines if (line.sku == value if kind == "sku" else value in line.ids)]


def _name(item: Json) -> tuple[str, str]:
    return ("sku", item["sku"]) if "sku" in item else ("itemId", item["itemId"])


def _fill(lines: list[_Line], units: int) -> int:
    """Ship from these lines in item order; returns the units that none of them could take."""
    for line in lines:
        taken = min(units, line.open)
        line.fulfilled += taken
        units -= taken
    return units


def _cut(lines: list[_Line], item_id: str, units: int) -> bool:
    """Cut one item, named by its own id only; False where the rules refuse it."""
    line = next((line for line in lines if line.ids[-1] == item_id), None)
    if line is None or not line.fulfilled <= units < line.quantity:
        return False
    line.keep(units)
    return True

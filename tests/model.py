"""What must come of a history of events, straight from the contract: the worker is judged against it.

It shares nothing with the worker, not even the idea of items that replace each other: a line as first ordered stays one
line, with three figures and the ids its items have had, and all that an operation does is to lower what is kept of it.
It takes valid events, and repeats of them. What a SKU-wide shortage or a restock does depends on what was fed before it.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

Json = dict[str, Any]
_STOCK = {"inventory.shortage", "inventory.restocked"}
_OF_ORDERS = {"order.placed", "fulfillment.created", "fulfillment.closed", "cancellation.requested"} | _STOCK
_NEVER = datetime.min.replace(tzinfo=UTC)


class _DeadLetter(Exception):
    """The event cannot be taken at its word; nothing has changed."""


class Model:
    """All orders, and in `conflicts` what is left for a person to resolve."""

    def __init__(self, ship_complete: bool = False, strategy: str = "oldest_first") -> None:
        self.conflicts: list[Json] = []
        self._ship_complete = ship_complete
        self._newest_first = {"oldest_first": False, "newest_first": True}[strategy]
        self._orders: dict[str, _Order] = {}
        self._claimed: set[tuple[str, str]] = set()
        self._figures: dict[tuple[str, str], datetime] = {}  # the newest stock event of each source and SKU
        self._restocks: dict[str, datetime] = {}  # the newest restock of each SKU

    def feed(self, event: Json, arrived: datetime | None = None) -> None:
        """Take one CloudEvent as parsed JSON, and whatever waited for it. `arrived`: when its queue entry was made."""
        name, data, time = (event["source"], event["id"]), event["data"], datetime.fromisoformat(event["time"])
        of_sku = "sku" in data and event["type"] in _STOCK
        if not of_sku and not ("orderId" in data and event["type"] in _OF_ORDERS):
            raise NotImplementedError(f"the model does not know what comes of {event}")
        if name in self._claimed:
            return
        self._claimed.add(name)
        event = {**event, "effective": min(time, arrived or time)}  # kept in the event, which may have to wait
        if of_sku:
            self._take_stock(event)
            return
        order = self._order(data["orderId"])
        order.waiting.append(event)
        # In rounds, the oldest first, but restocks before all others, until nothing comes of a round: what has shipped
        # is recorded before a closing that waited for a part of it.
        while sum(self._goes(order, waiting) for waiting in sorted(order.waiting, key=_is_no_restock)):
            pass

    def totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """Units per placed order and item as first ordered: ordered, fulfilled, cancelled, open."""
        return {order.order_id: order.totals() for order in self._orders.values() if order.lines}

    def flags(self) -> dict[str, dict[str, bool]]:
        """Per placed order, what `order.cancelled` tells of it."""
        return {order.order_id: order.flags() for order in self._orders.values() if order.lines}

    def _order(self, order_id: str) -> "_Order":
        new = _Order(order_id, self.conflicts, self._restocks, self._ship_complete)
        return self._orders.setdefault(order_id, new)

    def _take_stock(self, event: Json) -> None:
        """A shortage or restock of a SKU."""
        sku, at = event["data"]["sku"], event["effective"]
        if event["type"] == "inventory.restocked":
            self._restocks[sku] = max(at, self._restocks.get(sku, _NEVER))
        elif at >= max(self._figures.get((event["source"], sku), _NEVER), self._restocks.get(sku, _NEVER)):
            self._run_short(sku, event["data"]["availableQuantity"], at)
        # What was not acted on is a figure as well.
        self._figures[event["source"], sku] = max(at, self._figures.get((event["source"], sku), _NEVER))

    def _run_short(self, sku: str, available: int, at: datetime) -> None:
        """Orders are served in turn. What shipped after `at` is still in the figure, but not for them."""
        left = max(0, available - sum(order.shipped_after(at, sku) for order in self._orders.values()))
        demand = [order for order in self._orders.values() if order.lines and order.placed_at <= at]
        for order in sorted(demand, key=self._rank, reverse=self._newest_first):
            left = order.share(sku, left, at)

    def _rank(self, order: "_Order") -> tuple[int, datetime, str]:
        # A higher priority comes first, reversed or not.
        return (order.priority if self._newest_first else -order.priority, order.placed_at, order.order_id)

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
    restocked: datetime = _NEVER

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
    restocks: dict[str, datetime]
    ship_complete: bool
    placed_at: datetime = _NEVER
    priority: int = 0
    lines: list[_Line] = field(default_factory=list)
    shipments: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    reported: list[tuple[datetime, str, int]] = field(default_factory=list)  # as shipped: when, SKU, units
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
                self.placed_at, self.priority = datetime.fromisoformat(data["placedAt"]), data.get("priority", 0)
            case "order.placed":
                pass  # the same again, or a dead letter
            case _ if not self.lines:
                return [event]
            case "inventory.shortage":
                self._run_short(data["items"], event["effective"])
            case "inventory.restocked":
                self._restock(data["items"], event["effective"])
            case "fulfillment.created":
                self._ship(data["fulfillmentId"], data["items"], event["effective"])
                return self.take({**event, "type": "fulfillment.closed"}) if data.get("final") else []
            case "fulfillment.closed":
                if not set(data["fulfillmentIds"]) <= self.shipments.keys():
                    return [event]
                self._request({"unfulfilledOnly": True})
            case "cancellation.requested":
                self._request(data)
        return []

    def shipped_after(self, at: datetime, sku: str) -> int:
        return sum(units for time, of, units in self.reported if of == sku and time > at)

    def share(self, sku: str, left: int, at: datetime) -> int:
        """Cut what `left` is not enough for; returns what it leaves for the next order. What was restocked since `at` is no
        part of it."""
        lines = [line for line in self._named(("sku", sku)) if line.restocked <= at]
        if self.ship_complete and sum(line.open for line in lines) > left:
            self._keep_shipped()
            return left
        for line in lines:
            given = min(line.open, left)
            left -= given
            line.keep(line.fulfilled + given)
        return left

    def _run_short(self, items: list[Json], at: datetime) -> None:
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
        short = [line for line in self.lines if max(line.restocked, self.restocks.get(line.sku, _NEVER)) <= at]
        short = [line for line in short if kept.get(line.ids[0], line.quantity) < line.quantity]
        if short and self.ship_complete:
            self._keep_shipped()
        for line in short:
            line.keep(kept[line.ids[0]])

    def _restock(self, items: list[Json], at: datetime) -> None:
        names = [_name(item) for item in items]
        if not all(self._named(name) for name in names):
            raise _DeadLetter
        for line in (line for name in names for line in self._named(name)):
            line.restocked = max(at, line.restocked)

    def _keep_shipped(self) -> None:
        for line in self.lines:
            line.keep(0)

    def _ship(self, fulfillment_id: str, items: list[Json], time: datetime) -> None:
        shipped: Counter[tuple[str, str]] = Counter()
        for item in items:
            shipped[_name(item)] += item["quantity"]
        if self.shipments.setdefault(fulfillment_id, shipped) != shipped:
            raise _DeadLetter
        if self.shipments[fulfillment_id] is not shipped:
            return
        for (kind, value), units in shipped.items():
            skus = [value] if kind == "sku" else [line.sku for line in self._named((kind, value))]
            self.reported += [(time, sku, units) for sku in skus]
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


def _is_no_restock(event: Json) -> bool:
    return bool(event["type"] != "inventory.restocked")


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

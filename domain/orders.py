"""An order, the four ways to cancel of it, and the recording of what was shipped or restocked.

The operations are those of the seed guide ("Cancelling orders"): cancelled is for ever, and fulfilled quantities are
never cancellable. Every value here is immutable; a change gives a new order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import assert_never

from domain import errors
from domain.items import OrderItem, Totals, totals_of, units_of
from domain.operations import (
    CancelItem,
    CancelItemPartially,
    Cancellation,
    CancelOrder,
    CancelUnfulfilled,
    Operation,
    Terms,
)
from domain.shipments import Conflict, RecordedFulfillment, Restock, Shipment, ShippedLine


@dataclass(frozen=True, slots=True)
class Order:
    """An order that was placed. `sequence` is the number of its cancellations so far."""

    order_id: str
    placed_at: datetime
    placed_digest: str
    items: Mapping[str, OrderItem]
    fulfillments: Mapping[str, RecordedFulfillment]
    partner: str | None = None
    priority: int = 0
    attributes: Mapping[str, str] | None = None
    sequence: int = 0

    @property
    def current_items(self) -> list[OrderItem]:
        """The end of each item's chain, in item order: what the order consists of now."""
        return sorted((item for item in self.items.values() if item.replaced_by is None), key=attrgetter("line"))

    @property
    def open(self) -> int:
        return sum(item.open for item in self.items.values())

    @property
    def fulfilled(self) -> int:
        return sum(item.fulfilled for item in self.items.values())

    @property
    def has_cancellations(self) -> bool:
        return any(item.cancelled for item in self.items.values())

    @property
    def entirely_cancelled(self) -> bool:
        return all(item.cancelled for item in self.items.values())

    @property
    def shipped(self) -> bool:
        return self.fulfilled > 0 and self.open == 0

    def current(self, item_id: str) -> OrderItem | None:
        """The item at the end of the chain of `item_id`, or None if the order never had such an item."""
        item = self.items.get(item_id)
        while item is not None and item.replaced_by is not None:
            item = self.items[item.replaced_by]
        return item

    def totals(self) -> dict[str, Totals]:
        """Units per item as first ordered, in item order."""
        first = sorted((i for i in self.items.values() if i.item_id == i.original_item_id), key=attrgetter("line"))
        ends = {item.original_item_id: item for item in self.current_items}
        return {item.item_id: totals_of(item.quantity, ends[item.item_id]) for item in first}

    def check_conservation(self) -> None:
        """Raise `ConservationBroken` unless, per item as first ordered, the units fulfilled, cancelled and open along
        its chain add up to what was ordered, none of them negative, and every item belongs to one chain."""
        seen = 0
        for first in self.items.values():
            if first.item_id == first.original_item_id:
                chain = self._chain(first)
                units = units_of(chain)
                if sum(units) != first.quantity or min(units) < 0:
                    found = f"ordered {first.quantity}, but fulfilled, cancelled and open are {units}"
                    raise errors.ConservationBroken(self.order_id, first.item_id, found)
                seen += len(chain)
        if seen != len(self.items):
            raise errors.ConservationBroken(
                self.order_id, "?", f"{len(self.items)} items, of which {seen} have a chain"
            )

    def _chain(self, first: OrderItem) -> list[OrderItem]:
        """An item and those that replaced it, one after the other."""
        chain = [first]
        while chain[-1].replaced_by is not None:
            successor = self.items.get(chain[-1].replaced_by)
            if successor is None or len(chain) > len(self.items):
                raise errors.ConservationBroken(self.order_id, first.item_id, "its chain of replacements is broken")
            chain.append(successor)
        return chain

    def apply(self, operation: Operation, terms: Terms) -> tuple["Order", Cancellation]:
        """Carry out one operation. Raises an `OperationRefused`, in which case nothing has changed."""
        match operation:
            case CancelItem(item_id):
                keeps = self._keeps_without_item(item_id)
            case CancelItemPartially(item_id, new_quantity):
                keeps = self._keeps_with_part_of_item(item_id, new_quantity)
            case CancelOrder():
                keeps = self._keeps_without_order()
            case CancelUnfulfilled():
                keeps = self._keeps_without_unfulfilled()
            case _:
                assert_never(operation)
        return self._cancel(operation, keeps, terms)

    def cancel_item(self, item_id: str, terms: Terms) -> tuple["Order", Cancellation]:
        """Cancel an item; raises `UnknownItem`, `ItemAlreadyCancelled` or `ItemFulfilled`."""
        return self.apply(CancelItem(item_id), terms)

    def cancel_item_partially(self, item_id: str, new_quantity: int, terms: Terms) -> tuple["Order", Cancellation]:
        """Keep `new_quantity` units of an item, as a new item; raises as `cancel_item` (a partly fulfilled item is
        fine), `NewQuantityTooLow` or `NewQuantityTooHigh`."""
        return self.apply(CancelItemPartially(item_id, new_quantity), terms)

    def cancel_order(self, terms: Terms) -> tuple["Order", Cancellation]:
        """Cancel every item; raises `OrderAlreadyCancelled` or `OrderFulfilled`."""
        return self.apply(CancelOrder(), terms)

    def cancel_unfulfilled(self, terms: Terms) -> tuple["Order", Cancellation]:
        """Cancel whatever is open; raises `NothingOpen`."""
        return self.apply(CancelUnfulfilled(), terms)

    def record(self, shipment: Shipment) -> tuple["Order", tuple[Conflict, ...]]:
        """Record a shipment: each line takes what it can, the excess spills to open lines of the same SKU, and what
        nothing can take is a conflict. No unit is forgotten and none is counted twice."""
        items = dict(self.items)
        rest = {line: _fill(items, self._lines_of(line), line.quantity) for line in shipment.lines}
        conflicts = []
        for line, quantity in rest.items():
            excess = _fill(items, self._lines_of_sku(self._sku_of(line)), quantity)
            if excess:
                conflicts.append(Conflict(shipment.fulfillment_id, line.item_id, line.sku, excess))
        known = RecordedFulfillment(shipment.digest, shipment.source, shipment.event_id)
        fulfillments = {**self.fulfillments, shipment.fulfillment_id: known}
        return replace(self, items=items, fulfillments=fulfillments), tuple(conflicts)

    def restock(self, restock: Restock) -> "Order":
        """Note a restock on the items at the end of the chains that it names; the newest time counts. Raises
        `RestockOfUnknownItem`, in which case nothing has changed."""
        items = dict(self.items)
        for item_id in restock.item_ids:
            item = self.current(item_id)
            if item is None:
                raise errors.RestockOfUnknownItem(item_id)
            if item.restocked_at is None or item.restocked_at < restock.at:
                items[item.item_id] = replace(item, restocked_at=restock.at)
        return replace(self, items=items)

    def shipped_units(self, shipment: Shipment) -> dict[str, int]:
        """Units of each SKU that have left with a shipment, those that found no place among them. A line that names an
        item which the order never had counts for none."""
        units: dict[str, int] = {}
        for line in shipment.lines:
            sku = self._sku_of(line)
            if sku is not None:
                units[sku] = units.get(sku, 0) + line.quantity
        return units

    def _lines_of(self, line: ShippedLine) -> list[OrderItem]:
        if line.item_id is None:
            return self._lines_of_sku(line.sku)
        item = self.current(line.item_id)
        return [item] if item else []

    def _lines_of_sku(self, sku: str | None) -> list[OrderItem]:
        return [item for item in self.current_items if item.sku == sku]

    def _sku_of(self, line: ShippedLine) -> str | None:
        if line.item_id is None:
            return line.sku
        item = self.items.get(line.item_id)
        return item.sku if item else None

    def _uncancelled(self, item_id: str) -> OrderItem:
        item = self.items.get(item_id)
        if item is None:
            raise errors.UnknownItem(item_id)
        if item.cancelled:
            raise errors.ItemAlreadyCancelled(item_id, item.replaced_by)
        return item

    def _keeps_without_item(self, item_id: str) -> dict[str, int]:
        item = self._uncancelled(item_id)
        if item.fulfilled:
            raise errors.ItemFulfilled(item_id, item.fulfilled)
        return {item_id: 0}

    def _keeps_with_part_of_item(self, item_id: str, new_quantity: int) -> dict[str, int]:
        item = self._uncancelled(item_id)
        lowest = max(1, item.fulfilled)
        if item.fulfilled == item.quantity:
            raise errors.ItemFulfilled(item_id, item.fulfilled)
        if new_quantity < lowest:
            raise errors.NewQuantityTooLow(item_id, new_quantity, lowest)
        if new_quantity >= item.quantity:
            raise errors.NewQuantityTooHigh(item_id, new_quantity, item.quantity)
        return {item_id: new_quantity}

    def _keeps_without_order(self) -> dict[str, int]:
        if self.entirely_cancelled:
            raise errors.OrderAlreadyCancelled
        if self.fulfilled:
            raise errors.OrderFulfilled
        return {item.item_id: 0 for item in self.current_items if not item.cancelled}

    def _keeps_without_unfulfilled(self) -> dict[str, int]:
        if not self.open:
            raise errors.NothingOpen
        return {item.item_id: item.fulfilled for item in self.current_items if item.open}

    def _cancel(self, operation: Operation, keeps: Mapping[str, int], terms: Terms) -> tuple["Order", Cancellation]:
        """Cancel these items, each down to the units it keeps."""
        items = dict(self.items)
        done = []
        for item_id, keep in keeps.items():
            item = items[item_id]
            successor = item.successor(self.order_id, keep) if keep else None
            if successor:
                if successor.item_id in items:  # an order that was placed with such an id, by whatever intent
                    raise errors.ConservationBroken(self.order_id, successor.item_id, "its id is taken by another item")
                items[successor.item_id] = successor
            items[item_id] = replace(
                item, fulfilled=0, cancelled=terms, replaced_by=successor.item_id if successor else None
            )
            done.append(item.cancelled_down_to(successor))
        order = replace(self, items=items, sequence=self.sequence + 1)
        return order, Cancellation(
            order_id=self.order_id,
            sequence=order.sequence,
            operation=operation,
            terms=terms,
            items=tuple(done),
            has_cancellations=order.has_cancellations,
            shipped=order.shipped,
            entirely_cancelled=order.entirely_cancelled,
        )


def _fill(items: dict[str, OrderItem], lines: Iterable[OrderItem], quantity: int) -> int:
    """Fulfil up to `quantity` units of the lines, in their order, and return the units that found no place."""
    for line in lines:
        item = items[line.item_id]
        taken = min(item.open, quantity)
        if taken:
            items[item.item_id] = replace(item, fulfilled=item.fulfilled + taken)
            quantity -= taken
    return quantity

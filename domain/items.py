"""An item of an order, and the chain of those that replace it, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from domain.operations import CancelledItem, Terms, replacement_id


@dataclass(frozen=True, slots=True)
class OrderItem:
    """An item. Quantities are units; `line` is its place in the order, which a replacement inherits. A shortage that
    happened before `restocked_at` does not cut it."""

    item_id: str
    original_item_id: str
    line: int
    sku: str
    quantity: int
    fulfilled: int = 0
    cancelled: Terms | None = None
    replaced_by: str | None = None
    attributes: Mapping[str, str] | None = None
    restocked_at: datetime | None = None

    @property
    def open(self) -> int:
        return 0 if self.cancelled else self.quantity - self.fulfilled

    def successor(self, order_id: str, keep: int) -> "OrderItem":
        """The item that stands for the units that are kept; what was fulfilled moves to it."""
        return replace(self, item_id=replacement_id(order_id, self.item_id), quantity=keep)

    def cancelled_down_to(self, successor: "OrderItem | None") -> CancelledItem:
        """What is told of this item's cancellation."""
        return CancelledItem(
            item_id=self.item_id,
            original_item_id=self.original_item_id,
            sku=self.sku,
            quantity=self.quantity,
            fulfilled_quantity=self.fulfilled,
            cancelled_quantity=self.quantity - (successor.quantity if successor else 0),
            new_item_id=successor.item_id if successor else None,
            new_quantity=successor.quantity if successor else None,
            attributes=self.attributes or {},
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """Units of one item as first ordered: ordered = fulfilled + cancelled + open."""

    ordered: int
    fulfilled: int
    cancelled: int
    open: int


def totals_of(ordered: int, end: OrderItem) -> Totals:
    """The units of an item as first ordered, told from the end of its chain."""
    cancelled = ordered if end.cancelled else ordered - end.quantity
    return Totals(ordered, end.fulfilled, cancelled, end.open)


def units_of(chain: Sequence[OrderItem]) -> tuple[int, int, int]:
    """Fulfilled, cancelled and open units of a chain, each counted where it stands."""
    kept = [item.quantity for item in chain[1:]] + [0]
    cancelled = sum(item.quantity - keep for item, keep in zip(chain, kept, strict=True) if item.cancelled)
    return sum(item.fulfilled for item in chain), cancelled, sum(item.open for item in chain)

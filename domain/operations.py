"""The four cancel operations, and what one of them did to an order, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import NAMESPACE_OID, uuid5

CancelledBy = Literal["buyer", "seller"]
ReasonCode = Literal["out_of_stock", "short_shipped", "buyer_request", "cancelled_elsewhere", "manual"]
OperationName = Literal["cancelItem", "cancelItemPartially", "cancelOrder", "cancelUnfulfilled"]


@dataclass(frozen=True, slots=True)
class CancelItem:
    """Cancel an item of which nothing is fulfilled."""

    item_id: str
    name: Literal["cancelItem"] = "cancelItem"


@dataclass(frozen=True, slots=True)
class CancelItemPartially:
    """Cancel an item and attach a new one, uncancelled, with `new_quantity` units (1 or more)."""

    item_id: str
    new_quantity: int
    name: Literal["cancelItemPartially"] = "cancelItemPartially"


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """Cancel every item of an order of which nothing is fulfilled."""

    item_id: None = None
    name: Literal["cancelOrder"] = "cancelOrder"


@dataclass(frozen=True, slots=True)
class CancelUnfulfilled:
    """Cancel whatever is open; a new item stands for the fulfilled part of a partly fulfilled one."""

    item_id: None = None
    name: Literal["cancelUnfulfilled"] = "cancelUnfulfilled"


Operation = CancelItem | CancelItemPartially | CancelOrder | CancelUnfulfilled


@dataclass(frozen=True, slots=True)
class Terms:
    """Who cancels, why, and when (UTC): what an operation writes on every item it cancels."""

    cancelled_by: CancelledBy
    reason_code: ReasonCode
    cancelled_at: datetime
    note: str | None = None


@dataclass(frozen=True, slots=True)
class CancelledItem:
    """One item that an operation cancelled, as it was before. Quantities are units."""

    item_id: str
    original_item_id: str
    sku: str
    quantity: int
    fulfilled_quantity: int
    cancelled_quantity: int
    new_item_id: str | None
    new_quantity: int | None
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What one applied operation did. `sequence` counts the order's cancellations from 1."""

    order_id: str
    sequence: int
    operation: Operation
    terms: Terms
    items: tuple[CancelledItem, ...]
    has_cancellations: bool
    shipped: bool
    entirely_cancelled: bool


def cancellation_id(cause_source: str, cause_id: str, order_id: str, operation: Operation) -> str:
    """The id of a cancellation, the same for every retry of its cause (contract: what goes out)."""
    name = "\n".join((cause_source, cause_id, order_id, operation.name, operation.item_id or ""))
    return str(uuid5(NAMESPACE_OID, name))


def replacement_id(order_id: str, item_id: str) -> str:
    """The id of the item that takes a cancelled item's place, the same for every retry."""
    return str(uuid5(NAMESPACE_OID, f"{order_id}/{item_id}"))

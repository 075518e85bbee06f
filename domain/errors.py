"""One class per broken rule. `code` is for programs and never changes; the message is for people.

What each code means, and what to do, stands in docs/reasons.md.
"""

from typing import ClassVar, Literal

RefusalRule = Literal[
    "unknown_item",
    "item_already_cancelled",
    "item_fulfilled",
    "new_quantity_too_low",
    "new_quantity_too_high",
    "order_already_cancelled",
    "order_fulfilled",
    "nothing_open",
]
ContractFault = Literal[
    "too_large",
    "not_json",
    "repeated_key",
    "unknown_type",
    "unknown_field",
    "missing_field",
    "invalid_field",
    "time_ahead",
]
"""How an event can break the contract."""
RejectionCode = ContractFault | Literal["unknown_line", "placed_differently", "fulfillment_reused"]


class DomainError(Exception):
    """A rule of the domain was broken; nothing has changed."""

    code: ClassVar[str]


class OperationRefused(DomainError):
    """A cancel operation that the rules refuse (the table of operations in the contract)."""

    code: ClassVar[RefusalRule]


class UnknownItem(OperationRefused):
    code = "unknown_item"

    def __init__(self, item_id: str) -> None:
        super().__init__(f"the order has no item {item_id!r}")


class ItemAlreadyCancelled(OperationRefused):
    code = "item_already_cancelled"

    def __init__(self, item_id: str, replaced_by: str | None) -> None:
        instead = f"; its remaining quantity is item {replaced_by!r} now" if replaced_by else ""
        super().__init__(f"item {item_id!r} is already cancelled{instead}")


class ItemFulfilled(OperationRefused):
    code = "item_fulfilled"

    def __init__(self, item_id: str, fulfilled: int) -> None:
        super().__init__(f"{fulfilled} of item {item_id!r} is fulfilled, and what is fulfilled cannot be cancelled")


class NewQuantityTooLow(OperationRefused):
    code = "new_quantity_too_low"

    def __init__(self, item_id: str, new_quantity: int, lowest: int) -> None:
        super().__init__(f"the new quantity of item {item_id!r} must be at least {lowest}, not {new_quantity}")


class NewQuantityTooHigh(OperationRefused):
    code = "new_quantity_too_high"

    def __init__(self, item_id: str, new_quantity: int, quantity: int) -> None:
        super().__init__(
            f"the new quantity of item {item_id!r} must be below its quantity of {quantity}, not {new_quantity}"
        )


class OrderAlreadyCancelled(OperationRefused):
    code = "order_already_cancelled"

    def __init__(self) -> None:
        super().__init__("every item of the order is already cancelled")


class OrderFulfilled(OperationRefused):
    code = "order_fulfilled"

    def __init__(self) -> None:
        super().__init__("something of the order is fulfilled; only what is unfulfilled can be cancelled")


class NothingOpen(OperationRefused):
    code = "nothing_open"

    def __init__(self) -> None:
        super().__init__("nothing of the order is open: every item is fulfilled or cancelled")


class EventRejected(DomainError):
    """An event that cannot be acted on at all: it becomes a dead letter, and its id stays free for a mended one."""

    code: ClassVar[RejectionCode]


class InvalidEvent(EventRejected):
    """An event that breaks the contract. The code says how; the sentence names the field."""

    def __init__(self, code: ContractFault, sentence: str) -> None:
        self.code = code  # type: ignore[misc]  # the one error whose code depends on what was found
        super().__init__(sentence)


class ShortageOfUnknownLine(EventRejected):
    code = "unknown_line"

    def __init__(self, line: str) -> None:
        super().__init__(
            f"the order has no line {line}; nothing of the shortage was applied. Send it with the order's own lines"
        )


class RestockOfUnknownItem(EventRejected):
    code = "unknown_line"

    def __init__(self, item_id: str) -> None:
        super().__init__(
            f"the order has no item {item_id!r}; nothing of the restock was noted. Send it with the order's own items"
        )


class PlacedDifferently(EventRejected):
    code = "placed_differently"

    def __init__(self, order_id: str) -> None:
        super().__init__(
            f"order {order_id!r} was placed before with other content; a placed order changes by cancellations only"
        )


class FulfillmentReused(EventRejected):
    code = "fulfillment_reused"

    def __init__(self, fulfillment_id: str) -> None:
        super().__init__(
            f"fulfillment {fulfillment_id!r} was recorded before with other items; new goods need a new fulfillmentId"
        )


class ConservationBroken(DomainError):
    """Units of an item were lost or made up. A fault of this program, never of an event: nothing is saved."""

    code = "conservation_broken"

    def __init__(self, order_id: str, item_id: str, found: str) -> None:
        super().__init__(f"the units of item {item_id!r} of order {order_id!r} do not add up: {found}")

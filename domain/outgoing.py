"""What goes out: `order.cancelled`, one CloudEvent for each applied operation. Fields are only ever added.

The messages are plain dictionaries: there is one for every cancellation, and checking what was just made costs more
than making it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, NotRequired, TypedDict

from pydantic_core import to_json

from domain.events import OrderEvent
from domain.operations import Cancellation, CancelledBy, CancelledItem, OperationName, ReasonCode, cancellation_id
from domain.orders import Order

SOURCE = "/shortpick"
SCHEMA = "urn:shortpick:schemas/order.cancelled/v1"


def rfc3339(time: datetime) -> str:
    """A time with an offset, as UTC, to the microsecond: `2026-01-01T00:00:00.000000Z`."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


class Reason(TypedDict):
    code: ReasonCode
    note: str | None


class Item(TypedDict):
    """An item that the operation cancelled; quantities in units, null where no new item was attached."""

    itemId: str
    originalItemId: str
    sku: str
    quantity: int
    fulfilledQuantity: int
    cancelledQuantity: int
    newItemId: str | None
    newQuantity: int | None
    attributes: Mapping[str, str]


class OrderFlags(TypedDict):
    """The order after the operation."""

    hasCancellations: bool
    shipped: bool
    entirelyCancelled: bool


class Cause(TypedDict):
    """The event that set the operation off."""

    id: str
    source: str
    type: str
    time: str


class OrderCancelledData(TypedDict):
    cancellationId: str
    orderId: str
    sequence: int
    operation: OperationName
    cancelledBy: CancelledBy
    cancelledAt: str
    reason: Reason
    partner: str | None
    placedAt: str
    attributes: Mapping[str, str]
    items: list[Item]
    order: OrderFlags
    cause: Cause


class OrderCancelled(TypedDict):
    """The CloudEvent; `subject` and `partitionkey` are the order's id, `traceparent` is that of the cause, if any.
    Times are as `rfc3339` gives them."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: Literal["order.cancelled"]
    subject: str
    time: str
    datacontenttype: Literal["application/json"]
    dataschema: str
    partitionkey: str
    traceparent: NotRequired[str]
    data: OrderCancelledData


def published(message: OrderCancelled) -> str:
    """The message as JSON, as it is published."""
    return to_json(message).decode()


def order_cancelled(cancellation: Cancellation, order: Order, cause: OrderEvent) -> OrderCancelled:
    """The event that tells of a cancellation of `order`, which `cause` set off."""
    terms = cancellation.terms
    cancelled_at = rfc3339(terms.cancelled_at)
    data: OrderCancelledData = {
        "cancellationId": cancellation_id(cause.source, cause.id, cancellation.order_id, cancellation.operation),
        "orderId": cancellation.order_id,
        "sequence": cancellation.sequence,
        "operation": cancellation.operation.name,
        "cancelledBy": terms.cancelled_by,
        "cancelledAt": cancelled_at,
        "reason": {"code": terms.reason_code, "note": terms.note},
        "partner": order.partner,
        "placedAt": rfc3339(order.placed_at),
        "attributes": order.attributes or {},
        "items": [_item(item) for item in cancellation.items],
        "order": {
            "hasCancellations": cancellation.has_cancellations,
            "shipped": cancellation.shipped,
            "entirelyCancelled": cancellation.entirely_cancelled,
        },
        "cause": {"id": cause.id, "source": cause.source, "type": cause.type, "time": rfc3339(cause.time)},
    }
    message: OrderCancelled = {
        "specversion": "1.0",
        "id": data["cancellationId"],
        "source": SOURCE,
        "type": "order.cancelled",
        "subject": cancellation.order_id,
        "time": cancelled_at,
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "partitionkey": cancellation.order_id,
        "data": data,
    }
    if cause.traceparent:
        message["traceparent"] = cause.traceparent
    return message


def _item(item: CancelledItem) -> Item:
    return {
        "itemId": item.item_id,
        "originalItemId": item.original_item_id,
        "sku": item.sku,
        "quantity": item.quantity,
        "fulfilledQuantity": item.fulfilled_quantity,
        "cancelledQuantity": item.cancelled_quantity,
        "newItemId": item.new_item_id,
        "newQuantity": item.new_quantity,
        "attributes": item.attributes,
    }

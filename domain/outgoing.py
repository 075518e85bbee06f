"""What goes out: `order.cancelled`, one CloudEvent for each applied operation. Fields are only ever added."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

from domain.events import OrderEvent
from domain.operations import Cancellation, CancelledBy, CancelledItem, OperationName, ReasonCode, cancellation_id
from domain.orders import Order

SOURCE = "/shortpick"
SCHEMA = "urn:shortpick:schemas/order.cancelled/v1"


def rfc3339(time: datetime) -> str:
    """A time with an offset, as UTC, to the microsecond: `2026-01-01T00:00:00.000000Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


UtcTime = Annotated[datetime, PlainSerializer(rfc3339)]


class _Outgoing(BaseModel):
    model_config = ConfigDict(
        frozen=True, from_attributes=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class Reason(_Outgoing):
    code: ReasonCode
    note: str | None


class Item(_Outgoing):
    """An item that the operation cancelled; quantities in units, null where no new item was attached."""

    item_id: str
    original_item_id: str
    sku: str
    quantity: int
    fulfilled_quantity: int
    cancelled_quantity: int
    new_item_id: str | None
    new_quantity: int | None
    attributes: Mapping[str, str]


class OrderFlags(_Outgoing):
    """The order after the operation."""

    has_cancellations: bool
    shipped: bool
    entirely_cancelled: bool


class Cause(_Outgoing):
    """The event that set the operation off."""

    id: str
    source: str
    type: str
    time: UtcTime


class OrderCancelledData(_Outgoing):
    cancellation_id: str
    order_id: str
    sequence: int
    operation: OperationName
    cancelled_by: CancelledBy
    cancelled_at: UtcTime
    reason: Reason
    partner: str | None
    placed_at: UtcTime
    attributes: Mapping[str, str]
    items: list[Item]
    order: OrderFlags
    cause: Cause


class OrderCancelled(BaseModel):
    """The CloudEvent; `subject` and `partitionkey` are the order's id, `traceparent` is that of the cause."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str = SOURCE
    type: Literal["order.cancelled"] = "order.cancelled"
    subject: str
    time: UtcTime
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str = SCHEMA
    partitionkey: str
    traceparent: str | None = None
    data: OrderCancelledData

    def to_json(self) -> str:
        """As it is published; `traceparent` is left out where the cause had none."""
        return self.model_dump_json(by_alias=True, exclude=None if self.traceparent else {"traceparent"})


def order_cancelled(cancellation: Cancellation, order: Order, cause: OrderEvent) -> OrderCancelled:
    """The event that tells of a cancellation of `order`, which `cause` set off."""
    id_ = cancellation_id(cause.source, cause.id, cancellation.order_id, cancellation.operation)
    terms = cancellation.terms
    return OrderCancelled(
        id=id_,
        subject=cancellation.order_id,
        time=terms.cancelled_at,
        partitionkey=cancellation.order_id,
        traceparent=cause.traceparent,
        data=OrderCancelledData(
            cancellation_id=id_,
            order_id=cancellation.order_id,
            sequence=cancellation.sequence,
            operation=cancellation.operation.name,
            cancelled_by=terms.cancelled_by,
            cancelled_at=terms.cancelled_at,
            reason=Reason(code=terms.reason_code, note=terms.note),
            partner=order.partner,
            placed_at=order.placed_at,
            attributes=order.attributes or {},
            items=[_item(item) for item in cancellation.items],
            order=OrderFlags.model_validate(cancellation),
            cause=Cause(id=cause.id, source=cause.source, type=cause.type, time=cause.time),
        ),
    )


def _item(item: CancelledItem) -> Item:
    return Item.model_validate(item)

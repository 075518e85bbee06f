"""The contract's events as pydantic models: what comes in (strict and bounded).

An event is a JSON CloudEvent 1.0 in structured mode; extension attributes are welcome and ignored (`traceparent` is
passed on), unknown fields inside `data` are not.
"""

import hashlib
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from domain.contract import (
    CancellationRequestedData,
    FulfillmentClosedData,
    FulfillmentCreatedData,
    Id,
    OrderPlacedData,
    OrderRestockedData,
    OrderShortageData,
    SkuRestockedData,
    SkuShortageData,
    Time,
)


def _or_none(value: Any, validate: ValidatorFunctionWrapHandler) -> str | None:
    """An extension never makes an event wrong: one that cannot be passed on is left out."""
    try:
        passed_on: str | None = validate(value)
    except ValidationError:
        return None
    return passed_on


class _CloudEvent(BaseModel):
    """`(source, id)` names an event for ever. `time` is when it happened, with an offset."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    specversion: Literal["1.0"]
    id: Id
    source: Id
    time: Time
    traceparent: Annotated[Id | None, WrapValidator(_or_none)] = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.source, self.id)


class OrderPlaced(_CloudEvent):
    type: Literal["order.placed"]
    data: OrderPlacedData


class OrderShortage(_CloudEvent):
    type: Literal["inventory.shortage"]
    data: OrderShortageData


class SkuShortage(_CloudEvent):
    type: Literal["inventory.shortage"]
    data: SkuShortageData


class OrderRestocked(_CloudEvent):
    type: Literal["inventory.restocked"]
    data: OrderRestockedData


class SkuRestocked(_CloudEvent):
    type: Literal["inventory.restocked"]
    data: SkuRestockedData


class FulfillmentCreated(_CloudEvent):
    type: Literal["fulfillment.created"]
    data: FulfillmentCreatedData


class FulfillmentClosed(_CloudEvent):
    type: Literal["fulfillment.closed"]
    data: FulfillmentClosedData


class CancellationRequested(_CloudEvent):
    type: Literal["cancellation.requested"]
    data: CancellationRequestedData


OrderEvent = (
    OrderPlaced | OrderShortage | OrderRestocked | FulfillmentCreated | FulfillmentClosed | CancellationRequested
)
SkuEvent = SkuShortage | SkuRestocked
Event = OrderEvent | SkuEvent

TYPES = (
    "order.placed",
    "inventory.shortage",
    "inventory.restocked",
    "fulfillment.created",
    "fulfillment.closed",
    "cancellation.requested",
)
_OF_ORDER_OR_SKU = {"inventory.shortage", "inventory.restocked"}


def _tag(event: Any) -> str | None:
    """Which model an event is for: its type, and for stock whether it is of an order or of a SKU."""
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return None
    type_: str = event["type"]
    if type_ not in TYPES:
        return None
    data = event.get("data")
    if type_ in _OF_ORDER_OR_SKU and isinstance(data, dict) and "orderId" not in data:
        return f"{type_}, of a SKU"
    return type_


AnyEvent = Annotated[
    Annotated[OrderPlaced, Tag("order.placed")]
    | Annotated[OrderShortage, Tag("inventory.shortage")]
    | Annotated[SkuShortage, Tag("inventory.shortage, of a SKU")]
    | Annotated[OrderRestocked, Tag("inventory.restocked")]
    | Annotated[SkuRestocked, Tag("inventory.restocked, of a SKU")]
    | Annotated[FulfillmentCreated, Tag("fulfillment.created")]
    | Annotated[FulfillmentClosed, Tag("fulfillment.closed")]
    | Annotated[CancellationRequested, Tag("cancellation.requested")],
    Discriminator(_tag),
]


def digest(event: Event) -> str:
    """Equal for two events of the same content: compared is what was understood of `type` and `data`, so neither key
    order, nor spacing, nor tracing matters."""
    content = event.type + event.data.model_dump_json(by_alias=True)
    return hashlib.sha256(content.encode()).hexdigest()

"""The contract's events as pydantic models: what comes in (strict and bounded).

An event is a JSON CloudEvent 1.0 in structured mode; extension attributes are welcome and ignored (`traceparent` is
passed on), unknown fields inside `data` are not.
"""

import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from domain.operations import CancelledBy, ReasonCode

MAX_EVENT_BYTES = 64 * 1024
MAX_AHEAD = timedelta(hours=24)
MAX_INTEGER = 2**31 - 1

_NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"


def _bounded(attributes: dict[str, str]) -> dict[str, str]:
    if sum(len(key.encode()) + len(value.encode()) for key, value in attributes.items()) > 1024:
        raise PydanticCustomError("attributes_too_large", "attributes may hold at most 1 KiB in all")
    return dict(sorted(attributes.items()))


def _utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:  # at the very end of the calendar; it is refused as too far ahead
        return time


Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NO_CONTROL_CHARACTERS)]
Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]
Quantity = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
Figure = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Time = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC)), AfterValidator(_utc)]
Attributes = Annotated[dict[Id, Text], Field(max_length=16), AfterValidator(_bounded)]


class _Data(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", alias_generator=to_camel)


class PlacedItem(_Data):
    """One line of an order; `quantity` in units."""

    item_id: Id
    sku: Id
    quantity: Quantity
    attributes: Attributes = Field(default_factory=dict)


class _LineName(_Data):
    """A line, named by item or by SKU: exactly one of them."""

    item_id: Id | None = None
    sku: Id | None = None

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.item_id is None) == (self.sku is None):
            raise PydanticCustomError("one_name", "give exactly one of itemId and sku")
        return self

    @property
    def name(self) -> str:
        """For messages: how the event names the line."""
        return f"item {self.item_id!r}" if self.item_id is not None else f"SKU {self.sku!r}"


class ReportedLine(_LineName):
    """Units of a line that can be fulfilled in all, those already fulfilled included."""

    fulfillable_quantity: Figure


class FulfilledLine(_LineName):
    """Units of a line that were handed to the carrier."""

    quantity: Quantity


class RestockedLine(_Data):
    item_id: Id


class RequestedLine(_Data):
    """The item to cancel, by its literal id; `new_quantity` units of it are kept (0: none)."""

    item_id: Id
    new_quantity: Figure = 0


class RequestReason(_Data):
    code: ReasonCode
    note: Text | None = None


class OrderPlacedData(_Data):
    order_id: Id
    placed_at: Time
    items: tuple[PlacedItem, ...] = Field(min_length=1, strict=False)
    partner: Id | None = None
    priority: int = Field(default=0, ge=-MAX_INTEGER, le=MAX_INTEGER)
    attributes: Attributes = Field(default_factory=dict)

    @model_validator(mode="after")
    def _items_differ(self) -> Self:
        _refuse_repeats("itemId", [item.item_id for item in self.items])
        return self


class OrderShortageData(_Data):
    order_id: Id
    items: tuple[ReportedLine, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _lines_differ(self) -> Self:
        _refuse_repeats("line", [line.name for line in self.items])
        return self


class SkuShortageData(_Data):
    sku: Id
    available_quantity: Figure


class OrderRestockedData(_Data):
    order_id: Id
    items: tuple[RestockedLine, ...] = Field(min_length=1, strict=False)


class SkuRestockedData(_Data):
    sku: Id


class FulfillmentCreatedData(_Data):
    order_id: Id
    fulfillment_id: Id
    items: tuple[FulfilledLine, ...] = Field(min_length=1, strict=False)
    final: bool = False
    fulfillment_ids: tuple[Id, ...] | None = Field(default=None, strict=False)

    @model_validator(mode="after")
    def _final_names_all(self) -> Self:
        if self.final != (self.fulfillment_ids is not None):
            raise PydanticCustomError(
                "final_names_all",
                "final: true needs fulfillmentIds, every fulfillment of the order, and only it has them",
            )
        return self


class FulfillmentClosedData(_Data):
    order_id: Id
    fulfillment_ids: tuple[Id, ...] = Field(strict=False)


class CancellationRequestedData(_Data):
    order_id: Id
    cancelled_by: CancelledBy
    reason: RequestReason
    # Not nullable: null would mean the whole order, which hardly any producer of a null wants.
    items: tuple[RequestedLine, ...] = Field(default=(), min_length=1, strict=False)
    unfulfilled_only: bool = False

    @model_validator(mode="after")
    def _one_extent(self) -> Self:
        if self.items and self.unfulfilled_only:
            raise PydanticCustomError("one_extent", "give items or unfulfilledOnly, not both")
        return self


class _CloudEvent(BaseModel):
    """`(source, id)` names an event for ever. `time` is when it happened, with an offset."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    specversion: Literal["1.0"]
    id: Id
    source: Id
    time: Time
    traceparent: Id | None = None

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


def _refuse_repeats(what: str, names: list[str]) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise PydanticCustomError(
            "repeated", "the same {what} is given {count} times: {name}", {"what": what, "count": count, "name": name}
        )

"""What the contract says of each event's `data`: strict, bounded, and no field that would be ignored."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
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


def _refuse_repeats(what: str, names: list[str]) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise PydanticCustomError(
            "repeated", "the same {what} is given {count} times: {name}", {"what": what, "count": count, "name": name}
        )

"""What was handed to the carrier, what of it found no place, and what came back into stock, as values."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ShippedLine:
    """Units handed to the carrier, named by item or by SKU (exactly one)."""

    item_id: str | None
    sku: str | None
    quantity: int


@dataclass(frozen=True, slots=True)
class Shipment:
    """A fulfillment as reported; a line occurs once, its units summed. `source` and `event_id` name who reported it."""

    fulfillment_id: str
    time: datetime
    lines: tuple[ShippedLine, ...]
    source: str
    event_id: str

    @property
    def digest(self) -> str:
        """Equal for two reports of the same lines, in whatever order they are given."""
        lines = sorted((line.item_id or "", line.sku or "", line.quantity) for line in self.lines)
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RecordedFulfillment:
    """What an order remembers of a fulfillment: what it held, and which event reported it."""

    digest: str
    source: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Units reported as shipped that no open quantity could take; named as the report named them."""

    fulfillment_id: str
    item_id: str | None
    sku: str | None
    quantity: int


@dataclass(frozen=True, slots=True)
class Restock:
    """Items of an order for which there is stock again; shortages that happened before `at` cut none of them."""

    item_ids: tuple[str, ...]
    at: datetime

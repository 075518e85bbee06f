"""What can be decided about an event, and what came of it, as values: a closed union."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from domain.events import OrderPlaced
from domain.operations import Cancellation, CancelledBy, Operation, ReasonCode
from domain.orders import Order
from domain.policy import HoldReason
from domain.shipments import Conflict, Restock, Shipment

Outcome = Literal["applied", "recorded", "nothing", "waiting", "held", "refused", "stale", "void"]
WaitsFor = Literal["order_not_placed", "fulfillments_missing", "grace", "paused"]
Facts = Mapping[str, Any]
"""What a decision was made from, as JSON values: it goes into the record and is what `why` tells from."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Something is to be cancelled; of a final shipment, after the shipment was recorded."""

    outcome: ClassVar[Outcome] = "applied"
    operations: tuple[Operation, ...]
    cancelled_by: CancelledBy
    reason_code: ReasonCode
    reason: str
    facts: Facts
    note: str | None = None
    shipment: Shipment | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A fact about the order, and nothing to cancel: it was placed, it shipped, or it was restocked."""

    outcome: ClassVar[Outcome] = "recorded"
    fact: OrderPlaced | Shipment | Restock | None
    reason: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Nothing:
    """No cut, or known already."""

    outcome: ClassVar[Outcome] = "nothing"
    reason: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Waiting:
    """Cannot be decided before the order is placed, or before these fulfillments are recorded; or would cut, and must
    wait for the end of its grace, or until cuts are resumed."""

    outcome: ClassVar[Outcome] = "waiting"
    reason: WaitsFor
    facts: Facts
    shipment: Shipment | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the rules refuse; `reason` is the code of the rule."""

    outcome: ClassVar[Outcome] = "refused"
    reason: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Void:
    """A shortage that would cut only what was restocked after it."""

    outcome: ClassVar[Outcome] = "void"
    reason: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Held:
    """A cut that a guardrail has stopped, for a person to approve or reject; a shipment in it is recorded."""

    outcome: ClassVar[Outcome] = "held"
    reason: HoldReason
    cut: Cut
    facts: Facts

    @property
    def shipment(self) -> Shipment | None:
        return self.cut.shipment


Decision = Cut | Recorded | Nothing | Waiting | Refused | Void | Held


@dataclass(frozen=True, slots=True)
class Change:
    """What a decision did: the order afterwards (None: still not placed), and what came of it."""

    order: Order | None
    cancellations: tuple[Cancellation, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    shipment: Shipment | None = None

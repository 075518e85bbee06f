"""What can be decided about an event, and what came of it, as values: a closed union."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from domain.errors import RefusalRule
from domain.events import OrderPlaced
from domain.operations import Cancellation, CancelledBy, Operation, ReasonCode
from domain.orders import Order
from domain.policy import HoldReason
from domain.shipments import Conflict, Restock, Shipment

Outcome = Literal["applied", "recorded", "nothing", "waiting", "held", "refused", "stale", "void"]
WaitsFor = Literal["order_not_placed", "fulfillments_missing", "grace", "paused"]
DecisionReason = Literal[
    # of events of an order
    "placed",
    "already_placed",
    "shortage",
    "no_cut",
    "restocked",
    "already_restocked",
    "shipped",
    "already_recorded",
    "closed",
    "nothing_open",
    "requested",
    # of a shortage of a SKU
    "allocation",
    "enough",
    "newer_figure",
    # of what a guardrail has held
    "guardrail",
    "approved",
    "rejected",
    # of an order, or a hold, on which the program failed
    "unprocessable",
]
Reason = DecisionReason | RefusalRule | WaitsFor | HoldReason
"""Why an event ended as it did; docs/reasons.md tells what each means."""
Facts = Mapping[str, Any]
"""What a decision was made from, as JSON values: it goes into the record and is what `why` tells from."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Something is to be cancelled; of a final shipment, after the shipment was recorded."""

    outcome: ClassVar[Outcome] = "applied"
    operations: tuple[Operation, ...]
    cancelled_by: CancelledBy
    reason_code: ReasonCode
    reason: Reason
    facts: Facts
    note: str | None = None
    shipment: Shipment | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A fact about the order, and nothing to cancel: it was placed, it shipped, or it was restocked."""

    outcome: ClassVar[Outcome] = "recorded"
    fact: OrderPlaced | Shipment | Restock | None
    reason: Reason
    facts: Facts


@dataclass(frozen=True, slots=True)
class Nothing:
    """No cut, or known already."""

    outcome: ClassVar[Outcome] = "nothing"
    reason: Reason
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
    reason: RefusalRule
    facts: Facts


@dataclass(frozen=True, slots=True)
class Void:
    """A shortage that would cut only what was restocked after it."""

    outcome: ClassVar[Outcome] = "void"
    reason: Reason
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


def outcome_of(holds: Collection[tuple[str, str | None]], *, cut: bool) -> tuple[Outcome, Reason] | None:
    """Outcome and reason of an event by the states of its holds, each with what came of it. `cut`: it has cancelled
    something without them. None: they tell nothing of it."""
    states, outcomes = {state for state, _ in holds}, {outcome for _, outcome in holds}
    if cut or "applied" in outcomes:
        return ("applied", "approved" if "applied" in outcomes else "shortage")
    if states & {"open", "approved", "shadow"}:
        return ("held", "guardrail")
    if "carried_out" in states:
        if outcomes - {None} == {"void"}:
            return ("void", "restocked")
        return ("refused" if outcomes == {"refused"} else "nothing", "approved")
    if "rejected" in states:
        return ("nothing", "rejected")
    if "superseded" in states:
        return ("void", "restocked") if "void" in outcomes else ("stale", "newer_figure")
    return None

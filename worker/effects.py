"""What deciding needs, and what it writes, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from domain.decisions import carry_out
from domain.errors import DomainError
from domain.events import Event, OrderEvent
from domain.guardrails import Gate, Tally
from domain.guardrails import Key as GuardKey
from domain.operations import Cancellation
from domain.orders import Order
from domain.outcomes import Change, Cut, Held
from domain.outgoing import order_cancelled, published
from domain.policy import Moment, Policy
from domain.shipments import Conflict, Shipment
from worker.storage.dead_letters import DeadLetter
from worker.storage.holds import Hold
from worker.storage.inbox import Decided, Key
from worker.storage.ledger import LedgerRow
from worker.storage.stock import ShippedUnits
from worker.storage.waiting import Waiting, arrival

# What an event may bring out of this program that another try cannot mend.
FAULTS = (
    DomainError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

_LAST_SECOND = datetime.max.replace(tzinfo=UTC).timestamp() - 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What deciding needs beside the orders: the policy, the transaction's time (UTC), how long events may wait, and
    when SKUs were restocked last. The `gate` stops cuts that would exceed a limit; without one all pass."""

    policy: Policy
    at: datetime
    waiting_limit: timedelta
    restocked: Mapping[str, datetime] = field(default_factory=dict)
    gate: Gate | None = None

    def moment(self, event: OrderEvent, entry_id: str, since: datetime) -> Moment:
        return Moment(self.at, since, happened(event, entry_id), self.restocked)


@dataclass(slots=True)
class Effects:
    """Everything that a batch writes."""

    before: Mapping[str, Order | None]
    after: dict[str, Order | None]
    decided: list[Decided] = field(default_factory=list)
    cancelled: list[LedgerRow] = field(default_factory=list)
    conflicts: list[tuple[str, Conflict]] = field(default_factory=list)
    shipments: list[tuple[str, Shipment]] = field(default_factory=list)
    shipped_units: list[ShippedUnits] = field(default_factory=list)
    waiting: dict[Key, Waiting] = field(default_factory=dict)
    no_longer_waiting: set[Key] = field(default_factory=set)
    holds: list[Hold] = field(default_factory=list)
    tallies: list[tuple[Tally, Key]] = field(default_factory=list)
    """What was cancelled, for the breaker, each with its event."""
    gate: Gate | None = None
    dead: list[DeadLetter] = field(default_factory=list)
    released: set[Key] = field(default_factory=set)


def happened(event: Event, entry_id: str) -> datetime:
    """When an event happened: at its `time`, but not after its queue entry came, whatever its producer's clock says."""
    milliseconds, _ = arrival(entry_id)
    came = datetime.fromtimestamp(min(milliseconds / 1000, _LAST_SECOND), UTC)
    return min(event.time, came)


def stopped(cut: Cut, by: GuardKey) -> Held:
    """A cut that a breaker stops."""
    return Held("breaker", cut, {**cut.facts, "breaker": list(by)})


def hold_of(
    order: Order | None, event: OrderEvent, raw: str, decision: Held, happened_at: datetime, at: datetime
) -> Hold:
    """A held cut as it is written, with what it would cancel."""
    cancellations = carry_out(order, decision.cut, at).cancellations
    would: list[tuple[str, str, str, int]] = [
        (one.operation.name, item.original_item_id, item.sku, item.cancelled_quantity)
        for one in cancellations
        for item in one.items
    ]
    return Hold(
        source=event.source,
        id=event.id,
        type=event.type,
        order_id=event.data.order_id,
        sku=None,
        allocation_id=None,
        event=raw,
        happened_at=happened_at,
        why=decision.reason,
        would=would,
        units=sum(units for *_, units in would),
        created_at=at,
        state="shadow" if decision.reason == "shadow" else "open",
    )


def ledger_rows(change: Change, order: Order, cause: OrderEvent) -> list[LedgerRow]:
    """The cancellations of a change, which `cause` set off, as they are written."""
    return [_ledger_row(one, order, cause) for one in change.cancellations]


def _ledger_row(one: Cancellation, order: Order, cause: OrderEvent) -> LedgerRow:
    message = order_cancelled(one, order, cause)
    return LedgerRow(
        cancellation_id=message["id"],
        order_id=order.order_id,
        sequence=one.sequence,
        operation=one.operation.name,
        units=sum(item.cancelled_quantity for item in one.items),
        reason=one.terms.reason_code,
        cause_source=cause.source,
        cause_id=cause.id,
        cancelled_at=one.terms.cancelled_at,
        payload=published(message),
    )


def unprocessable(error: Exception) -> str:
    """The sentence of a dead letter that is this program's fault."""
    return (
        f"the program failed on this event ({type(error).__name__}); nothing of it was applied. "
        "This is a fault to report; try it again after an upgrade"
    )

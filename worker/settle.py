"""A batch in memory: each event decided on the state that the ones before it left, and what is to be written of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from domain.decisions import carry_out, decide
from domain.errors import DomainError, EventRejected, InvalidEvent
from domain.events import OrderEvent
from domain.operations import cancellation_id
from domain.orders import Order
from domain.outcomes import Change, Decision
from domain.outcomes import Waiting as StillWaiting
from domain.outgoing import order_cancelled
from domain.parsing import parse
from domain.policy import Policy
from domain.shipments import Conflict, Shipment
from worker.storage.dead_letters import DeadLetter
from worker.storage.inbox import Arrived, Decided, Key
from worker.storage.ledger import LedgerRow
from worker.storage.waiting import Waiting

log = structlog.get_logger(__name__)

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


@dataclass(frozen=True, slots=True)
class Rules:
    """What deciding needs beside the orders: the policy, the transaction's time (UTC), and how long events may wait."""

    policy: Policy
    at: datetime
    waiting_limit: timedelta


@dataclass(slots=True)
class Effects:
    """Everything that a batch writes."""

    before: Mapping[str, Order | None]
    after: dict[str, Order | None]
    decided: list[Decided] = field(default_factory=list)
    cancelled: list[LedgerRow] = field(default_factory=list)
    conflicts: list[tuple[str, Conflict]] = field(default_factory=list)
    shipments: list[tuple[str, Shipment]] = field(default_factory=list)
    waiting: dict[Key, Waiting] = field(default_factory=dict)
    no_longer_waiting: set[Key] = field(default_factory=set)
    dead: list[DeadLetter] = field(default_factory=list)
    released: set[Key] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An event to be decided: one that arrived, or one that waits (then with its row)."""

    entry_id: str
    raw: bytes
    event: OrderEvent
    waiting: Waiting | None = None


def settle(
    arrived: Iterable[Arrived], orders: Mapping[str, Order | None], waiting: Iterable[Waiting], rules: Rules
) -> Effects:
    """Decide the events in the order of their arrival; after each one, whatever waits for its order is tried again."""
    effects = Effects(before=orders, after=dict(orders))
    waits: dict[str, dict[Key, _Candidate]] = {}
    for one in waiting:
        candidate = _resumed(one, effects, rules)
        if candidate:
            waits.setdefault(one.order_id, {})[one.key] = candidate
    for new in arrived:
        of_order = waits.setdefault(new.order_id, {})
        if _settle_one(_Candidate(new.entry_id, new.raw, new.event), of_order, effects, rules):
            _retry(of_order, effects, rules)
    return effects


def _retry(waits: dict[Key, _Candidate], effects: Effects, rules: Rules) -> None:
    """Try what waits for an order until none of it can go on."""
    progress = True
    while progress:
        progress = False
        for candidate in list(waits.values()):
            progress |= _settle_one(candidate, waits, effects, rules)


def _settle_one(candidate: _Candidate, waits: dict[Key, _Candidate], effects: Effects, rules: Rules) -> bool:
    """Decide one event. Returns whether the order has changed in a way that others may have waited for."""
    event, key = candidate.event, candidate.event.key
    order = effects.after[event.data.order_id]
    try:
        decision = decide(order, event, rules.policy)
        change = carry_out(order, decision, rules.at)
        if change.order and change.order is not order:
            change.order.check_conservation()
    except EventRejected as rejection:
        _reject(candidate, rejection.code, str(rejection), effects)
        waits.pop(key, None)
        return False
    except FAULTS as error:  # it concerns this event alone: neither those it waited for, nor its neighbours
        log.exception(
            "event.unprocessable",
            entry_id=candidate.entry_id,
            order_id=event.data.order_id,
            source=key[0],
            event_id=key[1],
        )
        _reject(candidate, "unprocessable", unprocessable(error), effects)
        waits.pop(key, None)
        return False
    if isinstance(decision, StillWaiting):
        if candidate.waiting and candidate.waiting.waits_for == decision.reason:
            effects.decided.append(_decided(event, decision, rules))  # it may wait for less by now
            return False
        waiting = _waiting(candidate, decision, rules)
        effects.waiting[key] = waiting
        effects.no_longer_waiting.discard(key)
        waits[key] = replace(candidate, waiting=waiting)
    elif candidate.waiting:
        waits.pop(key)
        effects.waiting.pop(key, None)
        effects.no_longer_waiting.add(key)
    _note(event, decision, change, effects, rules)
    return change.order is not order


def _note(event: OrderEvent, decision: Decision, change: Change, effects: Effects, rules: Rules) -> None:
    order_id = event.data.order_id
    effects.after[order_id] = change.order
    effects.decided.append(_decided(event, decision, rules))
    effects.conflicts += [(order_id, conflict) for conflict in change.conflicts]
    if change.shipment:
        effects.shipments.append((order_id, change.shipment))
    if change.order:
        effects.cancelled += _ledger_rows(change, change.order, event)


def _decided(event: OrderEvent, decision: Decision, rules: Rules) -> Decided:
    return Decided(event.key, event.data.order_id, decision.outcome, decision.reason, decision.facts, rules.at)


def _ledger_rows(change: Change, order: Order, cause: OrderEvent) -> list[LedgerRow]:
    return [
        LedgerRow(
            cancellation_id=cancellation_id(cause.source, cause.id, order.order_id, one.operation),
            order_id=order.order_id,
            sequence=one.sequence,
            operation=one.operation.name,
            units=sum(item.cancelled_quantity for item in one.items),
            reason=one.terms.reason_code,
            cause_source=cause.source,
            cause_id=cause.id,
            cancelled_at=one.terms.cancelled_at,
            payload=order_cancelled(one, order, cause).to_json(),
        )
        for one in change.cancellations
    ]


def _waiting(candidate: _Candidate, decision: StillWaiting, rules: Rules) -> Waiting:
    event, known = candidate.event, candidate.waiting
    return Waiting(
        key=event.key,
        order_id=event.data.order_id,
        entry_id=candidate.entry_id,
        waits_for=decision.reason,
        raw=candidate.raw,
        since=known.since if known else rules.at,
        until=known.until if known else rules.at + rules.waiting_limit,
    )


def _resumed(waiting: Waiting, effects: Effects, rules: Rules) -> _Candidate | None:
    """A waiting event, read again. One that no longer keeps the contract (a stricter version came) is a dead letter."""
    try:
        event = parse(waiting.raw, rules.at)
        if not isinstance(event, OrderEvent):
            raise InvalidEvent("unknown_type", f"{event.type} of this form cannot wait for an order")
    except InvalidEvent as error:
        effects.dead.append(
            DeadLetter(waiting.entry_id, waiting.raw, error.code, str(error), waiting.key, waiting.order_id)
        )
        effects.released.add(waiting.key)
        effects.no_longer_waiting.add(waiting.key)
        return None
    return _Candidate(waiting.entry_id, waiting.raw, event, waiting)


def unprocessable(error: Exception) -> str:
    """The sentence of a dead letter that is this program's fault."""
    return (
        f"the program failed on this event ({type(error).__name__}); nothing of it was applied. "
        "This is a fault to report; try it again after an upgrade"
    )


def _reject(candidate: _Candidate, code: str, sentence: str, effects: Effects) -> None:
    key = candidate.event.key
    order_id = candidate.event.data.order_id
    effects.dead.append(DeadLetter(candidate.entry_id, candidate.raw, code, sentence, key, order_id))
    effects.released.add(key)
    if candidate.waiting:
        effects.waiting.pop(key, None)
        effects.no_longer_waiting.add(key)

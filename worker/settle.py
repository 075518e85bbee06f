"""A batch in memory: each event decided on the state that the ones before it left, and what is to be written of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

import structlog

from domain.decisions import carry_out, decide
from domain.errors import EventRejected, InvalidEvent
from domain.events import OrderEvent, OrderRestocked
from domain.guardrails import tally_of
from domain.orders import Order
from domain.outcomes import Change, Cut, Decision, Held
from domain.outcomes import Waiting as StillWaiting
from domain.outgoing import rfc3339
from domain.parsing import parse
from worker.effects import FAULTS, Effects, Rules, happened, hold_of, ledger_rows, stopped, unprocessable
from worker.storage.dead_letters import Code, DeadLetter
from worker.storage.holds import Hold
from worker.storage.inbox import Arrived, Decided, Key
from worker.storage.stock import ShippedUnits
from worker.storage.waiting import Waiting

log = structlog.get_logger(__name__)

LIMITED = ("order_not_placed", "fulfillments_missing")
"""What an event may wait for until it has waited too long."""


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
    waits = _resume(waiting, effects, rules)
    for new in arrived:
        if not isinstance(new.event, OrderEvent):
            continue
        of_order = waits.setdefault(new.event.data.order_id, {})
        if _settle_one(_Candidate(new.entry_id, new.raw, new.event), of_order, effects, rules):
            _retry(of_order, effects, rules)
    return effects


def settle_waiting(orders: Mapping[str, Order | None], waiting: Iterable[Waiting], rules: Rules) -> Effects:
    """Decide again what waits for these orders and may go on by now."""
    effects = Effects(before=orders, after=dict(orders))
    for of_order in _resume(waiting, effects, rules).values():
        _retry(of_order, effects, rules)
    return effects


def _resume(waiting: Iterable[Waiting], effects: Effects, rules: Rules) -> dict[str, dict[Key, _Candidate]]:
    """Waiting events, read again, by their orders."""
    waits: dict[str, dict[Key, _Candidate]] = {}
    for one in waiting:
        candidate = _resumed(one, effects, rules)
        if candidate:
            waits.setdefault(one.order_id, {})[one.key] = candidate
    return waits


def _retry(waits: dict[Key, _Candidate], effects: Effects, rules: Rules) -> None:
    """Try what waits for an order until none of it can go on. Restocks come first: an older shortage that has waited
    beside one was not acted on, and is void. What waits for the end of its grace is left alone until then."""
    progress = True
    while progress:
        progress = False
        for candidate in sorted(waits.values(), key=lambda one: not isinstance(one.event, OrderRestocked)):
            wait = candidate.waiting
            if not (wait and wait.waits_for == "grace" and rules.at < wait.until):
                progress |= _settle_one(candidate, waits, effects, rules)


def _settle_one(candidate: _Candidate, waits: dict[Key, _Candidate], effects: Effects, rules: Rules) -> bool:
    """Decide one event. Returns whether the order has changed in a way that others may have waited for."""
    event, key = candidate.event, candidate.event.key
    order = effects.after[event.data.order_id]
    since = candidate.waiting.since if candidate.waiting else rules.at
    try:
        decision = decide(order, event, rules.policy, rules.moment(event, candidate.entry_id, since))
        change = carry_out(order, decision, rules.at)
        if change.order and change.order is not order:
            change.order.check_conservation()
        tally = tally_of(event.source, change.cancellations) if rules.gate else None
        if rules.gate and tally and isinstance(decision, Cut) and (by := rules.gate.admit(tally, key)):
            decision = stopped(decision, by)
            change = carry_out(order, decision, rules.at)
        if isinstance(decision, Held):
            effects.holds.append(_hold(candidate, order, decision, rules))
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
        waiting = _waiting(candidate, decision, rules)
        if waiting == candidate.waiting:
            effects.decided.append(_decided(candidate, decision, rules))  # it may wait for less by now
            return False
        effects.waiting[key] = waiting
        effects.no_longer_waiting.discard(key)
        waits[key] = replace(candidate, waiting=waiting)
    elif candidate.waiting:
        waits.pop(key)
        effects.waiting.pop(key, None)
        effects.no_longer_waiting.add(key)
    _note(candidate, decision, change, effects, rules)
    return change.order is not order


def _note(candidate: _Candidate, decision: Decision, change: Change, effects: Effects, rules: Rules) -> None:
    event, order_id = candidate.event, candidate.event.data.order_id
    effects.after[order_id] = change.order
    effects.decided.append(_decided(candidate, decision, rules))
    effects.conflicts += [(order_id, conflict) for conflict in change.conflicts]
    if change.order and change.shipment:
        shipment, at = change.shipment, happened(event, candidate.entry_id)
        effects.shipments.append((order_id, shipment))
        effects.shipped_units += [
            ShippedUnits(order_id, shipment.fulfillment_id, sku, units, at)
            for sku, units in change.order.shipped_units(shipment).items()
        ]
    if change.order and change.cancellations:
        effects.cancelled += ledger_rows(change, change.order, event)
        if rules.policy.breaker.limits_anything:
            effects.tallies.append((tally_of(event.source, change.cancellations), event.key))


def _hold(candidate: _Candidate, order: Order | None, decision: Held, rules: Rules) -> Hold:
    event = candidate.event
    at = happened(event, candidate.entry_id)
    return hold_of(order, event, candidate.raw.decode(), decision, at, rules.at)


def _decided(candidate: _Candidate, decision: Decision, rules: Rules) -> Decided:
    event, waited = candidate.event, _waited(candidate, decision, rules)
    facts = {**decision.facts, "waited": waited} if waited else decision.facts
    return Decided(event.key, event.data.order_id, decision.outcome, decision.reason, facts, rules.at)


def _waited(candidate: _Candidate, decision: Decision, rules: Rules) -> tuple[tuple[str, str], ...]:
    """What it has waited for, one thing after the other, each with when that was over."""
    known = candidate.waiting
    if known is None:
        return ()
    if decision.reason == known.waits_for:
        return known.waited
    return (*known.waited, (known.waits_for, rfc3339(rules.at)))


def _waiting(candidate: _Candidate, decision: StillWaiting, rules: Rules) -> Waiting:
    known = candidate.waiting
    since = known.since if known else rules.at
    return Waiting(
        key=candidate.event.key,
        order_id=candidate.event.data.order_id,
        entry_id=candidate.entry_id,
        waits_for=decision.reason,
        raw=candidate.raw,
        since=since,
        until=_until(decision, known, since, rules),
        waited=_waited(candidate, decision, rules),
    )


def _until(decision: StillWaiting, known: Waiting | None, since: datetime, rules: Rules) -> datetime:
    """How long it may wait, counted from when the event came. What is paused waits for a person, not for a time."""
    match decision.reason:
        case "grace":
            return since + rules.policy.order_grace
        case "paused":
            return since
        case "order_not_placed" | "fulfillments_missing":
            return known.until if known and known.waits_for in LIMITED else since + rules.waiting_limit
        case _:
            assert_never(decision.reason)


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


def _reject(candidate: _Candidate, code: Code, sentence: str, effects: Effects) -> None:
    key = candidate.event.key
    order_id = candidate.event.data.order_id
    effects.dead.append(DeadLetter(candidate.entry_id, candidate.raw, code, sentence, key, order_id))
    effects.released.add(key)
    if candidate.waiting:
        effects.waiting.pop(key, None)
        effects.no_longer_waiting.add(key)

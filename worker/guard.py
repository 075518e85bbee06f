"""The breaker around a transaction: what it would cancel is counted under a lock, and the excess is held."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy import Connection, NestedTransaction

from domain.guardrails import Gate, Key, limited
from domain.policy import Breaker
from worker.effects import Effects, Rules
from worker.storage import breakers

log = structlog.get_logger(__name__)


def guarded(connection: Connection, rules: Rules, settle: Callable[[Rules], Effects]) -> Effects:
    """Decide; and where a limit would be exceeded, decide again with what is over it held.

    The breakers are locked after the first decision and counted then: no two transactions can both take what is left of
    a limit, and none is locked for what cancels nothing.
    """
    effects = settle(rules)
    locked: set[Key] = set()
    point: NestedTransaction | None = None
    while more := {key for tally, _ in effects.tallies for key in limited(tally, rules.policy.breaker)} - locked:
        locked |= more
        if point:  # not beside those that are locked: in key order, or two transactions block each other
            point.rollback()
        point = connection.begin_nested()
        gate = open_gate(connection, locked, rules.policy.breaker, rules.at)
        if effects.gate or any(gate.admit(tally, cause) for tally, cause in effects.tallies):
            gate = Gate(gate.breaker, gate.counts)
            effects = settle(replace(rules, gate=gate))
        effects.gate = gate
    if point:
        point.commit()
    if effects.gate:
        close_gate(connection, effects.gate, rules.at)
    return effects


def open_gate(connection: Connection, keys: Collection[Key], breaker: Breaker, at: datetime) -> Gate:
    """A gate that knows what was cancelled within the window. Its breakers stay locked to the transaction's end."""
    breakers.lock(connection, keys)
    return Gate(breaker, breakers.counts(connection, keys, at, breaker.window))


def close_gate(connection: Connection, gate: Gate, at: datetime) -> None:
    """Write what has passed a gate, and the breakers that it has opened."""
    breakers.add(connection, gate.added, at, gate.breaker.window)
    breakers.trip(connection, gate.tripped, at)


def tell(gate: Gate | None) -> None:
    """Log the breakers that were opened."""
    for (scope, name), (source, event_id) in gate.tripped.items() if gate else ():
        log.error(
            "breaker.opened",
            scope=scope,
            name=name,
            source=source,
            event_id=event_id,
            detail="a limit on cancellations was reached; further ones are held until a person closes the breaker: "
            "shortpick breaker list",
        )

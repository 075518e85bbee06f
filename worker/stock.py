"""Events about a SKU, for every order: a shortage becomes a row that is carried out later, a restock is noted."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from domain.allocation import overtaken
from domain.events import SkuEvent, SkuRestocked, SkuShortage
from domain.outcomes import Outcome, Reason
from worker.effects import Rules, happened
from worker.storage.inbox import Arrived, Decided
from worker.storage.stock import Figure, Figures

OVERTAKEN_BY: dict[Literal["stale", "void"], Reason] = {"stale": "newer_figure", "void": "restocked"}
"""The reason for each way to be out of date."""


@dataclass(slots=True)
class Received:
    """What is written of these events, and the SKUs whose shortages should be looked at once it is committed."""

    decided: list[Decided] = field(default_factory=list)
    allocations: list[dict[str, Any]] = field(default_factory=list)
    skus: set[str] = field(default_factory=set)


def figures_of(arrived: Iterable[Arrived]) -> list[Figure]:
    """What these events tell of stock."""
    return [
        Figure(one.event.data.sku, one.event.source, happened(one.event, one.entry_id), _is_restock(one.event))
        for one in arrived
        if isinstance(one.event, SkuEvent)
    ]


def receive(arrived: Iterable[Arrived], figures: Figures, rules: Rules) -> Received:
    """Decide the events about a SKU, given the newest figures, their own among them."""
    received = Received()
    for one in arrived:
        if isinstance(one.event, SkuEvent):
            received.skus.add(one.event.data.sku)
            _receive(one, one.event, figures, rules, received)
    return received


def _receive(one: Arrived, event: SkuEvent, figures: Figures, rules: Rules, received: Received) -> None:
    at = happened(event, one.entry_id)
    newest, restocked = figures.newest[event.data.sku, event.source], figures.restocked.get(event.data.sku)
    facts: dict[str, Any] = {"sku": event.data.sku}
    outcome: Outcome
    reason: Reason
    match event:
        case SkuRestocked():
            outcome, reason = ("stale", "newer_figure") if at < newest else ("recorded", "restocked")
        case SkuShortage():
            facts["available"] = event.data.available_quantity
            if by := overtaken(at, newest, restocked):
                outcome, reason = by, OVERTAKEN_BY[by]
            else:
                grace = rules.policy.sku_grace
                outcome, reason = "waiting", "grace" if grace else "allocation"
                received.allocations.append(
                    {
                        "source": event.source,
                        "id": event.id,
                        "sku": event.data.sku,
                        "time": event.time,
                        "traceparent": event.traceparent,
                        "happened_at": at,
                        "recorded_at": rules.at,
                        "due_at": rules.at + grace,
                        "available": event.data.available_quantity,
                    }
                )
        case _:
            assert_never(event)
    received.decided.append(Decided(one.key, None, outcome, reason, facts, rules.at))


def _is_restock(event: SkuEvent) -> bool:
    return isinstance(event, SkuRestocked)

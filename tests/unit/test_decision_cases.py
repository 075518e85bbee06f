"""Every worked case of the contract, with its exact operations, outcomes, outgoing items, totals and conflicts."""

import json
from dataclasses import asdict

import pytest

from domain.operations import Cancellation
from domain.shipments import Conflict
from tests.builders import Json, Played, event, play
from tests.data import DATA

CASES: list[Json] = json.loads((DATA / "decision-cases.json").read_text())


def test_there_are_fifty_odd_cases() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_worked_case(case: Json) -> None:
    played = play(event("order.placed", case["order"]))
    assert played.outcomes == ["recorded"]
    for step in case["events"]:
        _play_step(played, step)
    assert {item_id: asdict(totals) for item_id, totals in played.placed_order.totals().items()} == case["totals"]
    assert [_conflict(conflict) for conflict in played.conflicts] == case["conflicts"]
    assert {played.ended[message["data"]["cause"]["id"]] for message in played.published} <= {"applied"}


def _play_step(played: Played, step: Json) -> None:
    """Cancellations stand under the event whose arrival set them off, be it by releasing one that waited."""
    before = len(played.cancellations)
    played.take(event(step["type"], step["data"]))
    pairs = zip(played.cancellations[before:], played.published[before:], strict=True)
    assert played.outcomes[-1] == step["outcome"]
    assert [_cancellation(cancellation, message["data"]) for cancellation, message in pairs] == step["cancellations"]


def _cancellation(cancellation: Cancellation, data: Json) -> Json:
    """The operation as issued (its own arguments only where it has some), and what goes out for it."""
    operation = asdict(cancellation.operation)
    arguments = {"itemId": operation["item_id"], "newQuantity": operation.get("new_quantity")}
    return {
        "operation": data["operation"],
        **{name: value for name, value in arguments.items() if value is not None},
        "sequence": data["sequence"],
        "items": [{name: value for name, value in item.items() if name != "attributes"} for item in data["items"]],
        "order": data["order"],
    }


def _conflict(conflict: Conflict) -> Json:
    name = {"sku": conflict.sku} if conflict.item_id is None else {"itemId": conflict.item_id}
    return {"fulfillmentId": conflict.fulfillment_id, **name, "quantity": conflict.quantity}

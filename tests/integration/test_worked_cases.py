"""Every worked case of the contract on both databases: each event in a batch of its own, and all in one batch."""

import json

import pytest
from sqlalchemy import Engine

from tests.builders import Json, event, play
from tests.data import DATA
from tests.integration.batches import Batches

CASES: list[Json] = json.loads((DATA / "decision-cases.json").read_text())


@pytest.fixture
def worker(emptied_engine: Engine) -> Batches:
    return Batches(emptied_engine)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_worked_case_event_by_event(case: Json, worker: Batches) -> None:
    worker.feed(event("order.placed", case["order"]))
    for step in case["events"]:
        before = len(worker.published())
        sent = event(step["type"], step["data"])
        worker.feed(sent)
        fresh = worker.published()[before:]
        assert worker.outcomes()[sent["id"]] == step["outcome"]
        assert [cancellation(one["data"]) for one in fresh] == step["cancellations"]
    assert_ends_as(case, worker)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_worked_case_in_one_batch(case: Json, worker: Batches) -> None:
    events = [event("order.placed", case["order"]), *(event(step["type"], step["data"]) for step in case["events"])]
    worker.feed(*events)
    ended = {one["id"]: outcome for one, outcome in zip(events[1:], ended_as(case), strict=True)}
    assert worker.outcomes() == {events[0]["id"]: "recorded", **ended}
    expected = [one for step in case["events"] for one in step["cancellations"]]
    assert [cancellation(one["data"]) for one in worker.published()] == expected
    assert_ends_as(case, worker)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_worked_case_whose_order_comes_last(case: Json, worker: Batches) -> None:
    """All that waits is decided in order of arrival, so it is the same as if the order had been there."""
    events = [event(step["type"], step["data"]) for step in case["events"]]
    worker.feed(*events, size=1)
    assert set(worker.outcomes().values()) == {"waiting"}
    worker.feed(event("order.placed", case["order"]))
    expected = [one for step in case["events"] for one in step["cancellations"]]
    assert [cancellation(one["data"]) for one in worker.published()] == expected
    assert [worker.outcomes()[one["id"]] for one in events] == ended_as(case)
    assert_ends_as(case, worker)


def assert_ends_as(case: Json, worker: Batches) -> None:
    assert worker.totals(case["order"]["orderId"]) == case["totals"]
    assert worker.conflicts() == case["conflicts"]
    assert [one["data"]["sequence"] for one in worker.published()] == list(range(1, len(worker.published()) + 1))
    assert worker.dead() == []
    assert worker.wrong() == []


def ended_as(case: Json) -> list[str]:
    """The last outcome of each event: what waited, and was released by a later one, is applied."""
    events = [event(step["type"], step["data"]) for step in case["events"]]
    ended = play(event("order.placed", case["order"]), *events).ended
    outcomes = [ended[one["id"]] for one in events]
    first = [step["outcome"] for step in case["events"]]
    assert all(last == early or early == "waiting" for last, early in zip(outcomes, first, strict=True))
    return list(outcomes)


def cancellation(data: Json) -> Json:
    """What goes out as the worked cases write it: the operation with its own arguments, where it has some."""
    arguments = {}
    if data["operation"] in ("cancelItem", "cancelItemPartially"):
        arguments["itemId"] = data["items"][0]["itemId"]
    if data["operation"] == "cancelItemPartially":
        arguments["newQuantity"] = data["items"][0]["newQuantity"]
    return {
        "operation": data["operation"],
        **arguments,
        "sequence": data["sequence"],
        "items": [{name: value for name, value in item.items() if name != "attributes"} for item in data["items"]],
        "order": data["order"],
    }

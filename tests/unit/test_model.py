"""The reference model against the worked cases and the real orders, and what it does with events out of turn."""

import json
from typing import Any

import pytest

from tests.builders import Json, again, closed, event, final, new_id, placed, requested, shipped, shortage, shortage_of
from tests.data import DATA
from tests.model import Model

CASES: list[Json] = json.loads((DATA / "decision-cases.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_worked_case(case: Json) -> None:
    model = Model()
    model.feed(event("order.placed", case["order"]))
    for step in case["events"]:
        model.feed(event(step["type"], step["data"]))
        if step["cancellations"]:
            assert model.flags() == {"o1": step["cancellations"][-1]["order"]}
    assert model.totals() == {"o1": case["totals"]}
    assert model.conflicts == [{"orderId": "o1", **conflict} for conflict in case["conflicts"]]


def test_the_real_orders_end_as_expected() -> None:
    model = fed(*lines_of("retail-orders.ndjson"), *lines_of("retail-events.ndjson"))
    assert seen(model) == json.loads((DATA / "retail-expected.json").read_text())
    assert model.conflicts == []


def test_the_real_orders_end_alike_when_they_are_placed_last_and_everything_comes_twice() -> None:
    orders, events = lines_of("retail-orders.ndjson"), lines_of("retail-events.ndjson")
    model = fed(*events, *events, *orders, *orders)
    assert seen(model) == json.loads((DATA / "retail-expected.json").read_text())


def test_an_order_that_was_not_placed_has_no_totals() -> None:
    assert fed(shortage("o1", a=0)).totals() == {}


def test_events_wait_for_their_order() -> None:
    model = fed(shortage("o1", a=4), shipped("o1", "f1", a=3), placed(a=("SA", 10)))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=3, cancelled=6)}}


def test_a_final_shipment_that_came_before_its_order_closes_it() -> None:
    model = fed(final(shipped("o1", "f1", a=3), "f1"), placed(a=("SA", 10)))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=3, cancelled=7)}}


def test_a_closing_waits_for_every_shipment_that_it_names() -> None:
    history = [placed(a=("SA", 10)), closed("o1", "f1", "f2"), shipped("o1", "f1", a=3)]
    assert fed(*history).totals() == {"o1": {"a": units(10, fulfilled=3)}}
    model = fed(*history, shipped("o1", "f2", a=2))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=5, cancelled=5)}}


def test_a_waiting_final_shipment_releases_an_older_closing_that_names_it() -> None:
    model = fed(placed(a=("SA", 10)), closed("o1", "f1"), final(shipped("o1", "f1", a=3), "f0", "f1"))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=3, cancelled=7)}}


def test_an_event_that_comes_again_counts_once() -> None:
    shipment = shipped("o1", "f1", a=3)
    assert fed(placed(a=("SA", 10)), shipment, shipment).totals() == {"o1": {"a": units(10, fulfilled=3)}}


def test_a_shipment_that_is_told_again_as_final_closes_the_order_and_counts_once() -> None:
    shipment = shipped("o1", "f1", a=3)
    model = fed(placed(a=("SA", 10)), shipment, final(again(shipment), "f1"))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=3, cancelled=7)}}


def test_a_second_placement_changes_nothing() -> None:
    assert fed(placed(a=("SA", 10)), placed(a=("SA", 99))).totals() == {"o1": {"a": units(10)}}


@pytest.mark.parametrize(
    "dead",
    [
        pytest.param(shortage("o1", a=0, zz=0), id="a shortage with an unknown line"),
        pytest.param(shortage_of("o1", [("itemId", "a", 0), ("itemId", "a", 1)]), id="a line twice in a shortage"),
        pytest.param(shipped("o1", "f1", a=4), id="a fulfillment id reused with other items"),
    ],
)
def test_a_dead_letter_changes_nothing_and_may_come_again_mended(dead: Json) -> None:
    history = [placed(a=("SA", 10)), shipped("o1", "f1", a=3), dead]
    assert fed(*history).totals() == {"o1": {"a": units(10, fulfilled=3)}}
    mended = {**shortage("o1", a=5), "id": dead["id"]}
    assert fed(*history, mended).totals() == {"o1": {"a": units(10, fulfilled=3, cancelled=5)}}


def test_a_chain_is_followed_to_its_end() -> None:
    second, third = new_id("o1", "a"), new_id("o1", new_id("o1", "a"))
    history = [placed(a=("SA", 10)), shortage("o1", a=8), shortage("o1", **{second: 6})]
    model = fed(*history, shipped("o1", "f1", **{third: 1}), shipped("o1", "f2", a=2), requested("o1", **{third: 5}))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=3, cancelled=5)}}


def test_own_lines_are_served_before_anything_spills() -> None:
    model = fed(placed(a=("SA", 2), b=("SA", 2), c=("SA", 2)), shipped("o1", "f1", a=5, b=2))
    assert model.totals()["o1"] == {item_id: units(2, fulfilled=2) for item_id in "abc"}
    assert model.conflicts == [{"orderId": "o1", "fulfillmentId": "f1", "itemId": "a", "quantity": 1}]


@pytest.mark.parametrize(
    "unknown",
    [
        event("inventory.shortage", {"sku": "SA", "availableQuantity": 1}),
        event("inventory.restocked", {"orderId": "o1", "items": [{"itemId": "a"}]}),
    ],
    ids=["a SKU-wide shortage", "a restock"],
)
def test_the_model_says_what_it_does_not_know(unknown: Json) -> None:
    with pytest.raises(NotImplementedError):
        fed(unknown)


def fed(*events: Json) -> Model:
    model = Model()
    for one in events:
        model.feed(one)
    return model


def units(ordered: int, *, fulfilled: int = 0, cancelled: int = 0) -> dict[str, int]:
    rest = ordered - fulfilled - cancelled
    return {"ordered": ordered, "fulfilled": fulfilled, "cancelled": cancelled, "open": rest}


def lines_of(name: str) -> list[Json]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def seen(model: Model) -> dict[str, Any]:
    """In the form of `retail-expected.json`."""
    flags = model.flags()
    return {
        order_id: {
            "hasCancellations": flags[order_id]["hasCancellations"],
            "shipped": flags[order_id]["shipped"],
            "open": sum(figures["open"] for figures in items.values()),
            "items": {
                item_id: {name: figures[name] for name in ("ordered", "fulfilled", "cancelled")}
                for item_id, figures in items.items()
            },
        }
        for order_id, items in model.totals().items()
    }

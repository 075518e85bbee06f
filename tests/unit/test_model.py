"""The reference model against the worked cases and the real orders, and what it does with events out of turn."""

import json
from datetime import datetime
from typing import Any

import pytest

from tests.builders import (
    Json,
    again,
    closed,
    event,
    final,
    new_id,
    placed,
    requested,
    shipped,
    shipped_of,
    shortage,
    shortage_of,
    sku_shipped,
    sku_shortage_of_order,
)
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
    [event("order.returned", {"orderId": "o1"}), event("order.placed", {"sku": "SA"}), event("inventory.shortage", {})],
    ids=["an unknown type", "an order without an id", "a shortage of nothing"],
)
def test_the_model_says_what_it_does_not_know(unknown: Json) -> None:
    with pytest.raises(NotImplementedError):
        fed(unknown)


def test_a_sku_shortage_serves_lines_in_turn_and_cuts_what_is_not_given() -> None:
    order = placed(a=("SA", 4), b=("SB", 4), c=("SA", 4), d=("SA", 4))
    model = fed(order, shipped("o1", "f1", a=1, c=1), out_of("SA", 4, 5))
    assert model.totals()["o1"] == {
        "a": units(4, fulfilled=1),
        "b": units(4),
        "c": units(4, fulfilled=1, cancelled=2),
        "d": units(4, cancelled=4),
    }


def test_a_line_that_a_sku_shortage_cut_has_a_new_id() -> None:
    model = fed(placed(a=("SA", 10)), out_of("SA", 6), requested("o1", **{new_id("o1", "a"): 5}))
    assert model.totals() == {"o1": {"a": units(10, cancelled=5)}}


@pytest.mark.parametrize(
    ("strategy", "served"),
    [
        # Z comes before a by code point, and 09:30+09:00 is half past midnight
        ("oldest_first", ["urgent", "early", "Z", "a", "late"]),
        ("newest_first", ["urgent", "late", "a", "Z", "early"]),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_orders_are_served_by_priority_then_age_then_id(strategy: str, served: list[str], reverse: bool) -> None:
    orders = [
        of_hour("a", 1),
        of_hour("Z", 1),
        of_hour("late", 2),
        placed("early", {"placedAt": "2026-01-01T09:30:00+09:00"}, a=("SA", 1)),
        of_hour("urgent", 2, priority=1),
        of_hour("unurgent", 0, priority=-1),
    ]
    orders = orders[::-1] if reverse else orders
    for available in range(6):
        model = fed(*orders, out_of("SA", available, 3), strategy=strategy)
        assert open_of(model) == dict.fromkeys(served[:available], 1)


@pytest.mark.parametrize("strategy", ["oldest_first", "newest_first"])
def test_the_lines_of_an_order_are_served_in_item_order_by_either_strategy(strategy: str) -> None:
    model = fed(placed(b=("SA", 1), a=("SA", 1)), out_of("SA", 1), strategy=strategy)
    assert model.totals() == {"o1": {"b": units(1), "a": units(1, cancelled=1)}}


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(KeyError):
        Model(strategy="eldest_first")


def test_a_sku_shortage_spares_orders_placed_after_its_time() -> None:
    assert open_of(fed(of_hour("then", 1), of_hour("later", 2), out_of("SA", 0, 1))) == {"later": 1}


def test_a_sku_shortage_spares_orders_that_are_not_known_yet() -> None:
    assert fed(out_of("SA", 0, 5), placed(a=("SA", 10))).totals() == {"o1": {"a": units(10)}}


def test_only_what_shipped_strictly_later_counts_against_a_sku_shortage() -> None:
    shipments = [at(hour, shipped("o1", f"f{hour}", a=2)) for hour in (1, 2, 3)]
    model = fed(placed(a=("SA", 10)), *shipments, out_of("SA", 3, 2))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=6, cancelled=3)}}


def test_more_shipped_than_was_available_leaves_nothing() -> None:
    model = fed(placed(a=("SA", 10)), at(2, shipped("o1", "f1", a=5)), out_of("SA", 3, 1))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=5, cancelled=5)}}


@pytest.mark.parametrize(
    ("shipment", "counted"),
    [
        pytest.param(shipped("o1", "f1", a=2), 2, id="a line by item"),
        pytest.param(sku_shipped("o1", "f1", SA=2), 2, id="a line by SKU"),
        pytest.param(shipped_of("o1", "f1", [("sku", "SA", 1), ("itemId", "a", 1)]), 2, id="a line by each"),
        pytest.param(shipped("o1", "f1", a=5), 5, id="a conflict"),
        pytest.param(sku_shipped("o3", "f1", SA=5), 5, id="a SKU that was not ordered"),
        pytest.param(shipped("o1", "f1", b=2), 0, id="another SKU"),
        pytest.param(shipped("o1", "f1", zz=2), 0, id="an unknown item"),
        pytest.param(shipped("o4", "f1", a=2), 0, id="what still waits"),
    ],
)
def test_units_count_against_a_sku_shortage_as_reported(shipment: Json, counted: int) -> None:
    orders = [placed("o1", a=("SA", 2), b=("SB", 9)), placed("o2", a=("SA", 20)), placed("o3", b=("SB", 9))]
    model = fed(*orders, at(2, shipment), requested("o1", a=0), out_of("SA", 10, 1))
    assert model.totals()["o2"]["a"] == units(20, cancelled=10 + counted)


def test_a_line_that_spills_counts_for_the_sku_of_the_item_it_names_once() -> None:
    model = fed(placed(a=("SA", 1), b=("SA", 9)), at(2, shipped("o1", "f1", a=3)), out_of("SA", 8, 1))
    assert model.totals()["o1"]["b"] == units(9, fulfilled=2, cancelled=2)


def test_a_shipment_told_again_or_in_other_words_counts_not_again() -> None:
    shipment = at(1, shipped("o1", "f1", a=2))
    other = [at(3, again(shipment)), at(3, final(again(shipment), "f1", "f2")), at(3, shipped("o1", "f1", a=3))]
    model = fed(placed(a=("SA", 10)), shipment, *other, out_of("SA", 8, 2))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=2)}}


def test_a_shipment_that_waited_counts_by_its_own_time_once_it_is_recorded() -> None:
    model = fed(at(2, shipped("o1", "f1", a=2)), placed(a=("SA", 10)), out_of("SA", 5, 1))
    assert model.totals() == {"o1": {"a": units(10, fulfilled=2, cancelled=5)}}


@pytest.mark.parametrize(
    ("before", "cut"),
    [
        pytest.param([("inventory.shortage", "/wms", "SA", 3)], False, id="a newer shortage of its source"),
        pytest.param([("inventory.shortage", "/wms", "SA", 2)], True, id="a shortage as old"),
        pytest.param([("inventory.shortage", "/wms", "SA", 1)], True, id="an older shortage"),
        pytest.param([("inventory.shortage", "/erp", "SA", 3)], True, id="a newer shortage of another source"),
        pytest.param([("inventory.shortage", "/wms", "SB", 3)], True, id="a newer shortage of another SKU"),
        pytest.param([("inventory.restocked", "/wms", "SA", 3)], False, id="a newer restock of its source"),
        pytest.param([("inventory.restocked", "/erp", "SA", 3)], False, id="a newer restock of another source"),
        pytest.param([("inventory.restocked", "/erp", "SA", 2)], True, id="a restock as old"),
        pytest.param([("inventory.restocked", "/erp", "SB", 3)], True, id="a newer restock of another SKU"),
        pytest.param(
            [("inventory.restocked", "/erp", "SA", hour) for hour in (3, 1)], False, id="a newer restock, then an older"
        ),
        pytest.param(
            [("inventory.shortage", "/wms", "SA", hour) for hour in (3, 1)], False, id="a newer shortage, then an older"
        ),
        pytest.param(
            [("inventory.restocked", "/erp", "SA", 4), ("inventory.shortage", "/wms", "SA", 3)],
            False,
            id="a newer shortage that was void",
        ),
    ],
)
def test_a_sku_shortage_is_not_acted_on_after(before: list[tuple[str, str, str, int]], cut: bool) -> None:
    history = [
        at(hour, event(type, {"sku": sku} | ({"availableQuantity": 99} if "shortage" in type else {}), source=source))
        for type, source, sku, hour in before
    ]
    model = fed(placed(a=("SA", 10)), *history, at(2, out_of("SA", 4, source="/wms")))
    assert model.totals() == {"o1": {"a": units(10, cancelled=6 if cut else 0)}}


def test_a_sku_restock_brings_nothing_back() -> None:
    model = fed(placed(a=("SA", 10)), out_of("SA", 4, 1), restocked("SA", 2))
    assert model.totals() == {"o1": {"a": units(10, cancelled=6)}}


def test_a_stock_event_that_arrived_before_its_time_counts_from_its_arrival() -> None:
    model = Model()
    model.feed(of_hour("then", 1))
    model.feed(of_hour("later", 2))
    model.feed(out_of("SA", 1, 9), arrived=datetime.fromisoformat("2026-01-01T01:00:00Z"))
    assert open_of(model) == {"then": 1, "later": 1}
    model.feed(out_of("SA", 0, 1), arrived=datetime.fromisoformat("2026-01-01T09:00:00Z"))
    assert open_of(model) == {"later": 1}


def test_a_restock_that_arrived_before_its_time_counts_from_its_arrival() -> None:
    model = Model()
    model.feed(placed(a=("SA", 10)))
    model.feed(restocked("SA", 9), arrived=datetime.fromisoformat("2026-01-01T01:00:00Z"))
    model.feed(out_of("SA", 4, 1))
    assert model.totals() == {"o1": {"a": units(10, cancelled=6)}}


@pytest.mark.parametrize(("hour", "cut"), [(1, 0), (2, 6)])
def test_what_waits_keeps_the_time_it_arrived_with(hour: int, cut: int) -> None:
    model = Model()
    model.feed(at(9, shortage("o1", a=4)), arrived=datetime.fromisoformat(f"2026-01-01T0{hour}:00:00Z"))
    model.feed(at(9, back("o1", "a")), arrived=datetime.fromisoformat("2026-01-01T02:00:00Z"))
    model.feed(placed(a=("SA", 10)))
    assert model.totals() == {"o1": {"a": units(10, cancelled=cut)}}


def test_times_are_compared_as_moments() -> None:
    restock = {**restocked("SA"), "time": "2026-01-01T09:30:00+09:00"}
    model = fed(placed(a=("SA", 10)), restock, out_of("SA", 4, 1))
    assert model.totals() == {"o1": {"a": units(10, cancelled=6)}}


def test_a_stock_event_that_comes_again_counts_once() -> None:
    short = out_of("SA", 4)
    model = fed(placed("o1", a=("SA", 4)), short, placed("o2", a=("SA", 4)), short)
    assert open_of(model) == {"o1": 4, "o2": 4}


def test_an_order_that_ships_complete_loses_everything_open_and_leaves_its_units_to_the_next() -> None:
    orders = [
        placed("o1", a=("SA", 2), b=("SB", 5)),
        placed("o2", a=("SA", 3), b=("SA", 3), c=("SB", 5)),
        placed("o3", a=("SA", 4), b=("SB", 5)),
        placed("o4", a=("SA", 1)),
        placed("o5", b=("SB", 5)),
    ]
    model = fed(*orders, shipped("o2", "f1", a=1, c=2), out_of("SA", 6), ship_complete=True)
    assert open_of(model) == {"o1": 7, "o3": 9, "o5": 5}
    assert model.totals()["o2"] == {
        "a": units(3, fulfilled=1, cancelled=2),
        "b": units(3, cancelled=3),
        "c": units(5, fulfilled=2, cancelled=3),
    }


def test_an_order_with_nothing_open_of_the_sku_loses_nothing() -> None:
    order = placed(a=("SA", 2), b=("SB", 5))
    model = fed(order, shipped("o1", "f1", a=2), out_of("SA", 0), ship_complete=True)
    assert model.totals() == {"o1": {"a": units(2, fulfilled=2), "b": units(5)}}


def test_a_shortage_of_an_order_that_ships_complete_takes_everything_open() -> None:
    order = placed(a=("SA", 4), b=("SB", 4))
    model = fed(order, shipped("o1", "f1", b=1), shortage("o1", a=3), ship_complete=True)
    assert model.totals() == {"o1": {"a": units(4, cancelled=4), "b": units(4, fulfilled=1, cancelled=3)}}


def test_a_shortage_that_cuts_nothing_takes_nothing_of_an_order_that_ships_complete() -> None:
    history = [placed(a=("SA", 4), b=("SB", 4), c=("SC", 4)), requested("o1", b=0), shipped("o1", "f1", a=4)]
    model = fed(*history, shortage("o1", a=2, b=0, c=4), ship_complete=True)
    assert model.totals() == {"o1": {"a": units(4, fulfilled=4), "b": units(4, cancelled=4), "c": units(4)}}


@pytest.mark.parametrize(("hour", "cut"), [(1, 6), (2, 6), (3, 0)])
def test_a_line_is_not_cut_when_it_or_its_sku_was_restocked_strictly_later(hour: int, cut: int) -> None:
    order, short = placed(a=("SA", 10), b=("SB", 10)), at(2, shortage("o1", a=4, b=4))
    expected = {"o1": {"a": units(10, cancelled=cut), "b": units(10, cancelled=6)}}
    assert fed(order, at(hour, back("o1", "a")), short).totals() == expected
    assert fed(order, restocked("SA", hour, source="/erp"), short).totals() == expected


def test_a_restocked_line_still_takes_its_share_of_a_shortage_by_sku() -> None:
    history = [placed(a=("SA", 4), b=("SA", 4)), at(3, back("o1", "a")), at(2, sku_shortage_of_order("o1", SA=5))]
    assert fed(*history).totals() == {"o1": {"a": units(4), "b": units(4, cancelled=3)}}


def test_a_restocked_line_is_no_cut_that_takes_an_order_that_ships_complete() -> None:
    history = [placed(a=("SA", 4), b=("SB", 4)), at(3, back("o1", "a"))]
    assert open_of(fed(*history, at(2, shortage("o1", a=0)), ship_complete=True)) == {"o1": 8}
    assert open_of(fed(*history, at(2, shortage("o1", a=0, b=3)), ship_complete=True)) == {}


def test_the_newest_restock_of_a_line_counts() -> None:
    restocks = [at(3, back("o1", "a")), at(1, back("o1", "a"))]
    for history in (restocks, restocks[::-1]):
        assert open_of(fed(placed(a=("SA", 10)), *history, at(2, shortage("o1", a=4)))) == {"o1": 10}


def test_a_restock_by_a_replaced_item_means_its_line() -> None:
    model = fed(placed(a=("SA", 10)), shortage("o1", a=8), at(3, back("o1", "a")), at(2, shortage("o1", a=4)))
    assert model.totals() == {"o1": {"a": units(10, cancelled=2)}}


def test_a_restock_with_an_unknown_item_changes_nothing_and_may_come_again_mended() -> None:
    order, dead, short = placed(a=("SA", 10)), at(3, back("o1", "a", "zz")), at(2, shortage("o1", a=4))
    assert open_of(fed(order, dead, short)) == {"o1": 4}
    mended = {**at(3, back("o1", "a")), "id": dead["id"]}
    assert open_of(fed(order, dead, mended, short)) == {"o1": 10}


def test_a_restock_goes_first_when_it_and_an_older_shortage_wait_for_the_order() -> None:
    model = fed(at(2, shortage("o1", a=4)), at(3, back("o1", "a")), placed(a=("SA", 10)))
    assert model.totals() == {"o1": {"a": units(10)}}


def test_a_sku_restock_voids_an_older_shortage_that_waits_for_its_order() -> None:
    model = fed(at(2, shortage("o1", a=4)), restocked("SA", 3), placed(a=("SA", 10)))
    assert model.totals() == {"o1": {"a": units(10)}}


def test_what_an_order_was_restocked_with_is_not_cut_by_an_older_sku_shortage() -> None:
    restocked = fed(placed(a=("SA", 10)), at(3, back("o1", "a")), out_of("SA", 4, 2))
    assert restocked.totals() == {"o1": {"a": units(10)}}
    newer = fed(placed(a=("SA", 10)), at(3, back("o1", "a")), out_of("SA", 4, 3))
    assert newer.totals() == {"o1": {"a": units(10, cancelled=6)}}


def test_a_shortage_of_an_order_is_never_stale() -> None:
    shortages = [at(3, shortage("o1", a=6)), at(2, shortage("o1", a=4))]
    for history in (shortages, shortages[::-1], [out_of("SA", 10, 3), shortages[1]]):
        assert open_of(fed(placed(a=("SA", 10)), *history)) == {"o1": 4}


def fed(*events: Json, ship_complete: bool = False, strategy: str = "oldest_first") -> Model:
    model = Model(ship_complete, strategy)
    for one in events:
        model.feed(one)
    return model


def at(hour: int, event: Json) -> Json:
    """The event as of this hour; the builders' own time, also of placing, is hour 0."""
    return {**event, "time": f"2026-01-01T{hour:02}:00:00Z"}


def of_hour(order_id: str, hour: int, *, priority: int = 0) -> Json:
    """An order of one unit, placed in this hour."""
    return placed(order_id, {"placedAt": f"2026-01-01T{hour:02}:00:00Z", "priority": priority}, a=("SA", 1))


def out_of(sku: str, available: int, hour: int = 0, *, source: str = "/test") -> Json:
    return at(hour, event("inventory.shortage", {"sku": sku, "availableQuantity": available}, source=source))


def restocked(sku: str, hour: int = 0, *, source: str = "/test") -> Json:
    return at(hour, event("inventory.restocked", {"sku": sku}, source=source))


def back(order_id: str, *item_ids: str) -> Json:
    """A restock of these lines."""
    return event("inventory.restocked", {"orderId": order_id, "items": [{"itemId": item_id} for item_id in item_ids]})


def open_of(model: Model) -> dict[str, int]:
    """Open units per order that has any."""
    sums = {order_id: sum(line["open"] for line in lines.values()) for order_id, lines in model.totals().items()}
    return {order_id: units for order_id, units in sums.items() if units}


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

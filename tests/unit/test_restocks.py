"""New stock: shortages that happened before it do not cut what it is for."""

import json
from datetime import datetime, timedelta
from typing import cast

import pytest

from domain.decisions import carry_out, decide
from domain.errors import RestockOfUnknownItem
from domain.events import OrderEvent
from domain.operations import CancelItemPartially, CancelOrder
from domain.orders import Order
from domain.outcomes import Change, Cut, Decision, Nothing, Recorded, Void
from domain.policy import Moment, Policy
from tests.builders import (
    NOW,
    Json,
    again,
    closed,
    new_id,
    parsed,
    placed,
    play,
    requested,
    restocked,
    shipped,
    shortage,
    sku_shortage_of_order,
)

PLACED = placed("o1", a=("SA", 10), b=("SB", 4))
SHIP_COMPLETE = Policy(ship_complete=True)


def hour(number: int) -> str:
    return f"2026-01-01T{number:02}:00:00Z"


def at(number: int, event: Json) -> Json:
    """The event as of this hour; the builders' own time is hour 0."""
    return {**event, "time": hour(number)}


def after(*happened: Json) -> Order:
    return play(PLACED, *happened).placed_order


def decided(order: Order | None, raw: Json, policy: Policy | None = None, **restocks: int) -> Decision:
    """The decision at the event's own time; `restocks` are the hours in which there was new stock of a SKU."""
    event = cast(OrderEvent, parsed(raw))
    times = {sku: datetime.fromisoformat(hour(number)) for sku, number in restocks.items()}
    return decide(order, event, policy or Policy(), Moment(event.time, event.time, event.time, times))


def done(order: Order, raw: Json, policy: Policy | None = None, **restocks: int) -> Order:
    return carry_out(order, decided(order, raw, policy, **restocks), NOW).order or order


def open_units(order: Order) -> dict[str, int]:
    return {item_id: totals.open for item_id, totals in order.totals().items()}


# Of items


def test_a_shortage_from_before_a_restock_is_void() -> None:
    played = play(PLACED, at(3, restocked("o1", "a")), at(2, shortage("o1", a=4)))
    assert played.outcomes == ["recorded", "recorded", "void"]
    assert played.units["a"] == (0, 0, 10)


@pytest.mark.parametrize("later", [3, 4])
def test_a_shortage_of_the_same_time_or_later_cuts(later: int) -> None:
    played = play(PLACED, at(3, restocked("o1", "a")), at(later, shortage("o1", a=4)))
    assert played.outcomes[-1] == "applied"
    assert played.units["a"] == (0, 6, 4)


def test_a_restock_brings_back_nothing_that_was_cut() -> None:
    played = play(PLACED, at(2, shortage("o1", a=4)), at(3, restocked("o1", "a")))
    assert played.units["a"] == (0, 6, 4)


def test_a_restock_cancels_nothing() -> None:
    played = play(PLACED, restocked("o1", "a", "b"))
    assert not played.cancellations
    assert open_units(played.placed_order) == {"a": 10, "b": 4}


def test_the_lines_that_were_not_restocked_are_cut() -> None:
    played = play(PLACED, at(3, restocked("o1", "a")), at(2, shortage("o1", a=4, b=1)))
    assert played.outcomes[-1] == "applied"
    assert played.units == {"a": (0, 0, 10), "b": (0, 3, 1)}


def test_an_order_of_which_a_restocked_line_stays_is_not_cancelled_as_a_whole() -> None:
    played = play(PLACED, at(3, restocked("o1", "a")), at(2, shortage("o1", a=0, b=0)))
    assert played.operations == ["cancelItem"]
    assert open_units(played.placed_order) == {"a": 10, "b": 0}


def test_a_decision_tells_which_items_were_restocked() -> None:
    order = after(at(3, restocked("o1", "b", "a")))
    decision = decided(order, at(2, shortage("o1", b=1, a=4)))
    assert (decision.outcome, decision.reason, decision.facts["restocked"]) == ("void", "restocked", ["a", "b"])
    assert json.loads(json.dumps(decision.facts)) == decision.facts
    assert carry_out(order, decision, NOW) == Change(order)


def test_a_restocked_line_that_would_not_be_cut_makes_nothing_void() -> None:
    order = after(at(3, restocked("o1", "a")))
    assert decided(order, at(2, shortage("o1", a=10))).outcome == "nothing"
    assert "restocked" not in decided(order, at(2, shortage("o1", a=10, b=1))).facts


def test_a_restock_of_one_line_is_not_one_of_its_sku() -> None:
    two = placed("o1", a=("SA", 10), b=("SA", 10))
    played = play(two, at(3, restocked("o1", "a")), at(2, sku_shortage_of_order("o1", SA=4)))
    assert played.units == {"a": (0, 0, 10), "b": (0, 10, 0)}


def test_a_restocked_order_that_ships_complete_is_not_cancelled() -> None:
    played = play(PLACED, at(3, restocked("o1", "a")), at(2, shortage("o1", a=4)), policy=SHIP_COMPLETE)
    assert played.outcomes[-1] == "void"
    assert not played.cancellations


def test_an_order_that_ships_complete_goes_with_its_restocked_lines_when_another_is_short() -> None:
    played = play(PLACED, at(3, restocked("o1", "a")), at(2, shortage("o1", a=4, b=1)), policy=SHIP_COMPLETE)
    assert played.operations == ["cancelOrder"]


def test_what_waited_for_its_grace_is_void_after_a_restock() -> None:
    policy = Policy(order_grace=timedelta(hours=1))
    short = at(2, shortage("o1", a=4))
    played = play(PLACED, short, at(3, restocked("o1", "a")), policy=policy)
    assert played.ended[short["id"]] == "void"
    assert not played.waiting


@pytest.mark.parametrize("event", [closed("o1"), requested("o1"), requested("o1", a=4)], ids=lambda e: e["type"])
def test_a_restock_stops_shortages_only(event: Json) -> None:
    assert play(PLACED, at(3, restocked("o1", "a", "b")), at(2, event)).outcomes[-1] == "applied"


# Which item is meant, and since when


def test_a_restock_means_the_item_at_the_end_of_its_chain() -> None:
    cut = [at(1, shortage("o1", a=6)), at(1, shortage("o1", a=5))]
    played = play(PLACED, *cut, at(3, restocked("o1", "a")), at(2, shortage("o1", a=4)))
    assert played.outcomes[-1] == "void"
    assert played.units["a"] == (0, 5, 5)


@pytest.mark.parametrize("named", ["a", new_id("o1", "a")], ids=["first id", "new id"])
def test_a_restock_holds_for_an_item_under_either_of_its_ids(named: str) -> None:
    played = play(PLACED, at(1, shortage("o1", a=6)), at(3, restocked("o1", named)), at(2, shortage("o1", a=4)))
    assert played.outcomes[-1] == "void"


def test_what_takes_the_place_of_a_restocked_item_is_restocked() -> None:
    played = play(PLACED, at(3, restocked("o1", "a")), requested("o1", a=6), at(2, shortage("o1", a=4)))
    assert played.outcomes[-1] == "void"
    assert played.units["a"] == (0, 4, 6)


def test_a_shipment_leaves_an_item_restocked() -> None:
    played = play(PLACED, at(3, restocked("o1", "a")), shipped("o1", "f1", a=2), at(2, shortage("o1", a=4)))
    assert played.outcomes[-1] == "void"


def test_an_older_restock_after_a_newer_one_changes_nothing() -> None:
    order = after(at(3, restocked("o1", "a")))
    older = at(2, restocked("o1", "a"))
    assert decided(order, older).outcome == "nothing"
    assert done(order, older) == order


def test_a_newer_restock_counts_from_its_own_time() -> None:
    order = after(at(2, restocked("o1", "a")), at(4, restocked("o1", "a")))
    assert isinstance(decided(order, at(3, shortage("o1", a=4))), Void)


def test_a_restock_that_is_told_twice_is_known_already() -> None:
    back = at(3, restocked("o1", "a", "b"))
    order = after(back)
    decision = decided(order, again(back))
    assert isinstance(decision, Nothing)
    assert decision.reason == "already_restocked"
    assert done(order, again(back)) == order


def test_a_restock_of_which_one_item_is_news_is_recorded() -> None:
    order = after(at(3, restocked("o1", "a")))
    assert isinstance(decided(order, at(3, restocked("o1", "a", "b"))), Recorded)
    older = done(order, at(2, restocked("o1", "a", "b")))
    assert isinstance(decided(older, at(2, shortage("o1", a=4))), Void)
    assert isinstance(decided(older, at(2, shortage("o1", b=1))), Cut)
    assert isinstance(decided(older, at(1, shortage("o1", b=1))), Void)


def test_an_item_that_is_named_twice_is_restocked_once() -> None:
    played = play(PLACED, at(1, shortage("o1", a=6)), at(3, restocked("o1", "a", new_id("o1", "a"), "a")))
    assert played.outcomes[-1] == "recorded"
    assert isinstance(decided(played.order, at(2, shortage("o1", a=4))), Void)


def test_a_restock_counts_from_when_it_came_if_that_was_before_its_own_time() -> None:
    event = cast(OrderEvent, parsed(at(9, restocked("o1", "a"))))
    came = datetime.fromisoformat(hour(3))
    order = carry_out(after(), decide(after(), event, Policy(), Moment(came, came, came)), NOW).order
    assert isinstance(decided(order, at(2, shortage("o1", a=4))), Void)
    assert isinstance(decided(order, at(5, shortage("o1", a=4))), Cut)


def test_a_shortage_counts_from_when_it_happened_and_not_from_when_it_is_decided() -> None:
    event = cast(OrderEvent, parsed(at(2, shortage("o1", a=4))))
    late = datetime.fromisoformat(hour(9))
    assert isinstance(decide(after(at(3, restocked("o1", "a"))), event, Policy(), Moment(late, late, event.time)), Void)


@pytest.mark.parametrize("item_ids", [["zz"], ["a", "zz"], ["zz", "a"], ["SA"], [new_id("o1", "a")]], ids=str)
def test_a_restock_of_an_unknown_item_is_a_dead_letter_and_notes_nothing(item_ids: list[str]) -> None:
    played = play(PLACED)
    before = played.order
    with pytest.raises(RestockOfUnknownItem):
        played.take(restocked("o1", *item_ids))
    assert played.order == before


def test_a_restock_is_noted_though_the_item_is_gone() -> None:
    played = play(PLACED, requested("o1", a=None), restocked("o1", "a"))
    assert played.units["a"] == (0, 10, 0)
    assert open_units(played.placed_order) == {"a": 0, "b": 4}


def test_a_restock_waits_for_its_order() -> None:
    back = at(3, restocked("o1", "a"))
    assert decided(None, back).reason == "order_not_placed"
    played = play(back, PLACED, at(2, shortage("o1", a=4)))
    assert played.outcomes == ["waiting", "recorded", "void"]
    assert not played.waiting


def test_a_waiting_restock_of_an_unknown_item_turns_out_to_be_a_dead_letter() -> None:
    played = play(restocked("o1", "zz"), PLACED)
    assert played.rejected == ["unknown_line"]


# Of a SKU


def test_a_shortage_from_before_a_restock_of_its_sku_is_void() -> None:
    order = after()
    decision = decided(order, at(2, shortage("o1", a=4)), SA=3)
    assert isinstance(decision, Void)
    assert decision.facts["restocked"] == ["a"]
    assert carry_out(order, decision, NOW) == Change(order)


@pytest.mark.parametrize("later", [3, 4])
def test_a_shortage_of_the_same_time_as_a_restock_of_its_sku_or_later_cuts(later: int) -> None:
    assert isinstance(decided(after(), at(later, shortage("o1", a=4)), SA=3), Cut)


def test_a_restock_of_another_sku_stops_nothing() -> None:
    assert isinstance(decided(after(), at(2, shortage("o1", a=4)), SB=3, SZ=3), Cut)


def test_of_the_items_short_only_those_of_the_sku_are_spared() -> None:
    decision = decided(after(), at(2, shortage("o1", a=4, b=1)), SA=3)
    assert isinstance(decision, Cut)
    assert decision.operations == (CancelItemPartially("b", 1),)
    assert decision.facts["restocked"] == ["a"]


def test_every_item_of_the_sku_is_spared() -> None:
    two = play(placed("o1", a=("SA", 10), b=("SA", 10))).placed_order
    assert isinstance(decided(two, at(2, sku_shortage_of_order("o1", SA=4)), SA=3), Void)


def test_a_restock_of_an_item_or_of_its_sku_is_enough() -> None:
    order = after(at(4, restocked("o1", "a")))
    assert isinstance(decided(order, at(3, shortage("o1", a=4)), SA=2), Void)
    assert isinstance(decided(order, at(3, shortage("o1", a=4, b=1)), SB=4), Void)
    assert isinstance(decided(order, at(5, shortage("o1", a=4)), SA=6), Void)


def test_ship_complete_is_asked_only_of_what_a_restock_of_the_sku_leaves() -> None:
    assert isinstance(decided(after(), at(2, shortage("o1", a=4)), SHIP_COMPLETE, SA=3), Void)
    decision = decided(after(), at(2, shortage("o1", a=4, b=1)), SHIP_COMPLETE, SA=3)
    assert isinstance(decision, Cut)
    assert decision.operations == (CancelOrder(),)


def test_a_restock_of_a_sku_stops_no_closing() -> None:
    assert isinstance(decided(after(), at(2, closed("o1")), SA=3, SB=3), Cut)


def test_a_restock_under_another_offset_is_compared_by_the_instant() -> None:
    order = after(restocked("o1", "a", time="2026-01-01T12:00:00+09:00"))
    assert isinstance(decided(order, at(2, shortage("o1", a=4))), Void)
    assert isinstance(decided(order, at(3, shortage("o1", a=4))), Cut)

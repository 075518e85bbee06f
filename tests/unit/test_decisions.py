"""What the worked cases leave open: names, repeats, waiting, requests and policy."""

import json
from copy import deepcopy
from typing import cast

import pytest

from domain import errors
from domain.decisions import carry_out, decide
from domain.events import OrderEvent
from domain.operations import CancelItem, CancelItemPartially, CancelOrder, CancelUnfulfilled
from domain.outcomes import Change, Cut, Nothing, Recorded, Refused, Waiting
from domain.policy import Policy
from domain.shipments import Conflict
from tests.builders import (
    NOW,
    Json,
    Played,
    again,
    closed,
    final,
    new_id,
    order,
    parsed,
    placed,
    play,
    requested,
    shipped,
    shipped_of,
    shortage,
    shortage_of,
    sku_shipped,
    sku_shortage_of_order,
)

PLACED = placed("o1", a=("SA", 10), b=("SB", 4))
TWO_OF_A_SKU = placed("o1", a=("SA", 10), b=("SA", 10), c=("SC", 1))
SHIP_COMPLETE = Policy(ship_complete=True)


def order_event(raw: Json) -> OrderEvent:
    return cast(OrderEvent, parsed(raw))


def refused(played: Played, raw: Json, error: type[errors.EventRejected]) -> errors.EventRejected:
    """A dead letter, which leaves the order as it was."""
    before = played.order
    with pytest.raises(error) as rejection:
        played.take(raw)
    assert played.order == before
    return rejection.value


# Shortages


def test_deciding_changes_nothing_and_is_the_same_each_time() -> None:
    state, event = order(a=("SA", 10)), order_event(shortage("o1", a=4))
    kept = deepcopy(state)
    assert decide(state, event, Policy()) == decide(state, event, Policy())
    assert state == kept


@pytest.mark.parametrize(("by_item", "by_sku", "kept"), [(4, 6, 4), (6, 4, 4), (10, 3, 3), (3, 99, 3)])
def test_of_an_item_name_and_a_sku_name_for_one_item_the_smaller_figure_counts(
    by_item: int, by_sku: int, kept: int
) -> None:
    mixed = shortage_of("o1", [("itemId", "a", by_item), ("sku", "SA", by_sku)])
    played = play(PLACED, mixed)
    assert played.units["a"] == (0, 10 - kept, kept)
    assert len(played.cancellations) == 1


def test_the_smaller_figure_counts_whichever_name_comes_first() -> None:
    lines = [("sku", "SA", 12), ("itemId", "a", 4)]
    one, other = play(TWO_OF_A_SKU, shortage_of("o1", lines)), play(TWO_OF_A_SKU, shortage_of("o1", lines[::-1]))
    assert one.units == other.units == {"a": (0, 6, 4), "b": (0, 8, 2), "c": (0, 0, 1)}


def test_a_sku_figure_means_the_lines_as_first_ordered_whatever_was_cut_since() -> None:
    played = play(TWO_OF_A_SKU, shortage("o1", a=4), sku_shortage_of_order("o1", SA=12))
    assert played.outcomes == ["recorded", "applied", "applied"]
    assert played.units["b"] == (0, 2, 8)


def test_a_sku_figure_serves_what_is_fulfilled_of_a_later_line_first() -> None:
    played = play(TWO_OF_A_SKU, shipped("o1", "f1", b=5), sku_shortage_of_order("o1", SA=3))
    assert played.units == {"a": (0, 10, 0), "b": (5, 5, 0), "c": (0, 0, 1)}


def test_a_sku_of_which_every_line_is_gone_cuts_nothing() -> None:
    played = play(TWO_OF_A_SKU, sku_shortage_of_order("o1", SA=0), sku_shortage_of_order("o1", SA=5))
    assert played.outcomes[-1] == "nothing"


@pytest.mark.parametrize("name", [("sku", "SZ"), ("itemId", "zz"), ("itemId", "SA"), ("sku", "a")])
def test_a_shortage_of_an_unknown_line_is_a_dead_letter_and_cuts_nothing(name: tuple[str, str]) -> None:
    lines = [("itemId", "a", 0), (*name, 0), ("itemId", "b", 0)]
    rejection = refused(play(PLACED), shortage_of("o1", lines), errors.ShortageOfUnknownLine)
    assert f"'{name[1]}'" in str(rejection)


def test_an_unknown_line_counts_as_unknown_even_where_nothing_would_be_cut() -> None:
    refused(play(PLACED), shortage("o1", a=10, zz=99), errors.ShortageOfUnknownLine)


def test_the_first_id_of_an_item_that_was_cut_and_then_cancelled_cuts_nothing() -> None:
    played = play(PLACED, shortage("o1", a=4), shortage("o1", a=0), shortage("o1", a=0))
    assert played.outcomes[1:] == ["applied", "applied", "nothing"]
    assert played.units["a"] == (0, 10, 0)


def test_cuts_are_issued_in_item_order_after_earlier_cuts_too() -> None:
    played = play(
        placed("o1", a=("S", 9), b=("S", 9), c=("S", 9), d=("S", 9)),
        shortage("o1", b=5),
        shortage("o1", c=2, b=3, a=0),
    )
    assert [item["originalItemId"] for message in played.published[1:] for item in message["data"]["items"]] == [
        "a",
        "b",
        "c",
    ]


def test_a_shortage_is_cancelled_by_the_seller_because_it_is_out_of_stock() -> None:
    data = play(PLACED, shortage("o1", a=0)).published[0]["data"]
    assert (data["cancelledBy"], data["reason"]) == ("seller", {"code": "out_of_stock", "note": None})


# Placing


def test_an_order_that_is_placed_again_with_the_same_content_is_known_already() -> None:
    played = play(PLACED, shortage("o1", a=4), again(PLACED))
    assert played.outcomes[-1] == "nothing"
    assert played.units["a"] == (0, 6, 4)


@pytest.mark.parametrize(
    "other",
    [
        placed("o1", a=("SA", 10)),
        placed("o1", a=("SA", 10), b=("SB", 5)),
        placed("o1", b=("SB", 4), a=("SA", 10)),
        placed("o1", {"partner": "p"}, a=("SA", 10), b=("SB", 4)),
        placed("o1", {"priority": 1}, a=("SA", 10), b=("SB", 4)),
        placed("o1", {"attributes": {"k": "v"}}, a=("SA", 10), b=("SB", 4)),
        placed("o1", {"placedAt": "2026-01-01T00:00:01Z"}, a=("SA", 10), b=("SB", 4)),
    ],
    ids=["fewer items", "other quantity", "other item order", "partner", "priority", "attributes", "placedAt"],
)
def test_an_order_that_is_placed_again_with_other_content_is_a_dead_letter(other: Json) -> None:
    refused(play(PLACED), other, errors.PlacedDifferently)


def test_what_was_placed_is_kept() -> None:
    more = {"partner": "p", "priority": 7, "attributes": {"currency": "EUR"}}
    placed_order = play(placed("o1", more, a=("SA", 10))).placed_order
    assert (placed_order.partner, placed_order.priority) == ("p", 7)
    assert placed_order.attributes == {"currency": "EUR"}


# Fulfillments


def test_a_fulfillment_under_another_event_id_is_known_already() -> None:
    shipment = shipped("o1", "f1", a=3)
    played = play(PLACED, shipment, again(shipment))
    assert played.outcomes[-1] == "nothing"
    assert played.units["a"] == (3, 0, 7)


def test_a_fulfillment_is_the_same_in_any_order_of_lines_and_however_it_is_summed() -> None:
    played = play(PLACED, shipped("o1", "f1", a=3, b=1))
    played.take(shipped_of("o1", "f1", [("itemId", "b", 1), ("itemId", "a", 1), ("itemId", "a", 2)]))
    assert played.outcomes[-1] == "nothing"
    assert played.units == {"a": (3, 0, 7), "b": (1, 0, 3)}


@pytest.mark.parametrize("other", [{"a": 4}, {"b": 3}, {"a": 3, "b": 1}, {"zz": 3}], ids=str)
def test_a_fulfillment_id_with_other_items_is_a_dead_letter(other: dict[str, int]) -> None:
    rejection = refused(play(PLACED, shipped("o1", "f1", a=3)), shipped("o1", "f1", **other), errors.FulfillmentReused)
    assert "'f1'" in str(rejection)


def test_a_reused_fulfillment_id_closes_nothing() -> None:
    refused(play(PLACED, shipped("o1", "f1", a=3)), final(shipped("o1", "f1", a=4), "f1"), errors.FulfillmentReused)


def test_a_conflict_is_kept_once_however_often_the_shipment_is_told() -> None:
    shipment = shipped("o1", "f1", a=12)
    assert play(PLACED, shipment, again(shipment), again(shipment)).conflicts == [Conflict("f1", "a", None, 2)]


def test_a_conflict_of_a_final_shipment_is_kept_too() -> None:
    played = play(PLACED, final(shipped("o1", "f1", a=12), "f1"))
    assert played.conflicts == [Conflict("f1", "a", None, 2)]
    assert played.operations == ["cancelUnfulfilled"]


def test_a_conflict_of_a_shipment_whose_closing_waits_is_kept_once() -> None:
    played = play(PLACED, final(shipped("o1", "f2", a=12), "f1", "f2"), shipped("o1", "f1", b=1))
    assert played.conflicts == [Conflict("f2", "a", None, 2)]


# Closing


def test_a_known_shipment_may_turn_out_to_be_the_last() -> None:
    shipment = shipped("o1", "f1", a=3)
    played = play(PLACED, shipment, again(final(shipment, "f1")))
    assert played.outcomes == ["recorded", "recorded", "applied"]
    assert played.units == {"a": (3, 7, 0), "b": (0, 4, 0)}


def test_a_final_shipment_that_is_told_twice_closes_once() -> None:
    last = final(shipped("o1", "f1", a=3), "f1")
    played = play(PLACED, last, again(last))
    assert played.outcomes[-1] == "nothing"
    assert played.operations == ["cancelUnfulfilled"]


def test_a_final_shipment_that_is_told_twice_and_waits_twice_closes_once() -> None:
    last = final(shipped("o1", "f2", a=3), "f1", "f2")
    played = play(PLACED, last, again(last), shipped("o1", "f1", a=1))
    assert played.outcomes == ["recorded", "waiting", "waiting", "recorded"]
    assert played.operations == ["cancelUnfulfilled"]
    assert played.units == {"a": (4, 6, 0), "b": (0, 4, 0)}


def test_a_waiting_closing_has_its_own_shipment_recorded_at_once() -> None:
    played = play(PLACED, final(shipped("o1", "f2", a=3), "f1", "f2"))
    assert played.units["a"] == (3, 0, 7)
    assert [event.type for event in played.waiting] == ["fulfillment.created"]


def test_a_final_shipment_that_waited_for_nothing_to_cancel_is_recorded() -> None:
    last = final(shipped("o1", "f2", b=4), "f1", "f2")
    played = play(PLACED, last, shipped("o1", "f1", a=10))
    assert played.ended[last["id"]] == "recorded"
    assert not played.cancellations


def test_the_own_fulfillment_of_a_closing_counts_though_it_is_not_named() -> None:
    assert play(PLACED, final(shipped("o1", "f1", a=3))).units == {"a": (3, 7, 0), "b": (0, 4, 0)}


def test_a_closing_says_what_it_waits_for() -> None:
    decision = decide(order(a=("SA", 10)), order_event(closed("o1", "f2", "f1")), Policy())
    assert isinstance(decision, Waiting)
    assert (decision.reason, decision.facts["missing"]) == ("fulfillments_missing", ["f1", "f2"])


def test_a_closing_waits_though_nothing_is_open() -> None:
    played = play(PLACED, requested("o1"), closed("o1", "f1"))
    assert played.outcomes[-1] == "waiting"


def test_closing_is_by_the_seller_who_shipped_short() -> None:
    data = play(PLACED, closed("o1")).published[0]["data"]
    assert (data["cancelledBy"], data["reason"]) == ("seller", {"code": "short_shipped", "note": None})


# Waiting for the order


@pytest.mark.parametrize(
    "early",
    [shortage("o1", a=4), shipped("o1", "f1", a=1), closed("o1"), requested("o1"), sku_shipped("o1", "f1", SA=1)],
    ids=lambda event: event["type"],
)
def test_what_comes_before_its_order_waits(early: Json) -> None:
    decision = decide(None, order_event(early), Policy())
    assert decision == Waiting("order_not_placed", {})
    assert carry_out(None, decision, NOW) == Change(None)
    played = play(early, PLACED)
    assert played.outcomes == ["waiting", "recorded"]
    assert not played.waiting


def test_what_waited_for_the_order_may_wait_on_for_fulfillments() -> None:
    played = play(final(shipped("o1", "f2", a=3), "f1", "f2"), PLACED)
    assert played.units == {"a": (3, 0, 7), "b": (0, 0, 4)}
    assert len(played.waiting) == 1
    played.take(shipped("o1", "f1", b=4))
    assert played.units == {"a": (3, 7, 0), "b": (4, 0, 0)}
    assert not played.waiting


def test_a_shipment_of_a_waiting_closing_releases_another_closing() -> None:
    first, second = final(shipped("o1", "f1", a=1), "f1", "f2"), final(shipped("o1", "f2", a=1), "f1", "f2")
    played = play(first, second, PLACED)
    assert not played.waiting
    assert played.operations == ["cancelUnfulfilled"]
    assert played.units == {"a": (2, 8, 0), "b": (0, 4, 0)}


def test_what_waited_is_taken_up_in_the_order_of_arrival() -> None:
    played = play(shortage("o1", a=6), shortage("o1", a=4), PLACED)
    assert [message["data"]["items"][0]["newQuantity"] for message in played.published] == [6, 4]


# Requests


def test_a_request_is_carried_out_in_its_own_order_of_items() -> None:
    played = play(PLACED, requested("o1", b=None, a=6))
    operations = [cancellation.operation for cancellation in played.cancellations]
    assert operations == [CancelItem("b"), CancelItemPartially("a", 6)]
    assert [cancellation.sequence for cancellation in played.cancellations] == [1, 2]


def test_a_request_for_every_item_is_issued_as_it_was_asked_for() -> None:
    played = play(PLACED, requested("o1", a=None, b=0))
    assert played.operations == ["cancelItem", "cancelItem"]
    assert played.placed_order.entirely_cancelled


@pytest.mark.parametrize("quantities", [(None, None), (0, 0), (6, 6), (6, 4), (4, 6)], ids=str)
def test_a_request_that_names_an_item_twice_is_refused_whole(quantities: tuple[int | None, int | None]) -> None:
    items = [{"itemId": "b"}] + [{"itemId": "a"} | ({"newQuantity": q} if q is not None else {}) for q in quantities]
    played = play(PLACED, requested("o1", {"items": items}))
    assert played.outcomes[-1] == "refused"
    assert played.units == {"a": (0, 0, 10), "b": (0, 0, 4)}
    assert not played.cancellations


def test_a_refused_request_says_by_which_rule() -> None:
    decision = decide(order(a=("SA", 10)), order_event(requested("o1", zz=None)), Policy())
    assert isinstance(decision, Refused)
    assert decision.reason == errors.UnknownItem.code
    assert "'zz'" in str(decision.facts)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (requested("o1", a=None), "item_fulfilled"),
        (requested("o1", a=2), "new_quantity_too_low"),
        (requested("o1", b=4), "new_quantity_too_high"),
        (requested("o1"), "order_fulfilled"),
        (requested("o1", **{new_id("o1", "a"): None}), "unknown_item"),
    ],
    ids=["fulfilled", "too low", "too high", "order", "a new id that is not there yet"],
)
def test_a_request_is_refused_by_the_rules_of_its_operation(request_: Json, code: str) -> None:
    state = play(PLACED, shipped("o1", "f1", a=3)).placed_order
    decision = decide(state, order_event(request_), Policy())
    assert (decision.outcome, decision.reason) == ("refused", code)
    assert carry_out(state, decision, NOW) == Change(state)


def test_a_request_for_the_unfulfilled_is_refused_where_nothing_is_open() -> None:
    played = play(PLACED, requested("o1"), requested("o1", {"unfulfilledOnly": True}))
    assert played.outcomes[-1] == "refused"


@pytest.mark.parametrize("code", ["out_of_stock", "short_shipped", "buyer_request", "cancelled_elsewhere", "manual"])
@pytest.mark.parametrize("by", ["buyer", "seller"])
def test_who_asked_and_why_is_carried_into_the_terms(by: str, code: str) -> None:
    asked = {"cancelledBy": by, "reason": {"code": code, "note": "changed my mind"}}
    played = play(PLACED, requested("o1", asked, a=6))
    terms = played.cancellations[0].terms
    assert (terms.cancelled_by, terms.reason_code, terms.note) == (by, code, "changed my mind")
    assert terms.cancelled_at == NOW
    assert played.placed_order.items["a"].cancelled == terms
    assert played.published[0]["data"]["reason"] == {"code": code, "note": "changed my mind"}


def test_a_request_that_says_unfulfilled_only_false_means_the_order() -> None:
    decision = decide(order(a=("SA", 1)), order_event(requested("o1", {"unfulfilledOnly": False})), Policy())
    assert isinstance(decision, Cut)
    assert decision.operations == (CancelOrder(),)


# Ship complete


def test_an_order_that_ships_complete_or_not_at_all_goes_entirely() -> None:
    played = play(PLACED, shortage("o1", a=9), policy=SHIP_COMPLETE)
    assert played.operations == ["cancelOrder"]
    assert played.placed_order.entirely_cancelled


def test_ship_complete_keeps_what_was_shipped() -> None:
    played = play(PLACED, shipped("o1", "f1", a=3), shortage("o1", b=3), policy=SHIP_COMPLETE)
    assert played.operations == ["cancelUnfulfilled"]
    assert played.units == {"a": (3, 7, 0), "b": (0, 4, 0)}


def test_ship_complete_cancels_nothing_where_nothing_is_short() -> None:
    played = play(PLACED, shortage("o1", a=10), policy=SHIP_COMPLETE)
    assert (played.outcomes[-1], played.operations) == ("nothing", [])


def test_ship_complete_is_about_shortages_and_not_about_requests() -> None:
    played = play(PLACED, requested("o1", a=6), policy=SHIP_COMPLETE)
    assert played.units == {"a": (0, 4, 6), "b": (0, 0, 4)}


# The rest


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (again(PLACED), Nothing),
        (shortage("o1", a=4), Cut),
        (shortage("o1", a=10), Nothing),
        (shipped("o1", "f1", a=12), Recorded),
        (final(shipped("o1", "f1", a=1), "f1"), Cut),
        (closed("o1", "f1"), Waiting),
        (requested("o1", a=6), Cut),
        (requested("o1", zz=6), Refused),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else value.__name__,
)
def test_a_decision_explains_itself_in_json_values(event: Json, kind: type) -> None:
    decision = decide(play(PLACED).placed_order, order_event(event), Policy())
    assert isinstance(decision, kind)
    assert decision.reason
    assert json.loads(json.dumps(decision.facts)) == decision.facts


def test_a_closing_is_one_operation() -> None:
    decision = decide(order(a=("SA", 10)), order_event(closed("o1")), Policy())
    assert isinstance(decision, Cut)
    assert decision.operations == (CancelUnfulfilled(),)

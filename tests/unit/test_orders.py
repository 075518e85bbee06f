"""The order: four operations, what they refuse, what is derived, and the recording of shipments."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from domain import errors
from domain.items import OrderItem, Totals
from domain.operations import CancelItem, CancelItemPartially, CancelledItem, CancelOrder, CancelUnfulfilled, Operation
from domain.orders import Order
from domain.shipments import Conflict
from tests.builders import TERMS, new_id, order, placed, play, shipment, shipped, sku_shipped

NEW_A = new_id("o1", "a")
NEWER_A = new_id("o1", NEW_A)


def two_items() -> Order:
    return order(a=("SA", 10), b=("SB", 4))


def same_sku_twice() -> Order:
    return order(a=("SA", 10), b=("SA", 10))


def after(order: Order, *operations: Operation) -> Order:
    for operation in operations:
        order, _ = order.apply(operation, TERMS)
    return order


def with_shipped(order: Order, fulfillment_id: str = "f1", /, **units: int) -> Order:
    recorded, conflicts = order.record(shipment(fulfillment_id, **units))
    assert not conflicts
    return recorded


def units(order: Order) -> Mapping[str, tuple[int, int, int]]:
    """Per item as first ordered: fulfilled, cancelled, open."""
    return {item_id: (t.fulfilled, t.cancelled, t.open) for item_id, t in order.totals().items()}


def flags(order: Order) -> tuple[bool, bool, bool]:
    return (order.has_cancellations, order.shipped, order.entirely_cancelled)


# The four operations


def test_an_item_is_cancelled_with_reason_by_whom_and_when() -> None:
    cancelled, _ = two_items().cancel_item("a", TERMS)
    assert cancelled.items["a"].cancelled == TERMS
    assert units(cancelled) == {"a": (0, 10, 0), "b": (0, 0, 4)}


def test_a_partly_cancelled_item_is_cancelled_and_a_new_one_attached() -> None:
    cut, _ = two_items().cancel_item_partially("a", 4, TERMS)
    assert cut.items["a"].cancelled == TERMS
    assert cut.items[NEW_A].cancelled is None
    assert (cut.items[NEW_A].quantity, cut.items[NEW_A].sku, cut.items[NEW_A].original_item_id) == (4, "SA", "a")
    assert units(cut)["a"] == (0, 6, 4)


def test_what_was_fulfilled_moves_to_the_new_item() -> None:
    cut, _ = with_shipped(two_items(), a=3).cancel_item_partially("a", 4, TERMS)
    assert (cut.items["a"].fulfilled, cut.items[NEW_A].fulfilled) == (0, 3)
    assert units(cut)["a"] == (3, 6, 1)


def test_an_item_may_be_cut_down_to_what_is_fulfilled() -> None:
    cut, _ = with_shipped(two_items(), a=3).cancel_item_partially("a", 3, TERMS)
    assert units(cut)["a"] == (3, 7, 0)


def test_a_cancelled_order_has_no_item_left() -> None:
    cancelled, _ = two_items().cancel_order(TERMS)
    assert units(cancelled) == {"a": (0, 10, 0), "b": (0, 4, 0)}


def test_a_cancelled_order_leaves_what_was_cancelled_before_as_it_was() -> None:
    earlier = after(two_items(), CancelItem("a"))
    cancelled, cancellation = earlier.cancel_order(replace(TERMS, reason_code="out_of_stock"))
    assert cancelled.items["a"] == earlier.items["a"]
    assert [item.item_id for item in cancellation.items] == ["b"]


def test_without_fulfillments_cancelling_the_unfulfilled_does_what_cancelling_the_order_does() -> None:
    unfulfilled, _ = two_items().cancel_unfulfilled(TERMS)
    whole, _ = two_items().cancel_order(TERMS)
    assert unfulfilled == whole


def test_cancelling_the_unfulfilled_keeps_what_shipped_and_the_order_is_shipped() -> None:
    cut, _ = with_shipped(two_items(), a=3).cancel_unfulfilled(TERMS)
    assert units(cut) == {"a": (3, 7, 0), "b": (0, 4, 0)}
    assert (cut.items[NEW_A].quantity, cut.items[NEW_A].fulfilled) == (3, 3)
    assert cut.shipped


def test_cancelling_the_unfulfilled_leaves_a_fulfilled_item_alone() -> None:
    before = with_shipped(two_items(), a=10)
    cut, cancellation = before.cancel_unfulfilled(TERMS)
    assert cut.items["a"] == before.items["a"]
    assert [item.item_id for item in cancellation.items] == ["b"]


def test_a_cancellation_tells_what_it_cancelled() -> None:
    _, cancellation = with_shipped(two_items(), a=3).cancel_item_partially("a", 4, TERMS)
    assert cancellation.items == (CancelledItem("a", "a", "SA", 10, 3, 6, NEW_A, 4, {}),)
    assert (cancellation.order_id, cancellation.operation) == ("o1", CancelItemPartially("a", 4))
    assert cancellation.terms == TERMS


def test_a_cancellation_tells_of_no_new_item_where_none_was_attached() -> None:
    _, cancellation = two_items().cancel_item("a", TERMS)
    assert cancellation.items == (CancelledItem("a", "a", "SA", 10, 0, 10, None, None, {}),)


def test_cancellations_are_counted_from_one() -> None:
    first, cancellation = two_items().cancel_item("a", TERMS)
    second, another = first.cancel_item("b", TERMS)
    assert (cancellation.sequence, another.sequence, second.sequence) == (1, 2, 2)


def test_an_operation_leaves_the_order_it_was_applied_to() -> None:
    before = two_items()
    kept = deepcopy(before)
    before.cancel_order(TERMS)
    assert before == kept


# What is refused

PARTLY_SHIPPED = with_shipped(two_items(), a=3)
SHIPPED = with_shipped(two_items(), a=10, b=4)
CUT = after(two_items(), CancelItemPartially("a", 4))
A_GONE = after(two_items(), CancelItem("a"))
ALL_GONE = after(two_items(), CancelOrder())
SHIPPED_AND_CUT = after(PARTLY_SHIPPED, CancelUnfulfilled())

REFUSALS: dict[str, tuple[Order, Operation, type[errors.OperationRefused], list[str]]] = {
    "an unknown item": (two_items(), CancelItem("zz"), errors.UnknownItem, ["'zz'"]),
    "an item twice": (A_GONE, CancelItem("a"), errors.ItemAlreadyCancelled, ["'a'"]),
    "a replaced item": (CUT, CancelItem("a"), errors.ItemAlreadyCancelled, ["'a'", NEW_A]),
    "a partly fulfilled item": (PARTLY_SHIPPED, CancelItem("a"), errors.ItemFulfilled, ["'a'", "3"]),
    "a fulfilled item": (SHIPPED, CancelItem("a"), errors.ItemFulfilled, ["'a'", "10"]),
    "part of an unknown item": (two_items(), CancelItemPartially("zz", 1), errors.UnknownItem, ["'zz'"]),
    "part of a cancelled item": (A_GONE, CancelItemPartially("a", 1), errors.ItemAlreadyCancelled, ["'a'"]),
    "part of a replaced item": (CUT, CancelItemPartially("a", 1), errors.ItemAlreadyCancelled, ["'a'", NEW_A]),
    "a part of none": (two_items(), CancelItemPartially("a", 0), errors.NewQuantityTooLow, ["'a'", "1", "0"]),
    "a negative part": (two_items(), CancelItemPartially("a", -1), errors.NewQuantityTooLow, ["'a'", "1", "-1"]),
    "less than fulfilled": (PARTLY_SHIPPED, CancelItemPartially("a", 2), errors.NewQuantityTooLow, ["'a'", "3", "2"]),
    "all of it": (two_items(), CancelItemPartially("a", 10), errors.NewQuantityTooHigh, ["'a'", "10"]),
    "more than all": (two_items(), CancelItemPartially("a", 11), errors.NewQuantityTooHigh, ["'a'", "10", "11"]),
    "all that is left": (CUT, CancelItemPartially(NEW_A, 4), errors.NewQuantityTooHigh, [NEW_A, "4"]),
    "part of a fulfilled item": (SHIPPED, CancelItemPartially("a", 9), errors.OperationRefused, ["'a'", "10"]),
    "all of a fulfilled item": (SHIPPED, CancelItemPartially("a", 10), errors.OperationRefused, ["'a'", "10"]),
    "an order twice": (ALL_GONE, CancelOrder(), errors.OrderAlreadyCancelled, ["already cancelled"]),
    "a partly fulfilled order": (PARTLY_SHIPPED, CancelOrder(), errors.OrderFulfilled, ["fulfilled"]),
    "a fulfilled order": (SHIPPED, CancelOrder(), errors.OrderFulfilled, ["fulfilled"]),
    "an order shipped and cut": (SHIPPED_AND_CUT, CancelOrder(), errors.OrderFulfilled, ["fulfilled"]),
    "nothing open: shipped": (SHIPPED, CancelUnfulfilled(), errors.NothingOpen, ["open"]),
    "nothing open: cancelled": (ALL_GONE, CancelUnfulfilled(), errors.NothingOpen, ["open"]),
    "nothing open: both": (SHIPPED_AND_CUT, CancelUnfulfilled(), errors.NothingOpen, ["open"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_why_and_changes_nothing(name: str) -> None:
    before, operation, error, parts = REFUSALS[name]
    kept = deepcopy(before)
    with pytest.raises(error) as refused:
        before.apply(operation, TERMS)
    assert before == kept
    assert all(part in str(refused.value) for part in parts)
    assert refused.value.code


# What is derived


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (two_items(), (False, False, False)),
        (PARTLY_SHIPPED, (False, False, False)),
        (SHIPPED, (False, True, False)),
        (A_GONE, (True, False, False)),
        (CUT, (True, False, False)),
        (ALL_GONE, (True, False, True)),
        (after(CUT, CancelOrder()), (True, False, True)),
        (SHIPPED_AND_CUT, (True, True, False)),
        (with_shipped(A_GONE, b=4), (True, True, False)),
        (with_shipped(A_GONE, b=3), (True, False, False)),
    ],
)
def test_flags_follow_from_the_items(state: Order, expected: tuple[bool, bool, bool]) -> None:
    assert flags(state) == expected


def test_open_is_what_is_neither_fulfilled_nor_cancelled() -> None:
    state = with_shipped(CUT, a=1)
    assert (state.open, state.fulfilled) == (7, 1)
    assert (state.items["a"].open, state.items[NEW_A].open) == (0, 3)


def test_totals_are_given_per_item_as_first_ordered() -> None:
    state = after(CUT, CancelItemPartially(NEW_A, 1))
    assert state.totals() == {"a": Totals(10, 0, 9, 1), "b": Totals(4, 0, 0, 4)}


# Chains


def test_the_id_of_a_new_item_depends_on_the_order_and_the_old_item_only() -> None:
    assert set(after(two_items(), CancelItemPartially("a", 9)).items) == {"a", "b", NEW_A}
    assert set(CUT.items) == {"a", "b", NEW_A}


def test_every_id_of_a_chain_means_the_item_at_its_end() -> None:
    state = after(CUT, CancelItemPartially(NEW_A, 1))
    ends = [state.current(item_id) for item_id in ("a", NEW_A, NEWER_A)]
    assert ends == [state.items[NEWER_A]] * 3
    assert state.items[NEWER_A].original_item_id == "a"


def test_an_id_that_the_order_never_had_means_nothing() -> None:
    assert two_items().current("zz") is None


def test_a_new_item_takes_its_predecessors_place() -> None:
    state = after(two_items(), CancelItemPartially("a", 4))
    assert [item.item_id for item in state.current_items] == [NEW_A, "b"]
    _, cancellation = state.cancel_order(TERMS)
    assert [item.item_id for item in cancellation.items] == [NEW_A, "b"]


def test_items_stand_in_the_order_in_which_they_were_placed() -> None:
    state = after(
        order(z=("SA", 9), b=("SB", 9), a=("SC", 9)), CancelItemPartially("a", 4), CancelItemPartially("z", 4)
    )
    assert [item.original_item_id for item in state.current_items] == ["z", "b", "a"]
    assert list(state.totals()) == ["z", "b", "a"]
    _, cancellation = state.cancel_unfulfilled(TERMS)
    assert [item.original_item_id for item in cancellation.items] == ["z", "b", "a"]


def test_a_new_item_keeps_its_attributes() -> None:
    items = [{"itemId": "a", "sku": "SA", "quantity": 10, "attributes": {"price": "1.20"}}]
    state, cancellation = play(placed("o1", {"items": items})).placed_order.cancel_item_partially("a", 4, TERMS)
    assert state.items[NEW_A].attributes == cancellation.items[0].attributes == {"price": "1.20"}


# Shipments


def test_a_shipment_is_recorded_at_the_end_of_the_chain() -> None:
    state = with_shipped(CUT, a=4)
    assert state.items[NEW_A].fulfilled == 4
    assert units(state)["a"] == (4, 6, 0)


def test_a_shipment_of_a_replaced_item_goes_to_its_chain_before_it_spills() -> None:
    state = after(order(z=("SA", 10), a=("SA", 10)), CancelItemPartially("a", 4))
    assert units(with_shipped(state, a=4)) == {"z": (0, 0, 10), "a": (4, 6, 0)}


def test_a_shipment_may_name_the_new_item() -> None:
    assert units(with_shipped(CUT, **{NEW_A: 4}))["a"] == (4, 6, 0)


def test_what_exceeds_a_line_spills_to_open_lines_of_its_sku() -> None:
    assert units(with_shipped(same_sku_twice(), a=13)) == {"a": (10, 0, 0), "b": (3, 0, 7)}
    assert units(with_shipped(same_sku_twice(), b=13)) == {"a": (3, 0, 7), "b": (10, 0, 0)}


def test_what_is_shipped_of_a_cancelled_item_spills_to_open_lines_of_its_sku() -> None:
    state = after(same_sku_twice(), CancelItem("a"))
    assert units(with_shipped(state, a=2)) == {"a": (0, 10, 0), "b": (2, 0, 8)}


def test_a_spill_displaces_nothing_that_is_shipped_of_the_other_line() -> None:
    state, conflicts = same_sku_twice().record(shipment("f1", a=13, b=8))
    assert units(state) == {"a": (10, 0, 0), "b": (10, 0, 0)}
    assert conflicts == (Conflict("f1", "a", None, 1),)


def test_goods_do_not_spill_to_another_sku() -> None:
    state, conflicts = two_items().record(shipment("f1", b=5))
    assert units(state) == {"a": (0, 0, 10), "b": (4, 0, 0)}
    assert conflicts == (Conflict("f1", "b", None, 1),)


def test_goods_of_a_cancelled_item_are_a_conflict() -> None:
    state, conflicts = A_GONE.record(shipment("f1", a=2))
    assert units(state) == units(A_GONE)
    assert conflicts == (Conflict("f1", "a", None, 2),)


def test_goods_of_an_unknown_item_are_a_conflict_and_the_other_lines_count() -> None:
    state, conflicts = two_items().record(shipment("f1", zz=2, b=1))
    assert units(state) == {"a": (0, 0, 10), "b": (1, 0, 3)}
    assert conflicts == (Conflict("f1", "zz", None, 2),)


def test_goods_of_an_unknown_sku_are_a_conflict() -> None:
    played = play(placed("o1", a=("SA", 10)), sku_shipped("o1", "f1", SZ=2, SA=1))
    assert played.conflicts == [Conflict("f1", None, "SZ", 2)]
    assert played.units == {"a": (1, 0, 9)}


def test_goods_by_sku_fill_the_lines_in_item_order_and_the_excess_is_one_conflict() -> None:
    played = play(placed("o1", z=("SA", 3), a=("SA", 4)), sku_shipped("o1", "f1", SA=9))
    assert played.units == {"z": (3, 0, 0), "a": (4, 0, 0)}
    assert played.conflicts == [Conflict("f1", None, "SA", 2)]


def test_a_line_that_is_given_twice_is_summed() -> None:
    twice = shipped("o1", "f1", a=3)
    twice["data"]["items"] *= 2
    assert play(placed("o1", a=("SA", 10)), twice).units == {"a": (6, 0, 4)}


def test_a_shipment_is_remembered_by_its_lines_in_whatever_order() -> None:
    assert shipment("f1", a=1, b=2).digest == shipment("f1", b=2, a=1).digest
    assert shipment("f1", a=1).digest != shipment("f1", a=2).digest
    assert two_items().record(shipment("f1", a=1))[0].fulfillments.keys() == {"f1"}


def test_recording_leaves_the_order_it_was_recorded_on() -> None:
    before = two_items()
    kept = deepcopy(before)
    before.record(shipment("f1", a=3))
    assert before == kept


# Conservation


def damaged(**changes: dict[str, Any]) -> Order:
    """An order of 10 of which 3 shipped and 5 were cancelled, with its items damaged: `old`, `new`, or both."""
    state = after(with_shipped(order(a=("SA", 10)), a=3), CancelItemPartially("a", 5))
    names = {"old": "a", "new": NEW_A}
    items = {names[which]: replace(state.items[names[which]], **change) for which, change in changes.items()}
    return replace(state, items={**state.items, **items})


@pytest.mark.parametrize(
    "order",
    [two_items(), PARTLY_SHIPPED, SHIPPED, CUT, A_GONE, ALL_GONE, SHIPPED_AND_CUT, damaged()],
)
def test_a_sound_order_conserves_its_units(order: Order) -> None:
    order.check_conservation()


DAMAGES: dict[str, dict[str, dict[str, Any]]] = {
    "more fulfilled than there is": {"new": {"fulfilled": 6}},
    "less than nothing fulfilled": {"new": {"fulfilled": -1}},
    "more kept than was ordered": {"new": {"quantity": 11}},
    "cancelled though fulfilled": {"new": {"cancelled": TERMS}},
    "less ordered than kept": {"old": {"quantity": 2}},
    "replaced, but not cancelled": {"old": {"cancelled": None}},
    "cancelled, but not replaced": {"old": {"replaced_by": None}},
    "fulfilled units counted twice": {"old": {"fulfilled": 3}},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_lost_or_made_up_units_are_caught(name: str) -> None:
    with pytest.raises(errors.ConservationBroken, match="'o1'"):
        damaged(**DAMAGES[name]).check_conservation()


@pytest.mark.parametrize("lost", ["a", NEW_A])
def test_a_lost_item_is_caught(lost: str) -> None:
    state = damaged()
    items = {item_id: item for item_id, item in state.items.items() if item_id != lost}
    with pytest.raises(errors.ConservationBroken):
        replace(state, items=items).check_conservation()


def test_an_item_that_stands_twice_is_caught() -> None:
    state = damaged()
    revived: OrderItem = replace(state.items["a"], cancelled=None, replaced_by=None)
    with pytest.raises(errors.ConservationBroken):
        replace(state, items={NEW_A: state.items[NEW_A], "a": revived}).check_conservation()


def test_a_new_item_never_takes_the_id_of_another() -> None:
    """Refusing such an order, or the cut, would do as well; losing the seven units of the other item would not."""
    try:
        played = play(placed("o1", **{"a": ("SA", 10), NEW_A: ("SB", 7)}))
        cut, _ = played.placed_order.cancel_item_partially("a", 4, TERMS)
    except errors.DomainError:
        return
    assert sum(totals.ordered for totals in cut.totals().values()) == 17

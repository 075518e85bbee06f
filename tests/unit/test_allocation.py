"""Which orders lose when a SKU runs short: who is served first, with how much, and whether a figure still counts."""

from datetime import datetime, timedelta
from itertools import permutations
from typing import cast

import pytest

from domain.allocation import allocate, in_allocation_order, open_lines, overtaken, shortage_of
from domain.decisions import carry_out, decide
from domain.events import SkuShortage
from domain.orders import Order
from domain.outcomes import Cut, Nothing
from domain.policy import Policy, Strategy
from tests.builders import NOW, TIME, Json, new_id, parsed, placed, play, requested, shipped, shortage, sku_shortage

NEWEST_FIRST = Policy(strategy="newest_first")
SHIP_COMPLETE = Policy(ship_complete=True)
HOUR = timedelta(hours=1)


def of(order_id: str, *happened: Json, hour: int = 0, priority: int = 0, **items: int) -> Order:
    """An order placed in this hour, its items all of SKU "SA"."""
    about = {"placedAt": f"2026-01-01T{hour:02}:00:00Z", "priority": priority}
    return play(
        placed(order_id, about, **{name: ("SA", units) for name, units in items.items()}), *happened
    ).placed_order


def given(orders: list[Order], left: int, policy: Policy | None = None) -> dict[str, int]:
    """Units per order, in the order in which they are served."""
    return {one.order.order_id: one.given for one in allocate(orders, "SA", left, policy or Policy())}


def keeps(order: Order, left: int, policy: Policy | None = None) -> dict[str, int]:
    (allotment,) = allocate([order], "SA", left, policy or Policy())
    return dict(allotment.keeps)


def served(orders: list[Order], strategy: Strategy) -> list[str]:
    return [order.order_id for order in in_allocation_order(orders, strategy)]


# Who is served first


def test_the_oldest_order_is_served_first() -> None:
    orders = [of("o2", hour=2, a=5), of("o1", hour=1, a=5), of("o3", hour=3, a=5)]
    assert list(given(orders, 7).items()) == [("o1", 5), ("o2", 2), ("o3", 0)]


def test_the_newest_order_is_served_first_where_that_is_the_strategy() -> None:
    orders = [of("o2", hour=2, a=5), of("o1", hour=1, a=5), of("o3", hour=3, a=5)]
    assert list(given(orders, 7, NEWEST_FIRST).items()) == [("o3", 5), ("o2", 2), ("o1", 0)]


@pytest.mark.parametrize("strategy", ["oldest_first", "newest_first"])
def test_a_higher_priority_goes_before_any_age(strategy: Strategy) -> None:
    orders = [of("o1", hour=1, a=1), of("o2", hour=2, priority=1, a=1), of("o3", hour=3, a=1)]
    assert served(orders, strategy)[0] == "o2"


@pytest.mark.parametrize("strategy", ["oldest_first", "newest_first"])
def test_a_priority_below_zero_is_served_last(strategy: Strategy) -> None:
    orders = [of("o1", hour=1, priority=-1, a=1), of("o2", hour=2, a=1), of("o3", hour=3, priority=-2, a=1)]
    assert served(orders, strategy) == ["o2", "o1", "o3"]


@pytest.mark.parametrize(
    ("strategy", "first"), [("oldest_first", ["o1", "o10", "o2"]), ("newest_first", ["o2", "o10", "o1"])]
)
def test_among_orders_of_the_same_time_the_id_decides(strategy: Strategy, first: list[str]) -> None:
    for orders in permutations([of("o2", a=1), of("o10", a=1), of("o1", a=1)]):
        assert served(list(orders), strategy) == first


def test_the_same_time_under_another_offset_is_the_same_time() -> None:
    tokyo = play(placed("o1", {"placedAt": "2026-01-01T09:00:00+09:00"}, a=("SA", 1))).placed_order
    assert served([of("o2", hour=0, a=1), tokyo], "oldest_first") == ["o1", "o2"]
    assert served([of("o0", hour=0, a=1), tokyo], "oldest_first") == ["o0", "o1"]


def test_ids_are_compared_by_their_characters_and_not_as_a_language_sorts_them() -> None:
    orders = [of("ä", a=1), of("b", a=1), of("B", a=1), of("Z", a=1)]
    assert served(orders, "oldest_first") == ["B", "Z", "b", "ä"]


@pytest.mark.parametrize("policy", [Policy(), NEWEST_FIRST], ids=["oldest first", "newest first"])
def test_within_an_order_the_first_line_is_served_first(policy: Policy) -> None:
    assert keeps(of("o1", d=5, a=5, c=5), 7, policy) == {"d": 5, "a": 2, "c": 0}


# With how much


def test_each_order_is_given_what_it_wants_while_there_is_some() -> None:
    orders = [of("o1", a=3), of("o2", a=4)]
    assert given(orders, 99) == {"o1": 3, "o2": 4}
    assert given(orders, 7) == {"o1": 3, "o2": 4}
    assert given(orders, 6) == {"o1": 3, "o2": 3}
    assert given(orders, 3) == {"o1": 3, "o2": 0}
    assert given(orders, 0) == {"o1": 0, "o2": 0}


def test_where_there_are_no_orders_nobody_is_served() -> None:
    assert given([], 5) == {}


def test_what_was_shipped_is_kept_above_what_is_given() -> None:
    assert keeps(of("o1", shipped("o1", "f1", a=3), a=10), 2) == {"a": 5}
    assert keeps(of("o1", shipped("o1", "f1", a=3), a=10), 0) == {"a": 3}
    assert keeps(of("o1", shipped("o1", "f1", b=3), a=4, b=10), 6) == {"a": 4, "b": 5}


def test_what_was_shipped_is_not_wanted_any_more() -> None:
    (allotment,) = allocate([of("o1", shipped("o1", "f1", a=3), a=10)], "SA", 99, Policy())
    assert (allotment.wanted, allotment.given) == (7, 7)


@pytest.mark.parametrize("happened", [[shipped("o1", "f1", a=10)], [requested("o1")]], ids=["shipped", "cancelled"])
def test_an_order_of_which_nothing_is_open_is_left_out(happened: list[Json]) -> None:
    assert given([of("o1", *happened, a=10), of("o2", a=5)], 4) == {"o2": 4}


def test_an_item_that_was_cut_is_served_as_what_it_is_now() -> None:
    assert keeps(of("o1", shortage("o1", a=4), a=10), 3) == {new_id("o1", "a"): 3}


def test_a_line_that_is_entirely_shipped_or_cancelled_is_not_named() -> None:
    order = of("o1", shipped("o1", "f1", a=2), requested("o1", b=None), a=2, b=3, c=4)
    assert keeps(order, 1) == {"c": 1}
    assert [item.item_id for item in open_lines(order, "SA")] == ["c"]


def test_other_skus_of_an_order_are_left_alone() -> None:
    order = play(placed("o1", a=("SB", 5), b=("SA", 5), c=("sa", 5))).placed_order
    assert keeps(order, 2) == {"b": 2}
    assert not allocate([order], "SZ", 2, Policy())


# Ship complete


def test_an_order_that_cannot_have_all_gets_none_and_the_next_are_served() -> None:
    orders = [of("o1", hour=1, a=5), of("o2", hour=2, a=3), of("o3", hour=3, a=3)]
    assert given(orders, 4, SHIP_COMPLETE) == {"o1": 0, "o2": 3, "o3": 0}
    assert given(orders, 7, SHIP_COMPLETE) == {"o1": 5, "o2": 0, "o3": 0}
    assert given(orders, 8, SHIP_COMPLETE) == {"o1": 5, "o2": 3, "o3": 0}


def test_all_that_an_order_wants_is_meant_over_its_lines() -> None:
    assert keeps(of("o1", a=3, b=3), 5, SHIP_COMPLETE) == {"a": 0, "b": 0}
    assert keeps(of("o1", a=3, b=3), 6, SHIP_COMPLETE) == {"a": 3, "b": 3}


def test_an_order_that_has_shipped_in_part_wants_only_the_rest() -> None:
    order = of("o1", shipped("o1", "f1", a=3), a=10)
    assert keeps(order, 7, SHIP_COMPLETE) == {"a": 10}
    assert keeps(order, 6, SHIP_COMPLETE) == {"a": 3}


# Carrying it out


def cause(left: int) -> SkuShortage:
    return cast(SkuShortage, parsed(sku_shortage("SA", left)))


def after(order: Order, left: int, policy: Policy | None = None) -> Order:
    """The order, served with what is left and cut by the rest."""
    policy = policy or Policy()
    decision = decide(order, shortage_of(order, keeps(order, left, policy), cause(left)), policy)
    return carry_out(order, decision, NOW).order or order


def test_a_cut_leaves_what_was_given() -> None:
    order = after(of("o1", shipped("o1", "f1", a=3), a=10, b=5), 8)
    assert order.totals()["a"].open == 7
    assert order.totals()["b"].open == 1
    assert order.fulfilled == 3


def test_a_line_that_has_all_is_not_cut() -> None:
    order = of("o1", a=10)
    event = shortage_of(order, keeps(order, 10), cause(10))
    assert isinstance(decide(order, event, Policy()), Nothing)


def test_an_order_that_ships_complete_loses_its_other_skus_too() -> None:
    order = play(placed("o1", a=("SA", 5), b=("SB", 5))).placed_order
    assert after(order, 4, SHIP_COMPLETE).entirely_cancelled
    assert after(order, 5, SHIP_COMPLETE) == order


def test_what_shipped_after_the_allotment_is_part_of_what_is_kept() -> None:
    before = of("o1", a=10)
    event = shortage_of(before, keeps(before, 4), cause(4))
    order = of("o1", shipped("o1", "f1", a=3), a=10)
    change = carry_out(order, decide(order, event, Policy()), NOW)
    assert change.order is not None
    assert (change.order.fulfilled, change.order.open) == (3, 1)


def test_an_allotment_that_is_carried_out_twice_cuts_once() -> None:
    order = of("o1", a=10, b=10)
    event = shortage_of(order, keeps(order, 12), cause(12))
    once = carry_out(order, decide(order, event, Policy()), NOW).order
    again = decide(once, event, Policy())
    assert (again.outcome, again.reason) == ("nothing", "no_cut")
    assert carry_out(once, again, NOW).order == once


def test_a_cut_tells_the_shortage_of_the_sku_as_its_cause() -> None:
    order = of("o1", a=10)
    event = cause(4)
    of_order = shortage_of(order, {"a": 4}, event)
    assert (of_order.key, of_order.type, of_order.time) == (event.key, event.type, event.time)
    assert of_order.data.order_id == "o1"
    decision = decide(order, of_order, Policy())
    assert isinstance(decision, Cut)
    assert (decision.cancelled_by, decision.reason_code) == ("seller", "out_of_stock")


def test_a_cut_passes_the_trace_of_its_cause_on() -> None:
    traced = {**sku_shortage("SA", 4), "traceparent": "00-1-2-01"}
    assert shortage_of(of("o1", a=10), {"a": 4}, cast(SkuShortage, parsed(traced))).traceparent == "00-1-2-01"


# Whether a figure still counts

AT = datetime.fromisoformat(TIME)


@pytest.mark.parametrize(
    ("newest", "restocked", "by"),
    [
        (None, None, None),
        (AT, None, None),
        (AT, AT, None),
        (AT - HOUR, AT - HOUR, None),
        (AT + HOUR, None, "stale"),
        (AT + HOUR, AT, "stale"),
        (AT, AT + HOUR, "void"),
        (None, AT + HOUR, "void"),
        (AT + HOUR, AT + HOUR, "void"),
        (AT + 2 * HOUR, AT + HOUR, "void"),
        (AT + timedelta(microseconds=1), None, "stale"),
        (None, AT + timedelta(microseconds=1), "void"),
    ],
)
def test_a_figure_is_void_after_a_restock_and_stale_after_a_newer_one(
    newest: datetime | None, restocked: datetime | None, by: str | None
) -> None:
    assert overtaken(AT, newest, restocked) == by

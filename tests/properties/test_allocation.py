"""Whatever is left of a SKU and whoever wants it: who is served, with how much, and what a cut then leaves."""

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.allocation import Allotment, allocate, in_allocation_order, open_lines, shortage_of
from domain.decisions import carry_out, decide
from domain.events import SkuShortage
from domain.orders import Order
from domain.outcomes import Nothing
from domain.policy import Policy, Strategy
from tests.builders import NOW, Json, parsed, placed, play, requested, shipped, shortage, sku_shortage
from tests.properties.strategies import ITEMS, figures, units

many = settings(max_examples=100, deadline=None)

ORDER_IDS = ("o2", "o10", "O1", "o1", "ö1", "o3")
"""In an order which is none that sorting gives."""
strategies = st.sampled_from(["oldest_first", "newest_first"])
policies = st.builds(Policy, ship_complete=st.booleans(), strategy=strategies)


@dataclass(frozen=True)
class Run:
    """Orders that want "SA", and how many units of it are left for them."""

    orders: list[Order]
    left: int

    @property
    def open(self) -> int:
        return sum(open_of(order) for order in self.orders)

    def allotments(self, policy: Policy) -> list[Allotment]:
        return allocate(self.orders, "SA", self.left, policy)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Few times and priorities, so that ties are frequent; as much is left as is wanted, or nothing, or some."""
    orders = [draw(_orders(order_id)) for order_id in draw(st.lists(st.sampled_from(ORDER_IDS), unique=True))]
    wanted = Run(orders, 0).open
    return Run(orders, draw(st.integers(0, wanted + 2) | st.sampled_from([0, wanted])))


@st.composite
def _orders(draw: st.DrawFn, order_id: str) -> Order:
    skus = st.sampled_from(["SA", "SA", "SB"])
    lines = draw(st.lists(st.tuples(skus, units), min_size=1, max_size=4))
    about = {"placedAt": f"2026-01-01T0{draw(st.integers(0, 2))}:00:00Z", "priority": draw(st.integers(-1, 1))}
    item_ids = ITEMS[: len(lines)]
    happened = draw(st.lists(_events(order_id, item_ids), max_size=3))
    return play(placed(order_id, about, **dict(zip(item_ids, lines, strict=True))), *happened).placed_order


def _events(order_id: str, item_ids: tuple[str, ...]) -> st.SearchStrategy[Json]:
    """Some of an item ships, is cut or is cancelled."""
    item_id = st.sampled_from(item_ids)
    shipments = st.builds(lambda item_id, n: shipped(order_id, f"f-{item_id}-{n}", **{item_id: n}), item_id, units)
    shortages = st.builds(lambda item_id, figure: shortage(order_id, **{item_id: figure}), item_id, figures)
    requests = st.builds(lambda item_id: requested(order_id, **{item_id: None}), item_id)
    return st.one_of(shipments, shortages, requests)


def open_of(order: Order) -> int:
    """Units of "SA"."""
    return sum(item.open for item in order.items.values() if item.sku == "SA")


def goes_before(one: Order, other: Order, strategy: Strategy) -> bool:
    """The named order, as the contract has it."""
    if one.priority != other.priority:
        return one.priority > other.priority
    if one.placed_at != other.placed_at:
        return (one.placed_at < other.placed_at) == (strategy == "oldest_first")
    return (one.order_id < other.order_id) == (strategy == "oldest_first")


def cut(allotment: Allotment, left: int, policy: Policy) -> Order:
    """The order after its allotment was carried out."""
    order = allotment.order
    cause = shortage_of(order, allotment.keeps, cast(SkuShortage, parsed(sku_shortage("SA", left))))
    after = carry_out(order, decide(order, cause, policy), NOW).order or order
    after.check_conservation()
    again = decide(after, cause, policy)
    assert isinstance(again, Nothing)
    assert again.reason == "no_cut"
    assert carry_out(after, again, NOW).order == after
    return after


def shares(allotments: list[Allotment]) -> list[tuple[str, int, int, dict[str, int]]]:
    return [(one.order.order_id, one.wanted, one.given, dict(one.keeps)) for one in allotments]


# Who is served


@many
@given(runs(), policies)
def test_every_order_with_open_units_is_allotted_once_in_the_named_order(run: Run, policy: Policy) -> None:
    allotments = run.allotments(policy)
    assert {one.order.order_id: one.wanted for one in allotments} == {
        order.order_id: open_of(order) for order in run.orders if open_of(order)
    }
    assert len({one.order.order_id for one in allotments}) == len(allotments)
    assert all(goes_before(one.order, other.order, policy.strategy) for one, other in pairwise(allotments))


@many
@given(runs(), strategies)
def test_a_higher_priority_is_first_whatever_the_strategy(run: Run, strategy: Strategy) -> None:
    priorities = [order.priority for order in in_allocation_order(run.orders, strategy)]
    assert priorities == sorted(priorities, reverse=True)


@many
@given(runs())
def test_within_a_priority_the_strategies_are_each_other_s_reverse(run: Run) -> None:
    oldest, newest = in_allocation_order(run.orders, "oldest_first"), in_allocation_order(run.orders, "newest_first")
    for priority in (-1, 0, 1):
        assert [o for o in oldest if o.priority == priority] == [o for o in newest[::-1] if o.priority == priority]


@many
@given(runs(), policies, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(run: Run, policy: Policy, random: Random) -> None:
    shuffled = list(run.orders)
    random.shuffle(shuffled)
    assert shares(Run(shuffled, run.left).allotments(policy)) == shares(run.allotments(policy))


# With how much


@many
@given(runs(), policies)
def test_never_is_more_given_than_is_left_or_wanted(run: Run, policy: Policy) -> None:
    allotments = run.allotments(policy)
    assert sum(one.given for one in allotments) <= run.left
    assert all(0 <= one.given <= one.wanted for one in allotments)


@many
@given(runs(), strategies)
def test_never_is_more_cut_than_is_short(run: Run, strategy: Strategy) -> None:
    given_in_all = sum(one.given for one in run.allotments(Policy(strategy=strategy)))
    assert run.open - given_in_all == max(0, run.open - run.left)


@many
@given(runs(), strategies)
def test_nobody_is_given_anything_while_an_order_before_lacks_something(run: Run, strategy: Strategy) -> None:
    """So only the last order that is served is served in part."""
    for one, other in pairwise(run.allotments(Policy(strategy=strategy))):
        assert one.given == one.wanted or other.given == 0


@many
@given(runs(), strategies)
def test_what_ships_complete_is_given_all_it_wants_where_that_is_left_and_else_nothing(
    run: Run, strategy: Strategy
) -> None:
    left = run.left
    for one in run.allotments(Policy(ship_complete=True, strategy=strategy)):
        assert one.given == (one.wanted if one.wanted <= left else 0)
        left -= one.given


@many
@given(runs(), policies)
def test_an_order_keeps_what_has_shipped_and_what_it_is_given(run: Run, policy: Policy) -> None:
    for one in run.allotments(policy):
        lines = open_lines(one.order, "SA")
        assert list(one.keeps) == [line.item_id for line in lines]
        assert all(line.fulfilled <= one.keeps[line.item_id] <= line.quantity for line in lines)
        assert sum(one.keeps[line.item_id] - line.fulfilled for line in lines) == one.given


@many
@given(runs(), policies)
def test_no_line_is_given_anything_while_a_line_before_lacks_something(run: Run, policy: Policy) -> None:
    for one in run.allotments(policy):
        for line, later in pairwise(open_lines(one.order, "SA")):
            assert one.keeps[line.item_id] == line.quantity or one.keeps[later.item_id] == later.fulfilled


@many
@given(runs(), strategies, st.integers(0, 5))
def test_with_more_left_nobody_is_given_less(run: Run, strategy: Strategy, more: int) -> None:
    policy = Policy(strategy=strategy)
    richer = Run(run.orders, run.left + more).allotments(policy)
    assert all(one.given <= other.given for one, other in zip(run.allotments(policy), richer, strict=True))


@many
@given(runs(), policies, st.integers(1, 3))
def test_served_a_few_at_a_time_they_are_given_the_same(run: Run, policy: Policy, chunk: int) -> None:
    orders, left = in_allocation_order(run.orders, policy.strategy), run.left
    allotments: list[Allotment] = []
    for start in range(0, len(orders), chunk):
        served = allocate(orders[start : start + chunk], "SA", left, policy)
        left -= sum(one.given for one in served)
        allotments += served
    assert shares(allotments) == shares(run.allotments(policy))


# Carrying it out


@many
@given(runs(), policies)
def test_a_cut_leaves_exactly_what_was_given_and_a_second_one_changes_nothing(run: Run, policy: Policy) -> None:
    for one in run.allotments(policy):
        after = cut(one, run.left, policy)
        assert open_of(after) == one.given
        assert after.fulfilled == one.order.fulfilled
        assert after.has_cancellations or one.given == one.wanted


@many
@given(runs(), strategies)
def test_a_cut_leaves_the_other_skus_alone(run: Run, strategy: Strategy) -> None:
    policy = Policy(strategy=strategy)
    for one in run.allotments(policy):
        after = cut(one, run.left, policy)
        assert after.open - open_of(after) == one.order.open - open_of(one.order)


@many
@given(runs(), strategies)
def test_an_order_that_ships_complete_keeps_all_that_is_open_or_nothing(run: Run, strategy: Strategy) -> None:
    policy = Policy(ship_complete=True, strategy=strategy)
    for one in run.allotments(policy):
        assert cut(one, run.left, policy).open == (one.order.open if one.given else 0)


@many
@given(runs(), policies)
def test_a_figure_that_was_carried_out_is_enough_for_what_it_left(run: Run, policy: Policy) -> None:
    after = [cut(one, run.left, policy) for one in run.allotments(policy)]
    assert all(one.given == one.wanted for one in allocate(after, "SA", run.left, policy))

"""Cuts that may not be made yet: a shortage in its grace, and whatever comes from a source whose cuts are paused."""

from datetime import datetime, timedelta
from typing import cast

import pytest

from domain.decisions import carry_out, decide
from domain.errors import EventRejected
from domain.events import OrderEvent
from domain.operations import CancelItemPartially, CancelOrder, CancelUnfulfilled
from domain.orders import Order
from domain.outcomes import Change, Cut, Decision, Nothing, Recorded, Refused, Void, Waiting
from domain.policy import Moment, Paused, Policy
from tests.builders import (
    NOW,
    TIME,
    Json,
    closed,
    final,
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
MINUTE = timedelta(minutes=1)
GRACE = Policy(order_grace=10 * MINUTE)
PAUSED = Policy(paused=Paused(everything=True))
WMS_PAUSED = Policy(paused=Paused(sources=frozenset({"/wms"})))
SINCE = datetime.fromisoformat(TIME)
"""When an event was recorded first."""


def after(*happened: Json) -> Order:
    return play(PLACED, *happened).placed_order


def decided(order: Order | None, raw: Json, policy: Policy, minutes: float = 0, **restocks: datetime) -> Decision:
    """The decision so many minutes after the event was recorded first; `restocks` are of SKUs."""
    moment = Moment(SINCE + minutes * MINUTE, SINCE, SINCE, restocks)
    return decide(order, cast(OrderEvent, parsed(raw)), policy, moment)


def of(source: str, event: Json) -> Json:
    return {**event, "source": source}


def reason(decision: Decision) -> tuple[str, str]:
    return decision.outcome, decision.reason


def units(change: Change) -> dict[str, tuple[int, int, int]]:
    """Per item: fulfilled, cancelled, open."""
    assert change.order is not None
    return {item_id: (t.fulfilled, t.cancelled, t.open) for item_id, t in change.order.totals().items()}


# Grace


@pytest.mark.parametrize("minutes", [0, 5, 9.999999])
def test_a_shortage_that_would_cut_waits_out_its_grace(minutes: float) -> None:
    order = after()
    decision = decided(order, shortage("o1", a=4), GRACE, minutes)
    assert reason(decision) == ("waiting", "grace")
    assert carry_out(order, decision, NOW) == Change(order)


@pytest.mark.parametrize("minutes", [10, 10.000001, 9999])
def test_at_the_end_of_its_grace_it_cuts(minutes: float) -> None:
    decision = decided(after(), shortage("o1", a=4), GRACE, minutes)
    assert isinstance(decision, Cut)
    assert decision.operations == (CancelItemPartially("a", 4),)


def test_without_a_grace_it_cuts_at_once() -> None:
    assert isinstance(decided(after(), shortage("o1", a=4), Policy()), Cut)


def test_the_grace_is_counted_from_when_the_event_was_recorded_and_not_from_its_own_time() -> None:
    event = cast(OrderEvent, parsed(shortage("o1", a=4)))
    late = event.time + 60 * MINUTE
    assert reason(decide(after(), event, GRACE, Moment(late + 9 * MINUTE, late, event.time))) == ("waiting", "grace")
    assert isinstance(decide(after(), event, GRACE, Moment(late + 10 * MINUTE, late, event.time)), Cut)


def test_an_event_that_is_decided_at_its_own_time_is_at_the_start_of_its_grace() -> None:
    assert play(PLACED, shortage("o1", a=4), policy=GRACE).outcomes[-1] == "waiting"


def test_the_grace_of_skus_is_not_the_grace_of_orders() -> None:
    policy = Policy(sku_grace=10 * MINUTE)
    assert isinstance(decided(after(), shortage("o1", a=4), policy), Cut)
    assert isinstance(decided(after(), sku_shortage_of_order("o1", SA=4), policy), Cut)


def test_a_shortage_by_sku_of_an_order_has_grace_too() -> None:
    assert reason(decided(after(), sku_shortage_of_order("o1", SA=4), GRACE)) == ("waiting", "grace")


def test_a_shortage_that_would_cut_nothing_does_not_wait() -> None:
    assert reason(decided(after(), shortage("o1", a=10), GRACE)) == ("nothing", "no_cut")
    assert reason(decided(after(requested("o1")), shortage("o1", a=4), GRACE)) == ("nothing", "no_cut")


def test_a_shortage_of_an_unknown_line_is_a_dead_letter_at_once() -> None:
    with pytest.raises(EventRejected):
        decided(after(), shortage("o1", a=4, zz=1), GRACE)


def test_a_shortage_that_comes_before_its_order_waits_for_the_order() -> None:
    assert reason(decided(None, shortage("o1", a=4), GRACE)) == ("waiting", "order_not_placed")


def test_what_was_shipped_in_the_grace_is_kept() -> None:
    decision = decided(after(shipped("o1", "f1", a=7)), shortage("o1", a=4), GRACE, 10)
    assert isinstance(decision, Cut)
    assert decision.operations == (CancelItemPartially("a", 7),)


def test_what_was_shipped_whole_in_the_grace_is_not_cut() -> None:
    order = after(shipped("o1", "f1", a=10))
    assert reason(decided(order, shortage("o1", a=4), GRACE, 10)) == ("nothing", "no_cut")


def test_a_shipment_in_the_grace_may_end_it_early() -> None:
    assert reason(decided(after(shipped("o1", "f1", a=10)), shortage("o1", a=4), GRACE, 5)) == ("nothing", "no_cut")


@pytest.mark.parametrize("cancelled", [requested("o1"), requested("o1", a=None), requested("o1", a=4)])
def test_what_was_cancelled_in_the_grace_is_not_cut_again(cancelled: Json) -> None:
    assert reason(decided(after(cancelled), shortage("o1", a=4), GRACE, 10)) == ("nothing", "no_cut")


def test_how_a_cut_is_issued_is_decided_at_the_end_of_the_grace() -> None:
    decision = decided(after(requested("o1", b=None)), shortage("o1", a=0), GRACE, 10)
    assert isinstance(decision, Cut)
    assert decision.operations == (CancelOrder(),)


def test_a_restock_in_the_grace_makes_the_shortage_void() -> None:
    order = after(restocked("o1", "a", time="2026-01-01T00:05:00Z"))
    for minutes in (5, 10):
        assert isinstance(decided(order, shortage("o1", a=4), GRACE, minutes), Void)
        assert isinstance(decided(after(), shortage("o1", a=4), GRACE, minutes, SA=SINCE + MINUTE), Void)


def test_ship_complete_has_grace_like_any_cut() -> None:
    policy = Policy(ship_complete=True, order_grace=10 * MINUTE)
    assert reason(decided(after(), shortage("o1", a=9), policy)) == ("waiting", "grace")
    decision = decided(after(), shortage("o1", a=9), policy, 10)
    assert isinstance(decision, Cut)
    assert decision.operations == (CancelOrder(),)


@pytest.mark.parametrize(
    "event",
    [closed("o1"), final(shipped("o1", "f1", a=1), "f1"), requested("o1"), requested("o1", a=4)],
    ids=lambda event: event["type"],
)
def test_only_shortages_have_grace(event: Json) -> None:
    assert isinstance(decided(after(), event, GRACE), Cut)


def test_placing_has_no_grace() -> None:
    assert isinstance(decided(None, PLACED, GRACE), Recorded)


def test_waiting_tells_what_the_shortage_would_cut_from() -> None:
    assert decided(after(), shortage("o1", a=4), GRACE).facts["keeps"] == [["a", 10, 0, 4]]


# Pause


@pytest.mark.parametrize(
    "event",
    [
        shortage("o1", a=4),
        sku_shortage_of_order("o1", SA=0),
        closed("o1"),
        requested("o1"),
        requested("o1", a=4),
        requested("o1", {"unfulfilledOnly": True}),
    ],
    ids=lambda event: event["type"],
)
@pytest.mark.parametrize("policy", [PAUSED, WMS_PAUSED], ids=["everything", "its source"])
def test_no_cut_is_made_while_they_are_paused(policy: Policy, event: Json) -> None:
    order = after()
    decision = decided(order, of("/wms", event), policy)
    assert reason(decision) == ("waiting", "paused")
    assert carry_out(order, decision, NOW) == Change(order)
    assert isinstance(decided(order, of("/wms", event), Policy()), Cut)


@pytest.mark.parametrize("source", ["/erp", "/wms/2", "/WMS", "wms", "/w"])
def test_other_sources_are_not_held(source: str) -> None:
    assert isinstance(decided(after(), of(source, shortage("o1", a=4)), WMS_PAUSED), Cut)


def test_who_pauses_everything_need_name_no_source_and_may_name_some() -> None:
    policy = Policy(paused=Paused(everything=True, sources=frozenset({"/wms"})))
    assert isinstance(decided(after(), of("/erp", shortage("o1", a=4)), policy), Waiting)
    assert isinstance(decided(after(), of("/wms", shortage("o1", a=4)), policy), Waiting)


def test_ship_complete_is_paused_like_any_cut() -> None:
    policy = Policy(ship_complete=True, paused=Paused(everything=True))
    assert reason(decided(after(), shortage("o1", a=9), policy)) == ("waiting", "paused")


def test_an_order_is_placed_while_cuts_are_paused() -> None:
    assert play(PLACED, policy=PAUSED).outcomes == ["recorded"]


def test_goods_are_shipped_while_cuts_are_paused() -> None:
    played = play(PLACED, shipped("o1", "f1", a=3), policy=PAUSED)
    assert played.units["a"] == (3, 0, 7)


def test_a_restock_is_noted_while_cuts_are_paused() -> None:
    assert play(PLACED, restocked("o1", "a"), policy=PAUSED).outcomes[-1] == "recorded"


def test_of_a_final_shipment_the_goods_are_recorded_and_the_closing_waits() -> None:
    order = after()
    decision = decided(order, final(shipped("o1", "f1", a=3), "f1"), PAUSED)
    assert reason(decision) == ("waiting", "paused")
    change = carry_out(order, decision, NOW)
    assert units(change) == {"a": (3, 0, 7), "b": (0, 0, 4)}
    assert not change.cancellations
    assert change.shipment is not None


def test_a_final_shipment_that_was_held_closes_once_cuts_are_resumed() -> None:
    last = final(shipped("o1", "f1", a=3), "f1")
    held = carry_out(after(), decided(after(), last, PAUSED), NOW).order
    still = carry_out(held, decided(held, last, PAUSED), NOW)
    assert still == Change(held)
    resumed = carry_out(held, decided(held, last, Policy()), NOW)
    assert units(resumed) == {"a": (3, 7, 0), "b": (0, 4, 0)}
    assert [cancellation.operation for cancellation in resumed.cancellations] == [CancelUnfulfilled()]
    assert resumed.shipment is None


def test_the_conflicts_of_a_held_final_shipment_are_told_once() -> None:
    last = final(shipped("o1", "f1", a=12), "f1")
    held = carry_out(after(), decided(after(), last, PAUSED), NOW)
    assert [conflict.quantity for conflict in held.conflicts] == [2]
    resumed = carry_out(held.order, decided(held.order, last, Policy()), NOW)
    assert not resumed.conflicts


def test_a_final_shipment_that_leaves_nothing_open_is_recorded_at_once() -> None:
    decision = decided(after(), final(shipped("o1", "f1", a=10, b=4), "f1"), PAUSED)
    assert isinstance(decision, Recorded)


def test_a_closing_waits_for_its_fulfillments_before_it_waits_for_the_pause() -> None:
    last = final(shipped("o1", "f2", a=3), "f1", "f2")
    assert reason(decided(after(), last, PAUSED)) == ("waiting", "fulfillments_missing")
    played = play(PLACED, last, shipped("o1", "f1", a=1), policy=PAUSED)
    assert played.units == {"a": (4, 0, 6), "b": (0, 0, 4)}
    assert reason(decided(played.order, last, PAUSED)) == ("waiting", "paused")


def test_a_refusal_is_told_while_cuts_are_paused() -> None:
    decision = decided(after(), requested("o1", zz=None), PAUSED)
    assert isinstance(decision, Refused)
    assert decision.reason == "unknown_item"


def test_a_request_may_be_refused_after_the_pause_that_was_fine_before() -> None:
    request = requested("o1")
    assert isinstance(decided(after(), request, PAUSED), Waiting)
    assert reason(decided(after(shipped("o1", "f1", a=1)), request, Policy())) == ("refused", "order_fulfilled")


@pytest.mark.parametrize(
    ("happened", "event"),
    [
        ([], shortage("o1", a=10)),
        ([requested("o1")], shortage("o1", a=4)),
        ([requested("o1")], closed("o1")),
        ([shipped("o1", "f1", a=10, b=4)], closed("o1", "f1")),
    ],
    ids=["enough", "cancelled", "cancelled and closed", "shipped and closed"],
)
def test_that_nothing_is_cut_is_told_while_cuts_are_paused(happened: list[Json], event: Json) -> None:
    assert isinstance(decided(after(*happened), event, PAUSED), Nothing)


def test_that_a_shortage_is_void_is_told_while_cuts_are_paused() -> None:
    assert isinstance(decided(after(), shortage("o1", a=4), PAUSED, SA=SINCE + MINUTE), Void)


def test_a_dead_letter_is_told_while_cuts_are_paused() -> None:
    with pytest.raises(EventRejected):
        decided(after(), shortage("o1", zz=4), PAUSED)


def test_what_comes_before_its_order_waits_for_the_order_while_cuts_are_paused() -> None:
    assert reason(decided(None, requested("o1"), PAUSED)) == ("waiting", "order_not_placed")


# Both


def test_a_grace_runs_while_cuts_are_paused() -> None:
    both = Policy(order_grace=10 * MINUTE, paused=Paused(everything=True))
    assert reason(decided(after(), shortage("o1", a=4), both, 9)) == ("waiting", "grace")
    assert reason(decided(after(), shortage("o1", a=4), both, 10)) == ("waiting", "paused")
    assert isinstance(decided(after(), shortage("o1", a=4), GRACE, 11), Cut)


@pytest.mark.parametrize("minutes", [-1, 0])
def test_without_a_grace_nothing_waits_for_one_also_if_another_transaction_recorded_it_at_a_later_time(
    minutes: float,
) -> None:
    assert reason(decided(after(), shortage("o1", a=3), Policy(), minutes)) == ("applied", "shortage")

"""The guardrails as functions: what a policy makes of a cut, and what a preflight and a breaker allow."""

from dataclasses import replace
from datetime import timedelta

import pytest

from domain.decisions import carry_out, decide
from domain.guardrails import Count, Gate, Tally
from domain.orders import Order
from domain.outcomes import Cut, Held, Nothing, Recorded, Refused, Waiting
from domain.policy import Breaker, Limits, Paused, Policy, Preflight, Protected
from tests.builders import NOW, Json, closed, final, order, parsed, requested, shipped, shortage

HELD = [
    (Policy(hold="preflight"), "preflight"),
    (Policy(hold="shadow"), "shadow"),
    (Policy(protected=Protected(orders=frozenset({"o1"}))), "protected"),
]
CUTS = {
    "a shortage": shortage("o1", a=3),
    "a closing": closed("o1"),
    "a request": requested("o1"),
    "a last shipment": final(shipped("o1", "f1", a=2), "f1"),
}


def decided(event: Json, policy: Policy, of: Order | None = None) -> object:
    return decide(of or order(a=("SA", 5)), parsed(event), policy)  # type: ignore[arg-type]  # all are of an order


@pytest.mark.parametrize(("policy", "why"), HELD)
@pytest.mark.parametrize("event", CUTS.values(), ids=CUTS)
def test_every_cut_is_held_whatever_its_cause(event: Json, policy: Policy, why: str) -> None:
    decision = decided(event, policy)
    assert isinstance(decision, Held)
    assert (decision.outcome, decision.reason) == ("held", why)


def test_a_held_last_shipment_is_recorded_and_cancels_nothing() -> None:
    decision = decided(CUTS["a last shipment"], Policy(hold="preflight"))
    assert isinstance(decision, Held)
    change = carry_out(order(a=("SA", 5)), decision, NOW)
    assert change.order is not None
    assert (change.order.fulfilled, change.order.open, change.cancellations) == (2, 3, ())


def test_what_is_no_cut_is_not_held() -> None:
    policy = Policy(hold="preflight")
    assert isinstance(decided(shortage("o1", a=5), policy), Nothing)
    assert isinstance(decided(shipped("o1", "f1", a=1), policy), Recorded)
    assert isinstance(decided(requested("o1", b=1), policy), Refused)


def test_partners_are_protected_by_name() -> None:
    policy = Policy(protected=Protected(partners=frozenset({"northwind"})))
    of_partner = replace(order(a=("SA", 5)), partner="northwind")
    assert isinstance(decided(CUTS["a request"], policy, of_partner), Held)
    assert isinstance(decided(CUTS["a request"], policy), Cut)


def test_what_is_approved_passes_everything_but_a_pause_and_shadow_mode() -> None:
    approved = Policy(order_grace=timedelta(days=1), protected=Protected(frozenset({"o1"})), approved=True)
    event = CUTS["a shortage"]
    assert isinstance(decided(event, approved), Cut)
    assert isinstance(decided(event, replace(approved, hold="preflight")), Cut)
    assert isinstance(decided(event, replace(approved, paused=Paused(everything=True))), Waiting)
    assert isinstance(decided(event, replace(approved, hold="shadow")), Held)


@pytest.mark.parametrize(
    ("orders", "units", "wanting", "wanted", "exceeded"),
    [
        (10, 100, 100, 1000, False),
        (11, 100, 100, 1000, True),
        (10, 101, 100, 1000, True),
        (10, 100, 100, 200, False),
        (10, 100, 100, 199, True),
        (4, 9, 4, 10, False),  # too few want it for a share to mean anything
        (0, 0, 100, 0, False),
    ],
)
def test_a_preflight_allows_up_to_its_limits(
    orders: int, units: int, wanting: int, wanted: int, exceeded: bool
) -> None:
    preflight = Preflight(Limits(10, 100), share=0.5, share_from_orders=5)
    assert preflight.exceeded(orders, units, wanting, wanted) == exceeded
    assert not Preflight().exceeded(10**6, 10**6, 10**6, 10**6)


def test_a_gate_lets_pass_up_to_the_limit_and_nothing_after_it() -> None:
    gate = Gate(Breaker(everything=Limits(orders=3)), {("everything", ""): Count(orders=1)})
    cuts = [Tally("/wms", {"S": 1})] * 4
    stopped = [gate.admit(cut, ("/wms", str(n))) for n, cut in enumerate(cuts)]
    assert stopped == [None, None, ("everything", ""), ("everything", "")]
    assert gate.added == {("everything", ""): Count(2, 2)}
    assert gate.tripped == {("everything", ""): ("/wms", "2")}


def test_a_cut_that_one_breaker_stops_counts_for_no_other() -> None:
    gate = Gate(Breaker(each_source=Limits(units=10), each_sku=Limits(units=1)), {})
    assert gate.admit(Tally("/wms", {"S": 1, "T": 2}), ("/wms", "1")) == ("sku", "T")
    assert gate.added == {}
    assert gate.admit(Tally("/wms", {"S": 1}), ("/wms", "2")) is None
    assert gate.added == {("source", "/wms"): Count(1, 1), ("sku", "S"): Count(1, 1)}

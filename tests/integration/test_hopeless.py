"""Events over which the program trips, on both databases: each is a dead letter, and its neighbours are done.

The one that trips it here is real: an order that was placed with the very id that a replacement of another of its items
would get. Neither may be lost, so the cut cannot be made.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from domain.decisions import decide
from domain.policy import Policy, Protected
from tests.builders import Json, closed, new_id, placed, requested, shipped, shortage, sku_shortage
from tests.integration.batches import Batches, processor
from worker import serving, settle, shortages, verdicts
from worker.process import process_entries
from worker.release import release_due

TOGETHER = pytest.mark.parametrize("size", [None, 1], ids=["in one batch", "one by one"])
TAKEN = new_id("o1", "a")
ORDER = placed("o1", {}, **{"a": ("SA", 9), TAKEN: ("SB", 9)})
OTHER = placed("o2", a=("SA", 9))
CULPRITS = {
    "a shortage": shortage("o1", a=2),
    "a request": requested("o1", a=2),
    "a closing": closed("o1", "f1"),
}


@pytest.fixture(autouse=True)
def told() -> Iterator[list[Any]]:
    """What is logged. (On a console as structlog comes, each traceback would take half a second.)"""
    with capture_logs() as told:
        yield told


@pytest.fixture
def worker(emptied_engine: Engine) -> Batches:
    return Batches(emptied_engine)


@TOGETHER
@pytest.mark.parametrize("culprit", CULPRITS.values(), ids=CULPRITS.keys())
def test_the_event_at_fault_is_a_dead_letter_and_its_neighbours_are_done(
    culprit: Json, size: int | None, worker: Batches, told: list[Any]
) -> None:
    shipment = shipped("o1", "f1", a=1)
    worker.feed(ORDER, shipment, OTHER, shortage("o2", a=3), culprit, shortage("o2", a=1), b"bad", size=size)
    assert sorted(worker.dead()) == ["not_json", "unprocessable"]
    assert [one["event"] for one in told if one["log_level"] == "error"] == ["event.unprocessable"]
    assert culprit["id"] not in worker.outcomes()
    assert worker.operations() == ["cancelItemPartially"] * 2
    assert worker.totals("o2")["a"] == {"ordered": 9, "fulfilled": 0, "cancelled": 8, "open": 1}
    assert worker.totals("o1")["a"] == {"ordered": 9, "fulfilled": 1, "cancelled": 0, "open": 8}
    assert worker.wrong() == []


@TOGETHER
def test_an_order_is_placed_though_an_event_that_waited_for_it_is_at_fault(size: int | None, worker: Batches) -> None:
    """The fault is the shortage's; that it waited must not make it the order's."""
    culprit, good = shortage("o1", a=2), shortage("o1", **{TAKEN: 0})
    worker.feed(culprit, good, ORDER, size=size)
    placed_orders = worker.rows("SELECT order_id FROM orders WHERE placed_at IS NOT NULL")
    assert [row.order_id for row in placed_orders] == ["o1"]
    assert worker.dead() == ["unprocessable"]
    assert worker.outcomes() == {ORDER["id"]: "recorded", good["id"]: "applied"}
    assert worker.waiting() == {}


@TOGETHER
def test_a_shipment_is_recorded_though_a_closing_that_waited_for_it_is_at_fault(
    size: int | None, worker: Batches
) -> None:
    """No shipped unit is forgotten."""
    shipment = shipped("o1", "f1", a=1)
    worker.feed(ORDER, closed("o1", "f1"), shipment, size=size)
    assert worker.totals("o1")["a"]["fulfilled"] == 1
    assert worker.outcomes()[shipment["id"]] == "recorded"
    assert worker.dead() == ["unprocessable"]
    assert worker.waiting() == {}


@TOGETHER
@pytest.mark.parametrize("fault", [ValueError, KeyError, AssertionError, RecursionError, TypeError, ZeroDivisionError])
def test_an_event_on_which_deciding_fails_is_found_among_its_neighbours(
    fault: type[Exception], size: int | None, worker: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    culprit = shortage("o2", a=2)

    def fail_on_one(order: Any, event: Any, *rules: Any) -> Any:
        if event.id == culprit["id"]:
            raise fault("on purpose")
        return decide(order, event, *rules)

    monkeypatch.setattr(settle, "decide", fail_on_one)
    worker.feed(OTHER, shortage("o2", a=5), culprit, culprit, shortage("o2", a=1), size=size)
    assert worker.dead() == ["unprocessable"] * 2
    assert worker.operations() == ["cancelItemPartially"] * 2
    assert worker.totals("o2")["a"]["open"] == 1
    assert worker.wrong() == []
    monkeypatch.undo()
    worker.feed({**culprit, "data": {"orderId": "o2", "items": [{"itemId": "a", "fulfillableQuantity": 0}]}})
    assert worker.outcomes()[culprit["id"]] == "applied"


@pytest.mark.parametrize("what", ["release", "run", "verdict"])
def test_an_order_on_which_deciding_takes_all_memory_holds_up_no_other_order(
    what: str, emptied_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what waits beside it, nor another SKU's shortage, nor another hold that was approved."""
    protected = Policy(protected=Protected(orders=frozenset({"o1", "o2"})))
    worker = Batches(emptied_engine, protected if what == "verdict" else Policy())
    worker.feed(placed("o1", a=("SA", 9)), placed("o2", a=("SB", 9)))
    if what == "run":
        worker.feed(sku_shortage("SA", 0), sku_shortage("SB", 0))
    else:
        worker.pause()
        worker.feed(shortage("o1", a=0), shortage("o2", a=0))
        worker.resume()
    if what == "verdict":
        worker.release()
        held = [row.hold_id for row in worker.rows("SELECT hold_id FROM holds")]
        assert verdicts.give(worker.engine, held, "approved", "somebody", "a test") == 2

    def carry_out() -> None:
        of = processor(worker.engine, policy=worker.policy)
        shortages.run(of, ["SA", "SB"], seconds=60)
        release_due(of)
        verdicts.carry_out_approved(of)

    def take_all_memory_on_one(order: Any, event: Any, *rules: Any) -> Any:
        if event.data.order_id == "o1":
            raise MemoryError
        return decide(order, event, *rules)

    for module in (settle, serving, verdicts):
        monkeypatch.setattr(module, "decide", take_all_memory_on_one)
    carry_out()
    assert (worker.operations("o1"), worker.operations("o2")) == ([], ["cancelOrder"])
    monkeypatch.undo()
    carry_out()
    assert worker.operations("o1") == ["cancelOrder"]
    assert worker.wrong() == []


def test_what_is_not_foreseen_is_raised_and_leaves_nothing(worker: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever may be mended by another try (here: out of memory) condemns no event."""

    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(settle, "decide", fail)
    with pytest.raises(MemoryError):
        worker.feed(OTHER, b"bad")
    assert (worker.outcomes(), worker.dead(), worker.rows("SELECT * FROM orders")) == ({}, [], [])
    monkeypatch.undo()
    worker.process(worker.entries)
    assert worker.outcomes() == {OTHER["id"]: "recorded"}


def test_what_fails_after_the_commit_is_no_fault_of_an_event(worker: Batches) -> None:
    def fail(_: Any) -> None:
        raise AttributeError("the client of the broker tripped")

    figure = sku_shortage("SA", 0)
    with pytest.raises(AttributeError):
        process_entries(replace(processor(worker.engine), start_runs=fail), worker.entries_of(figure))
    assert worker.dead() == []
    assert worker.outcomes() == {figure["id"]: "waiting"}

"""Events that came too early, on both databases: they go on when they can, or end as dead letters, and nothing hangs."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tests.builders import Json, again, closed, final, placed, requested, shipped, shortage
from tests.integration.batches import Batches, processor
from worker.release import release_due

TOGETHER = pytest.mark.parametrize("size", [None, 1], ids=["in one batch", "one by one"])
AT_ONCE = timedelta(0)
ORDER = placed("o1", a=("SA", 9), b=("SB", 9))


@pytest.fixture
def worker(emptied_engine: Engine) -> Batches:
    return Batches(emptied_engine)


@TOGETHER
def test_what_waits_for_its_order_is_decided_in_order_of_arrival_once_it_is_there(
    size: int | None, worker: Batches
) -> None:
    cuts = [
        shortage("o1", a=6),
        requested("o1", a=5),
        shortage("o1", b=3),
        closed("o1", "f1"),
        shipped("o1", "f1", a=2),
    ]
    worker.feed(*cuts, ORDER, size=size)
    assert worker.operations() == ["cancelItemPartially", "cancelItemPartially", "cancelUnfulfilled"]
    assert [worker.outcomes()[cut["id"]] for cut in cuts] == ["applied", "refused", "applied", "applied", "recorded"]
    assert worker.totals("o1")["a"] == {"ordered": 9, "fulfilled": 2, "cancelled": 7, "open": 0}
    assert worker.waiting() == {}
    assert worker.wrong() == []


def test_what_waits_over_ten_sorts_by_arrival_and_not_by_text(worker: Batches) -> None:
    asks = [requested("o1", a=8)]
    asks += [requested("o1", {"reason": {"code": "manual", "note": str(n)}}) for n in range(12)]
    worker.feed(*asks, size=1)
    worker.feed(ORDER)
    outcomes = [worker.outcomes()[ask["id"]] for ask in asks]
    assert outcomes == ["applied", "applied"] + ["refused"] * 11
    assert [one["data"]["reason"]["note"] for one in worker.published()] == [None, "0"]


@TOGETHER
def test_a_closing_that_waits_is_released_by_a_shipment_that_waited_too(size: int | None, worker: Batches) -> None:
    worker.feed(
        final(shipped("o1", "f3", a=1), "f1", "f2", "f3"),
        shipped("o1", "f2", a=1),
        shortage("o1", a=5),
        ORDER,
        shipped("o1", "f1", b=1),
        size=size,
    )
    assert worker.operations() == ["cancelItemPartially", "cancelUnfulfilled"]
    assert worker.totals("o1") == {
        "a": {"ordered": 9, "fulfilled": 2, "cancelled": 7, "open": 0},
        "b": {"ordered": 9, "fulfilled": 1, "cancelled": 8, "open": 0},
    }
    assert worker.wrong() == []


@TOGETHER
def test_a_closing_that_waits_cuts_nothing_that_has_shipped_by_then(size: int | None, worker: Batches) -> None:
    """Though it waits only for the first of the shipments, and would cut what the second one has."""
    worker.feed(closed("o1", "f1"), shipped("o1", "f1", a=9), shipped("o1", "f2", b=9), ORDER, size=size)
    assert worker.operations() == []
    assert worker.totals("o1")["b"] == {"ordered": 9, "fulfilled": 9, "cancelled": 0, "open": 0}
    assert worker.wrong() == []


@TOGETHER
def test_a_repeat_of_what_waits_is_one_event(size: int | None, worker: Batches) -> None:
    cut = shortage("o1", a=5)
    worker.feed(cut, cut, cut, ORDER, cut, size=size)
    assert worker.operations() == ["cancelItemPartially"]
    assert worker.dead() == []
    assert worker.wrong() == []


@TOGETHER
def test_an_id_that_waits_is_taken(size: int | None, worker: Batches) -> None:
    cut = shortage("o1", a=5)
    worker.feed(cut, {**shortage("o1", a=1), "id": cut["id"]}, ORDER, size=size)
    assert worker.dead() == ["id_reused"]
    assert worker.totals("o1")["a"]["open"] == 5
    assert worker.wrong() == []


@TOGETHER
def test_what_turns_out_to_be_bad_when_its_order_comes_is_a_dead_letter_and_harms_no_other(
    size: int | None, worker: Batches
) -> None:
    bad = [shortage("o1", zz=0), placed("o1", a=("SA", 8)), shipped("o1", "f1", a=1)]
    worker.feed(shipped("o1", "f1", b=3), bad[0], bad[2], shortage("o1", a=5), ORDER, bad[1], size=size)
    assert sorted(worker.dead()) == ["fulfillment_reused", "placed_differently", "unknown_line"]
    assert {row.id for row in worker.rows("SELECT id FROM dead_letters")} == {one["id"] for one in bad}
    assert worker.waiting() == {}
    assert worker.totals("o1")["a"] == {"ordered": 9, "fulfilled": 0, "cancelled": 4, "open": 5}
    assert worker.totals("o1")["b"] == {"ordered": 9, "fulfilled": 3, "cancelled": 0, "open": 6}
    assert worker.wrong() == []


@TOGETHER
def test_the_id_of_what_turned_out_to_be_bad_is_free_again(size: int | None, worker: Batches) -> None:
    bad, mended = shortage("o1", zz=0), shortage("o1", a=5)
    worker.feed(bad, ORDER, {**mended, "id": bad["id"]}, size=size)
    assert worker.dead() == ["unknown_line"]
    assert worker.totals("o1")["a"]["open"] == 5
    assert worker.wrong() == []


def test_the_id_of_what_turned_out_to_be_bad_is_free_again_for_the_very_batch_that_brought_its_order(
    worker: Batches,
) -> None:
    """How the queue is cut into batches decides nothing: in two of them, the mended event would be applied."""
    bad, mended = shortage("o1", zz=0), shortage("o1", a=5)
    worker.feed(bad)
    worker.feed(ORDER, {**mended, "id": bad["id"]})
    assert worker.dead() == ["unknown_line"]
    assert worker.totals("o1")["a"]["open"] == 5


def test_a_repeat_of_what_turned_out_to_be_bad_is_not_lost(worker: Batches) -> None:
    bad = shortage("o1", zz=0)
    worker.feed(bad)
    worker.feed(bad)
    worker.feed(ORDER)
    assert "unknown_line" in worker.dead()
    assert worker.wrong() == []


def test_a_closing_that_waits_for_a_shipment_says_which_is_still_missing(worker: Batches) -> None:
    closing = closed("o1", "f1", "f2")
    worker.feed(ORDER, closing, size=1)
    worker.feed(shipped("o1", "f1", a=1))
    assert worker.waiting() == {closing["id"]: "fulfillments_missing"}
    (row,) = worker.rows("SELECT facts FROM events WHERE id = :id", id=closing["id"])
    assert (json.loads(row.facts) if isinstance(row.facts, str) else row.facts)["missing"] == ["f2"]
    worker.feed(shipped("o1", "f2", a=1))
    assert worker.waiting() == {}
    assert worker.outcomes()[closing["id"]] == "applied"


@TOGETHER
def test_orders_that_wait_do_not_release_each_other(size: int | None, worker: Batches) -> None:
    events = [one for n in range(5) for one in (shortage(f"o{n}", a=1), closed(f"o{n}", "f1"))]
    worker.feed(*events, placed("o3", a=("SA", 2)), size=size)
    assert worker.operations() == ["cancelItemPartially"]
    assert len(worker.waiting()) == 9
    assert worker.waiting()[events[7]["id"]] == "fulfillments_missing"
    assert worker.wrong() == []


def test_what_waited_too_long_frees_its_id_and_a_final_shipment_stays(worker: Batches) -> None:
    early, closing = shortage("o2", a=1), final(shipped("o1", "f2", a=3), "f1", "f2")
    worker.feed(ORDER, early, closing, waiting_limit=AT_ONCE)
    assert worker.waiting() == {early["id"]: "order_not_placed", closing["id"]: "fulfillments_missing"}
    assert release_due(processor(worker.engine)) == 2
    assert worker.dead() == ["waited_too_long"] * 2
    assert worker.outcomes() == {ORDER["id"]: "recorded"}
    assert worker.totals("o1")["a"] == {"ordered": 9, "fulfilled": 3, "cancelled": 0, "open": 6}
    assert worker.wrong() == []
    mended = {**shortage("o2", b=2), "id": early["id"]}
    worker.feed(placed("o2", b=("SB", 9)), mended, closing, shipped("o1", "f1", b=9))
    assert worker.outcomes()[mended["id"]] == worker.outcomes()[closing["id"]] == "applied"
    assert worker.totals("o1")["a"] == {"ordered": 9, "fulfilled": 3, "cancelled": 6, "open": 0}
    assert release_due(processor(worker.engine)) == 0
    assert worker.wrong() == []


def test_the_limit_counts_from_when_an_event_came_and_not_from_when_it_was_tried_last(worker: Batches) -> None:
    closing = closed("o1", "f1")
    worker.feed(closing, waiting_limit=AT_ONCE)
    worker.feed(ORDER, waiting_limit=timedelta(hours=1))
    assert worker.waiting() == {closing["id"]: "fulfillments_missing"}
    assert release_due(processor(worker.engine)) == 1
    (letter,) = worker.rows("SELECT sentence FROM dead_letters")
    assert "within 0 hours" in letter.sentence


def test_an_event_that_waited_too_long_is_released_alone(worker: Batches) -> None:
    due, not_due = shortage("o1", a=1), shortage("o1", a=2)
    worker.feed(due, waiting_limit=AT_ONCE)
    worker.feed(not_due)
    assert release_due(processor(worker.engine)) == 1
    worker.feed(ORDER)
    assert worker.totals("o1")["a"]["open"] == 2


def test_more_than_a_thousand_that_wait_for_one_order_go_on_together_even_as_dead_letters(worker: Batches) -> None:
    cut: Json = shortage("o1", a=5)
    worker.feed(*(shortage("o1", zz=0) for _ in range(1500)), cut, size=750)
    worker.feed(ORDER)
    assert worker.dead() == ["unknown_line"] * 1500
    assert (worker.waiting(), worker.operations()) == ({}, ["cancelItemPartially"])


def test_more_than_a_thousand_that_waited_for_one_order_too_long_are_released(worker: Batches) -> None:
    cut = shortage("o1", a=5)
    worker.feed(*(again(cut) for _ in range(1500)), waiting_limit=AT_ONCE)
    while release_due(processor(worker.engine)):
        pass
    assert worker.dead() == ["waited_too_long"] * 1500

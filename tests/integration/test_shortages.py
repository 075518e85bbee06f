"""Shortages of a SKU carried out on both databases: who loses, what counts against the figure, and what overtakes it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fakeredis import FakeRedis
from sqlalchemy import Engine

from domain.policy import Limits, Policy, Preflight
from tests.builders import (
    Json,
    closed,
    placed,
    requested,
    restocked,
    shipped,
    shortage,
    sku_restocked,
    sku_shipped,
    sku_shortage,
)
from tests.integration.batches import Batches, processor, statements
from worker import release, shortages
from worker.storage import demand
from worker.streams import Outbox

MINUTE = timedelta(minutes=1)
CHUNKS = pytest.mark.parametrize("chunk", [1, 2, 100])


@pytest.fixture
def worker(emptied_engine: Engine) -> Batches:
    return Batches(emptied_engine)


def at(minute: int) -> str:
    """A time on the day before everything arrives."""
    return f"2026-01-01T10:{minute:02}:00Z"


def ordered(name: str, units: int, *, minute: int = 0, priority: int = 0, sku: str = "S") -> Json:
    return placed(name, {"placedAt": at(minute), "priority": priority}, a=(sku, units))


def open_units(worker: Batches) -> dict[str, int]:
    rows = worker.rows("SELECT order_id, sum(open_quantity) AS units FROM order_items GROUP BY order_id")
    return {row.order_id: int(row.units) for row in rows}


def allotted(worker: Batches) -> list[tuple[Any, ...]]:
    """Rank, order, wanted, given."""
    rows = worker.rows('SELECT "rank", order_id, wanted, given FROM allotments ORDER BY allocation_id, "rank"')
    return [tuple(row) for row in rows]


@CHUNKS
def test_the_oldest_orders_are_served_first_and_the_last_one_in_part(chunk: int, worker: Batches) -> None:
    worker.feed(ordered("late", 5, minute=2), ordered("early", 5, minute=1), ordered("last", 5, minute=3))
    figure = sku_shortage("S", 7, time=at(30))
    worker.feed(figure)
    worker.run(chunk=chunk)
    assert open_units(worker) == {"early": 5, "late": 2, "last": 0}
    assert allotted(worker) == [(1, "early", 5, 5), (2, "late", 5, 2), (3, "last", 5, 0)]
    assert sorted(worker.operations()) == ["cancelItemPartially", "cancelOrder"]
    assert worker.outcomes()[figure["id"]] == "applied"
    assert worker.wrong() == []


@CHUNKS
def test_priority_comes_before_age_and_ties_are_broken_by_the_order_id(chunk: int, worker: Batches) -> None:
    worker.feed(
        ordered("b", 1, minute=1),
        ordered("a", 1, minute=1),
        ordered("Z", 1, minute=1),
        ordered("vip", 1, minute=9, priority=5),
        ordered("low", 1, minute=0, priority=-5),
    )
    worker.feed(sku_shortage("S", 0, time=at(30)))
    worker.run(chunk=chunk)
    assert [row[1] for row in allotted(worker)] == ["vip", "Z", "a", "b", "low"]
    assert worker.wrong() == []


@CHUNKS
def test_the_newest_orders_can_be_served_first(chunk: int, emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(strategy="newest_first"))
    orders = [ordered(f"o{n}", 2, minute=n // 2, priority=n % 2) for n in range(6)]
    worker.feed(*orders, sku_shortage("S", 7, time=at(30)))
    worker.run(chunk=chunk)
    assert [row[1] for row in allotted(worker)] == ["o5", "o3", "o1", "o4", "o2", "o0"]
    assert open_units(worker) == {"o5": 2, "o3": 2, "o1": 2, "o4": 1, "o2": 0, "o0": 0}
    assert worker.wrong() == []


def test_where_there_is_enough_for_all_nothing_is_cut_and_nobody_is_looked_at(worker: Batches) -> None:
    figure = sku_shortage("S", 10, time=at(30))
    worker.feed(ordered("o1", 5), ordered("o2", 5), figure)
    worker.run()
    assert (worker.outcomes()[figure["id"]], allotted(worker), worker.operations()) == ("nothing", [], [])
    assert worker.wrong() == []


def test_many_skus_that_have_enough_cost_no_more_statements_than_few(worker: Batches) -> None:
    counts = set()
    for number in (3, 60):
        skus = [f"S{number}-{n}" for n in range(number)]
        worker.feed(*(ordered(f"{sku}-order", 5, sku=sku) for sku in skus))
        figures = [sku_shortage(sku, 5, time=at(30)) for sku in skus]
        worker.feed(*figures)
        with statements(worker.engine) as sent:
            assert shortages.run(processor(worker.engine), skus, 60) == ([], [])
        counts.add(len(sent))
        assert {worker.outcomes()[one["id"]] for one in figures} == {"nothing"}
    assert len(counts) == 1
    assert worker.operations() == []
    assert worker.wrong() == []


def test_among_many_skus_those_that_are_short_are_cut_and_the_others_left_alone(worker: Batches) -> None:
    worker.feed(*(ordered(f"o{n}", 5, sku=f"S{n}") for n in range(4)))
    worker.feed({**shipped("o1", "f1", a=2), "time": at(40)})
    figures = [sku_shortage(f"S{n}", units, time=at(30)) for n, units in enumerate((5, 4, 9, 0))]
    worker.feed(*figures)
    worker.pause("/elsewhere")
    shortages.run(processor(worker.engine), [f"S{n}" for n in range(4)], 60)
    assert open_units(worker) == {"o0": 5, "o1": 2, "o2": 5, "o3": 0}
    assert [worker.outcomes()[one["id"]] for one in figures] == ["nothing", "applied", "nothing", "applied"]
    assert worker.wrong() == []


def test_a_figure_with_enough_for_all_among_many_still_ends_what_is_held(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(preflight=Preflight(Limits(orders=1))))
    worker.feed(*(ordered(f"o{n}", 5, sku=f"S{n % 2}") for n in range(4)), sku_shortage("S0", 0, time=at(20)))
    worker.run()
    worker.feed(sku_shortage("S0", 10, time=at(30)), sku_shortage("S1", 10, time=at(30)))
    shortages.run(processor(worker.engine), ["S0", "S1"], 60)
    assert {row.state for row in worker.rows("SELECT state FROM holds")} == {"superseded"}
    assert worker.wrong() == []


def test_what_shipped_after_the_figure_counts_against_it_and_what_shipped_before_does_not(worker: Batches) -> None:
    before = {**shipped("o1", "f1", a=2), "time": at(20)}
    at_once = {**sku_shipped("o1", "f2", S=1), "time": at(30)}
    after = {**shipped("o2", "f1", a=3), "time": at(31)}
    worker.feed(ordered("o1", 5), ordered("o2", 5, minute=1), before, at_once, after)
    worker.feed(sku_shortage("S", 4, time=at(30)))
    worker.run()
    assert open_units(worker) == {"o1": 1, "o2": 0}  # four, less the three that are gone
    assert worker.operations("o2") == ["cancelUnfulfilled"]
    assert worker.wrong() == []


def test_a_shipment_that_claims_to_be_of_later_than_it_came_is_of_when_it_came(worker: Batches) -> None:
    """It came before the figure, so the figure knows it."""
    worker.feed(
        ordered("o1", 5), ordered("o2", 5, minute=1), {**shipped("o1", "f1", a=3), "time": "2026-01-02T20:00:00Z"}
    )
    worker.feed(sku_shortage("S", 5, time="2026-01-02T21:00:00Z"))
    worker.run()
    assert open_units(worker) == {"o1": 2, "o2": 3}


def test_goods_shipped_by_an_order_that_wants_no_more_count_as_well_and_so_does_a_conflict(worker: Batches) -> None:
    worker.feed(ordered("gone", 2), {**shipped("gone", "f1", a=5), "time": at(40)})
    worker.feed(ordered("o1", 5), sku_shortage("S", 9, time=at(30)))
    worker.run()
    assert open_units(worker)["o1"] == 4
    assert worker.wrong() == []


def test_what_ships_between_two_chunks_is_counted_once(worker: Batches) -> None:
    worker.feed(*(ordered(f"o{n}", 2, minute=n) for n in range(4)), sku_shortage("S", 6, time=at(30)))
    worker.run_once("S", chunk=1)  # o0 is given 2
    worker.feed({**shipped("o0", "f1", a=2), "time": at(40)})  # of what it was given
    worker.feed({**shipped("o3", "f1", a=2), "time": at(40)})  # before it had its turn
    worker.run("S", chunk=1)
    assert open_units(worker) == {"o0": 0, "o1": 2, "o2": 0, "o3": 0}
    assert worker.wrong() == []


def test_what_an_order_gives_back_between_two_chunks_serves_the_next(worker: Batches) -> None:
    orders = [placed(f"o{n}", {"placedAt": at(n)}, a=("S", 4), b=("S", 2), c=("T", 3)) for n in range(6)]
    worker.feed(*orders, sku_shortage("S", 20, time=at(30)))
    changes = [
        # Of the 6 units that o0 was given it has 4 left, one of them shipped.
        [shipped("o0", "f1", a=1, c=1), shortage("o0", a=2)],
        # All 6 of o1, and one of an order that has not had its turn.
        [requested("o1"), shortage("o4", b=1)],
        [{**restocked("o0", "a"), "time": at(40)}, placed("late", {"placedAt": at(0)}, a=("S", 5))],
        [{**shipped("o3", "f1", b=1), "time": at(40)}, {**shipped("late", "f1", a=5), "time": at(40)}],
    ]
    for events in changes:
        worker.run_once("S", chunk=1)
        worker.feed(*events)
        assert [one for one in worker.wrong() if "its shortage of SKU S is due" not in one] == []
    worker.run("S", chunk=1)
    assert open_units(worker) == {"o0": 5, "o1": 0, "o2": 9, "o3": 8, "o4": 4, "o5": 3, "late": 0}
    assert worker.wrong() == []


def test_orders_placed_after_the_figure_are_not_part_of_it(worker: Batches) -> None:
    worker.feed(ordered("o1", 5, minute=30), ordered("o2", 5, minute=31), sku_shortage("S", 0, time=at(30)))
    worker.run()
    assert open_units(worker) == {"o1": 0, "o2": 5}
    assert worker.wrong() == []


def test_a_figure_that_claims_to_be_of_later_than_it_came_is_of_when_it_came(worker: Batches) -> None:
    """Its producer's clock is wrong; orders placed since are none of its business."""
    worker.feed(ordered("o1", 5), placed("o2", {"placedAt": "2026-01-02T10:00:00Z"}, a=("S", 5)))
    worker.feed(sku_shortage("S", 0, time="2026-01-02T20:00:00Z"))
    worker.run()
    assert open_units(worker) == {"o1": 0, "o2": 5}


def test_lines_of_one_order_are_served_in_item_order_and_other_skus_left_alone(worker: Batches) -> None:
    worker.feed(placed("o1", a=("S", 3), b=("T", 3), c=("S", 3)), sku_shortage("S", 4, time=at(30)))
    worker.run()
    assert {item: of["open"] for item, of in worker.totals("o1").items()} == {"a": 3, "b": 3, "c": 1}
    assert worker.operations() == ["cancelItemPartially"]
    assert worker.wrong() == []


def test_where_orders_ship_complete_what_one_cannot_use_serves_the_next(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(ship_complete=True))
    big = placed("big", {"placedAt": at(1)}, a=("S", 5), b=("T", 5))
    worker.feed(ordered("first", 3), big, ordered("small", 2, minute=2), sku_shortage("S", 6, time=at(30)))
    worker.run(chunk=1)
    assert open_units(worker) == {"first": 3, "big": 0, "small": 2}
    assert worker.operations() == ["cancelOrder"]
    assert worker.wrong() == []


@CHUNKS
def test_a_repeat_of_the_figure_under_another_id_cuts_nothing_more(chunk: int, worker: Batches) -> None:
    worker.feed(*(ordered(f"o{n}", 2, minute=n) for n in range(5)))
    for _ in range(3):
        worker.feed(sku_shortage("S", 5, time=at(30)))
        worker.run(chunk=chunk)
    assert sum(open_units(worker).values()) == 5
    assert len(worker.operations()) == 3
    assert worker.wrong() == []


def test_an_older_figure_of_the_same_source_is_stale_whichever_comes_first(worker: Batches) -> None:
    old, new = sku_shortage("S", 0, time=at(20)), sku_shortage("S", 10, time=at(30))
    worker.feed(ordered("o1", 5), new, old)
    worker.run()
    assert worker.outcomes()[old["id"]] == "stale"
    waits = sku_shortage("S", 0, time=at(31))
    worker.feed(waits)
    worker.feed(sku_shortage("S", 10, time=at(32)))
    worker.run()
    assert worker.outcomes()[waits["id"]] == "stale"
    assert worker.operations() == []
    assert worker.wrong() == []


def test_figures_of_one_time_or_of_other_sources_are_not_stale(worker: Batches) -> None:
    worker.feed(ordered("o1", 5), sku_shortage("S", 4, time=at(30)), sku_shortage("S", 3, time=at(30)))
    worker.feed(sku_shortage("S", 2, time=at(20), source="/other"))
    worker.run()
    assert open_units(worker) == {"o1": 2}
    assert worker.wrong() == []


@pytest.mark.parametrize("source", ["/test", "/other"])
@pytest.mark.parametrize("first", ["shortage", "restock"])
def test_a_restock_voids_older_shortages_of_every_source(first: str, source: str, worker: Batches) -> None:
    short, back = sku_shortage("S", 0, time=at(20)), sku_restocked("S", time=at(30), source=source)
    worker.feed(ordered("o1", 5))
    for one in (short, back) if first == "shortage" else (back, short):
        worker.feed(one)
    worker.run("S")
    assert worker.outcomes()[short["id"]] == "void"
    assert worker.outcomes()[back["id"]] == "recorded"
    assert worker.operations() == []
    assert worker.wrong() == []


def test_a_restock_that_is_older_than_a_figure_of_its_source_is_stale(worker: Batches) -> None:
    back = sku_restocked("S", time=at(20))
    worker.feed(ordered("o1", 5), sku_shortage("S", 2, time=at(30)), back)
    worker.run()
    assert worker.outcomes()[back["id"]] == "stale"
    assert open_units(worker) == {"o1": 2}


def test_a_newer_figure_ends_a_run_and_the_orders_cut_so_far_stay_cut(worker: Batches) -> None:
    figure = sku_shortage("S", 0, time=at(20))
    worker.feed(*(ordered(f"o{n}", 2, minute=n) for n in range(4)), figure)
    worker.run_once("S", chunk=2)
    worker.feed(sku_shortage("S", 3, time=at(30)))
    worker.run()
    assert worker.outcomes()[figure["id"]] == "applied"
    assert open_units(worker) == {"o0": 0, "o1": 0, "o2": 2, "o3": 1}
    assert worker.wrong() == []


def test_a_restock_of_a_sku_voids_an_older_shortage_of_an_order(worker: Batches) -> None:
    short = {**shortage("o1", a=0), "time": at(20)}
    worker.feed(ordered("o1", 5), sku_restocked("S", time=at(30)), short)
    assert worker.outcomes()[short["id"]] == "void"
    worker.feed({**shortage("o1", a=4), "time": at(31)})
    assert open_units(worker) == {"o1": 4}
    assert worker.wrong() == []


def test_what_was_restocked_of_an_order_is_not_cut_by_an_older_shortage_of_its_sku(worker: Batches) -> None:
    worker.feed(ordered("o1", 5), ordered("o2", 5, minute=1), restocked("o2", "a", time=at(25)))
    worker.feed(sku_shortage("S", 0, time=at(20)))
    worker.run()
    assert open_units(worker) == {"o1": 0, "o2": 5}
    assert [row[1] for row in allotted(worker)] == ["o1"]
    assert worker.wrong() == []


def test_what_was_restocked_of_an_order_does_not_use_up_an_older_figure(worker: Batches) -> None:
    worker.feed(ordered("o1", 5), ordered("o2", 5, minute=1), restocked("o1", "a", time=at(35)))
    worker.feed(sku_shortage("S", 5, time=at(30)))
    worker.run()
    assert worker.operations() == []
    assert worker.wrong() == []


@pytest.mark.parametrize("how", ["in a pause", "at once"])
def test_what_a_served_order_gives_back_serves_the_next_one(how: str, worker: Batches) -> None:
    worker.feed(*(ordered(f"o{n}", 5, minute=n) for n in range(3)), sku_shortage("S", 10, time=at(30)))
    worker.run_once("S", chunk=1)
    if how == "in a pause":
        worker.pause("/test")
    worker.feed({**requested("o0"), "source": "/shop"})
    worker.resume("/test")
    worker.run(chunk=1)
    assert open_units(worker) == {"o0": 0, "o1": 5, "o2": 5}
    assert worker.wrong() == []


def test_a_shipment_that_the_figure_knows_and_that_is_told_late_is_not_counted_twice(worker: Batches) -> None:
    worker.feed(*(ordered(f"o{n}", 5, minute=n) for n in range(3)), sku_shortage("S", 10, time=at(30)))
    worker.run_once("S", chunk=1)
    worker.feed({**shipped("o0", "f1", a=5), "time": at(20)})
    worker.run(chunk=1)
    assert open_units(worker) == {"o0": 0, "o1": 5, "o2": 5}
    assert worker.wrong() == []


def test_a_feed_that_reports_more_often_than_the_grace_lasts_does_cut(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(sku_grace=MINUTE))
    worker.feed(ordered("o1", 5), sku_shortage("S", 0, time=at(20)))
    worker.let_time_pass()
    worker.feed(sku_shortage("S", 1, time=at(30)))
    worker.run("S")
    assert open_units(worker) == {"o1": 1}
    assert worker.wrong() == []


def test_a_figure_that_has_enough_for_all_ends_the_grace(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(sku_grace=MINUTE))
    worker.feed(ordered("o1", 5), sku_shortage("S", 0, time=at(20)))
    worker.let_time_pass()
    worker.feed(sku_shortage("S", 9, time=at(30)))
    worker.run("S")
    worker.feed(sku_shortage("S", 0, time=at(40)))
    worker.run("S")
    assert worker.operations() == []
    assert worker.wrong() == []


def test_a_restock_that_waits_for_its_order_beside_an_older_shortage_comes_first(worker: Batches) -> None:
    short = {**shortage("o1", a=0), "time": at(20)}
    worker.feed(short)
    worker.feed(restocked("o1", "a", time=at(30)))
    worker.feed(ordered("o1", 5))
    assert worker.outcomes()[short["id"]] == "void"
    assert open_units(worker) == {"o1": 5}
    assert worker.wrong() == []


def test_what_other_events_cancel_between_two_chunks_is_seen(worker: Batches) -> None:
    worker.feed(*(ordered(f"o{n}", 2, minute=n) for n in range(4)), sku_shortage("S", 4, time=at(30)))
    worker.run_once("S", chunk=1)
    worker.feed(requested("o1"), closed("o2"))
    worker.run("S", chunk=1)
    assert open_units(worker) == {"o0": 2, "o1": 0, "o2": 0, "o3": 2}
    assert worker.wrong() == []


def test_a_run_needs_the_same_number_of_statements_however_many_orders_a_chunk_has(worker: Batches) -> None:
    counts = set()
    for number in (2, 30):
        worker.feed(*(ordered(f"{number}-{n}", 2, sku=f"S{number}") for n in range(number)))
        worker.feed(sku_shortage(f"S{number}", 3, time=at(30)))
        with statements(worker.engine) as sent:
            worker.run_once(f"S{number}", chunk=number + 1)
        counts.add(len(sent))
    assert len(counts) == 1
    assert counts.pop() <= 30


def test_a_message_keeps_its_time_also_between_skus_that_are_soon_done(worker: Batches) -> None:
    skus = [f"S{n}" for n in range(4)]
    worker.feed(placed("o1", **{f"i{n}": (sku, 1) for n, sku in enumerate(skus)}))
    worker.feed(*(sku_shortage(sku, 0, time=at(30)) for sku in skus))
    assert shortages.run(processor(worker.engine), skus, seconds=0) == ([], skus[1:])
    assert shortages.run(processor(worker.engine), skus[1:], seconds=60) == ([], [])
    assert open_units(worker) == {"o1": 0}


def test_a_run_goes_on_though_the_relay_cannot_be_woken(worker: Batches) -> None:
    worker.feed(ordered("o1", 1), ordered("o2", 1))
    worker.feed(sku_shortage("S", 0, time=at(30)))
    redis_is_away = FakeRedis(connected=False)
    alone = replace(processor(worker.engine), outbox=Outbox(redis_is_away, "order.cancelled"), orders_a_chunk=1)
    assert shortages.run(alone, ["S"], seconds=60) == ([], [])
    assert open_units(worker) == {"o1": 0, "o2": 0}


def test_a_sku_that_fails_holds_up_no_other(worker: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.feed(ordered("o1", 1, sku="A"), ordered("o2", 1, sku="B"))
    worker.feed(sku_shortage("A", 0, time=at(30)), sku_shortage("B", 0, time=at(30)))

    def fail_on_a(connection: Any, allocation: Any, size: int) -> Any:
        if allocation.sku == "A":
            connection.exec_driver_sql("SELECT * FROM no_such_table")
        return pick(connection, allocation, size)

    pick = demand.pick
    monkeypatch.setattr(demand, "pick", fail_on_a)
    assert shortages.run(processor(worker.engine), ["A", "B"], seconds=60) == ([], [])
    assert open_units(worker) == {"o1": 1, "o2": 0}
    monkeypatch.undo()
    worker.run()
    assert open_units(worker) == {"o1": 0, "o2": 0}


def test_an_order_whose_waiting_events_fail_holds_up_no_other(
    emptied_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Batches(emptied_engine, Policy(order_grace=MINUTE))
    worker.feed(*(one for n in range(3) for one in (ordered(f"o{n}", 5), shortage(f"o{n}", a=n))))
    worker.let_time_pass()

    def fail_on_one(known: Any, *rest: Any) -> Any:
        if "o1" in known:
            raise ValueError("on purpose")
        return settle_waiting(known, *rest)

    settle_waiting = release.settle_waiting
    monkeypatch.setattr(release, "settle_waiting", fail_on_one)
    assert worker.release() == 2
    assert open_units(worker) == {"o0": 0, "o1": 5, "o2": 2}
    monkeypatch.undo()
    assert worker.release() == 1
    assert worker.wrong() == []


# Grace


def test_a_shortage_of_a_sku_waits_for_its_grace_and_is_decided_from_the_state_of_then(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(sku_grace=MINUTE))
    figure = sku_shortage("S", 5, time=at(30))
    worker.feed(ordered("o1", 5), ordered("o2", 5, minute=1), figure)
    assert worker.run() == 0
    worker.run("S")
    assert (worker.outcomes()[figure["id"]], worker.operations()) == ("waiting", [])
    worker.feed({**shipped("o1", "f1", a=5), "time": at(20)})  # it was on its way, and the figure knows it
    worker.let_time_pass()
    worker.run()
    assert worker.outcomes()[figure["id"]] == "nothing"
    assert worker.wrong() == []


def test_a_shortage_of_an_order_waits_for_its_grace_and_other_events_do_not_release_it(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(order_grace=MINUTE))
    short = shortage("o1", a=2)
    worker.feed(ordered("o1", 9), short)
    worker.feed(shipped("o1", "f1", a=3), requested("o1", a=8))
    assert worker.release() == 0
    assert worker.waiting() == {short["id"]: "grace"}
    assert open_units(worker) == {"o1": 5}
    worker.let_time_pass()
    assert worker.release() == 1
    assert worker.waiting() == {}
    assert open_units(worker) == {"o1": 0}
    assert worker.operations()[-1] == "cancelUnfulfilled"
    assert worker.wrong() == []


def test_a_shortage_without_a_cut_waits_for_nothing(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(order_grace=MINUTE))
    short = shortage("o1", a=9)
    worker.feed(ordered("o1", 9), short)
    assert worker.outcomes()[short["id"]] == "nothing"


def test_a_restock_voids_what_waits_for_its_grace(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(order_grace=MINUTE, sku_grace=MINUTE))
    short, of_sku = {**shortage("o1", a=0), "time": at(20)}, sku_shortage("S", 0, time=at(20))
    worker.feed(ordered("o1", 9), ordered("o2", 9), short, of_sku)
    worker.feed(sku_restocked("S", time=at(30)))
    worker.run("S")
    assert worker.outcomes()[of_sku["id"]] == "void"  # at once: whoever looks need not wait for the end of the grace
    worker.let_time_pass()
    worker.release()
    assert worker.outcomes()[short["id"]] == "void"
    assert worker.operations() == []
    assert worker.wrong() == []


# Pause


def test_while_everything_is_paused_facts_are_recorded_and_cuts_wait(worker: Batches) -> None:
    worker.pause()
    short, of_sku, asked = shortage("o1", a=1), sku_shortage("T", 0, time=at(30)), requested("o3")
    ends = {
        **shipped("o2", "f1", a=1),
        "data": {**shipped("o2", "f1", a=1)["data"], "final": True, "fulfillmentIds": ["f1"]},
    }
    worker.feed(ordered("o1", 3), ordered("o2", 3), ordered("o3", 3, sku="T"), short, of_sku, asked, ends)
    assert worker.run() == 0
    worker.run("T")
    assert worker.waiting() == {short["id"]: "paused", asked["id"]: "paused", ends["id"]: "paused"}
    assert worker.outcomes()[of_sku["id"]] == "waiting"
    assert (worker.operations(), open_units(worker)) == ([], {"o1": 3, "o2": 2, "o3": 3})
    assert worker.release() == 0
    assert worker.wrong(paused=True) == []
    worker.resume()
    assert worker.release() == 3
    worker.run()
    assert open_units(worker) == {"o1": 1, "o2": 0, "o3": 0}
    assert worker.wrong() == []


def test_a_pause_of_one_source_holds_no_other(worker: Batches) -> None:
    worker.pause("/wms")
    held = {**shortage("o1", a=1), "source": "/wms"}
    worker.feed(ordered("o1", 3), ordered("o2", 3), held, shortage("o2", a=1))
    worker.feed(sku_shortage("S", 0, time=at(30), source="/wms"), sku_shortage("S", 2, time=at(31)))
    worker.run()
    assert open_units(worker) == {"o1": 2, "o2": 0}
    assert worker.waiting() == {held["id"]: "paused"}
    assert worker.release() == 0
    worker.resume("/wms")
    assert worker.release() == 1
    worker.run()
    assert open_units(worker) == {"o1": 0, "o2": 0}
    assert worker.wrong() == []


def test_what_waited_is_decided_again_after_the_pause_from_the_state_of_then(worker: Batches) -> None:
    worker.pause()
    asked, short = requested("o1"), shortage("o2", a=2)
    worker.feed(ordered("o1", 3), ordered("o2", 3), asked, short, shipped("o1", "f1", a=1), shipped("o2", "f1", a=3))
    worker.resume()
    worker.release()
    assert worker.outcomes()[asked["id"]] == "refused"
    assert worker.outcomes()[short["id"]] == "nothing"
    assert worker.wrong() == []


def test_a_run_stops_at_a_pause_and_goes_on_after_it(worker: Batches) -> None:
    worker.feed(*(ordered(f"o{n}", 2, minute=n) for n in range(4)), sku_shortage("S", 3, time=at(30)))
    worker.run_once("S", chunk=2)
    worker.pause()
    assert not worker.run_once("S", chunk=2)
    assert open_units(worker) == {"o0": 2, "o1": 1, "o2": 2, "o3": 2}
    worker.resume()
    worker.run(chunk=2)
    assert open_units(worker) == {"o0": 2, "o1": 1, "o2": 0, "o3": 0}
    assert worker.wrong() == []


def test_what_is_paused_never_becomes_a_dead_letter_however_long_it_waits(worker: Batches) -> None:
    worker.pause()
    short = shortage("o1", a=1)
    worker.feed(ordered("o1", 3), short, waiting_limit=timedelta(0))
    worker.let_time_pass()
    assert worker.release() == 0
    assert worker.waiting() == {short["id"]: "paused"}


def test_two_pauses_end_one_by_one(worker: Batches) -> None:
    worker.pause()
    worker.pause("/test")
    worker.feed(ordered("o1", 3), shortage("o1", a=1))
    worker.resume()
    assert worker.release() == 0
    worker.resume("/test")
    assert worker.release() == 1


def test_a_waiting_event_tells_what_it_waited_for_one_after_the_other(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(order_grace=MINUTE))
    short = shortage("o1", a=1)
    worker.feed(short)
    worker.feed(ordered("o1", 3))
    worker.let_time_pass()
    worker.pause()
    worker.release()
    worker.resume()
    worker.release()
    (facts,) = worker.facts(short["id"])
    assert [reason for reason, _ in facts["waited"]] == ["order_not_placed", "grace", "paused"]
    assert worker.operations() == ["cancelItemPartially"]

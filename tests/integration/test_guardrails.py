"""Preflight, breaker, holds, protection and shadow mode, on both databases: what is held, and what becomes of it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from domain.policy import Breaker, Limits, Policy, Preflight, Protected
from tests.builders import (
    Json,
    closed,
    final,
    placed,
    requested,
    restocked,
    shipped,
    shortage,
    sku_restocked,
    sku_shortage,
)
from tests.integration.batches import Batches, processor
from worker import verdicts
from worker.process import process_entries
from worker.storage import breakers, database, holds
from worker.storage.database import transaction

TOGETHER = pytest.mark.parametrize("size", [None, 1], ids=["in one batch", "one by one"])
CHUNKS = pytest.mark.parametrize("chunk", [2, 100])


def at(minute: int) -> str:
    return f"2026-01-01T10:{minute:02}:00Z"


def ordered(name: str, units: int = 5, *, minute: int = 0, partner: str | None = None, sku: str = "S") -> Json:
    more: Json = {"placedAt": at(minute)} | ({"partner": partner} if partner else {})
    return placed(name, more, a=(sku, units))


def cuts(number: int) -> list[Json]:
    """Shortages of so many orders, two units of each."""
    return [shortage(f"o{n}", a=3) for n in range(number)]


def states(worker: Batches) -> list[tuple[Any, ...]]:
    rows = worker.rows("SELECT order_id, why, units, state, outcome FROM holds ORDER BY hold_id")
    return [tuple(row) for row in rows]


def decide(worker: Batches, verdict: holds.Verdict) -> int:
    """Decide all that is held, and carry out what was approved."""
    with database.reading(worker.engine) as connection:
        chosen = holds.select_ids(connection, [], None, None, everything=True)
    number = verdicts.give(worker.engine, chosen, verdict, "ann", "a test")
    verdicts.carry_out_approved(processor(worker.engine, policy=worker.policy))
    return number


def open_units(worker: Batches) -> dict[str, int]:
    rows = worker.rows("SELECT order_id, sum(open_quantity) AS units FROM order_items GROUP BY order_id")
    return {row.order_id: int(row.units) for row in rows}


# Preflight

PREFLIGHTS = {
    "orders": Preflight(Limits(orders=2)),
    "units": Preflight(Limits(units=14)),
    "share": Preflight(share=0.7, share_from_orders=3),
}


@CHUNKS
@pytest.mark.parametrize("preflight", PREFLIGHTS.values(), ids=PREFLIGHTS)
def test_a_shortage_that_would_cut_too_much_is_held_as_a_whole(
    preflight: Preflight, chunk: int, emptied_engine: Engine
) -> None:
    worker = Batches(emptied_engine, Policy(preflight=preflight))
    figure = sku_shortage("S", 5, time=at(30))
    worker.feed(*(ordered(f"o{n}", minute=n) for n in range(4)), figure)
    worker.run(chunk=chunk)
    assert worker.operations() == []
    assert worker.outcomes()[figure["id"]] == "held"
    assert states(worker) == [(f"o{n}", "preflight", 5, "open", None) for n in (1, 2, 3)]
    (facts,) = worker.facts(figure["id"])
    assert (facts["hold"]["why"], facts["hold"]["orders"], facts["hold"]["units"]) == ("preflight", 3, 15)
    assert facts["hold"]["limits"]["limits"] == {"orders": preflight.limits.orders, "units": preflight.limits.units}
    assert worker.wrong() == []


@pytest.mark.parametrize("preflight", [Preflight(Limits(3, 15), 0.75, 3), Preflight(share=0.5, share_from_orders=5)])
def test_a_shortage_within_the_limits_is_carried_out(preflight: Preflight, emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(preflight=preflight))
    worker.feed(*(ordered(f"o{n}", minute=n) for n in range(4)), sku_shortage("S", 5, time=at(30)))
    worker.run()
    assert open_units(worker) == {"o0": 5, "o1": 0, "o2": 0, "o3": 0}
    assert worker.wrong() == []


@CHUNKS
def test_what_is_approved_is_cut_as_it_would_have_been(chunk: int, emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(preflight=Preflight(Limits(orders=1))))
    figure = sku_shortage("S", 7, time=at(30))
    worker.feed(*(ordered(f"o{n}", minute=n) for n in range(4)), figure)
    worker.run(chunk=chunk)
    assert decide(worker, "approved") == 3
    assert open_units(worker) == {"o0": 5, "o1": 2, "o2": 0, "o3": 0}
    assert worker.outcomes()[figure["id"]] == "applied"
    assert {row[3:] for row in states(worker)} == {("carried_out", "applied")}
    assert decide(worker, "approved") == 0
    assert worker.wrong() == []


def test_what_is_rejected_is_final_for_that_event_alone(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(preflight=Preflight(Limits(orders=1))))
    figure = sku_shortage("S", 0, time=at(30))
    worker.feed(*(ordered(f"o{n}") for n in range(3)), figure)
    worker.run()
    assert decide(worker, "rejected") == 3
    assert worker.outcomes()[figure["id"]] == "nothing"
    worker.feed(figure)
    worker.run("S")
    assert worker.operations() == []
    worker.feed(shortage("o0", a=1))
    assert worker.operations() == ["cancelItemPartially"]
    assert worker.wrong() == []


def test_what_is_approved_is_decided_again_from_the_present_state(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(preflight=Preflight(Limits(orders=1))))
    worker.feed(*(ordered(f"o{n}") for n in range(3)), sku_shortage("S", 0, time=at(30)))
    worker.run()
    worker.feed(shipped("o0", "f1", a=5), shipped("o1", "f1", a=2), requested("o2"))
    decide(worker, "approved")
    assert {row[0]: row[4] for row in states(worker)} == {"o0": "nothing", "o1": "applied", "o2": "nothing"}
    assert worker.totals("o1")["a"] == {"ordered": 5, "fulfilled": 2, "cancelled": 3, "open": 0}
    assert worker.wrong() == []


def test_a_newer_figure_ends_what_nobody_has_decided(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(preflight=Preflight(Limits(orders=2))))
    false, true = sku_shortage("S", 0, time=at(30)), sku_shortage("S", 10, time=at(31))
    worker.feed(*(ordered(f"o{n}", minute=n) for n in range(3)), false)
    worker.run()
    assert len(states(worker)) == 3
    worker.feed(true)
    worker.run()
    assert {row[3:] for row in states(worker)} == {("superseded", "stale")}
    assert worker.outcomes()[false["id"]] == "stale"
    assert open_units(worker) == {"o0": 5, "o1": 5, "o2": 0}
    assert worker.wrong() == []


@pytest.mark.parametrize("when", ["before it is approved", "after it was approved"])
def test_a_restock_voids_what_is_held(when: str, emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(preflight=Preflight(Limits(orders=1))))
    figure = sku_shortage("S", 0, time=at(30))
    worker.feed(ordered("o1"), ordered("o2"), figure)
    worker.run()
    if when == "after it was approved":
        worker.pause()
        decide(worker, "approved")
        worker.resume()
    worker.feed(sku_restocked("S", time=at(31)))
    worker.run("S")
    verdicts.carry_out_approved(processor(worker.engine))
    assert {row[3:] for row in states(worker)} == {("superseded", "void")}
    assert worker.outcomes()[figure["id"]] == "void"
    assert worker.operations() == []
    assert worker.wrong() == []


def test_an_approved_hold_does_not_pass_a_pause(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(preflight=Preflight(Limits(orders=1))))
    worker.feed(ordered("o1"), ordered("o2"), sku_shortage("S", 0, time=at(30)))
    worker.run()
    worker.pause("/test")
    decide(worker, "approved")
    assert (worker.operations(), {row[3] for row in states(worker)}) == ([], {"approved"})
    worker.resume("/test")
    verdicts.carry_out_approved(processor(worker.engine))
    assert len(worker.operations()) == 2
    assert worker.wrong() == []


# Breaker


@TOGETHER
def test_the_breaker_stops_exactly_at_its_limit(size: int | None, emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(breaker=Breaker(everything=Limits(orders=3))))
    worker.feed(*(ordered(f"o{n}") for n in range(6)), *cuts(6), size=size)
    assert len(worker.operations()) == 3
    assert [row[:4] for row in states(worker)] == [(f"o{n}", "breaker", 2, "open") for n in (3, 4, 5)]
    assert worker.wrong() == []


@TOGETHER
def test_units_are_limited_too_and_what_is_smaller_does_not_slip_through(
    size: int | None, emptied_engine: Engine
) -> None:
    worker = Batches(emptied_engine, Policy(breaker=Breaker(everything=Limits(units=5))))
    worker.feed(*(ordered(f"o{n}") for n in range(4)), *cuts(3), shortage("o3", a=4), size=size)
    assert sum(one["data"]["items"][0]["cancelledQuantity"] for one in worker.published()) == 4
    assert [row[0] for row in states(worker)] == ["o2", "o3"]


def test_sources_and_skus_have_breakers_of_their_own(emptied_engine: Engine) -> None:
    breaker = Breaker(each_source=Limits(orders=2), each_sku=Limits(units=2))
    worker = Batches(emptied_engine, Policy(breaker=breaker))
    worker.feed(*(ordered(f"o{n}", sku=f"S{n // 2}") for n in range(4)))
    worker.feed(shortage("o0", a=3), shortage("o1", a=3), {**shortage("o2", a=3), "source": "/other"})
    assert [row[0] for row in states(worker)] == ["o1"]  # no more of S0
    worker.feed({**shortage("o1", a=4), "source": "/third"}, {**shortage("o3", a=3), "source": "/third"})
    assert [row[0] for row in states(worker)] == ["o1", "o1", "o3"]
    with database.reading(worker.engine) as connection:
        assert [(row.scope, row.name) for row in breakers.is_open(connection)] == [("sku", "S0"), ("sku", "S1")]


def test_an_open_breaker_stays_open_until_a_person_closes_it_and_counts_anew_then(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(breaker=Breaker(timedelta(hours=1), everything=Limits(orders=2))))
    worker.feed(*(ordered(f"o{n}") for n in range(8)), *cuts(3))
    worker.feed(shortage("o3", a=3))
    assert len(worker.operations()) == 2
    with transaction(worker.engine) as connection:
        assert breakers.close(connection, ("everything", ""), "the feed is mended", "ann")
        assert not breakers.close(connection, ("everything", ""), "again", "ann")
    worker.feed(*(shortage(f"o{n}", a=3) for n in range(4, 8)))
    assert len(worker.operations()) == 4
    assert decide(worker, "approved") == 4  # they pass the breaker, which has opened again
    assert len(worker.operations()) == 8
    assert worker.wrong() == []


def test_what_was_cancelled_before_the_window_does_not_count(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(breaker=Breaker(timedelta(hours=1), everything=Limits(orders=2))))
    worker.feed(*(ordered(f"o{n}") for n in range(4)), *cuts(2))
    with transaction(worker.engine) as connection:
        connection.exec_driver_sql("UPDATE breaker_counts SET since = '2025-01-01T00:00:00.000000+00:00'")
    worker.feed(shortage("o2", a=3), shortage("o3", a=3))
    assert len(worker.operations()) == 4


@CHUNKS
def test_a_run_stops_at_the_breaker_and_the_rest_of_it_is_held(chunk: int, emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(breaker=Breaker(everything=Limits(orders=3))))
    figure = sku_shortage("S", 5, time=at(30))
    worker.feed(*(ordered(f"o{n}", minute=n) for n in range(6)), figure)
    worker.run(chunk=chunk)
    assert open_units(worker) == {"o0": 5, "o1": 0, "o2": 0, "o3": 0, "o4": 5, "o5": 5}
    assert [row[:4] for row in states(worker)] == [(f"o{n}", "breaker", 5, "open") for n in (4, 5)]
    assert worker.outcomes()[figure["id"]] == "applied"
    decide(worker, "approved")
    assert open_units(worker) == {"o0": 5, **{f"o{n}": 0 for n in range(1, 6)}}
    assert worker.wrong() == []


def test_eight_workers_at_once_stop_exactly_at_the_limit(engine: Engine, database_url: str) -> None:
    limit, number = 37, 120
    policy = Policy(breaker=Breaker(everything=Limits(orders=limit)))
    worker = Batches(engine, policy)
    worker.feed(*(ordered(f"o{n}") for n in range(number)))

    def trickle(first: int) -> None:
        own = database.create(database_url)
        for n in range(first, number, 8):
            process_entries(processor(own, policy=policy), worker.entries_of(shortage(f"o{n}", a=3)))
        own.dispose()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(trickle, first) for first in range(8)]:
            done.result()
    assert len(worker.operations()) == limit
    assert len(states(worker)) == number - limit
    assert worker.wrong() == []


# Protected, and shadow mode


def test_cuts_of_the_protected_are_always_held_and_their_shipments_recorded(emptied_engine: Engine) -> None:
    protected = Protected(frozenset({"vip"}), frozenset({"northwind"}))
    worker = Batches(emptied_engine, Policy(protected=protected))
    worker.feed(ordered("vip"), ordered("o1", partner="northwind"), ordered("o2", partner="other"), ordered("o3"))
    worker.feed(shortage("vip", a=1), requested("o2"), final(shipped("o1", "f1", a=2), "f1"), closed("o3"))
    assert sorted(worker.operations()) == ["cancelUnfulfilled", "cancelOrder"][::-1]
    assert [row[:4] for row in states(worker)] == [("vip", "protected", 4, "open"), ("o1", "protected", 3, "open")]
    assert open_units(worker)["o1"] == 3
    decide(worker, "approved")
    assert open_units(worker) == {"vip": 1, "o1": 0, "o2": 0, "o3": 0}
    assert worker.wrong() == []


def test_in_shadow_mode_everything_is_decided_and_nothing_cancelled(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(hold="shadow"))
    worker.feed(ordered("o1"), ordered("o2"), shipped("o2", "f1", a=1), shortage("o1", a=2), closed("o2", "f1"))
    worker.feed(sku_shortage("S", 1, time=at(30)))
    worker.run()
    assert worker.operations() == []
    assert open_units(worker) == {"o1": 5, "o2": 4}
    assert [row[:4] for row in states(worker)] == [
        ("o1", "shadow", 3, "shadow"),
        ("o2", "shadow", 4, "shadow"),
        ("o1", "shadow", 4, "shadow"),
        ("o2", "shadow", 4, "shadow"),
    ]
    assert decide(worker, "approved") == 0
    assert worker.wrong() == []


# What changes in the middle


def opened(worker: Batches) -> list[tuple[str, str]]:
    with database.reading(worker.engine) as connection:
        return [(row.scope, row.name) for row in breakers.is_open(connection)]


def test_a_run_that_began_before_shadow_mode_cancels_nothing_more(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine)
    worker.feed(*(ordered(f"o{n}", minute=n) for n in range(4)), sku_shortage("S", 0, time=at(30)))
    worker.run_once("S", chunk=1)
    assert len(worker.operations()) == 1
    worker.policy = Policy(hold="shadow")
    worker.run("S", chunk=1)
    assert len(worker.operations()) == 1


def test_a_breaker_opened_in_an_earlier_round_is_opened(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(breaker=Breaker(each_source=Limits(orders=1))))
    worker.feed(ordered("o0"), ordered("o1"), ordered("o2"), requested("o0"))
    worker.feed(requested("o1"), {**requested("o1"), "source": "/other"})
    assert [row[:2] for row in states(worker)] == [("o1", "breaker")]
    assert ("source", "/test") in opened(worker)


@pytest.mark.parametrize("chunk", [1, 100])
def test_a_held_order_takes_nothing_from_the_next_that_ships_complete(chunk: int, emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(ship_complete=True, protected=Protected(frozenset({"o1"}))))
    worker.feed(ordered("o0", 5), ordered("o1", 5, minute=1), ordered("o2", 2, minute=2))
    worker.feed(sku_shortage("S", 7, time=at(30)))
    worker.run(chunk=chunk)
    assert [row[0] for row in states(worker)] == ["o1"]
    assert open_units(worker) == {"o0": 5, "o1": 5, "o2": 2}


@pytest.mark.parametrize(("verdict", "kept"), [("approved", {"o0": 0, "o1": 5}), ("rejected", {"o0": 8, "o1": 0})])
def test_what_a_held_order_keeps_is_left_for_nobody_once_its_cut_is_rejected(
    verdict: holds.Verdict, kept: dict[str, int], emptied_engine: Engine
) -> None:
    worker = Batches(emptied_engine, Policy(ship_complete=True, protected=Protected(frozenset({"o0"}))))
    worker.feed(ordered("o0", 8), ordered("o1", 5, minute=1), sku_shortage("S", 7, time=at(30)))
    worker.run_once("S", chunk=1)
    assert decide(worker, verdict) == 1
    worker.run("S", chunk=1)
    assert open_units(worker) == kept
    assert worker.wrong() == []


@pytest.mark.parametrize("chunk", [1, 100])
def test_what_a_preflight_holds_does_not_depend_on_the_chunk(chunk: int, emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(ship_complete=True, preflight=Preflight(Limits(orders=1))))
    worker.feed(ordered("o0", 5), ordered("o1", 5, minute=1), ordered("o2", 5, minute=2), ordered("o3", 2, minute=3))
    worker.feed(sku_shortage("S", 7, time=at(30)))
    worker.run(chunk=chunk)
    assert [row[0] for row in states(worker)] == ["o1", "o2"]


def test_the_preflight_counts_all_that_orders_lose_which_ship_complete(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(ship_complete=True, preflight=Preflight(Limits(units=5))))
    worker.feed(placed("o0", {"placedAt": at(0)}, a=("S", 100), b=("T", 50)), sku_shortage("S", 99, time=at(30)))
    worker.run()
    assert worker.operations() == []


def test_orders_that_are_placed_late_do_not_slip_past_the_preflight(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(preflight=Preflight(Limits(orders=2))))
    worker.feed(ordered("o0"), ordered("o1", minute=1), sku_shortage("S", 0, time=at(30)))
    worker.run_once("S", chunk=1)
    worker.feed(*(ordered(f"late{n}", minute=10 + n) for n in range(5)))
    worker.run("S", chunk=1)
    assert len(worker.operations()) <= 2


def test_one_approved_hold_that_fails_does_not_starve_the_others(
    emptied_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Batches(emptied_engine, Policy(protected=Protected(frozenset({"o1", "o2"}))))
    worker.feed(ordered("o1"), ordered("o2"), shortage("o1", a=3), shortage("o2", a=3))
    add = verdicts.ledger.add

    def failing(connection: Any, rows: Any) -> None:
        if any(row.order_id == "o1" for row in rows):
            raise IntegrityError("a test", {}, Exception())
        add(connection, rows)

    monkeypatch.setattr(verdicts.ledger, "add", failing)
    decide(worker, "approved")
    assert open_units(worker) == {"o1": 5, "o2": 3}


@pytest.mark.parametrize("of", ["its item", "its SKU", "another SKU"])
def test_a_held_shortage_of_an_order_is_void_once_restocked_even_if_nobody_decides(
    of: str, emptied_engine: Engine
) -> None:
    worker = Batches(emptied_engine, Policy(protected=Protected(frozenset({"o1", "o2"}))))
    held, other = {**shortage("o1", a=3), "time": at(30)}, {**shortage("o2", a=3), "time": at(40)}
    worker.feed(ordered("o1"), ordered("o2"), held, other)
    back = {"its item": restocked("o1", "a", time=at(35)), "its SKU": sku_restocked("S", time=at(35))}
    worker.feed(back.get(of, sku_restocked("T", time=at(35))))
    worker.run("S", "T")
    assert worker.outcomes()[held["id"]] == ("held" if of == "another SKU" else "void")
    assert worker.outcomes()[other["id"]] == "held"
    assert worker.wrong() == []


def test_a_hold_that_a_restock_voids_makes_its_event_void(emptied_engine: Engine) -> None:
    worker = Batches(emptied_engine, Policy(protected=Protected(frozenset({"o1"}))))
    held = {**shortage("o1", a=3), "time": at(30)}
    worker.feed(ordered("o1"), held, restocked("o1", "a", time=at(31)))
    decide(worker, "approved")
    assert states(worker)[0][3:] == ("superseded", "void")
    assert worker.outcomes()[held["id"]] == "void"


def test_a_shortage_of_a_sku_is_carried_out_as_it_would_have_been_when_ship_complete_was_set_since(
    emptied_engine: Engine,
) -> None:
    worker = Batches(emptied_engine, Policy(protected=Protected(frozenset({"o1"}))))
    worker.feed(placed("o1", {"placedAt": at(0)}, a=("S", 5), b=("T", 5)), sku_shortage("S", 3, time=at(30)))
    worker.run()
    assert states(worker)[0][2] == 2
    worker.policy = Policy(ship_complete=True)
    decide(worker, "approved")
    assert open_units(worker) == {"o1": 8}
    assert worker.wrong() == []

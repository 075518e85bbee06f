"""Runs, approved holds and breakers that meet on PostgreSQL: none of them may block another for good."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from domain.policy import Breaker, Limits, Policy, Preflight, Protected
from tests.builders import requested, shortage, sku_restocked, sku_shortage
from tests.integration.batches import Batches, processor
from tests.integration.races import Race
from tests.integration.test_guardrails import at, ordered, states
from worker import shortages, verdicts
from worker.storage import database, holds


@pytest.fixture
def race(postgres_url: str) -> Iterator[Race]:
    """On SQLite, where one transaction that writes excludes all others, none of this can happen."""
    race = Race(postgres_url)
    yield race
    race.close()


def _approve_first(engine: Engine, number: int) -> None:
    with database.reading(engine) as connection:
        chosen = holds.select_ids(connection, [], None, None, everything=True)
    verdicts.give(engine, chosen[:number], "approved", "ann", "a test")


def test_a_newer_figure_and_an_approved_hold_do_not_block_each_other(race: Race) -> None:
    """Run: events, then orders. Verdict: orders, then events."""
    worker = Batches(race.watch, Policy(preflight=Preflight(Limits(orders=1))))
    worker.feed(*(ordered(f"o{n}") for n in range(3)), sku_shortage("S", 0, time=at(30)))
    worker.run()
    _approve_first(race.watch, 1)  # o0 is approved, o1 and o2 are open
    worker.feed(sku_shortage("S", 14, time=at(29), source="/other"))  # (no newer figure of /test: o0 stays due)
    verdict, running = race.racers(2)
    # The verdict has locked o0 and read the figures; then a newer figure comes and its run supersedes o1 and o2.
    verdict.stop_before("SELECT allocations.").start(
        lambda engine: verdicts.carry_out_once(processor(engine, policy=worker.policy))
    )
    verdict.wait_until_stopped()
    worker.feed(sku_shortage("S", 0, time=at(31)))
    running.start(lambda engine: shortages.run_once(processor(engine), "S"))
    assert running.result() is False  # it waits for no lock of the verdict's: the SKU has its turn later
    verdict.go()
    assert verdict.result() == 1
    worker.run("S")
    assert [(state, outcome) for *_, state, outcome in states(worker)][:3] == [
        ("carried_out", "applied"),
        *[("superseded", "stale")] * 2,
    ]
    assert worker.wrong() == []


def test_an_unfinished_run_that_ends_and_an_approved_hold_do_not_block_each_other(race: Race) -> None:
    """Run: its event, then its allocation. Verdict: the allocation, then the event."""
    worker = Batches(race.watch, Policy(preflight=Preflight(Limits(orders=1))))
    worker.feed(*(ordered(f"o{n}", minute=n) for n in range(4)), sku_shortage("S", 0, time=at(30)))
    worker.run_once("S", chunk=2)  # it holds o0 and o1, and goes on
    _approve_first(race.watch, 1)
    verdict, running = race.racers(2)
    verdict.stop_before("UPDATE allotments").start(
        lambda engine: verdicts.carry_out_once(processor(engine, policy=worker.policy))
    )
    verdict.wait_until_stopped()  # it has its allocation
    worker.feed(sku_shortage("S", 20, time=at(31)))
    running.start(lambda engine: shortages.run_once(processor(engine), "S"))
    assert running.result() is False  # it waits for no lock of the verdict's: the SKU has its turn later
    verdict.go()
    assert verdict.result() == 1
    worker.run("S")
    assert [(state, outcome) for *_, state, outcome in states(worker)] == [
        ("carried_out", "applied"),
        ("superseded", "stale"),
    ]
    assert worker.wrong() == []


def test_a_run_that_ends_void_holds_and_a_batch_do_not_block_each_other(race: Race) -> None:
    """Orders are locked in id order: those of void holds, and in another transaction those that are served."""
    worker = Batches(race.watch, Policy(protected=Protected(frozenset({"o9"}))))
    worker.feed(ordered("o0"), ordered("o9", minute=1), {**shortage("o9", a=3), "time": at(30)})
    worker.feed(sku_restocked("S", time=at(35)), sku_shortage("S", 3, time=at(40)))
    running, batch = race.racers(2)
    running.stop_before("UPDATE holds").start(
        lambda engine: shortages.run_once(processor(engine, policy=worker.policy), "S")
    )
    running.wait_until_stopped()  # it has locked o9
    batch.feed(shortage("o0", a=4), {**shortage("o9", a=4), "time": at(41)})  # which locks o0, and waits for o9
    race.wait_until_blocked(batch)
    running.go()
    assert running.result() is True
    batch.result()
    worker.run("S")
    assert [(order_id, state, outcome) for order_id, *_, state, outcome in states(worker)] == [
        ("o9", "superseded", "void"),
        ("o9", "open", None),
    ]
    assert worker.wrong() == []


def test_breakers_of_a_second_round_are_locked_in_order(race: Race) -> None:
    policy = Policy(breaker=Breaker(each_source=Limits(orders=1)))
    worker = Batches(race.watch, policy)
    worker.feed(ordered("o0"), ordered("o1"), ordered("o2"), ordered("o3"), ordered("o4"))
    worker.feed({**requested("o0"), "source": "/b"}, {**requested("o3"), "source": "/a"})
    one, two = race.racers(2)
    fed_one = worker.entries_of({**requested("o1"), "source": "/b"}, {**requested("o1"), "source": "/a"})
    fed_two = worker.entries_of({**requested("o2"), "source": "/a"}, {**requested("o2"), "source": "/b"})

    def batch(fed: Any) -> Any:
        return lambda engine: Batches(engine, policy).process(fed)

    one.stop_before("SELECT breaker_counts").start(batch(fed_one)).wait_until_stopped()
    two.start(batch(fed_two))
    race.wait_until_blocked(two)  # it has given up its own breaker, and wants both
    one.go()
    one.result()
    two.result()
    assert worker.operations() == ["cancelOrder"] * 2
    assert [row.why for row in worker.rows("SELECT why FROM holds")] == ["breaker"] * 4
    assert worker.wrong() == []

"""Runs, approved holds and breakers that meet on PostgreSQL: none of them may block another for good."""

import time
from typing import Any

from sqlalchemy import Engine

from domain.policy import Breaker, Limits, Policy, Preflight
from tests.builders import requested, sku_shortage
from tests.integration.batches import Batches, processor
from tests.integration.races import Race
from tests.integration.test_guardrails import at, ordered
from worker import shortages, verdicts
from worker.storage import database, holds


def _approve_first(engine: Engine, number: int) -> None:
    with database.reading(engine) as connection:
        chosen = holds.select_ids(connection, [], None, None, everything=True)
    verdicts.give(engine, chosen[:number], "approved", "ann", "a test")


def test_a_newer_figure_and_an_approved_hold_do_not_block_each_other(postgres_url: str) -> None:
    """Run: events, then orders. Verdict: orders, then events."""
    race = Race(postgres_url)
    worker = Batches(race.watch, Policy(preflight=Preflight(Limits(orders=1))))
    worker.feed(*(ordered(f"o{n}") for n in range(3)), sku_shortage("S", 0, time=at(30)))
    worker.run()
    _approve_first(race.watch, 1)  # o0 is approved, o1 and o2 are open
    worker.feed(sku_shortage("S", 14, time=at(29), source="/other"))  # (no newer figure of /test: o0 stays due)
    verdict, running = race.racers(2)
    # The verdict has locked o0 and read the figures; then a newer figure comes and its run supersedes o1 and o2.
    verdict.stop_before("SELECT stock_figures").start(
        lambda engine: verdicts.carry_out_once(processor(engine, policy=worker.policy))
    )
    verdict.wait_until_stopped()
    worker.feed(sku_shortage("S", 0, time=at(31)))
    running.start(lambda engine: shortages.run_once(processor(engine), "S"))
    time.sleep(0.3)
    verdict.go()
    running.result()
    verdict.result()
    race.close()


def test_an_unfinished_run_that_ends_and_an_approved_hold_do_not_block_each_other(postgres_url: str) -> None:
    """Run: its event, then its allocation. Verdict: the allocation, then the event."""
    race = Race(postgres_url)
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
    time.sleep(0.3)
    verdict.go()
    running.result()
    verdict.result()
    race.close()


def test_breakers_of_a_second_round_are_locked_in_order(postgres_url: str) -> None:
    race = Race(postgres_url)
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
    time.sleep(0.3)
    one.go()
    one.result()
    two.result()
    race.close()

"""Runs of a SKU's shortage, pauses and batches that meet, on both databases. Each test makes sure that they really met."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine, text

from domain.policy import Policy
from tests import checker
from tests.builders import Json, placed, shipped, shortage, sku_shortage
from tests.histories import ShortHistory, at
from tests.integration.batches import Batches, entries, processor
from tests.integration.races import Race, Racer
from tests.model import Model
from worker import shortages
from worker.process import process_entries
from worker.storage import database, pauses
from worker.storage.database import transaction

PAUSES = 100


@pytest.fixture
def worker(race: Race) -> Batches:
    return Batches(race.watch)


def ordered(name: str, units: int, minute: int = 0) -> Json:
    return placed(name, {"placedAt": at(minute)}, a=("S", units))


def run(racer: Racer, sku: str = "S", chunk: int = 100) -> Racer:
    return racer.start(lambda engine: Batches(engine).run_once(sku, chunk))


def pause(racer: Racer) -> Racer:
    return racer.start(lambda engine: Batches(engine).pause())


def open_units(worker: Batches) -> dict[str, int]:
    rows = worker.rows("SELECT order_id, sum(open_quantity) AS units FROM order_items GROUP BY order_id")
    return {row.order_id: int(row.units) for row in rows}


def test_a_chunk_that_waits_for_a_shipment_sees_it(race: Race, worker: Batches) -> None:
    worker.feed(ordered("o1", 5), ordered("o2", 5, 1), sku_shortage("S", 6, time=at(30)))
    shipping, running = race.racers(2)
    shipping.stop_before_commit().feed({**shipped("o2", "f1", a=4), "time": at(40)}).wait_until_stopped()
    run(running)
    race.wait_until_blocked(running)
    shipping.go()
    running.result()
    worker.run()
    assert open_units(worker) == {"o1": 2, "o2": 0}
    assert worker.conflicts() == []
    assert worker.wrong() == []


def test_a_shipment_that_waits_for_a_chunk_ships_what_was_kept(race: Race, worker: Batches) -> None:
    worker.feed(ordered("o1", 5), sku_shortage("S", 3, time=at(30)))
    running, shipping = race.racers(2)
    run(running.stop_before_commit()).wait_until_stopped()
    shipping.feed(shipped("o1", "f1", a=4))
    race.wait_until_blocked(shipping)
    running.go()
    shipping.result()
    assert worker.totals("o1")["a"] == {"ordered": 5, "fulfilled": 3, "cancelled": 2, "open": 0}
    assert [one["quantity"] for one in worker.conflicts()] == [1]
    assert worker.wrong() == []


@pytest.mark.parametrize("first", ["the chunk", "the change"])
@pytest.mark.parametrize("change", ["shipped", "cancelled"])
def test_what_an_order_gives_back_as_its_turn_comes_serves_the_next(
    change: str, first: str, race: Race, worker: Batches
) -> None:
    worker.feed(*(ordered(f"o{n}", 4, n) for n in range(3)), sku_shortage("S", 6, time=at(30)))
    event = {**shipped("o0", "f1", a=3), "time": at(40)} if change == "shipped" else shortage("o0", a=1)
    changing, running = race.racers(2)
    if first == "the chunk":
        run(running.stop_before_commit(), chunk=1).wait_until_stopped()
        race.wait_until_blocked(changing.feed(event))
        running.go()
    else:
        changing.stop_before_commit().feed(event).wait_until_stopped()
        race.wait_until_blocked(run(running, chunk=1))
        changing.go()
    assert (changing.result(), running.result()) == (int(change == "cancelled"), True)
    assert [one for one in worker.wrong() if "its shortage of SKU S is due" not in one] == []
    worker.run(chunk=1)
    shipping = change == "shipped"
    assert open_units(worker) == {"o0": 1, "o1": 2 if shipping else 4, "o2": 0 if shipping else 1}
    assert worker.wrong() == []


def test_of_two_runs_of_a_sku_one_goes_on_and_the_other_leaves_it_alone(postgres_url: str) -> None:
    race = Race(postgres_url)
    worker = Batches(race.watch)
    worker.feed(*(ordered(f"o{n}", 2, n) for n in range(4)), sku_shortage("S", 3, time=at(30)))
    first, second = race.racers(2)
    run(first.stop_before_commit(), chunk=2).wait_until_stopped()
    assert run(second).result() is False  # it does not even wait
    first.go()
    assert first.result() is True
    worker.run()
    assert open_units(worker) == {"o0": 2, "o1": 1, "o2": 0, "o3": 0}
    race.close()


def test_runs_of_two_skus_that_want_the_same_orders_take_turns(race: Race, worker: Batches) -> None:
    worker.feed(*(placed(f"o{n}", {"placedAt": at(n)}, a=("S", 3), b=("T", 3)) for n in range(6)))
    worker.feed(sku_shortage("S", 5, time=at(30)), sku_shortage("T", 0, time=at(30)))
    first, second = race.racers(2)
    run(first.stop_before_commit(), "S").wait_until_stopped()
    run(second, "T")
    race.wait_until_blocked(second)
    first.go()
    assert (first.result(), second.result()) == (False, False)
    assert open_units(worker) == {"o0": 3, "o1": 2, "o2": 0, "o3": 0, "o4": 0, "o5": 0}
    assert worker.wrong() == []


def test_a_pause_waits_for_a_batch_that_has_begun(race: Race, worker: Batches) -> None:
    worker.feed(ordered("o1", 5))
    cutting, pausing = race.racers(2)
    cutting.stop_before_commit().feed(shortage("o1", a=2)).wait_until_stopped()
    pause(pausing)
    race.wait_until_blocked(pausing)
    cutting.go()
    pausing.result()
    assert worker.operations() == ["cancelItemPartially"]
    worker.feed(shortage("o1", a=1))
    assert worker.operations() == ["cancelItemPartially"]


def test_a_pause_waits_longer_than_a_batch_may_take(postgres_url: str) -> None:
    """Above the connection's own limit on waiting for a lock: in an emergency it must not give up."""
    engine = database.create(postgres_url)
    with transaction(engine) as connection:
        pauses.pause(connection, None, "a test", "somebody")
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "1min"
    with engine.connect() as connection:
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "10s"
    engine.dispose()


@pytest.mark.parametrize("what", ["a batch", "a run", "a release"])
def test_what_begins_while_a_pause_is_made_waits_for_it_and_obeys(what: str, race: Race, worker: Batches) -> None:
    short = shortage("o1", a=2)
    worker.feed(ordered("o1", 5))
    if what == "a run":
        worker.feed(sku_shortage("S", 0, time=at(30)))
    if what == "a release":
        patient = Batches(race.watch, Policy(order_grace=timedelta(hours=1)))
        patient.feed(short)
        patient.let_time_pass()
    pausing, cutting = race.racers(2)
    pause(pausing.stop_before_commit()).wait_until_stopped()
    match what:
        case "a batch":
            cutting.feed(short)
        case "a run":
            run(cutting)
        case _:
            cutting.start(lambda engine: Batches(engine).release())
    race.wait_until_blocked(cutting)
    pausing.go()
    cutting.result()
    assert worker.operations() == []
    assert worker.wrong(paused=True) == []


def test_a_pause_under_load_is_obeyed_a_hundred_times(database_url: str, rng: random.Random) -> None:
    """Counted is in the transaction of the pause, after its lock: whatever is committed later would be one too many."""
    engine = database.create(database_url, pool_size=4)
    numbers, stopping = count(1), Event()

    def work() -> int:
        own, done = database.create(database_url), 0
        worker = processor(own)
        while not stopping.is_set():
            n = next(numbers)
            batch = [one for k in range(5) for one in (ordered(f"o{n}-{k}", 5), shortage(f"o{n}-{k}", a=1 + k % 3))]
            process_entries(worker, entries(*batch, sku_shortage("S", 3, time=at(30))))
            shortages.run(worker, ["S"], 0.01)
            time.sleep(0.02)  # SQLite's lock is not fair: whoever asks without a break keeps all others out
            done += 1
        own.dispose()
        return done

    ledger, grown, before = text("SELECT count(*) FROM cancellations"), 0, 0
    workers = 4 if engine.dialect.name == "postgresql" else 2
    with ThreadPoolExecutor(workers) as pool:
        working = [pool.submit(work) for _ in range(workers)]
        try:
            for _ in range(PAUSES):
                with transaction(engine) as connection:
                    pauses.pause(connection, None, "a test", "somebody")
                    count_at_pause = connection.execute(ledger).scalar_one()
                time.sleep(rng.uniform(0, 0.02))
                with transaction(engine) as connection:
                    assert connection.execute(ledger).scalar_one() == count_at_pause
                    pauses.resume(connection, None, "a test", "somebody")
                grown += count_at_pause > before
                before = count_at_pause
                time.sleep(rng.uniform(0, 0.03))
        finally:
            stopping.set()
        assert min(one.result() for one in working) > 0
    assert grown > PAUSES // 4  # it was under load
    engine.dispose()


def test_everything_at_once_over_the_same_orders_comes_out_as_the_model_says(
    engine: Engine, database_url: str, rng: random.Random
) -> None:
    """Shortages of SKUs, shipments, placings, requests and closings, from several workers, in batches of any size."""
    history = ShortHistory(rng)
    worker = Batches(engine)
    _at_once(database_url, worker, history.placings, [], rng)
    _at_once(database_url, worker, history.events, history.skus, rng)
    while worker.run(chunk=7):
        pass
    model = Model()
    for one in [*history.placings, *history.figures, *history.events]:
        model.feed(one)
    assert worker.wrong() == []
    with engine.connect() as connection:
        assert checker.agreement(connection, model) == []
    assert len(worker.operations()) > 50


def _at_once(url: str, worker: Batches, events: list[Json], skus: list[str], rng: random.Random) -> None:
    """Feed events in a random order, every tenth of them twice, and carry out shortages beside it."""
    sent = entries(*events, *rng.sample(events, len(events) // 10))
    worker.entries += sent
    rng.shuffle(sent)
    batches = []
    while sent:
        size = rng.randint(1, 25)
        batches.append(sent[:size])
        del sent[:size]
    done = Event()

    def feed(batch: list[Any]) -> None:
        own = database.create(url)
        process_entries(processor(own), batch)
        own.dispose()

    def carry_out(sku: str) -> None:
        own = database.create(url)
        while not done.is_set():
            Batches(own).run_once(sku, chunk=7)
        own.dispose()

    with ThreadPoolExecutor(4 + len(skus)) as pool:
        running = [pool.submit(carry_out, sku) for sku in skus]
        for fed in [pool.submit(feed, batch) for batch in batches]:
            fed.result()
        done.set()
        for one in running:
            one.result()

"""Batches that meet what runs beside them: the release of what waited too long, and the giving of positions."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tests.builders import placed, shortage
from tests.integration.batches import Batches, processor
from tests.integration.races import Race
from worker.release import release_due
from worker.storage import ledger
from worker.storage.database import transaction
from worker.storage.ledger import Positions

AT_ONCE = timedelta(0)
ORDER = placed("o1", a=("SA", 9), b=("SB", 9))


@pytest.fixture
def worker(race: Race) -> Batches:
    return Batches(race.watch)


@pytest.fixture
def postgres_race(postgres_url: str) -> Iterator[Race]:
    """For what cannot happen on SQLite, where one transaction that writes excludes all others."""
    race = Race(postgres_url)
    yield race
    race.close()


def release(engine: Engine) -> int:
    return release_due(processor(engine))


def assign(engine: Engine, limit: int = 1000) -> Positions:
    with transaction(engine) as connection:
        return ledger.assign_positions(connection, 0, limit)[0]


def cancel(worker: Batches, *numbers: int) -> None:
    for n in numbers:
        worker.feed(placed(f"o{n}", a=("SA", 9)), shortage(f"o{n}", a=1))


def test_an_order_that_comes_just_before_its_events_are_due_saves_them(race: Race, worker: Batches) -> None:
    worker.feed(shortage("o1", a=4), waiting_limit=AT_ONCE)
    placing, clock = race.racers(2)
    placing.stop_before_commit().feed(ORDER).wait_until_stopped()
    clock.start(release)
    race.wait_until_blocked(clock)
    placing.go()
    assert (placing.result(), clock.result()) == (1, 0)
    assert (worker.dead(), worker.waiting()) == ([], {})
    assert worker.operations() == ["cancelItemPartially"]
    assert worker.wrong() == []


def test_an_order_that_comes_just_after_its_events_were_due_is_placed_without_them(race: Race, worker: Batches) -> None:
    cut = shortage("o1", a=4)
    worker.feed(cut, waiting_limit=AT_ONCE)
    clock, placing = race.racers(2)
    clock.stop_before_commit().start(release).wait_until_stopped()
    placing.feed(ORDER)
    race.wait_until_blocked(placing)
    clock.go()
    assert (clock.result(), placing.result()) == (1, 0)
    assert worker.dead() == ["waited_too_long"]
    assert (worker.outcomes(), worker.waiting()) == ({ORDER["id"]: "recorded"}, {})
    worker.feed(cut)
    assert worker.operations() == ["cancelItemPartially"]
    assert worker.wrong() == []


def test_an_event_that_is_sent_again_while_it_is_released_waits_anew(race: Race, worker: Batches) -> None:
    cut = shortage("o1", a=4)
    worker.feed(cut, waiting_limit=AT_ONCE)
    clock, repeat = race.racers(2)
    clock.stop_before_commit().start(release).wait_until_stopped()
    repeat.feed(cut)
    race.wait_until_blocked(repeat)
    clock.go()
    assert (clock.result(), repeat.result()) == (1, 0)
    assert worker.dead() == ["waited_too_long"]
    assert worker.waiting() == {cut["id"]: "order_not_placed"}
    assert worker.wrong() == []


@pytest.mark.parametrize("mended", [False, True], ids=["the same", "mended"])
def test_an_event_that_is_sent_again_just_before_it_is_released_is_no_fault_of_the_program(
    mended: bool, postgres_race: Race
) -> None:
    """The claim found it taken; when its content is compared, it is gone."""
    worker = Batches(postgres_race.watch)
    cut = shortage("o1", a=4)
    worker.feed(cut, waiting_limit=AT_ONCE)
    repeat = postgres_race.racer().stop_before("SELECT events.source")
    repeat.feed({**shortage("o1", a=3), "id": cut["id"]} if mended else cut).wait_until_stopped()
    assert release(postgres_race.watch) == 1
    repeat.go()
    repeat.result()
    assert worker.dead() == ["waited_too_long"]
    assert worker.waiting() in ({}, {cut["id"]: "order_not_placed"})
    if mended:
        assert worker.waiting() != {}


def test_two_clocks_that_meet_release_each_event_once(race: Race, worker: Batches) -> None:
    worker.feed(*(shortage(f"o{n}", a=4) for n in range(20)), waiting_limit=AT_ONCE)
    first, second = race.racers(2)
    first.stop_before_commit().start(release).wait_until_stopped()
    second.start(release)
    race.wait_until_blocked(second)
    first.go()
    assert (first.result(), second.result()) == (20, 0)
    assert worker.dead() == ["waited_too_long"] * 20
    assert worker.outcomes() == worker.waiting() == {}


def test_three_relays_that_meet_give_each_position_once(race: Race, worker: Batches) -> None:
    cancel(worker, *range(10))
    first, *others = race.racers(3)
    first.stop_before_commit().start(lambda engine: assign(engine, 4)).wait_until_stopped()
    for other in others:
        other.start(lambda engine: assign(engine, 4))
    race.wait_until_blocked(*others)
    first.go()
    assert first.result() == Positions(4, 0)
    assert sorted(other.result().assigned for other in others) == [8, 10]
    found = worker.rows("SELECT position FROM cancellations ORDER BY ledger_id")
    assert [row.position for row in found] == list(range(1, 11))
    assert worker.rows("SELECT next_position FROM publication") == [(11,)]


def test_a_cancellation_that_commits_late_gets_a_later_position_and_is_not_passed_over(postgres_race: Race) -> None:
    worker = Batches(postgres_race.watch)
    worker.feed(ORDER)
    late = postgres_race.racer().stop_before_commit().feed(shortage("o1", a=4))
    late.wait_until_stopped()
    cancel(worker, 2, 3)
    assert assign(worker.engine) == Positions(2, 0)
    late.go()
    late.result()
    assert assign(worker.engine) == Positions(3, 0)
    found = worker.rows("SELECT order_id FROM cancellations ORDER BY position")
    assert [row.order_id for row in found] == ["o2", "o3", "o1"]
    by_ledger = worker.rows("SELECT order_id FROM cancellations ORDER BY ledger_id")
    assert [row.order_id for row in by_ledger] == ["o1", "o2", "o3"]


def test_positions_of_one_order_follow_its_sequence_while_batches_and_relays_meet(race: Race, worker: Batches) -> None:
    worker.feed(*(placed(f"o{n}", a=("SA", 30)) for n in range(3)))
    cutting, giving = race.racers(4), race.racers(2)
    with race.holding("UPDATE orders SET priority = priority"):
        for racer, keeps in zip(
            cutting, (range(29, 0, -4), range(28, 0, -4), range(27, 0, -4), range(26, 0, -4)), strict=True
        ):
            racer.feed(*(shortage(f"o{n}", a=keep) for keep in keeps for n in range(3)), size=3)
        race.wait_until_blocked(*cutting)
    for racer in giving:
        racer.start(lambda engine: [assign(engine, 2) for _ in range(20)])
    for racer in (*cutting, *giving):
        racer.result()
    assign(worker.engine)
    found = worker.rows("SELECT order_id, sequence, position FROM cancellations ORDER BY position")
    assert [row.position for row in found] == list(range(1, len(found) + 1))
    for order_id in ("o0", "o1", "o2"):
        sequences = [row.sequence for row in found if row.order_id == order_id]
        assert sequences == list(range(1, len(sequences) + 1)) != []
        assert worker.totals(order_id)["a"]["open"] == 1
    assert worker.wrong() == []

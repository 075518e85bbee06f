"""Batches that meet the removal of what is old, on both databases: an event is known, or it is too old, and never new."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tests.builders import again, placed, shortage
from tests.integration.batches import Batches
from tests.integration.races import Race
from worker.upkeep import prune_events

AT_ONCE = timedelta(days=-2)
ORDER = placed("o1", a=("SA", 9), b=("SB", 9))


@pytest.fixture
def worker(race: Race) -> Batches:
    return Batches(race.watch, old_after=AT_ONCE)


@pytest.fixture
def postgres_race(postgres_url: str) -> Iterator[Race]:
    """For what cannot happen on SQLite, where one transaction that writes excludes all others."""
    race = Race(postgres_url)
    yield race
    race.close()


def prune(engine: Engine) -> int:
    return prune_events(engine, None, AT_ONCE)


def test_an_event_that_comes_again_while_it_is_removed_is_too_old(race: Race, worker: Batches) -> None:
    harmless = shortage("o1", a=9)
    worker.feed(ORDER, harmless)
    clock, repeat = race.racers(2)
    clock.stop_before_commit().start(prune).wait_until_stopped()
    repeat.start(lambda engine: Batches(engine, old_after=AT_ONCE).feed(harmless))
    race.wait_until_blocked(repeat)
    clock.go()
    assert (clock.result(), repeat.result()) == (2, 0)
    assert worker.dead() == ["too_old"]
    assert worker.outcomes() == {}


def test_an_event_that_comes_again_while_its_removal_fails_is_a_repeat(race: Race, worker: Batches) -> None:
    harmless = shortage("o1", a=9)
    worker.feed(ORDER, harmless)
    clock, repeat = race.racers(2)
    clock.fail_at_commit().start(prune).wait_until_stopped()
    repeat.start(lambda engine: Batches(engine, old_after=AT_ONCE).feed(harmless))
    race.wait_until_blocked(repeat)
    clock.go()
    with pytest.raises(RuntimeError, match="at the commit"):
        clock.result()
    assert repeat.result() == 0
    assert worker.dead() == []
    assert worker.outcomes() == {ORDER["id"]: "recorded", harmless["id"]: "nothing"}


def test_an_event_that_is_removed_just_after_it_was_found_is_too_old_and_never_new(postgres_race: Race) -> None:
    """The claim found it taken; when its content is compared, it is gone."""
    worker = Batches(postgres_race.watch)
    cut = shortage("o1", a=9)
    worker.feed(ORDER, cut)
    repeat = postgres_race.racer().stop_before("SELECT events.source")
    repeat.start(lambda engine: Batches(engine, old_after=AT_ONCE).feed(cut)).wait_until_stopped()
    assert prune(postgres_race.watch) == 2
    repeat.go()
    assert repeat.result() == 0
    assert worker.dead() == ["too_old"]
    assert worker.outcomes() == {}


def test_a_new_event_that_meets_the_removal_is_too_old_or_decided_once(race: Race, worker: Batches) -> None:
    """Whichever commits first: it is as old as what is removed, and never came before."""
    worker.feed(ORDER, placed("o2", a=("SA", 9)))
    first, second = shortage("o1", a=4), shortage("o2", a=4)
    batch, clock = race.racers(2)
    batch.stop_before_commit().start(lambda engine: Batches(engine, old_after=AT_ONCE).feed(first))
    batch.wait_until_stopped()
    clock.start(prune)
    if race.watch.dialect.name == "sqlite":
        race.wait_until_blocked(clock)
        batch.go()
    assert clock.result() == 2  # on PostgreSQL it waits for no batch
    batch.go()
    assert batch.result() == 1
    worker.feed(second)
    assert worker.outcomes() == {first["id"]: "applied"}
    assert worker.dead() == ["too_old"]
    assert worker.wrong() == []


def test_two_clocks_that_meet_do_not_wait_for_each_other(postgres_race: Race) -> None:
    worker = Batches(postgres_race.watch)
    worker.feed(ORDER, *(again(ORDER) for _ in range(20)))
    first, second = postgres_race.racers(2)
    first.stop_before_commit().start(prune).wait_until_stopped()
    assert second.start(prune).result() == 0
    first.go()
    assert first.result() == 21

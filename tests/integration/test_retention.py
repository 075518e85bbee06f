"""Events and dead letters are removed by age, on both databases; and what comes again after that is recognised."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog.testing
from sqlalchemy import Engine, text

from domain.policy import Policy, Protected
from tests.builders import again, closed, placed, requested, restocked, shipped, shortage, sku_restocked
from tests.builders import sku_shortage as of_sku
from tests.integration.batches import Batches, statements
from worker import upkeep, verdicts
from worker.storage import inbox, retention
from worker.storage.database import reading, transaction
from worker.storage.tables import metadata, stored
from worker.upkeep import prune_dead_letters, prune_events

DAY = timedelta(days=1)
AT_ONCE = -2 * DAY
"""A retention that is over, also for events whose time lies ahead."""
PROTECTED = Policy(protected=Protected(orders=frozenset({"kept"})))
ORDER = placed("o1", a=("SA", 9), b=("SB", 9))


@pytest.fixture
def worker(emptied_engine: Engine) -> Batches:
    return Batches(emptied_engine, PROTECTED, old_after=AT_ONCE)


def at(days_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()


def prune(worker: Batches, kept: timedelta = AT_ONCE, oldest: int | None = None) -> int:
    return prune_events(worker.engine, oldest, kept)


def ids(worker: Batches) -> set[str]:
    return set(worker.outcomes())


def state(worker: Batches) -> dict[str, list[Any]]:
    """All but what is kept of events and of bad input."""
    apart = {"events", "dead_letters", "pruned_events"}
    names = {name for name in metadata.tables if name not in apart}
    return {name: sorted(map(repr, worker.rows(f"SELECT * FROM {name}"))) for name in names}


# What is removed


def test_what_cancelled_nothing_is_removed_and_nothing_else_changes(worker: Batches) -> None:
    events = [ORDER, shortage("o1", a=9), shipped("o1", "f1", a=2), requested("o1", a=1), restocked("o1", "b"), ORDER]
    worker.feed(*events, of_sku("SA", 99), sku_restocked("SA", time=at(3)))
    worker.feed(of_sku("SA", 98), again(ORDER))
    worker.run()
    assert set(worker.outcomes().values()) == {"recorded", "nothing", "refused", "void"}
    before = state(worker)
    assert prune(worker) == 9
    assert (ids(worker), prune(worker)) == (set(), 0)
    assert state(worker) == before
    assert worker.wrong() == []


def test_what_cancelled_something_stays(worker: Batches) -> None:
    cut, closing, run = shortage("o1", a=4), closed("o1"), of_sku("SC", 1)
    worker.feed(ORDER, placed("o2", c=("SC", 2)), cut, closing, run)
    worker.run()
    assert prune(worker) == 2
    assert worker.outcomes() == dict.fromkeys((cut["id"], closing["id"], run["id"]), "applied")
    assert worker.wrong() == []


def test_what_waits_stays(worker: Batches) -> None:
    early, closing = shortage("o9", a=4), closed("o1", "f9")
    worker.feed(ORDER, early, closing, of_sku("SA", 1))
    worker.pause()
    paused = shortage("o1", a=4)
    worker.feed(paused)
    assert prune(worker) == 1
    assert len(worker.outcomes()) == 4
    assert set(worker.outcomes().values()) == {"waiting"}


@pytest.mark.parametrize("verdict", [None, "rejected", "approved"])
def test_what_was_held_stays_whatever_became_of_it(verdict: Any, worker: Batches) -> None:
    held, void = shortage("kept", a=4), shortage("kept", b=3)
    worker.feed(placed("kept", a=("SA", 9), b=("SB", 9)), held, void)
    worker.feed(restocked("kept", "b", time=at(1)))
    if verdict:
        (hold,) = worker.rows("SELECT hold_id FROM holds WHERE state = 'open'")
        verdicts.give(worker.engine, [hold.hold_id], verdict, "ann", "a test")
    prune(worker)
    assert ids(worker) == {held["id"], void["id"]}
    assert worker.outcomes()[void["id"]] == "void"


def test_what_is_younger_by_its_decision_or_by_its_own_time_stays(worker: Batches) -> None:
    old, decided_late, late = (again({**ORDER, "time": at(days)}) for days in (11, 11, 9))
    worker.feed(ORDER, old, decided_late, late)
    with worker.engine.begin() as connection:
        for event, days in ((old, 11), (decided_late, 9), (late, 11)):
            decided = {"id": event["id"], "at": stored(datetime.fromisoformat(at(days)))}
            connection.execute(text("UPDATE events SET decided_at = :at WHERE id = :id"), decided)
    assert prune(worker, 10 * DAY) == 1
    assert ids(worker) == {ORDER["id"], decided_late["id"], late["id"]}


def test_retention_counts_from_when_the_first_entry_of_the_queue_came(worker: Batches) -> None:
    """So whatever the queue holds, and may be read again, finds its event."""
    worker.feed(ORDER)
    came = int(datetime.now(UTC).timestamp() * 1000)
    assert prune(worker, AT_ONCE, oldest=came - 3 * 24 * 3600 * 1000) == 0
    assert prune(worker, AT_ONCE, oldest=came - 1 * 24 * 3600 * 1000) == 1


def test_a_foreign_entry_from_beyond_the_calendar_does_no_harm(worker: Batches) -> None:
    worker.feed(ORDER)
    assert prune(worker, 10 * DAY, oldest=2**63 - 1) == 0
    assert prune(worker, AT_ONCE, oldest=2**63 - 1) == 1


def test_much_is_removed_chunk_by_chunk_and_goes_on_where_it_was(
    worker: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CHUNK", 3)
    worker.feed(ORDER, *(again(ORDER) for _ in range(10)), size=1)
    held = shortage("kept", a=4)
    worker.feed(placed("kept", a=("SA", 9)), held, size=1)
    with structlog.testing.capture_logs() as logs:
        assert prune_events(worker.engine, None, AT_ONCE, deadline=0) == 3
        assert prune(worker) == 9
    assert [line["finished"] for line in logs if line["event"] == "events.pruned"] == [False, True]
    assert ids(worker) == {held["id"]}


def test_a_batch_that_was_decided_together_is_removed_together(
    worker: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have one time; and nothing may hang on that."""
    monkeypatch.setattr(upkeep, "CHUNK", 3)
    worker.feed(*(placed(f"o{n}", a=("SA", 9)) for n in range(10)))
    assert prune_events(worker.engine, None, AT_ONCE, deadline=0) == 10


def test_what_was_removed_is_noted_for_each_source(worker: Batches) -> None:
    times = {"/a": ["2026-01-03T00:00:00Z", "2010-01-01T00:00:00Z"], "/b": ["2026-01-02T12:00:00+02:00"]}
    for source, of_source in times.items():
        worker.feed(*(again({**ORDER, "source": source, "time": time}) for time in of_source))
    prune(worker)
    with reading(worker.engine) as connection:
        found = retention.newest_removed(connection, ["/a", "/b", "/c"])
    assert found == {"/a": datetime(2026, 1, 3, tzinfo=UTC), "/b": datetime(2026, 1, 2, 10, tzinfo=UTC)}


def test_what_is_noted_is_never_lowered(worker: Batches) -> None:
    """What has waited is decided, and removed, after what is newer."""
    waits = {**shortage("o1", a=9), "time": "2010-01-01T00:00:00Z"}
    worker.feed(waits, placed("o2", a=("SA", 9)))
    prune(worker)
    worker.feed({**ORDER, "source": "/shop"})
    assert prune(worker) == 2
    with reading(worker.engine) as connection:
        found = retention.newest_removed(connection, ["/test"])
    assert found == {"/test": datetime.fromisoformat(ORDER["time"])}


def test_a_source_is_still_known_when_all_its_events_are_gone(worker: Batches) -> None:
    worker.feed(ORDER)
    prune(worker)
    with reading(worker.engine) as connection:
        assert inbox.knows_source(connection, "/test")
        assert not inbox.knows_source(connection, "/tset")


# Dead letters


def test_old_dead_letters_are_removed(worker: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "CHUNK", 2)
    worker.feed(b"1", b"2", b"3", b"4", b"5")
    assert prune_dead_letters(worker.engine, None, DAY) == 0
    assert prune_dead_letters(worker.engine, 0, AT_ONCE) == 0  # the first entry of the queue is as old as can be
    assert prune_dead_letters(worker.engine, None, AT_ONCE, deadline=0) == 2
    assert prune_dead_letters(worker.engine, None, AT_ONCE) == 3
    assert worker.dead() == []


# What is too old


def test_an_event_that_comes_again_after_it_was_removed_is_too_old(worker: Batches) -> None:
    harmless = shortage("o1", a=9)
    worker.feed(ORDER, harmless)
    prune(worker)
    worker.feed(ORDER, harmless)
    assert worker.dead() == ["too_old", "too_old"]
    (letter, _) = worker.rows("SELECT * FROM dead_letters WHERE order_id = 'o1' ORDER BY dead_letter_id")
    assert (letter.source, letter.id) == ("/test", ORDER["id"])
    assert "'/test'" in letter.sentence
    assert "2026-01-01T00:00:00.000000Z" in letter.sentence
    assert "shortpick why" in letter.sentence
    assert ids(worker) == set()
    assert worker.wrong() == []


@pytest.mark.parametrize("ahead", [timedelta(hours=23.9), timedelta(0), -5000 * DAY], ids=str)
def test_whatever_its_time_is_what_was_removed_is_recognised(ahead: timedelta, worker: Batches) -> None:
    event = {**ORDER, "time": (datetime.now(UTC) + ahead).isoformat()}
    worker.feed(event)
    assert prune(worker) == 1
    worker.feed(event)
    assert worker.dead() == ["too_old"]


def test_what_is_not_newer_than_what_was_removed_of_its_source_is_too_old(worker: Batches) -> None:
    worker.feed({**ORDER, "time": at(20)})
    prune(worker)
    before = state(worker)
    for event in (shortage("o1", a=1), closed("new"), of_sku("SA", 0), sku_restocked("SA"), shipped("o1", "f1", a=1)):
        worker.feed({**event, "time": at(21)})
    assert worker.dead() == ["too_old"] * 5
    assert state(worker) == before
    cut = {**shortage("o1", a=1), "time": at(19.9)}
    worker.feed(cut)
    assert worker.outcomes() == {cut["id"]: "applied"}


def test_an_event_of_the_very_time_is_too_old_and_one_of_a_moment_later_is_not(worker: Batches) -> None:
    worker.feed({**ORDER, "time": "2026-01-01T10:00:00.000001Z"})
    prune(worker)
    same, later = shortage("o1", a=3), shortage("o1", b=3)
    worker.feed({**same, "time": "2026-01-01T12:00:00.000001+02:00"}, {**later, "time": "2026-01-01T10:00:00.000002Z"})
    assert worker.dead() == ["too_old"]
    assert worker.outcomes() == {later["id"]: "applied"}


def test_each_source_is_by_itself(worker: Batches) -> None:
    worker.feed({**ORDER, "time": at(10)})
    prune(worker)
    of_another = {**shortage("o1", a=4), "source": "/other", "time": "2010-01-01T00:00:00Z"}
    worker.feed({**shortage("o1", a=1), "time": at(11)}, of_another)
    assert worker.dead() == ["too_old"]
    assert worker.outcomes() == {of_another["id"]: "applied"}


def test_while_nothing_was_removed_of_its_source_no_event_is_too_old(worker: Batches) -> None:
    worker.feed({**ORDER, "time": "2010-01-01T00:00:00Z"})
    assert prune(worker, 100_000 * DAY) == 0
    cut = {**shortage("o1", a=4), "time": "1970-01-01T00:00:00Z"}
    worker.feed(cut)
    assert (worker.dead(), worker.outcomes()[cut["id"]]) == ([], "applied")


def test_what_was_kept_comes_again_as_what_it_is(worker: Batches) -> None:
    """It is as old as what was removed, and on record."""
    cut, early, held = shortage("o1", a=4), shortage("o9", a=4), shortage("kept", a=1)
    worker.feed(ORDER, placed("kept", a=("SA", 9)), cut, early, held)
    prune(worker)
    before = state(worker)
    worker.feed(cut, early, held)
    assert (worker.dead(), state(worker)) == ([], before)
    worker.feed({**shortage("o1", a=1), "id": cut["id"]})
    assert worker.dead() == ["id_reused"]


def test_what_waits_goes_on_though_it_is_older_than_what_was_removed(worker: Batches) -> None:
    cut = {**shortage("o1", a=4), "time": at(30)}
    worker.feed(cut, placed("o2", a=("SA", 9)))
    prune(worker)
    worker.feed({**ORDER, "source": "/shop"})
    assert worker.outcomes()[cut["id"]] == "applied"


@pytest.mark.parametrize("size", [None, 1], ids=["in one batch", "one by one"])
def test_each_entry_of_a_repeat_is_told_of(size: int | None, worker: Batches) -> None:
    worker.feed(ORDER)
    prune(worker)
    other = {**shortage("o1", a=1), "id": ORDER["id"]}
    young = {**shortage("o1", a=4), "time": at(1)}
    worker.feed(ORDER, other, young, ORDER, size=size)
    assert worker.dead() == ["too_old"] * 3
    assert worker.outcomes() == {young["id"]: "applied"}
    assert worker.wrong() == []


def test_an_id_that_was_given_up_may_be_too_old_as_well(worker: Batches) -> None:
    """What waits turns out to be bad in the batch that brings its order, beside a repeat that would take its place."""
    bad = shortage("o1", zz=0)
    worker.feed(bad, placed("o2", a=("SA", 9)))
    prune(worker)
    worker.feed({**ORDER, "source": "/shop"}, {**shortage("o1", a=4), "id": bad["id"]})
    assert worker.dead() == ["unknown_line", "too_old"]
    assert worker.wrong() == []


def test_only_for_old_events_is_it_looked_up_what_was_removed(worker: Batches) -> None:
    batches = Batches(worker.engine)  # as it is in production
    batches.feed(ORDER)
    numbers = {}
    for days in (5, 7):
        cuts = [{**shortage("o1", a=9), "time": at(days)} for _ in range(50)]
        with statements(worker.engine) as seen:
            batches.feed(*cuts)
        numbers[days] = len(seen)
    assert numbers[7] == numbers[5] + 1


def test_a_claim_that_is_too_old_leaves_nothing_behind_when_it_is_rolled_back(worker: Batches) -> None:
    worker.feed(ORDER)
    with transaction(worker.engine) as connection:
        retention.remove_events(connection, datetime(1970, 1, 1, tzinfo=UTC), datetime.now(UTC) + DAY, 10)
        connection.rollback()
    worker.feed(ORDER)
    assert (worker.dead(), ids(worker)) == ([], {ORDER["id"]})

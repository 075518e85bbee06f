"""When `shortpick health` says that nothing gets on, given two looks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.cli.progress import STUCK, Work, patience, stuck
from worker.settings import Settings

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
LIMIT = timedelta(minutes=5)


def work(minutes: float, number: int = 3, marks: frozenset[object] = frozenset({1, 2, 3})) -> Work:
    """So much work, the oldest of it of so many minutes ago."""
    return Work(number, NOW - timedelta(minutes=minutes), NOW, marks)


@pytest.mark.parametrize("kind", STUCK)
def test_work_that_is_old_and_of_which_nothing_was_done_is_stuck(kind: str) -> None:
    (told,) = stuck({kind: work(6)}, {kind: work(6)}, LIMIT)
    assert "6 minutes" in told
    assert "running?" in told


@pytest.mark.parametrize("kind", STUCK)
def test_work_that_is_young_is_not_stuck(kind: str) -> None:
    assert stuck({kind: work(5)}, {kind: work(5)}, LIMIT) == []
    nothing = Work(0, None, NOW)
    assert stuck({kind: nothing}, {kind: nothing}, timedelta(0)) == []


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(work(600, number=2), id="there is less of it"),
        pytest.param(work(599), id="the oldest was done"),
        pytest.param(work(600, number=4, marks=frozenset({1, 3, 4, 5})), id="one was done, and others came"),
    ],
)
def test_a_backlog_of_hours_of_which_some_is_done_is_progress(after: Work) -> None:
    assert stuck({"pending": work(600)}, {"pending": after}, LIMIT) == []


def test_that_more_work_comes_is_no_progress() -> None:
    """Ingress reads on, while every worker is dead."""
    more = work(6, number=5, marks=frozenset({1, 2, 3, 4, 5}))
    assert len(stuck({"pending": work(6)}, {"pending": more}, LIMIT)) == 1


def test_each_kind_of_work_is_looked_at_by_itself() -> None:
    before = {"pending": work(6), "unpublished": work(6)}
    after = {"pending": work(6, number=2), "unpublished": work(6)}
    (told,) = stuck(before, after, LIMIT)
    assert told.startswith("cancellations are not published: 3 in all")


def test_what_could_be_looked_at_only_once_is_not_judged() -> None:
    assert stuck({}, {"unpublished": work(6)}, LIMIT) == []


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, 7 * 60),
        ({"max_lone_starts": 1}, 5 * 60),
        ({"redeliver_after_seconds": 600}, 70 * 60),
    ],
)
def test_an_event_that_ends_its_worker_may_be_tried_as_often_as_it_is(chosen: dict[str, Any], expected: int) -> None:
    settings = Settings(redis_url="redis://host/0", database_url="sqlite:////folder/file.db", **chosen)
    assert patience(settings) == timedelta(seconds=expected)

"""Dead letters put on the queue again, on both databases and a real Redis: whatever is killed or done twice at once, each
is on the queue once, and its event is decided once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from domain import parsing
from tests import checker
from tests.builders import Json, placed, shortage, to_bytes
from tests.integration.batches import entries
from worker import points
from worker.ingress import Ingress
from worker.process import Processor, process, process_entries
from worker.release import release_due
from worker.retries import Retried, retry
from worker.storage import dead_letters
from worker.storage.database import now, transaction
from worker.storage.dead_letters import DeadLetter

Point = points.Point


class Killed(BaseException):
    """Nothing runs any further."""


class Pipeline:
    """A worker with its queue, and dead letters to retry."""

    def __init__(self, processor: Processor) -> None:
        self.processor, self.engine, self.queue = processor, processor.engine, processor.queue

    def bury(self, event: Json) -> int:
        """An event whose order did not come in time."""
        process_entries(replace(self.processor, waiting_limit=timedelta(0)), entries(event))
        release_due(self.processor)
        return int(self.rows("SELECT max(dead_letter_id) FROM dead_letters")[0][0])

    def retry(self, *ids: int) -> Retried:
        return retry(self.engine, self.queue, ids, "ann", "the order has come")

    def work(self) -> int:
        """Process what is on the queue; returns how many entries there were."""
        batches: list[Any] = []
        found = Ingress(self.queue, self.engine, batches.append, 100, 10**6, 100, 10**6).run_once(1)
        for batch in batches:
            process(self.processor, batch)
        return found

    def rows(self, sql: str) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(sql)).all())

    def states(self) -> list[tuple[str, str | None]]:
        found = self.rows("SELECT state, retried_as FROM dead_letters ORDER BY dead_letter_id")
        return [(row.state, row.retried_as) for row in found]

    def on_the_queue(self, redis: Redis) -> list[tuple[str, bytes]]:
        found: Any = redis.xrange(self.queue.stream)
        return [(entry_id.decode(), fields[b"event"]) for entry_id, fields in found]


@pytest.fixture
def pipeline(processor: Processor) -> Pipeline:
    return Pipeline(processor)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Do something, once, when dead letters are on the queue again and this is not noted yet."""

    def lay(act: Callable[[], Any]) -> None:
        def hook(point: Point) -> None:
            if point == "retry: on the queue":
                monkeypatch.setattr(points, "hook", None)
                act()

        monkeypatch.setattr(points, "hook", hook)

    return lay


def die() -> None:
    raise Killed


def test_a_retried_dead_letter_is_decided_from_its_own_bytes(pipeline: Pipeline, redis: Redis) -> None:
    late = shortage("o1", a=1)
    letter = pipeline.bury(late)
    process_entries(pipeline.processor, entries(placed("o1", a=("SA", 3))))
    assert pipeline.retry(letter) == Retried(1, {})
    ((entry_id, raw),) = pipeline.on_the_queue(redis)
    assert raw == to_bytes(late)
    assert pipeline.states() == [("retried", entry_id)]
    (row,) = pipeline.rows("SELECT decided_by, decided_because, decided_at FROM dead_letters")
    assert (row.decided_by, row.decided_because) == ("ann", "the order has come")
    assert row.decided_at is not None
    assert pipeline.work() == 1
    assert pipeline.rows("SELECT outcome, entry_id FROM events ORDER BY recorded_at")[1:] == [("applied", entry_id)]
    assert pipeline.retry(letter) == Retried(0, {})
    assert len(pipeline.on_the_queue(redis)) == 1


def test_what_fails_again_is_another_dead_letter(pipeline: Pipeline) -> None:
    process_entries(pipeline.processor, entries(placed("o1", a=("SA", 3)), shortage("o1", x=1)))
    assert pipeline.retry(1).done == 1
    pipeline.work()
    (_, retried_as), again = pipeline.states()
    assert again == ("open", None)
    assert pipeline.rows("SELECT code, entry_id FROM dead_letters WHERE state = 'open'") == [
        ("unknown_line", retried_as)
    ]


def test_killed_before_it_is_noted_it_is_noted_by_the_next_one(
    pipeline: Pipeline, redis: Redis, meanwhile: Callable[[Any], None]
) -> None:
    letters = [pipeline.bury(shortage(f"o{n}", a=1)) for n in range(3)]
    meanwhile(die)
    with pytest.raises(Killed):
        pipeline.retry(*letters)
    assert pipeline.states() == [("open", None)] * 3
    pipeline.work()  # what was put on the queue need not wait for that
    assert pipeline.retry(*letters) == Retried(3, {})
    sent = pipeline.on_the_queue(redis)
    assert pipeline.states() == [("retried", entry_id) for entry_id, _ in sent]
    assert len(sent) == 3


def test_two_at_once_put_it_on_the_queue_once(
    pipeline: Pipeline, redis: Redis, meanwhile: Callable[[Any], None]
) -> None:
    letter = pipeline.bury(shortage("o1", a=1))
    others: list[Retried] = []
    meanwhile(lambda: others.append(pipeline.retry(letter)))
    assert pipeline.retry(letter) == Retried(0, {})
    assert others == [Retried(1, {})]
    ((entry_id, _),) = pipeline.on_the_queue(redis)
    assert pipeline.states() == [("retried", entry_id)]


def test_one_that_is_dismissed_at_that_moment_is_retried_none_the_less(
    pipeline: Pipeline, meanwhile: Callable[[Any], None]
) -> None:
    letter = pipeline.bury(shortage("o1", a=1))

    def dismiss() -> None:
        with transaction(pipeline.engine) as connection:
            assert dead_letters.dismiss(connection, [letter], "ben", "-", now(connection)) == 1

    meanwhile(dismiss)
    assert pipeline.retry(letter).done == 1
    assert [state for state, _ in pipeline.states()] == ["retried"]


def test_though_it_is_on_the_queue_twice_in_the_end_its_event_is_decided_once(
    pipeline: Pipeline, redis: Redis, meanwhile: Callable[[Any], None]
) -> None:
    """Killed, and run again long after."""
    letter = pipeline.bury(shortage("o1", a=1))
    process_entries(pipeline.processor, entries(placed("o1", a=("SA", 3))))
    meanwhile(die)
    with pytest.raises(Killed):
        pipeline.retry(letter)
    redis.delete(f"{pipeline.queue.stream}.added")  # as time will
    assert pipeline.retry(letter).done == 1
    assert pipeline.work() == 2
    assert pipeline.rows("SELECT operation FROM cancellations") == [("cancelItemPartially",)]
    assert pipeline.rows("SELECT count(*) FROM dead_letters") == [(1,)]
    with pipeline.engine.connect() as connection:
        wrong = checker.violations(connection, redis)
    assert [one for one in wrong if not one.startswith(("The positions", "The published"))] == []


def test_what_would_come_to_nothing_again_is_not_retried_until_the_program_takes_it(
    pipeline: Pipeline, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = to_bytes({**shortage("o1", a=1), "traceparent": "x" * 70_000})
    good = to_bytes(shortage("o2", a=1))
    letters = [
        DeadLetter("1-0", large, "too_large", "as it was"),
        DeadLetter("2-0", b"\xff", "not_json", "as it was"),
        DeadLetter("3-0", b"", "bytes_lost", "its bytes are gone"),
        DeadLetter("4-0", good, "unprocessable", "as it was"),
    ]
    with transaction(pipeline.engine) as connection:
        dead_letters.add(connection, letters, now(connection))
    done = pipeline.retry(1, 2, 3, 4)
    assert (done.done, {id_: fault.code for id_, fault in done.in_vain.items()}) == (
        1,
        {1: "too_large", 2: "not_json", 3: "bytes_lost"},
    )
    assert f"the event has {len(large)} bytes" in done.in_vain[1].sentence
    assert done.in_vain[3].sentence == "its bytes are gone"
    assert [raw for _, raw in pipeline.on_the_queue(redis)] == [good]
    assert [state for state, _ in pipeline.states()] == ["open", "open", "open", "retried"]
    monkeypatch.setattr(parsing, "MAX_EVENT_BYTES", 10**6)
    assert pipeline.retry(1, 2, 3).done == 1
    assert [raw for _, raw in pipeline.on_the_queue(redis)] == [good, large]


def test_one_over_which_the_program_still_trips_is_not_retried(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = pipeline.bury(shortage("o1", a=1))

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("worker.retries.parse", fail)
    assert pipeline.retry(letter).in_vain[letter].code == "unprocessable"
    assert pipeline.states() == [("open", None)]


def test_an_event_that_took_its_worker_down_is_told_of_by_its_order_and_can_be_retried(
    pipeline: Pipeline, engine: Engine
) -> None:
    lost = shortage("o1", a=1)
    pipeline.queue.add([to_bytes(lost)])
    batches: list[Any] = []
    Ingress(pipeline.queue, engine, batches.append, 100, 10**6, 100, 10**6).run_once(1)
    process(pipeline.processor, replace(batches[0], starts=pipeline.processor.max_lone_starts + 1))
    assert pipeline.rows("SELECT code, source, id, order_id FROM dead_letters") == [
        ("worker_lost", lost["source"], lost["id"], "o1")
    ]
    assert pipeline.retry(1).done == 1
    assert pipeline.work() == 1
    assert pipeline.rows("SELECT id, outcome FROM events") == [(lost["id"], "waiting")]

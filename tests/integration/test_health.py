"""`shortpick health` on real servers: alive, ready, and whether it gets on; it tells of trouble, and does not cry wolf."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from domain.policy import Policy, Protected
from tests.builders import placed, shortage, sku_shortage
from tests.servers import free_port
from worker import release, shortages, verdicts
from worker.cli import progress
from worker.process import Processor
from worker.storage.tables import stored
from worker.streams import Queue

STREAM, CANCELLED = "order.events", "order.cancelled"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
Stuck = Callable[..., str]


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(progress, "LOOK_EVERY_SECONDS", 0.02)


@pytest.fixture
def stuck(shortpick: Any, monkeypatch: pytest.MonkeyPatch) -> Stuck:
    """What does not get on, in a pipeline that is alive and ready; `meanwhile` happens between two looks."""

    def stuck(*options: str, meanwhile: Callable[[], object] | None = None) -> str:
        with monkeypatch.context() as patched:
            if meanwhile:
                patched.setattr(time, "sleep", lambda _: meanwhile())
            ran = shortpick("health", "--json", *options)
        told = json.loads(ran.out.splitlines()[-1])  # what happens meanwhile may log
        assert told["live"] == told["ready"] == {"ok": True, "problems": []}
        assert told["healthy"] == told["progress"]["ok"] == (told["progress"]["problems"] == []) == (ran.code == 0)
        return "; ".join(told["progress"]["problems"])

    return stuck


def execute(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def ago(minutes: float) -> str:
    return stored(datetime.now(UTC) - timedelta(minutes=minutes))


def send(redis: Redis, minutes: int, number: int = 1) -> None:
    """Entries that came so many minutes ago."""
    milliseconds = int((datetime.now(UTC).timestamp() - 60 * minutes) * 1000)
    for place in range(number):
        redis.xadd(STREAM, {"event": b"{}"}, id=f"{milliseconds}-{place}")


# alive and ready


@pytest.mark.usefixtures("queue")
def test_a_quiet_pipeline_is_healthy(shortpick: Any) -> None:
    ran = shortpick("health")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split() for line in ran.out.splitlines()] == [["live", "yes"], ["ready", "yes"], ["progress", "yes"]]
    assert shortpick("health", "--json").json[0]["healthy"] is True


@pytest.mark.usefixtures("queue")
@on_sqlite
@pytest.mark.parametrize(
    ("name", "address", "says"),
    [
        ("redis_url", "redis://127.0.0.1:{}/0", "Redis does not answer as it should"),
        ("database_url", "postgresql://me:secret@127.0.0.1:{}/db", "the database does not answer as it should"),
    ],
)
def test_a_server_that_is_down_is_told_and_nothing_else_is_known(
    shortpick: Any, state_dir: Path, name: str, address: str, says: str
) -> None:
    file = state_dir / "shortpick.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: address.format(free_port())}))
    ran = shortpick("health", "--json")
    assert ran.code == 1
    (told,) = ran.json
    assert told["live"]["ok"] is False
    assert says in told["live"]["problems"][0]
    assert told["ready"] == told["progress"] == {"ok": None, "problems": []}
    assert shortpick("health").out.splitlines()[1].split() == ["ready", "not", "told"]


@on_sqlite
def test_without_a_group_it_is_not_ready(shortpick: Any) -> None:
    ran = shortpick("health", "--json")
    assert ran.code == 1
    assert "no consumer group" in ran.json[0]["ready"]["problems"][0]
    assert ran.json[0]["progress"]["ok"] is True


@pytest.mark.usefixtures("queue")
def test_with_other_tables_it_is_not_ready_and_progress_is_unknown(shortpick: Any, engine: Engine) -> None:
    execute(engine, "UPDATE alembic_version SET version_num = '0001'")
    ran = shortpick("health", "--json")
    assert ran.code == 1
    assert "not of this version" in ran.json[0]["ready"]["problems"][0]
    assert ran.json[0]["progress"]["ok"] is None


@pytest.mark.usefixtures("queue")
@on_sqlite
@pytest.mark.parametrize("entry_id", ["7-0", "7-3"])
def test_a_relay_that_has_stopped_is_not_ready(shortpick: Any, decide: Any, redis: Redis, entry_id: str) -> None:
    decide(placed("o1", a=("SA", 1)), shortage("o1", a=0))
    redis.xadd(CANCELLED, {"event": "foreign"}, id=entry_id)
    ran = shortpick("health")
    assert ran.code == 1
    assert "the relay has stopped" in ran.out.splitlines()[1]
    assert ran.out.splitlines()[2].split() == ["progress", "yes"]


@pytest.mark.usefixtures("queue")
@on_sqlite
def test_a_key_of_another_kind_is_not_ready(shortpick: Any, redis: Redis) -> None:
    redis.set(CANCELLED, "a text")
    assert "WRONGTYPE" in shortpick("health").out


# the queue


@on_sqlite
def test_entries_that_nobody_reads_are_stuck(stuck: Stuck, queue: Queue, redis: Redis) -> None:
    send(redis, minutes=8, number=20)
    assert stuck().startswith("nothing is read from the queue, where the oldest entry came 8 minutes")
    assert stuck("--max-age", "600") == ""
    assert stuck(meanwhile=lambda: queue.read(1, 1)) == ""


@on_sqlite
def test_entries_that_were_read_and_that_no_worker_decides_are_stuck(stuck: Stuck, queue: Queue, redis: Redis) -> None:
    send(redis, minutes=8, number=20)
    first, *_ = queue.read(10, 1)
    assert "what was read from the queue is not decided: 10 in all, the oldest came 8 minutes" in stuck()
    assert "not decided" in stuck(meanwhile=lambda: queue.read(1, 1))  # ingress reads on, and workers do nothing
    assert stuck(meanwhile=lambda: queue.acknowledge([first.entry_id])) == ""


@on_sqlite
def test_of_a_long_backlog_any_entry_that_is_done_is_progress(stuck: Stuck, queue: Queue, redis: Redis) -> None:
    """Also while nothing is read, since much is pending; and though many more come than are done."""
    send(redis, minutes=600, number=50)
    entries = queue.read(20, 1)

    def one_is_done() -> None:
        queue.acknowledge([entries.pop().entry_id])
        queue.add([b"{}"] * 5)

    assert stuck(meanwhile=one_is_done) == ""


@on_sqlite
def test_entries_that_just_came_are_not_stuck(stuck: Stuck, queue: Queue) -> None:
    queue.add([b"{}"] * 3)
    queue.read(2, 1)
    assert stuck() == ""
    assert "not decided" in stuck("--max-age", "0")


# the ledger


@pytest.mark.usefixtures("queue")
def test_cancellations_that_are_not_published_are_stuck(
    stuck: Stuck, decide: Any, publish: Callable[[], int], engine: Engine
) -> None:
    decide(placed("o1", a=("SA", 1)), shortage("o1", a=0))
    assert stuck() == ""
    execute(engine, "UPDATE cancellations SET cancelled_at = :at", at=ago(8))
    assert stuck().startswith("cancellations are not published: 1 in all, the oldest for 8 minutes")
    assert stuck(meanwhile=publish) == ""
    assert stuck() == ""


# what the clock starts: only what could be done is looked at


def resumed(engine: Engine, minutes: float) -> None:
    execute(engine, "UPDATE pauses SET resumed_at = :at, paused_at = :at", at=ago(minutes))


@pytest.mark.usefixtures("queue")
def test_shortages_that_are_due_and_do_not_move_are_stuck(
    stuck: Stuck, shortpick: Any, decide: Any, processor: Processor, engine: Engine
) -> None:
    decide(*(placed(f"o{n}", a=("SA", 1)) for n in range(3)), sku_shortage("SA", 0))
    execute(engine, "UPDATE allocations SET due_at = :at", at=ago(8))
    assert "SKU shortages that are due are not carried out: 1 in all, the oldest for 8 minutes" in stuck()
    shortpick("pause", "--reason", "zeros")
    assert stuck() == ""
    shortpick("resume", "--reason", "over")
    assert stuck() == ""
    resumed(engine, 9)
    assert "for 8 minutes" in stuck()
    step = replace(processor, orders_a_chunk=1)
    assert stuck(meanwhile=lambda: shortages.run_once(step, "SA")) == ""
    execute(engine, "UPDATE allocations SET due_at = :at", at=ago(7.5))
    assert stuck() == ""  # it has moved just now
    execute(engine, "UPDATE allocations SET moved_at = :at", at=ago(7.1))
    assert "for 7 minutes" in stuck()


@pytest.mark.usefixtures("queue")
def test_a_pause_of_one_source_holds_what_came_from_it(
    stuck: Stuck, shortpick: Any, decide: Any, engine: Engine
) -> None:
    decide(sku_shortage("SA", 0, source="/wms"), sku_shortage("SB", 0, source="/erp"))
    execute(engine, "UPDATE allocations SET due_at = :at", at=ago(8))
    shortpick("pause", "--source", "/wms", "--reason", "zeros")
    assert "1 in all" in stuck()


@pytest.mark.usefixtures("queue")
def test_waiting_events_whose_grace_is_over_are_stuck(
    stuck: Stuck, decide: Any, processor: Processor, engine: Engine
) -> None:
    patient = replace(processor, policy=Policy(order_grace=timedelta(minutes=5)))
    decide(placed("o1", a=("SA", 1)), shortage("o1", a=0), by=patient)
    execute(engine, "UPDATE waiting_events SET since = :at", at=ago(60))
    assert stuck() == ""
    execute(engine, "UPDATE waiting_events SET until = :at", at=ago(8))
    assert stuck().startswith("events that have waited for their time are not decided: 1 in all, the oldest for 8 min")
    assert stuck(meanwhile=lambda: release.release_due(patient)) == ""


@pytest.mark.usefixtures("queue")
def test_what_a_pause_holds_is_not_stuck_until_it_has_ended_for_long(
    stuck: Stuck, shortpick: Any, decide: Any, engine: Engine
) -> None:
    shortpick("pause", "--reason", "zeros")
    decide(placed("o1", a=("SA", 1)), shortage("o1", a=0))
    execute(engine, "UPDATE waiting_events SET since = :at, until = :at", at=ago(60))
    assert stuck() == ""
    shortpick("resume", "--reason", "over")
    assert stuck() == ""
    resumed(engine, 8)
    assert "the oldest for 8 minutes" in stuck()


@pytest.mark.usefixtures("queue")
def test_approved_cuts_that_are_not_carried_out_are_stuck(
    stuck: Stuck, shortpick: Any, decide: Any, processor: Processor, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    careful = replace(processor, policy=Policy(protected=Protected(frozenset({"o1"}), frozenset())))
    decide(placed("o1", a=("SA", 1)), shortage("o1", a=0), by=careful)
    execute(engine, "UPDATE holds SET created_at = :at", at=ago(60))
    assert stuck() == ""  # that is for a person
    shortpick("holds", "approve", "1", "--reason", "checked")
    execute(engine, "UPDATE holds SET decided_at = :at", at=ago(8))
    assert "approved cuts are not carried out: 1 in all, the oldest for 8 minutes" in stuck()
    with monkeypatch.context() as shadow:
        shadow.setenv("SHORTPICK_SHADOW", "true")
        assert stuck() == ""  # nothing is carried out then
    assert stuck(meanwhile=lambda: verdicts.carry_out_approved(careful)) == ""

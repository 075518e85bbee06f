"""A worker that is killed in the middle of a batch, on both databases and a real Redis: the next one finishes it, and it
comes out as if nothing had happened."""

import signal
import subprocess
import sys
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import pytest
from redis import Redis
from sqlalchemy import Engine

from tests import checker
from tests.builders import Json, placed, requested, shipped, shortage, to_bytes
from tests.integration.batches import Batches
from tests.integration.killed import POINTS
from worker import bootstrap
from worker.process import Processor, process
from worker.settings import Settings
from worker.streams import Batch, Queue

REPOSITORY = Path(__file__).resolve().parents[2]
ORDER = placed("o1", a=("SA", 9), b=("SB", 9), c=("SC", 9), d=("SD", 9))
SHIPMENT = shipped("o1", "f1", a=1)
SEVERAL = shortage("o1", a=4, b=0, c=0)
FOLLOWING = requested("o1", d=2)
OPERATIONS = [("cancelItemPartially", "a"), ("cancelItem", "b"), ("cancelItem", "c"), ("cancelItemPartially", "d")]


@pytest.fixture
def worker(engine: Engine) -> Batches:
    return Batches(engine)


def ids() -> list[str]:
    """The cancellations' ids by the contract's formula."""
    causes = [SEVERAL] * 3 + [FOLLOWING]
    names = [(cause["source"], cause["id"], "o1", *what) for cause, what in zip(causes, OPERATIONS, strict=True)]
    return [str(uuid5(NAMESPACE_OID, "\n".join(name))) for name in names]


def read(queue: Queue, *events: Json | bytes) -> Batch:
    queue.add([one if isinstance(one, bytes) else to_bytes(one) for one in events])
    return Batch([entry.entry_id for entry in queue.read(len(events), 1000)])


def killed(point: str, settings: Settings, batch: Batch) -> None:
    """Process a batch in a process that is killed at the point."""
    command = [sys.executable, "-m", "tests.integration.killed", point, settings.redis_url, settings.database_url]
    done = subprocess.run([*command, *batch.entry_ids], cwd=REPOSITORY, capture_output=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def assert_is_as_if_undisturbed(worker: Batches, queue: Queue, settings: Settings, redis: Redis) -> None:
    published = worker.published()
    assert [one["id"] for one in published] == ids()
    assert [one["data"]["sequence"] for one in published] == [1, 2, 3, 4]
    assert [one["data"]["operation"] for one in published] == [operation for operation, _ in OPERATIONS]
    assert worker.outcomes() == {
        ORDER["id"]: "recorded",
        SHIPMENT["id"]: "recorded",
        SEVERAL["id"]: "applied",
        FOLLOWING["id"]: "applied",
    }
    assert worker.totals("o1")["a"] == {"ordered": 9, "fulfilled": 1, "cancelled": 5, "open": 3}
    assert worker.dead() == ["not_json"]
    assert queue.pending() == 0
    relay = bootstrap.relay(settings, worker.engine, redis)
    while relay.run_once():
        pass
    with worker.engine.connect() as connection:
        assert checker.violations(connection, redis) == []


@pytest.mark.parametrize("together", [True, False], ids=["with its neighbours", "alone"])
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_leaves_nothing_half_done_and_nothing_is_done_twice(
    point: str, together: bool, processor: Processor, queue: Queue, settings: Settings, worker: Batches, redis: Redis
) -> None:
    """The event gives three cancellations. Its neighbours: a shipment, a request, and one that is no event."""
    process(processor, read(queue, ORDER))
    if not together:
        process(processor, read(queue, SHIPMENT))
    batch = read(queue, *([SHIPMENT, SEVERAL, FOLLOWING, b"bad"] if together else [SEVERAL]))
    committed = point == "batch: after commit"

    killed(point, settings, batch)
    assert queue.pending() == len(batch.entry_ids)
    assert (len(worker.operations()) > 0) == committed
    assert worker.outcomes().get(SEVERAL["id"]) == ("applied" if committed else None)
    overdue = queue.take_overdue(0, 10)
    assert {one.entry_id: one.starts for one in overdue} == dict.fromkeys(batch.entry_ids, 1)

    for one in overdue:  # what was started before travels alone
        assert process(processor, Batch([one.entry_id], one.starts)) == 1
    if not together:
        process(processor, read(queue, FOLLOWING, b"bad"))
    assert_is_as_if_undisturbed(worker, queue, settings, redis)


def test_a_worker_that_is_killed_again_and_again_changes_nothing(
    processor: Processor, queue: Queue, settings: Settings, worker: Batches, redis: Redis
) -> None:
    process(processor, read(queue, ORDER, SHIPMENT))
    batch = read(queue, SEVERAL, FOLLOWING, b"bad")
    for point in POINTS:
        killed(point, settings, batch)
    assert [one.starts for one in queue.take_overdue(0, 10)] == [len(POINTS)] * 3
    assert process(processor, batch) == 3
    assert_is_as_if_undisturbed(worker, queue, settings, redis)

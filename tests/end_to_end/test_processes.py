"""The retail load through all processes, on both databases, undisturbed. (tests/faults disturbs them.)"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine

from tests import checker
from tests.data import DATA
from tests.end_to_end.processes import Processes
from tests.model import Model
from worker.settings import Settings
from worker.streams import Queue

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    """Small batches, so that there are many that meet."""
    return Settings(
        redis_url=redis_url,
        database_url=database_url,
        batch_size=5,
        max_pending=40,
        redeliver_after_seconds=2,
        retry_after_seconds=0.2,
        task_limit_seconds=1.9,
        task_soft_limit_seconds=1.8,
        max_lone_starts=20,
    )


@pytest.fixture
def processes(settings: Settings, tmp_path: Path) -> Iterator[Processes]:
    with Processes(settings, tmp_path) as processes:
        yield processes


def test_the_retail_orders_come_out_as_expected(
    processes: Processes, queue: Queue, redis: Redis, engine: Engine
) -> None:
    load = retail()
    queue.add(load)
    drained(processes)
    expected = json.loads((DATA / "retail-expected.json").read_text())
    exported = processes.command("orders", "export")
    orders = {order["orderId"]: order for order in map(json.loads, exported.stdout.splitlines())}
    assert orders.keys() == expected.keys()
    for order_id, order in orders.items():
        assert as_expected(order) == expected[order_id]
    all_is_well(load, redis, engine)


def retail() -> list[bytes]:
    return [
        line
        for name in ("retail-orders.ndjson", "retail-events.ndjson")
        for line in (DATA / name).read_bytes().splitlines()
    ]


def as_expected(order: dict[str, object]) -> dict[str, object]:
    """An exported order in the form of retail-expected.json."""
    totals: dict[str, dict[str, int]] = order["totals"]  # type: ignore[assignment]  # parsed JSON
    return {
        "hasCancellations": order["hasCancellations"],
        "shipped": order["shipped"],
        "open": sum(units["open"] for units in totals.values()),
        "items": {
            item_id: {name: units[name] for name in ("ordered", "fulfilled", "cancelled")}
            for item_id, units in totals.items()
        },
    }


def drained(processes: Processes) -> None:
    done = processes.command("drain", "--timeout", "60")
    assert done.returncode == 0, done.stderr + processes.log("worker")[-3000:]


def all_is_well(load: list[bytes], redis: Redis, engine: Engine) -> None:
    """The checker finds nothing, and the reference model, fed once and in order, agrees."""
    model = Model()
    for raw in dict.fromkeys(retail()):
        assert raw in load
        model.feed(json.loads(raw))
    with engine.connect() as connection:
        assert checker.violations(connection, redis) == []
        assert checker.agreement(connection, model) == []

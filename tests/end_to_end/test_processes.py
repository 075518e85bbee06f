"""The retail load through all processes, on both databases, undisturbed and under kills."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from tests import checker
from tests.builders import to_bytes
from tests.data import DATA
from tests.end_to_end.processes import NAMES, Processes
from tests.histories import ShortHistory
from tests.model import Model
from worker.settings import Settings
from worker.streams import Queue

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    """Small batches, so that there is a middle to be killed in; short times, so that the rest comes soon."""
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


VICTIMS: dict[str, Callable[[Processes], None]] = {
    **{name: (lambda processes, name=name: processes.kill(name)) for name in NAMES},
    "worker child": Processes.kill_worker_child,
}


def test_kills_in_the_middle_change_nothing(
    processes: Processes, queue: Queue, redis: Redis, engine: Engine, rng: random.Random
) -> None:
    """Each process is killed twice, one after the other, each time while the load goes on."""
    load = retail() * 2
    rng.shuffle(load)
    victims = list(VICTIMS) * 2
    rng.shuffle(victims)
    size = len(load) // len(victims) + 1
    in_the_middle = 0
    for victim, start in zip(victims, range(0, len(load), size), strict=True):
        at_work(processes)
        queue.add(load[start : start + size])
        wait_until_begun(queue)
        time.sleep(rng.uniform(0, 0.02))
        in_the_middle += queue.pending() > 0 or queue.has_unread()
        VICTIMS[victim](processes)
    drained(processes)
    all_is_well(load, redis, engine)
    assert in_the_middle >= len(VICTIMS)
    assert "ingress.redelivered" in processes.log("ingress")


def test_everything_is_killed_at_once_and_goes_on(
    processes: Processes, queue: Queue, redis: Redis, engine: Engine, rng: random.Random
) -> None:
    load = retail()
    rng.shuffle(load)
    for start in range(0, len(load), 200):
        at_work(processes)
        queue.add(load[start : start + 200])
        wait_until_begun(queue)
        for name in NAMES:
            processes.kill(name)
    drained(processes)
    all_is_well(load, redis, engine)


def test_a_stop_under_load_is_orderly(
    processes: Processes, queue: Queue, redis: Redis, engine: Engine, rng: random.Random
) -> None:
    load = retail() * 2
    rng.shuffle(load)
    at_work(processes)
    queue.add(load)
    wait_until_begun(queue)
    for name in NAMES:
        assert processes.stop(name) == 0, processes.log(name)
    wait_for(lambda: processes.family() == [], "all processes to be gone")
    assert queue.has_unread() or queue.pending()
    for name in NAMES:
        processes.start(name)
    drained(processes)
    all_is_well(load, redis, engine)
    for name in NAMES:
        assert "Traceback" not in processes.log(name)


def test_skus_run_dry_under_kills_grace_and_a_pause(
    settings: Settings, queue: Queue, redis: Redis, engine: Engine, rng: random.Random, tmp_path: Path
) -> None:
    """Everything is killed once, while cuts wait for their grace and for the end of a pause, or while they are made."""
    patient = settings.model_copy(update={"sku_shortage_grace_seconds": 1, "release_due_every_seconds": 0.5})
    history = ShortHistory(rng)
    events = [to_bytes(one) for one in history.events]
    rng.shuffle(events)
    victims = list(VICTIMS)
    rng.shuffle(victims)
    with Processes(patient, tmp_path) as processes:
        at_work(processes)
        queue.add([to_bytes(one) for one in history.placings])
        drained(processes)
        assert processes.command("pause", "--reason", "a test").returncode == 0
        queue.add(events)
        kill(victims[:3], processes, rng)
        drained(processes)
        assert number(engine, "SELECT count(*) FROM cancellations") == 0
        assert number(engine, "SELECT count(*) FROM waiting_events WHERE waits_for = 'paused'") > 20
        assert "PAUSED since" in (resumed := processes.command("resume", "--reason", "it is over")).stderr
        assert resumed.returncode == 0
        kill(victims[3:], processes, rng)
        wait_for(lambda: number(engine, _UNDONE) == 0, "all cuts to be made")
        drained(processes)
    model = Model()
    for one in [*history.placings, *history.figures, *history.events]:
        model.feed(one)
    with engine.connect() as connection:
        assert checker.violations(connection, redis) == []
        assert checker.agreement(connection, model) == []
    assert number(engine, "SELECT sum(cut_orders) FROM allocations") > 30


_UNDONE = """
    SELECT (SELECT count(*) FROM waiting_events) + (SELECT count(*) FROM allocations WHERE finished_at IS NULL)
"""


def kill(victims: list[str], processes: Processes, rng: random.Random) -> None:
    for victim in victims:
        at_work(processes)
        VICTIMS[victim](processes)
        time.sleep(rng.uniform(0, 0.5))


def number(engine: Engine, sql: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(sql)).scalar_one())


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


def at_work(processes: Processes) -> None:
    """Until the worker is up: before that there is not much to kill."""
    wait_for(processes.worker_is_ready, "the worker to be ready")


def wait_until_begun(queue: Queue) -> None:
    """Until something of the load is pending (or, on a machine that is fast, all of it was done meanwhile)."""
    wait_for(lambda: queue.pending() > 0 or not queue.has_unread(), "the load to begin")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.002)

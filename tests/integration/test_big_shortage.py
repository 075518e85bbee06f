"""A SKU that 20,000 orders want, on both databases: killed in the middle and carried on, with flat memory, it comes out
as the rule says. `make bench-shortage` does the same with up to a million and every process."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from tests import demand
from tests.builders import sku_shortage
from tests.integration.batches import Batches
from worker.storage.database import reading

REPOSITORY = Path(__file__).resolve().parents[2]
ORDERS = 20_000
MAX_GROWTH_MEGABYTES = 20
PATIENCE_SECONDS = 90


@pytest.fixture
def worker(engine: Engine) -> Batches:
    return Batches(engine)


def served(worker: Batches) -> tuple[int, bool]:
    with reading(worker.engine) as connection:  # it waits for nobody
        row = connection.execute(text("SELECT orders, finished_at FROM allocations")).one()
    return row.orders, row.finished_at is not None


def run(database_url: str, worker: Batches, until: int) -> list[int]:
    """Carry the shortage out until so many orders are served, then `kill -9`; or until its end. Returns the resident
    memory along it, in bytes, as the process tells it."""
    command = [sys.executable, "-m", "tests.integration.running", database_url, "DRY"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while process.poll() is None and served(worker)[0] < until:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if until < ORDERS:
            assert process.poll() is None  # it was in the middle
        else:
            assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        told, _ = process.communicate()
    return [int(line) for line in told.split()]


def test_twenty_thousand_orders_are_served_by_the_rule_whatever_is_killed(database_url: str, worker: Batches) -> None:
    with worker.engine.begin() as connection:
        available = demand.load(connection, "DRY", ORDERS) // 3
    figure = sku_shortage("DRY", available, time="2026-01-01T23:00:00Z")
    worker.feed(figure)
    run(database_url, worker, until=ORDERS // 5)
    first = served(worker)
    assert ORDERS // 5 <= first[0] < ORDERS
    assert not first[1]
    memory = run(database_url, worker, until=ORDERS)
    assert served(worker) == (ORDERS, True)
    assert worker.outcomes()[figure["id"]] == "applied"
    with worker.engine.connect() as connection:
        assert demand.wrong(connection, "DRY", available) == 0
    assert worker.wrong() == []
    assert memory[-1] - memory[0] < MAX_GROWTH_MEGABYTES * 2**20

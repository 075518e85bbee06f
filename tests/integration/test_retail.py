"""Real orders on both databases: in order, and every event three times and shuffled, they end as was worked out."""

import json
import random
from typing import Any

import pytest
from sqlalchemy import Engine

from tests import checker
from tests.builders import Json
from tests.data import DATA
from tests.integration.batches import Batches
from tests.model import Model

EXPECTED: Json = json.loads((DATA / "retail-expected.json").read_text())
FILES = ("retail-orders.ndjson", "retail-events.ndjson")
EVENTS: list[Json] = [json.loads(line) for name in FILES for line in (DATA / name).read_bytes().splitlines()]


@pytest.fixture
def worker(emptied_engine: Engine) -> Batches:
    return Batches(emptied_engine)


@pytest.mark.parametrize("size", [500, 20])
def test_in_order_they_end_as_was_worked_out(size: int, worker: Batches) -> None:
    cancelled = worker.feed(*EVENTS, size=size)
    assert cancelled == len(worker.published()) > 200
    assert_all_is_well(worker)


def test_three_times_each_and_shuffled_in_batches_of_any_size_they_end_the_same(
    worker: Batches, rng: random.Random
) -> None:
    events = EVENTS * 3
    rng.shuffle(events)
    while events:
        size = rng.randint(1, 200)
        worker.feed(*events[:size])
        events = events[size:]
    assert_all_is_well(worker)


def test_the_shipments_and_shortages_before_any_order_they_end_the_same(worker: Batches) -> None:
    orders, others = EVENTS[:245], EVENTS[245:]
    worker.feed(*others, size=100)
    assert (worker.operations(), len(worker.waiting())) == ([], len(others))
    worker.feed(*reversed(orders), size=100)
    assert_all_is_well(worker)


def assert_all_is_well(worker: Batches) -> None:
    assert ended(worker) == EXPECTED
    assert (worker.dead(), worker.conflicts()) == ([], [])
    assert worker.waiting() == {}
    assert len(worker.outcomes()) == len(EVENTS)
    assert worker.wrong() == []
    model = Model()
    for event in EVENTS:
        model.feed(event)
    with worker.engine.connect() as connection:
        assert checker.agreement(connection, model) == []


def ended(worker: Batches) -> Json:
    """All orders as the file of what is expected writes them: units by the items, and by what went out."""
    orders: dict[str, Any] = {}
    for row in worker.rows("SELECT * FROM order_items ORDER BY order_id, item_id"):
        order = orders.setdefault(row.order_id, {"items": {}, "open": 0, "hasCancellations": False})
        units = order["items"].setdefault(row.original_item_id, {"ordered": 0, "fulfilled": 0, "cancelled": 0})
        units["ordered"] += row.quantity if row.item_id == row.original_item_id else 0
        units["fulfilled"] += row.fulfilled
        order["open"] += row.open_quantity
        order["hasCancellations"] |= bool(row.cancelled)
    for message in worker.published():
        for item in message["data"]["items"]:
            orders[message["subject"]]["items"][item["originalItemId"]]["cancelled"] += item["cancelledQuantity"]
    for order in orders.values():
        order["shipped"] = order["open"] == 0 and any(units["fulfilled"] for units in order["items"].values())
    return orders

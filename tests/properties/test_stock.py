"""Whatever comes in whatever order: the worker leaves just what the reference model says, with SKUs that run short and are
restocked among the rest, by either strategy, and whether orders ship complete or not."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from domain.policy import Policy, Strategy
from tests import checker
from tests.builders import (
    NOW,
    Json,
    closed,
    final,
    placed,
    requested,
    restocked,
    shipped,
    shortage,
    sku_restocked,
    sku_shipped,
    sku_shortage,
    sku_shortage_of_order,
)
from tests.integration.batches import Batches
from tests.model import Model
from worker import migrations
from worker.storage import database
from worker.storage.tables import metadata

SKUS = ("S", "T")
ORDERS = ("o1", "o2", "o3")
SOURCES = ("/test", "/other")

skus, orders, sources = st.sampled_from(SKUS), st.sampled_from(ORDERS), st.sampled_from(SOURCES)
items = st.sampled_from("ab")
few = st.integers(0, 5)
times = st.integers(0, 6).map(lambda minute: f"2026-01-01T10:{minute:02}:00Z")


@st.composite
def placings(draw: st.DrawFn) -> list[Json]:
    """All orders; small numbers, so that ties are common."""
    return [
        placed(
            name,
            {"placedAt": draw(times), "priority": draw(st.integers(0, 1))},
            **{item: (draw(skus), draw(st.integers(1, 5))) for item in "ab"},
        )
        for name in ORDERS
    ]


@st.composite
def others(draw: st.DrawFn) -> Json:
    order, item, sku = draw(orders), draw(items), draw(skus)
    units, time = draw(few), draw(times)
    fulfillment = draw(st.sampled_from(["f1", "f2", "f3"]))
    match draw(st.integers(0, 10)):
        case 0 | 1 | 2:
            return sku_shortage(sku, draw(st.integers(0, 15)), source=draw(sources), time=time)
        case 3:
            return sku_restocked(sku, source=draw(sources), time=time)
        case 4:
            return restocked(order, item, time=time)
        case 5:
            made = shortage(order, **{item: units})
        case 6:
            made = sku_shortage_of_order(order, **{sku: units})
        case 7:
            made = sku_shipped(order, fulfillment, **{sku: units + 1})
        case 8:
            made = shipped(order, fulfillment, **{item: units + 1})
            made = final(made, fulfillment) if draw(st.booleans()) else made
        case 9:
            made = closed(order, *draw(st.sampled_from([("f1",), ("f1", "f2"), ()])))
        case _:
            made = requested(order, **{item: units})
    return {**made, "time": time}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path: Path = tmp_path_factory.mktemp("stock") / "shortpick.db"
    engine = database.create(f"sqlite:///{path}")
    migrations.upgrade(engine)
    yield engine
    engine.dispose()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    first=placings(),
    following=st.lists(others(), min_size=1, max_size=12),
    data=st.data(),
    strategy=st.sampled_from(["oldest_first", "newest_first"]),
    ship_complete=st.booleans(),
    chunk=st.integers(1, 3),
)
def test_the_worker_leaves_what_the_model_says(
    engine: Engine,
    first: list[Json],
    following: list[Json],
    data: Any,
    strategy: Strategy,
    ship_complete: bool,
    chunk: int,
) -> None:
    history = [*first, *following]
    if data.draw(st.booleans(), "shuffled"):
        history = data.draw(st.permutations(history), "history")
    emptied(engine)
    worker, model = Batches(engine, Policy(ship_complete, strategy)), Model(ship_complete, strategy)
    for one in history:
        worker.feed(one)
        worker.run(chunk=chunk)
        model.feed(one, arrived=NOW + timedelta(seconds=1))
    assert worker.wrong() == []
    with engine.connect() as connection:
        assert checker.agreement(connection, model) == []
    for outcome in set(worker.outcomes().values()):
        event(outcome)


def emptied(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if table.name != "publication":
                connection.execute(table.delete())


def test_the_times_are_before_anything_arrives() -> None:
    assert datetime.fromisoformat("2026-01-01T10:06:00Z") < NOW

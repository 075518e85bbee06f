"""What a batch leaves behind beside the state: decisions with their facts, outgoing events, and few SQL statements."""

import gc
import json
import sys
from datetime import datetime
from uuid import NAMESPACE_OID, uuid5

import pytest
from sqlalchemy import Engine

from tests.builders import TIME, Json, closed, final, placed, requested, shipped, shortage
from tests.integration.batches import Batches, entries, processor, statements
from worker.process import process_entries

KINDS = ["placed", "cut", "shipped", "closed", "waiting", "dead letter", "repeat", "reused", "conflict", "mixed"]


@pytest.fixture
def worker(emptied_engine: Engine) -> Batches:
    return Batches(emptied_engine)


def test_what_was_decided_stands_beside_the_event_with_what_it_was_decided_from(worker: Batches) -> None:
    cut = shortage("o1", a=4, b=9)
    closing = final(shipped("o1", "f2", a=1), "f1", "f2")
    worker.feed(placed("o1", a=("SA", 9), b=("SB", 9)), cut, closing, shortage("o3", a=1))
    found = {row.id: row for row in worker.rows("SELECT * FROM events")}
    facts = {id_: json.loads(row.facts) if isinstance(row.facts, str) else row.facts for id_, row in found.items()}
    assert (found[cut["id"]].reason, found[cut["id"]].order_id) == ("shortage", "o1")
    assert facts[cut["id"]]["figures"] == [["item 'a'", 4], ["item 'b'", 9]]
    assert facts[cut["id"]]["keeps"] == [["a", 9, 0, 4], ["b", 9, 0, 9]]
    assert (found[closing["id"]].outcome, found[closing["id"]].reason) == ("waiting", "fulfillments_missing")
    assert facts[closing["id"]]["missing"] == ["f1"]
    assert all(row.decided_at and row.recorded_at for row in found.values())


def test_what_goes_out_tells_of_its_cause_and_of_its_order(worker: Batches) -> None:
    attributes = {"attributes": {"currency": "EUR", "é": "🦦 %s"}, "partner": "p1"}
    item = {"itemId": "a", "sku": "SA", "quantity": 9, "attributes": {"price": "1.50"}}
    ask = {
        **requested("o1", {"reason": {"code": "cancelled_elsewhere", "note": "it's\n\\n 🦦"}}, a=4),
        "traceparent": "tp",
    }
    worker.feed(placed("o1", {**attributes, "items": [item]}))
    worker.feed(ask)
    (out,) = worker.published()
    data = out["data"]
    name = "\n".join((ask["source"], ask["id"], "o1", "cancelItemPartially", "a"))
    assert out["id"] == data["cancellationId"] == str(uuid5(NAMESPACE_OID, name))
    assert (out["subject"], out["partitionkey"], out["traceparent"]) == ("o1", "o1", "tp")
    assert (data["partner"], data["attributes"]) == ("p1", attributes["attributes"])
    assert data["items"][0]["attributes"] == {"price": "1.50"}
    assert data["reason"] == {"code": "cancelled_elsewhere", "note": "it's\n\\n 🦦"}
    assert data["cancelledBy"] == "buyer"
    cause = {"id": ask["id"], "source": ask["source"], "type": ask["type"]}
    assert cause.items() <= data["cause"].items()
    assert datetime.fromisoformat(data["cause"]["time"]) == datetime.fromisoformat(TIME)
    assert datetime.fromisoformat(data["placedAt"]) == datetime.fromisoformat(TIME)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_takes_as_many_statements_for_one_event_as_for_five_hundred(kind: str, worker: Batches) -> None:
    numbers = {size: sent_for(worker, kind, size) for size in (1, 50, 500)}
    sys.stdout.write(f"{worker.engine.dialect.name}, {kind}: {numbers} statements\n")  # pytest -rP shows it
    assert len(set(numbers.values())) == 1
    assert max(numbers.values()) <= 24


def test_a_batch_leaves_no_cycles_that_only_a_search_for_garbage_frees(emptied_engine: Engine) -> None:
    """The worker seldom searches (`worker/app.py`): what each batch left would pile up."""
    by = processor(emptied_engine)

    def decide(order: str) -> None:
        process_entries(by, entries(placed(order, a=("SA", 9), b=("SB", 9)), shipped(order, "f1", a=1)))
        process_entries(by, entries(shortage(order, a=4), closed(order, "f9"), b"nonsense"))

    decide("first")
    gc.collect()
    gc.disable()
    try:
        decide("second")
        assert gc.collect() == 0
    finally:
        gc.enable()


def sent_for(worker: Batches, kind: str, size: int) -> int:
    """How many SQL statements a batch of so many events takes, or with `mixed`, a batch of five times as many."""
    names = [f"{kind} {size} {n}" for n in range(size)]
    orders = [placed(name, a=("SA", 9), b=("SB", 9)) for name in names]
    shipments = [shipped(name, "f1", a=1) for name in names]
    cuts = [shortage(name, a=4) for name in names]
    batches: dict[str, list[Json]] = {
        "placed": orders,
        "cut": cuts,
        "shipped": shipments,
        "closed": [closed(name) for name in names],
        "waiting": [closed(name, "f9") for name in names],
        "dead letter": [shortage(name, zz=1) for name in names],
        "repeat": orders,
        "reused": [{**cut, "id": order["id"]} for cut, order in zip(cuts, orders, strict=True)],
        "conflict": [shipped(name, "f2", zz=1) for name in names],
    }
    batches["mixed"] = [one for few in ("cut", "shipped", "waiting", "dead letter", "conflict") for one in batches[few]]
    if kind != "placed":
        worker.feed(*orders)
    with statements(worker.engine) as seen:
        worker.feed(*batches[kind])
    return len(seen)

"""The simulated shop: the same for the same seed, and with everything in it that the demo shows."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fakeredis import FakeRedis
from sqlalchemy import Engine, text

from domain.errors import InvalidEvent
from domain.events import Event
from domain.parsing import parse
from domain.policy import Policy
from worker import migrations, shortages
from worker.process import Processor, process_entries
from worker.simulator import RARE_SKUS, Sent, Shop
from worker.storage import database
from worker.streams import Entry, Outbox, Queue

START = datetime(2026, 1, 1, tzinfo=UTC)


def events(seed: int = 7, orders: int = 300) -> list[Sent]:
    return list(Shop(seed, START).events(orders))


def parsed(raw: bytes) -> Event | None:
    try:
        return parse(raw, START)
    except InvalidEvent:
        return None


def test_the_same_seed_makes_the_same_shop() -> None:
    assert events() == events()
    assert events() != events(seed=8)


def test_every_kind_occurs() -> None:
    kinds = Counter(one.kind for one in events())
    assert set(kinds) == {
        "order.placed",
        "inventory.shortage",
        "inventory.restocked",
        "fulfillment.created",
        "fulfillment.closed",
        "cancellation.requested",
        "duplicate",
        "broken",
    }
    assert kinds["order.placed"] == 300


def test_only_the_broken_ones_break_the_contract() -> None:
    assert all(parsed(one.raw) for one in events() if one.kind != "broken")
    broken = [parsed(one.raw) for one in events(orders=3000) if one.kind == "broken"]
    assert None in broken
    assert any(broken)  # some are broken only by what they meet: an item that the order does not have


def test_ids_are_of_one_event_each_but_for_what_is_planned() -> None:
    sent = [one for one in events() if one.kind not in ("duplicate", "broken")]
    ids = [event.key for one in sent if (event := parsed(one.raw))]
    assert len(ids) == len(set(ids))


def test_some_events_overtake_their_order() -> None:
    placed: set[str] = set()
    overtaken = 0
    for one in events():
        event = parsed(one.raw)
        if event is None or not hasattr(event.data, "order_id"):
            continue
        overtaken += event.type != "order.placed" and event.data.order_id not in placed
        placed |= {event.data.order_id} if event.type == "order.placed" else set()
    assert overtaken > 3


def test_some_content_comes_again_under_another_id() -> None:
    ids: dict[str, set[str]] = {}
    for one in events():
        if one.kind != "broken":
            event = json.loads(one.raw)
            ids.setdefault(event["type"] + json.dumps(event["data"]), set()).add(event["id"])
    assert any(len(of_content) > 1 for of_content in ids.values())


def test_what_the_shop_sends_needs_all_four_operations_and_leaves_nothing_waiting(tmp_path: Path) -> None:
    engine = database.create(f"sqlite:///{tmp_path / 'shop.db'}")
    migrations.upgrade(engine)
    sent = events()
    worker = _processor(engine)
    now = int(datetime.now(UTC).timestamp() * 1000)
    process_entries(worker, [Entry(f"{now}-{number}", one.raw) for number, one in enumerate(sent, start=1)])
    assert shortages.run(worker, RARE_SKUS, 60) == ([], [])
    with database.reading(engine) as connection:
        operations = connection.scalars(text("SELECT DISTINCT operation FROM cancellations ORDER BY 1")).all()
        waiting = connection.execute(text("SELECT count(*) FROM waiting_events")).scalar_one()
        dead = connection.execute(text("SELECT count(*) FROM dead_letters")).scalar_one()
        conflicts = connection.execute(text("SELECT count(*) FROM conflicts")).scalar_one()
        ran_dry = connection.scalars(text("SELECT cut_orders FROM allocations")).all()
        outcomes = set(connection.scalars(text("SELECT outcome FROM events")))
    engine.dispose()
    assert operations == ["cancelItem", "cancelItemPartially", "cancelOrder", "cancelUnfulfilled"]
    assert waiting == 0
    assert dead == sum(one.kind == "broken" for one in sent)
    assert conflicts > 0
    assert outcomes == {"applied", "nothing", "recorded", "refused", "stale", "void"}
    assert sum(ran_dry) > 3


def _processor(engine: Engine) -> Processor:
    """Nobody listens to its Redis."""
    client = FakeRedis()
    queue, outbox = Queue(client, "order.events", "shortpick"), Outbox(client, "order.cancelled")
    return Processor(engine, queue, outbox, Policy(), timedelta(hours=24), 5, 1000)

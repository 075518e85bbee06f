"""The simulated shop: the same for the same seed, and with everything in it that the demo shows."""

from collections import Counter
from datetime import UTC, datetime

from domain.errors import InvalidEvent
from domain.events import Event, SkuShortage
from domain.parsing import parse
from worker.simulator import Sent, Shop

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
    assert any(isinstance(one, SkuShortage) for one in broken)


def test_ids_are_of_one_event_each_but_for_what_is_planned() -> None:
    sent = [one for one in events() if one.kind not in ("duplicate", "broken")]
    ids = [event.key for one in sent if (event := parsed(one.raw))]
    assert len(ids) == len(set(ids))


def test_some_events_overtake_their_order() -> None:
    placed: set[str] = set()
    overtaken = 0
    for one in events():
        event = parsed(one.raw)
        if event is None or isinstance(event, SkuShortage) or not hasattr(event.data, "order_id"):
            continue
        overtaken += event.type != "order.placed" and event.data.order_id not in placed
        placed |= {event.data.order_id} if event.type == "order.placed" else set()
    assert overtaken > 3

"""The checker is checked by planted damage: a healthy system, one thing spoiled, and the sentence that names it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer
from redis import Redis
from sqlalchemy import Connection, Table, create_engine, insert, text

from tests.builders import NOW, TIME, Json, closed, new_id, placed, requested, shipped, shortage, to_bytes
from tests.checker import agreement, violations
from tests.model import Model
from worker.storage import tables

Damage = Callable[[Connection, Redis], object]

A2 = new_id("o1", "a")
A3 = new_id("o1", A2)
G2 = new_id("o6", "g")

PLACED = datetime.fromisoformat(TIME)
HAPPENED = "2026-01-01T12:00:00Z"  # shortages of a SKU
LATER = "2026-01-01T18:00:00Z"
FUTURE = datetime(9999, 1, 1, tzinfo=UTC)


def sku_shortage(sku: str, available: int) -> Json:
    return shortage("-") | {"data": {"sku": sku, "availableQuantity": available}, "time": HAPPENED}


# o1 is cut, shipped with one unit too many, and closed; o2 is cancelled; o3 is not placed yet; o4 waits for a shipment.
# Of SE there are 7: o5 has shipped 1 of them and is given 3, o6 is given 3 of 5, o7 none of 2. Of SD there is enough,
# says e14; what e15 and e16 say of it is in its grace.
STORY: list[tuple[str, Json]] = [
    ("recorded", placed("o1", a=("SA", 10), b=("SB", 4)) | {"id": "e1"}),
    ("applied", shortage("o1", a=4) | {"id": "e2"}),
    ("recorded", placed("o2", c=("SC", 2)) | {"id": "e3"}),
    ("applied", requested("o2") | {"id": "e4"}),
    ("recorded", shipped("o1", "f1", a=3, b=5) | {"id": "e5"}),
    ("applied", closed("o1", "f1") | {"id": "e6"}),
    ("waiting", shortage("o3", z=0) | {"id": "e7"}),
    ("recorded", placed("o4", d=("SD", 5)) | {"id": "e8"}),
    ("waiting", closed("o4", "f9") | {"id": "e9"}),
    ("recorded", placed("o7", h=("SE", 2)) | {"id": "e10"}),
    ("recorded", placed("o6", g=("SE", 5)) | {"id": "e11"}),
    ("recorded", placed("o5", {"priority": 1}, f=("SE", 4)) | {"id": "e12"}),
    ("recorded", shipped("o5", "f5", f=1) | {"id": "e13", "time": LATER}),
    ("nothing", sku_shortage("SD", 9) | {"id": "e14"}),
    ("waiting", sku_shortage("SD", 6) | {"id": "e15"}),
    ("waiting", shortage("o4", d=5) | {"id": "e16"}),
    ("applied", sku_shortage("SE", 7) | {"id": "e17"}),
]
REPEAT_AND_GARBAGE = [to_bytes(STORY[1][1]), b"\xff not JSON"]
GARBAGE, NEXT = f"{len(STORY) + 2}-0", f"{len(STORY) + 3}-0"  # entries

# Order, sequence, cause, item as first ordered, units; by position.
LEDGER = [("o1", 1, "e2", "a", 6), ("o2", 1, "e4", "c", 2), ("o1", 2, "e6", "a", 1)]
LEDGER += [("o6", 1, "e17", "g", 2), ("o7", 1, "e17", "h", 2)]


@pytest.fixture
def redis() -> Redis:
    client = FakeRedis(server=FakeServer())
    events = [to_bytes(event) for _, event in STORY] + REPEAT_AND_GARBAGE
    for number, event in enumerate(events, 1):
        client.xadd("order.events", {"event": event}, id=f"{number}-0")
    client.xgroup_create("order.events", "shortpick", id="0")
    client.xreadgroup("shortpick", "one", {"order.events": ">"})
    client.xack("order.events", "shortpick", *(f"{number}-0" for number in range(1, len(events) + 1)))
    publish(client, [payload(row) for row in LEDGER])
    return client


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path}/shortpick.db")
    tables.metadata.create_all(engine)
    with engine.connect() as connection:
        fill_orders(connection)
        fill_events(connection)
        fill_allocations(connection)
        fill_holds(connection)
        fill_ledger(connection)
        yield connection
    engine.dispose()


def test_a_healthy_system_has_no_violations(connection: Connection, redis: Redis) -> None:
    assert violations(connection, redis) == []


def test_a_system_that_has_done_nothing_is_healthy(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shortpick.db")
    tables.metadata.create_all(engine)
    with engine.connect() as connection:
        assert violations(connection, FakeRedis(server=FakeServer())) == []
        assert agreement(connection, Model()) == []


def test_a_repeat_of_a_dead_letter_is_told_of_by_that_one(connection: Connection, redis: Redis) -> None:
    again = REPEAT_AND_GARBAGE[1]
    redis.xadd("order.events", {"event": again}, id=NEXT)
    redis.xreadgroup("shortpick", "one", {"order.events": ">"})
    redis.xack("order.events", "shortpick", NEXT)
    assert violations(connection, redis) == [f"Entry {NEXT} is lost: it is neither an event nor a dead letter."]
    connection.execute(tables.dead_letters.update().values(bytes=again))
    assert violations(connection, redis) == []


def test_a_healthy_system_agrees_with_the_model(connection: Connection) -> None:
    assert agreement(connection, told()) == []


def units(ordered: int, fulfilled: int, cancelled: int, open_: int) -> Json:
    return {"ordered": ordered, "fulfilled": fulfilled, "cancelled": cancelled, "open": open_}


def sql(*statements: str) -> Damage:
    def damage(connection: Connection, _: Redis) -> None:
        for statement in statements:
            connection.execute(text(statement))

    return damage


def republished(change: Callable[[list[str]], list[str]]) -> Damage:
    """The outgoing stream with these payloads instead."""

    def damage(_: Connection, redis: Redis) -> None:
        redis.delete("order.cancelled")
        publish(redis, change([payload(row) for row in LEDGER]))

    return damage


def read_and_forgotten(_: Connection, redis: Redis) -> None:
    redis.xadd("order.events", {"event": to_bytes(STORY[0][1])}, id=NEXT)
    redis.xreadgroup("shortpick", "one", {"order.events": ">"})


def unread(_: Connection, redis: Redis) -> None:
    redis.xadd("order.events", {"event": to_bytes(STORY[0][1])}, id=NEXT)


# SQLite cannot drop a constraint, and the checker must not rely on one.
UNCONSTRAINED = (
    "CREATE TABLE copy AS SELECT * FROM cancellations",
    "DROP TABLE cancellations",
    "ALTER TABLE copy RENAME TO cancellations",
)
COPY_OF_F1 = "INSERT INTO fulfillments SELECT order_id, 'f2', time, lines, digest, source, event_id FROM fulfillments"
COPY_OF_F1 += " WHERE fulfillment_id = 'f1'"
F9 = "INSERT INTO fulfillments SELECT 'o4', 'f9', time, '[]', digest, source, event_id FROM fulfillments"
F9 += " WHERE fulfillment_id = 'f1'"
ITEM = f"WHERE order_id = 'o1' AND item_id = '{A3}'"

LEDGER_DAMAGE: dict[str, tuple[Damage, str]] = {
    "a unit vanishes from an item": (
        sql(f"UPDATE order_items SET fulfilled = 2 {ITEM}"),
        f"Item o1/a does not add up: {units(10, 2, 7, 0)}.",
    ),
    "a fulfilled unit becomes open again": (
        sql(f"UPDATE order_items SET fulfilled = 2, open_quantity = 1 {ITEM}"),
        "Of order o1 8 units shipped, 7 are fulfilled or in conflict.",
    ),
    "a wrong open quantity": (
        sql("UPDATE order_items SET open_quantity = 4 WHERE item_id = 'd'"),
        "Item o4/d: its open quantity is 4, not 5.",
    ),
    "a replaced item that kept fulfilled units": (
        sql(f"UPDATE order_items SET fulfilled = 3 WHERE item_id = '{A2}'"),
        f"Item o1/{A2} is cancelled, and 3 of it are fulfilled.",
    ),
    "a replaced item that is not cancelled": (
        sql("UPDATE order_items SET cancelled = false WHERE item_id = 'a'"),
        "Item o1/a is replaced, but not cancelled.",
    ),
    "more fulfilled than there is": (
        sql("UPDATE order_items SET fulfilled = 7, open_quantity = -2 WHERE item_id = 'd'"),
        f"Item o4/d has negative units: {units(5, 7, 0, -2)}, cut by [].",
    ),
    "an item replaced by a larger one": (
        sql(f"UPDATE order_items SET quantity = 12 WHERE item_id = '{A2}'"),
        f"Item o1/a has negative units: {units(10, 3, 7, 0)}, cut by [-2, 9].",
    ),
    "an item of no chain": (
        sql(f"UPDATE order_items SET original_item_id = 'x' {ITEM}"),
        f"Item o1/{A3} belongs to no item as first ordered.",
    ),
    "a chain that ends in nothing": (
        sql(f"DELETE FROM order_items {ITEM}"),
        f"Item o1/a is replaced by {A3}, which is none of its later items.",
    ),
    "a chain that bites its tail": (
        sql(f"UPDATE order_items SET replaced_by = 'a' {ITEM}"),
        "Item o1/a is replaced by a, which is none of its later items.",
    ),
    "a cancellation that nobody booked": (
        sql("UPDATE order_items SET cancelled = true, open_quantity = 0 WHERE item_id = 'd'"),
        "Order o4 lost 5 units, its ledger has 0.",
    ),
    "other units in the ledger": (
        sql("UPDATE cancellations SET units = 7 WHERE position = 1"),
        "Order o1 lost 7 units, its ledger has 8.",
    ),
    "other units in a payload": (
        sql(
            """UPDATE cancellations SET payload = replace(payload, '"cancelledQuantity": 6', '"cancelledQuantity": 5')"""
        ),
        "Item o1/a lost 7 units, its payloads tell of 6.",
    ),
    "a payload about another item": (
        sql(
            """UPDATE cancellations SET payload = replace(payload, '"originalItemId": "c"', '"originalItemId": "d"')"""
        ),
        "Item o2/d lost 0 units, its payloads tell of 2.",
    ),
    "a payload about another cancellation": (
        sql(
            "UPDATE cancellations SET payload = (SELECT payload FROM cancellations WHERE position = 2) WHERE position = 1"
        ),
        "The payload of cancellation c-o1-1 tells of ('c-o2-1', 'o2', 1).",
    ),
    "a payload that is not JSON": (
        sql("UPDATE cancellations SET payload = '{' WHERE position = 2"),
        "The payload of cancellation c-o2-1 tells of (None, None, None).",
    ),
    "a lost ledger row": (
        sql("DELETE FROM cancellations WHERE position = 2"),
        "Order o2 lost 2 units, its ledger has 0.",
    ),
    "a duplicate sequence": (
        sql(*UNCONSTRAINED, "UPDATE cancellations SET sequence = 1"),
        "The sequences of order o1 are not 1 to n: 1 where 2 should be.",
    ),
    "a gap in the sequences": (
        sql("UPDATE cancellations SET sequence = 3 WHERE position = 3"),
        "The sequences of order o1 are not 1 to n: 3 where 2 should be.",
    ),
    "an order that counts wrongly": (
        sql("UPDATE orders SET sequence = 3 WHERE order_id = 'o1'"),
        "Order o1 counts 3 cancellations, its ledger has 2.",
    ),
}


def removed_until(day: str, source: str = "/test") -> str:
    """As if events of a source until then had been removed by age."""
    return f"INSERT INTO pruned_events (source, newest_time) VALUES ('{source}', '{day}T00:00:00.000000+00:00')"


REMOVED = removed_until("2026-01-02")
FROM_THREE = "UPDATE publication SET first_position = 3"

LOSS: dict[str, tuple[Damage, str]] = {
    "an entry without its event": (
        sql("DELETE FROM events WHERE id = 'e1'"),
        "Entry 1-0 is lost: it is neither an event nor a dead letter.",
    ),
    "an entry without its dead letter": (
        sql("DELETE FROM dead_letters"),
        f"Entry {GARBAGE} is lost: it is neither an event nor a dead letter.",
    ),
    "an entry whose event is newer than what was removed": (
        sql(removed_until("2025-12-31"), "DELETE FROM events WHERE id = 'e3'"),
        "Entry 3-0 is lost: it is neither an event nor a dead letter.",
    ),
    "an entry whose event is of another source than what was removed": (
        sql(removed_until("2026-01-02", "/other"), "DELETE FROM events WHERE id = 'e3'"),
        "Entry 3-0 is lost: it is neither an event nor a dead letter.",
    ),
    "a removed event whose order was lost": (
        sql(REMOVED, "DELETE FROM events WHERE id = 'e8'", "UPDATE orders SET placed_at = NULL WHERE order_id = 'o4'"),
        "Entry 8-0 is lost: its event was removed, and its order o4 was not placed.",
    ),
    "a removed event whose shipment was lost": (
        sql(REMOVED, "DELETE FROM events WHERE id = 'e13'", "DELETE FROM fulfillments WHERE order_id = 'o5'"),
        "Entry 13-0 is lost: its event was removed, and its shipment o5/f5 was not recorded.",
    ),
    "an event that was removed, and cancelled something": (
        sql(REMOVED, "DELETE FROM events WHERE id = 'e2'"),
        "Event /test e2 has no outcome.",
    ),
    "an event that was removed, and waits": (
        sql(REMOVED, "DELETE FROM events WHERE id = 'e9'"),
        "Event /test e9 has no outcome.",
    ),
    "an event that was removed, and was held": (
        sql(REMOVED, "DELETE FROM events WHERE id = 'e1'"),
        "Event /test e1 has no outcome.",
    ),
    "a shortage of a SKU that was removed, and cut orders": (
        sql(REMOVED, "DELETE FROM events WHERE id = 'e17'"),
        "Event /test e17 has no outcome.",
    ),
    "a shortage of a SKU that was removed, and is not over": (
        sql(REMOVED, "DELETE FROM events WHERE id = 'e15'"),
        "Event /test e15 has no outcome.",
    ),
    "an entry that was read and forgotten": (read_and_forgotten, "The group shortpick has 1 pending."),
    "an entry that was not read": (unread, f"The group shortpick has 1 unread, from {NEXT} on."),
    "a group that is gone": (
        lambda _, redis: redis.xgroup_destroy("order.events", "shortpick"),
        "The stream order.events has no group shortpick.",
    ),
    "an event without an outcome": (
        sql("UPDATE events SET outcome = NULL WHERE id = 'e1'"),
        "Event /test e1 has no outcome.",
    ),
    "a waiting event that is gone": (
        sql("DELETE FROM waiting_events WHERE id = 'e7'"),
        "Event /test e7 ended as waiting, and does not wait.",
    ),
    "a leftover waiting event": (
        sql("UPDATE events SET outcome = 'recorded' WHERE id = 'e7'"),
        "Event /test e7 ended as recorded, and waits.",
    ),
    "a waiting event that was never recorded": (
        sql("DELETE FROM events WHERE id = 'e9'"),
        "Event /test e9 has no outcome.",
    ),
    "an event that waits for an order that was placed": (
        sql("UPDATE orders SET placed_at = '2026-01-01T00:00:00.000000+00:00'"),
        "Event /test e7 waits for order o3, which was placed.",
    ),
    "a closing that waits for what is recorded": (
        sql(F9),
        "Event /test e9 waits for fulfillments, which are all recorded.",
    ),
    "a conflict that is forgotten": (
        sql("DELETE FROM conflicts"),
        "Of order o1 8 units shipped, 7 are fulfilled or in conflict.",
    ),
    "a shipment that was not counted": (
        sql(COPY_OF_F1),
        "Of order o1 16 units shipped, 8 are fulfilled or in conflict.",
    ),
    "an applied event that cancelled nothing": (
        sql("UPDATE events SET outcome = 'applied' WHERE id = 'e1'"),
        "Event /test e1 ended as applied, and cancelled nothing.",
    ),
    "a cancellation whose cause was not applied": (
        sql("UPDATE events SET outcome = 'nothing' WHERE id = 'e2'"),
        "Event /test e2 ended as nothing, and cancelled something.",
    ),
    "a cancellation without a cause": (
        sql("UPDATE cancellations SET cause_id = 'e0' WHERE position = 1"),
        "Event /test e0 has no outcome.",
    ),
}

PUBLICATION_DAMAGE: dict[str, tuple[Damage, str]] = {
    "a lost position": (
        sql("UPDATE cancellations SET position = NULL WHERE position = 5"),
        "The positions are not 1 to n: nothing where 5 should be.",
    ),
    "a gap in the positions": (
        sql("UPDATE cancellations SET position = 6 WHERE position = 5"),
        "The positions are not 1 to n: 6 where 5 should be.",
    ),
    "a position given twice": (
        sql(*UNCONSTRAINED, "UPDATE cancellations SET position = 2 WHERE position = 3"),
        "The positions are not 1 to n: 2 where 3 should be.",
    ),
    "positions against the sequence": (
        sql(*UNCONSTRAINED, "UPDATE cancellations SET position = 4 - position WHERE position < 4"),
        "Position 3 takes order o1 back to sequence 1.",
    ),
    "an entry that was not published": (
        republished(lambda payloads: payloads[:-1]),
        "The published entries are not 1-0 to n-0: nothing where 5-0 should be.",
    ),
    "a published entry that was deleted": (
        lambda _, redis: redis.xdel("order.cancelled", "2-0"),
        "The published entries are not 1-0 to n-0: 3-0 where 2-0 should be.",
    ),
    "an entry published twice": (
        republished(lambda payloads: [*payloads, payloads[-1]]),
        "The published entries are not 1-0 to n-0: 6-0 where nothing should be.",
    ),
    "swapped entries": (
        republished(lambda payloads: [payloads[1], payloads[0], *payloads[2:]]),
        "Entry 1-0 is not its ledger row, byte for byte.",
    ),
    "an entry with one space more": (
        republished(lambda payloads: [*payloads[:-1], payloads[-1] + " "]),
        "Entry 5-0 is not its ledger row, byte for byte.",
    ),
    "an entry that was trimmed, and nobody noted it": (
        lambda _, redis: redis.xtrim("order.cancelled", minid="2-0", approximate=False),
        "The published entries are not 1-0 to n-0: 2-0 where 1-0 should be.",
    ),
    "an entry that was trimmed, and should be there": (
        lambda connection, redis: (
            sql(FROM_THREE)(connection, redis),
            redis.xtrim("order.cancelled", minid="4-0", approximate=False),
        ),
        "The published entries are not 3-0 to n-0: 4-0 where 3-0 should be.",
    ),
    "a stream that is gone": (
        republished(lambda _: []),
        "The published entries are not 1-0 to n-0: nothing where 1-0 should be.",
    ),
}

OF_O6 = "WHERE order_id = 'o6'"
E17 = "WHERE id = 'e17'"
SWAPPED = "UPDATE allotments SET rank = 5 - rank WHERE order_id IN ('o6', 'o7')"

ALLOCATION_DAMAGE: dict[str, tuple[Damage, str]] = {
    "a run that was reopened": (
        sql(f"UPDATE allocations SET finished_at = NULL {E17}"),
        "Event /test e17 ended as applied, and waits.",
    ),
    "a run that ended without its event": (
        sql("UPDATE allocations SET finished_at = due_at WHERE id = 'e15'"),
        "Event /test e15 ended as waiting, and does not wait.",
    ),
    "a shortage of a SKU that is gone": (
        sql("DELETE FROM allocations WHERE id = 'e15'"),
        "Event /test e15 ended as waiting, and does not wait.",
    ),
    "a shortage of a SKU that was never recorded": (
        sql("DELETE FROM events WHERE id = 'e14'"),
        "Event /test e14 has no outcome.",
    ),
    "an entry about a SKU without its event": (
        sql("DELETE FROM events WHERE id = 'e15'"),
        "Entry 15-0 is lost: it is neither an event nor a dead letter.",
    ),
    "a gap in the ranks": (
        sql("UPDATE allotments SET rank = 4 WHERE order_id = 'o7'"),
        "Event /test e17: the ranks are not 1 to n: 4 where 3 should be.",
    ),
    "a rank given twice": (
        sql("UPDATE allotments SET rank = 2 WHERE order_id = 'o7'"),
        "Event /test e17: the ranks are not 1 to n: 2 where 3 should be.",
    ),
    "other figures where there was enough": (
        sql("UPDATE allocations SET given = 4 WHERE id = 'e14'"),
        "Event /test e14 served no order, and gave 4 of 5 units.",
    ),
    "a cut where there was enough": (
        sql("UPDATE allocations SET cut_units = 1 WHERE id = 'e14'"),
        "Event /test e14 counts 1 cut_units, its allotments 0.",
    ),
    "figures of a run that has not begun": (
        sql("UPDATE allocations SET wanted = 5, given = 5 WHERE id = 'e15'"),
        "Event /test e15 counts 5 wanted, its allotments 0.",
    ),
    "an allotment with other cut units": (
        sql(f"UPDATE allotments SET cut_units = 1 {OF_O6}"),
        "Event /test e17 cut 1 units of order o6, its ledger has 2.",
    ),
    "a cut that the ledger has of another cause": (
        sql("UPDATE cancellations SET cause_id = 'e2' WHERE position = 5"),
        "Event /test e17 cut 2 units of order o7, its ledger has 0.",
    ),
    "a cut without an allotment": (
        sql("UPDATE cancellations SET cause_id = 'e17' WHERE position = 2"),
        "Event /test e17 cut order o2, which it did not serve.",
    ),
    "a cut by a shortage that had enough": (
        sql("UPDATE cancellations SET cause_id = 'e14' WHERE position = 5"),
        "Event /test e14 cut order o7, which it did not serve.",
    ),
    "an allotment of no allocation": (
        sql(f"UPDATE allotments SET allocation_id = 99 {OF_O6}"),
        "The allotment of order o6 belongs to no allocation.",
    ),
    "an order that was given more than it wanted": (
        sql("UPDATE allotments SET given = 4 WHERE order_id = 'o5'"),
        "Event /test e17 gave order o5 4 of the 3 units it wanted, with 6 left.",
    ),
    "a unit given twice": (
        sql(f"UPDATE allotments SET given = 4 {OF_O6}"),
        "Event /test e17 gave order o6 4 of the 5 units it wanted, with 3 left.",
    ),
    "units left that were given before": (
        sql(f"UPDATE allotments SET left_units = 4 {OF_O6}"),
        "Event /test e17 had 4 units left for order o6, and not 3.",
    ),
    "a shipment that was made up": (
        sql("UPDATE allotments SET shipped = 2 WHERE order_id = 'o5'"),
        "Event /test e17 counts 2 units that order o5 shipped, which has shipped 1 since.",
    ),
    "a shipment from before a shortage that counts": (
        sql("UPDATE shipped_units SET time = '2026-01-01T12:00:00.000000+00:00'"),
        "Event /test e17 counts 1 units that order o5 shipped, which has shipped 0 since.",
    ),
    "a cut while something was left": (
        sql("UPDATE allotments SET given = 2, wanted = 3 WHERE order_id = 'o5'"),
        "Event /test e17 gave order o5 2 of the 3 units it wanted, with 6 left.",
    ),
    "more left than there was": (
        sql(f"UPDATE allocations SET available = 5 {E17}"),
        "Event /test e17 had 6 units left for order o5, of 5.",
    ),
    "units for an order after one that lacks some": (
        sql("UPDATE allotments SET given = 1 WHERE order_id = 'o7'"),
        "Event /test e17 gave order o7 1 of the 2 units it wanted, with 0 left.",
    ),
    "a cut that was too large": (
        sql(f"UPDATE allotments SET wanted = 4 {OF_O6}"),
        "Event /test e17 cut 2 units of order o6, which lacked 1.",
    ),
    "an allotment of an order that came later": (
        sql("UPDATE orders SET placed_at = '2026-01-01T12:00:00.000001+00:00' WHERE order_id = 'o7'"),
        "Event /test e17 served order o7, which was placed after it.",
    ),
    "an allotment of an order that was not placed": (
        sql("UPDATE orders SET placed_at = NULL WHERE order_id = 'o7'"),
        "Event /test e17 served order o7, which was not placed.",
    ),
    "an allotment of no order": (
        sql("DELETE FROM orders WHERE order_id = 'o7'"),
        "Event /test e17 served order o7, which was not placed.",
    ),
    "a lower priority that came first": (
        sql("UPDATE orders SET priority = 2 WHERE order_id = 'o7'"),
        "Event /test e17 served orders out of turn: o5 where o7 should be.",
    ),
    "a newer order that came first": (
        sql("UPDATE orders SET placed_at = '2026-01-01T06:00:00.000000+00:00' WHERE order_id = 'o6'"),
        "Event /test e17 served orders out of turn: o6 where o7 should be.",
    ),
    "orders of one time that changed places": (
        sql(SWAPPED),
        "Event /test e17 served orders out of turn: o7 where o6 should be.",
    ),
    "the newest last, though they come first": (
        sql(f"UPDATE allocations SET strategy = 'newest_first' {E17}"),
        "Event /test e17 served orders out of turn: o6 where o7 should be.",
    ),
    "an item with another priority than its order": (
        sql("UPDATE order_items SET priority = 0 WHERE order_id = 'o5'"),
        "Item o5/f has another priority or time of placing than its order.",
    ),
    "an item with another time than its order": (
        sql("UPDATE order_items SET placed_at = '2026-01-01T06:00:00.000000+00:00' WHERE item_id = 'd'"),
        "Item o4/d has another priority or time of placing than its order.",
    ),
    "other shipped units": (
        sql("UPDATE shipped_units SET quantity = 2 WHERE order_id = 'o5'"),
        "Of o5/f5/SE 1 units shipped, 2 are counted.",
    ),
    "shipped units that are forgotten": (
        sql("DELETE FROM shipped_units WHERE order_id = 'o5'"),
        "Of o5/f5/SE 1 units shipped, 0 are counted.",
    ),
    "shipped units of no shipment": (
        sql("UPDATE shipped_units SET fulfillment_id = 'f6' WHERE order_id = 'o5'"),
        "Of o5/f6/SE 0 units shipped, 1 are counted.",
    ),
    "shipped units of a line by SKU that are forgotten": (
        sql("""UPDATE fulfillments SET lines = '[["f", null, 1], [null, "SX", 2]]' WHERE order_id = 'o5'"""),
        "Of o5/f5/SX 2 units shipped, 0 are counted.",
    ),
    "shipped units of an item that is unknown": (
        sql("""UPDATE fulfillments SET lines = '[["unknown", null, 1]]' WHERE order_id = 'o5'"""),
        "Of o5/f5/SE 0 units shipped, 1 are counted.",
    ),
    "a shortage of a SKU that nobody carried out": (
        sql("UPDATE allocations SET due_at = '2026-01-02T00:00:00.000000+00:00' WHERE id = 'e15'"),
        "Event /test e15 was not carried out: its shortage of SKU SD is due.",
    ),
    "an event that has waited too long": (
        sql("UPDATE waiting_events SET until = '2026-01-02T00:00:00.000000+00:00' WHERE id = 'e9'"),
        "Event /test e9 has waited too long, and still waits.",
    ),
    "a cut after a preflight": (
        sql(
            f"UPDATE allotments SET outcome = 'held', reason = 'preflight' {OF_O6}",
            "UPDATE allotments SET outcome = 'applied' WHERE order_id = 'o7'",
        ),
        "Event /test e17 cut order o7, after its preflight had held other cuts.",
    ),
    "an event whose grace is over": (
        sql("UPDATE waiting_events SET until = '2026-01-02T00:00:00.000000+00:00' WHERE id = 'e16'"),
        "Event /test e16 waits for the end of its grace, which is over.",
    ),
    "an event that waits for a pause that is over": (
        sql("UPDATE waiting_events SET waits_for = 'paused' WHERE id = 'e16'"),
        "Event /test e16 waits for the end of a pause, and nothing is paused.",
    ),
}
FIGURES = {"orders": 3, "wanted": 10, "given": 6, "shipped": 1, "cut_orders": 2, "cut_units": 4}
for _figure, _number in FIGURES.items():
    ALLOCATION_DAMAGE[f"other {_figure} of a run"] = (
        sql(f"UPDATE allocations SET {_figure} = 0 {E17}"),
        f"Event /test e17 counts 0 {_figure}, its allotments {_number}.",
    )

HOLD_DAMAGE: dict[str, tuple[Damage, str]] = {
    "a cut that nobody approved": (
        sql("UPDATE holds SET state = 'open' WHERE hold_id = 2"),
        "Hold 2 of order o6 is open, and its event cut 2 units.",
    ),
    "a cut that was rejected": (
        sql("UPDATE holds SET id = 'e2' WHERE hold_id = 1"),
        "Hold 1 of order o1 is rejected, and its event cut 6 units.",
    ),
    "an approved cut that was never made": (
        sql("UPDATE holds SET id = 'e1' WHERE hold_id = 2"),
        "Hold 2 of order o6 was carried out, and its event cut nothing.",
    ),
    "a verdict of nobody": (
        sql("UPDATE holds SET decided_by = NULL WHERE hold_id = 1"),
        "Hold 1 of order o1 is rejected, and nobody knows by whom and why.",
    ),
    "other units than it would cancel": (
        sql("UPDATE holds SET units = 3 WHERE hold_id = 1"),
        "Hold 1 of order o1 counts 3 units, and would cancel 2.",
    ),
    "an event that is not held, though a cut of it is undecided": (
        sql("UPDATE holds SET state = 'open' WHERE hold_id = 1"),
        "Event /test e1 ended as recorded, and a cut of it is undecided.",
    ),
    "an event that is held, though no cut of it is undecided": (
        sql("UPDATE events SET outcome = 'held' WHERE id = 'e1'"),
        "Event /test e1 ended as held, and no cut of it is undecided.",
    ),
}

KINDS = LEDGER_DAMAGE | LOSS | PUBLICATION_DAMAGE | ALLOCATION_DAMAGE | HOLD_DAMAGE


@pytest.mark.parametrize(("damage", "sentence"), KINDS.values(), ids=KINDS)
def test_damage_is_named(connection: Connection, redis: Redis, damage: Damage, sentence: str) -> None:
    damage(connection, redis)
    assert sentence in violations(connection, redis)


# What looks like damage, and is none.
HEALTHY = {
    "orders that ship complete": [
        f"UPDATE allocations SET ship_complete = true, given = 5 {E17}",
        f"UPDATE allotments SET given = 0 {OF_O6}",
        "UPDATE allotments SET given = 2, left_units = 3 WHERE order_id = 'o7'",
    ],
    "a shipment that came between two transactions of a run": [
        "UPDATE orders SET priority = -1 WHERE order_id = 'o5'",
        "UPDATE order_items SET priority = -1 WHERE order_id = 'o5'",
        f"UPDATE allocations SET available = 3, given = 3 {E17}",
        "UPDATE allotments SET rank = 1 + (rank + 1) % 3",
        "UPDATE allotments SET given = 0, left_units = 0, decided_at = '2026-01-02T00:00:01.000000+00:00' WHERE order_id = 'o5'",
    ],
    "more shipped than there was, and nothing given": [
        f"UPDATE allocations SET given = 0, available = 0 {E17}",
        "UPDATE allotments SET given = 0, left_units = 0",
    ],
    "the newest first, in their turn": [
        f"UPDATE allocations SET strategy = 'newest_first', available = 4, given = 3 {E17}",
        SWAPPED,
        f"UPDATE allotments SET given = 0 {OF_O6}",
        "UPDATE allotments SET left_units = CASE order_id WHEN 'o5' THEN 3 ELSE 0 END",
    ],
    "events that were removed by age": [REMOVED, "DELETE FROM events WHERE id IN ('e3', 'e5', 'e8', 'e13', 'e14')"],
    "a run that ended before it began": [
        "UPDATE allocations SET finished_at = due_at WHERE id = 'e15'",
        "UPDATE events SET outcome = 'stale' WHERE id = 'e15'",
    ],
}


@pytest.mark.parametrize("statements", HEALTHY.values(), ids=HEALTHY)
def test_what_may_be_is_not_taken_for_damage(connection: Connection, redis: Redis, statements: list[str]) -> None:
    sql(*statements)(connection, redis)
    assert violations(connection, redis) == []


def test_a_stream_begins_where_it_was_trimmed(connection: Connection, redis: Redis) -> None:
    connection.execute(text(FROM_THREE))
    redis.xtrim("order.cancelled", minid="3-0", approximate=False)
    assert violations(connection, redis) == []
    connection.execute(text("UPDATE publication SET first_position = 6"))
    redis.xtrim("order.cancelled", maxlen=0, approximate=False)
    assert violations(connection, redis) == []


def test_what_a_pause_holds_may_wait(connection: Connection, redis: Redis) -> None:
    """A run may be half done by then."""
    sql(
        f"UPDATE allocations SET finished_at = NULL {E17}",
        f"UPDATE events SET outcome = 'waiting' {E17}",
        "UPDATE waiting_events SET waits_for = 'paused' WHERE id = 'e16'",
    )(connection, redis)
    assert violations(connection, redis, paused=True) == []
    assert violations(connection, redis) == [
        "Event /test e17 was not carried out: its shortage of SKU SE is due.",
        "Event /test e16 waits for the end of a pause, and nothing is paused.",
    ]
    connection.execute(text("UPDATE allotments SET released = 1 WHERE order_id = 'o5'"))
    assert violations(connection, redis, paused=True) == [
        "Event /test e17 counts 5 units open in the orders it has served; it is 6."
    ]


DISAGREEMENTS = {
    "other units of an item": (
        "UPDATE order_items SET fulfilled = 3, open_quantity = 1 WHERE item_id = 'b'",
        f"Item o1/b: the database has {units(4, 3, 0, 1)}, the model {units(4, 4, 0, 0)}.",
    ),
    "an order less": (
        "DELETE FROM order_items WHERE order_id = 'o4'",
        f"Item o4/d: the database has 0, the model {units(5, 0, 0, 5)}.",
    ),
    "an order more": (
        "UPDATE order_items SET order_id = 'o5' WHERE order_id = 'o2'",
        f"Item o5/c: the database has {units(2, 0, 2, 0)}, the model 0.",
    ),
    "other conflicts": (
        "UPDATE conflicts SET quantity = 2",
        "Conflicts of order o1: the database has 2, the model 1.",
    ),
}


@pytest.mark.parametrize(("statement", "sentence"), DISAGREEMENTS.values(), ids=DISAGREEMENTS)
def test_a_disagreement_with_the_model_is_named(connection: Connection, statement: str, sentence: str) -> None:
    connection.execute(text(statement))
    assert sentence in agreement(connection, told())


def told() -> Model:
    model = Model()
    for _, event in STORY:
        model.feed(event)
    return model


def publish(redis: Redis, payloads: list[str]) -> None:
    for position, event in enumerate(payloads, 1):
        redis.xadd("order.cancelled", {"event": event}, id=f"{position}-0")


def payload(row: tuple[str, int, str, str, int]) -> str:
    order_id, sequence, _, item_id, units = row
    names = {"cancellationId": f"c-{order_id}-{sequence}", "orderId": order_id, "sequence": sequence}
    return json.dumps({"data": {**names, "items": [{"originalItemId": item_id, "cancelledQuantity": units}]}})


# What no check reads, and no row may lack.
TIMES = ("time", "since", "until", "recorded_at", "created_at", "cancelled_at", "decided_at")
TEXTS = ("digest", "type", "source", "entry_id", "event_id", "operation", "reason", "code", "sentence")
FILLERS: Json = {**dict.fromkeys(TIMES, NOW), **dict.fromkeys(TEXTS, "-"), "line": 0, "bytes": b"", "facts": {}}


def put(connection: Connection, table: Table, **values: Any) -> None:
    rest = {column.name: FILLERS[column.name] for column in table.columns if column.name in FILLERS}
    connection.execute(insert(table).values(rest | values))


def fill_orders(connection: Connection) -> None:
    sequences = {"o1": 2, "o2": 1, "o3": 0, "o4": 0, "o5": 0, "o6": 1, "o7": 1}
    places = {order_id: {"priority": int(order_id == "o5"), "placed_at": PLACED} for order_id in sequences}
    places["o3"]["placed_at"] = None
    for order_id, sequence in sequences.items():
        put(connection, tables.orders, order_id=order_id, sequence=sequence, **places[order_id])
    columns = "item_id", "original_item_id", "sku", "quantity", "fulfilled", "open_quantity", "replaced_by"
    for order_id, *values, cancelled in [
        ("o1", "a", "a", "SA", 10, 0, 0, A2, True),
        ("o1", A2, "a", "SA", 4, 0, 0, A3, True),
        ("o1", A3, "a", "SA", 3, 3, 0, None, False),
        ("o1", "b", "b", "SB", 4, 4, 0, None, False),
        ("o2", "c", "c", "SC", 2, 0, 0, None, True),
        ("o4", "d", "d", "SD", 5, 0, 5, None, False),
        ("o5", "f", "f", "SE", 4, 1, 3, None, False),
        ("o6", "g", "g", "SE", 5, 0, 0, G2, True),
        ("o6", G2, "g", "SE", 3, 0, 3, None, False),
        ("o7", "h", "h", "SE", 2, 0, 0, None, True),
    ]:
        item = dict(zip(columns, values, strict=True)) | places[order_id]
        put(connection, tables.order_items, order_id=order_id, **item, cancelled=cancelled)
    put(connection, tables.conflicts, order_id="o1", fulfillment_id="f1", item_id="b", quantity=1)
    for order_id, id_, lines, units in [
        ("o1", "f1", [["a", None, 3], ["b", None, 5]], {"SA": 3, "SB": 5}),
        ("o5", "f5", [["f", None, 1]], {"SE": 1}),
    ]:
        name = {"order_id": order_id, "fulfillment_id": id_, "time": datetime.fromisoformat(LATER)}
        put(connection, tables.fulfillments, **name, lines=lines)
        for sku, quantity in units.items():
            put(connection, tables.shipped_units, **name, sku=sku, quantity=quantity)


def fill_events(connection: Connection) -> None:
    waits_for = {"e7": "order_not_placed", "e9": "fulfillments_missing", "e16": "grace"}
    for outcome, event in STORY:
        name = {"source": "/test", "id": event["id"], "order_id": event["data"].get("orderId")}
        put(connection, tables.events, **name, sku=event["data"].get("sku"), outcome=outcome)
        if event["id"] in waits_for:
            wait = {"waits_for": waits_for[event["id"]], "event": json.dumps(event), "until": FUTURE}
            put(connection, tables.waiting_events, **name, **wait)
    put(connection, tables.dead_letters, entry_id=GARBAGE)


def fill_allocations(connection: Connection) -> None:
    begun = {"strategy": "oldest_first", "ship_complete": False, "finished_at": NOW, "due_at": NOW}
    se = {"orders": 3, "wanted": 10, "given": 6, "shipped": 1, "kept": 6, "cut_orders": 2, "cut_units": 4}
    for id_, sku, available, values in [
        ("e14", "SD", 9, begun | {"wanted": 5, "given": 5}),
        ("e15", "SD", 6, {"due_at": FUTURE}),
        ("e17", "SE", 7, begun | se),
    ]:
        name = {"allocation_id": int(id_[1:]), "source": "/test", "id": id_, "sku": sku, "available": available}
        put(connection, tables.allocations, **name, happened_at=datetime.fromisoformat(HAPPENED), **values)
    columns = "order_id", "rank", "wanted", "given", "left_units", "shipped", "cut_units"
    for values in [("o5", 1, 3, 3, 6, 1, 0), ("o6", 2, 5, 3, 3, 0, 2), ("o7", 3, 2, 0, 0, 0, 2)]:
        allotment = dict(zip(columns, values, strict=True))
        put(connection, tables.allotments, allocation_id=17, **allotment, outcome="-")


def fill_holds(connection: Connection) -> None:
    for hold_id, order_id, cause_id, state, outcome in [
        (1, "o1", "e1", "rejected", None),
        (2, "o6", "e17", "carried_out", "applied"),
    ]:
        name = {"hold_id": hold_id, "order_id": order_id, "source": "/test", "id": cause_id}
        name |= {"would": [["cancelItem", "-", "-", 2]], "event": "{}", "why": "breaker", "happened_at": NOW}
        verdict = {"decided_by": "ann", "decided_because": "a test"}
        put(connection, tables.holds, **name, **verdict, state=state, outcome=outcome, units=2)


def fill_ledger(connection: Connection) -> None:
    for position, row in enumerate(LEDGER, 1):
        order_id, sequence, cause_id, _, units = row
        name = {"cancellation_id": f"c-{order_id}-{sequence}", "order_id": order_id, "sequence": sequence}
        cause = {"cause_source": "/test", "cause_id": cause_id, "payload": payload(row)}
        put(connection, tables.cancellations, **name, **cause, units=units, position=position)
    positions = {"next_position": len(LEDGER) + 1, "appended_position": len(LEDGER)}
    put(connection, tables.publication, publication_id=1, **positions)

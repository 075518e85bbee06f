"""The checker is checked by planted damage: a healthy system, one thing spoiled, and the sentence that names it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer
from redis import Redis
from sqlalchemy import Connection, Table, create_engine, insert, text

from tests.builders import NOW, Json, closed, new_id, placed, requested, shipped, shortage, to_bytes
from tests.checker import agreement, violations
from tests.model import Model
from worker.storage import tables

Damage = Callable[[Connection, Redis], object]

A2 = new_id("o1", "a")
A3 = new_id("o1", A2)

# o1 is cut, shipped with one unit too many, and closed; o2 is cancelled; o3 is not placed yet; o4 waits for a shipment.
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
]
REPEAT_AND_GARBAGE = [to_bytes(STORY[1][1]), b"\xff not JSON"]  # entries 10-0 and 11-0

# Order, sequence, cause, item as first ordered, units; by position.
LEDGER = [("o1", 1, "e2", "a", 6), ("o2", 1, "e4", "c", 2), ("o1", 2, "e6", "a", 1)]


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
    redis.xadd("order.events", {"event": again}, id="12-0")
    redis.xreadgroup("shortpick", "one", {"order.events": ">"})
    redis.xack("order.events", "shortpick", "12-0")
    assert violations(connection, redis) == ["Entry 12-0 is lost: it is neither an event nor a dead letter."]
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
    redis.xadd("order.events", {"event": to_bytes(STORY[0][1])}, id="12-0")
    redis.xreadgroup("shortpick", "one", {"order.events": ">"})


def unread(_: Connection, redis: Redis) -> None:
    redis.xadd("order.events", {"event": to_bytes(STORY[0][1])}, id="12-0")


# SQLite cannot drop a constraint, and the checker must not rely on one.
UNCONSTRAINED = (
    "CREATE TABLE copy AS SELECT * FROM cancellations",
    "DROP TABLE cancellations",
    "ALTER TABLE copy RENAME TO cancellations",
)
COPY_OF_F1 = "INSERT INTO fulfillments SELECT order_id, 'f2', time, lines, digest, source, event_id FROM fulfillments"
F9 = "INSERT INTO fulfillments SELECT 'o4', 'f9', time, '[]', digest, source, event_id FROM fulfillments"
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

LOSS: dict[str, tuple[Damage, str]] = {
    "an entry without its event": (
        sql("DELETE FROM events WHERE id = 'e1'"),
        "Entry 1-0 is lost: it is neither an event nor a dead letter.",
    ),
    "an entry without its dead letter": (
        sql("DELETE FROM dead_letters"),
        "Entry 11-0 is lost: it is neither an event nor a dead letter.",
    ),
    "an entry that was read and forgotten": (read_and_forgotten, "The group shortpick has 1 pending."),
    "an entry that was not read": (unread, "The group shortpick has 1 unread, from 12-0 on."),
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
        sql("UPDATE cancellations SET position = NULL WHERE position = 3"),
        "The positions are not 1 to n: nothing where 3 should be.",
    ),
    "a gap in the positions": (
        sql("UPDATE cancellations SET position = 4 WHERE position = 3"),
        "The positions are not 1 to n: 4 where 3 should be.",
    ),
    "a position given twice": (
        sql(*UNCONSTRAINED, "UPDATE cancellations SET position = 2 WHERE position = 3"),
        "The positions are not 1 to n: 2 where 3 should be.",
    ),
    "positions against the sequence": (
        sql(*UNCONSTRAINED, "UPDATE cancellations SET position = 4 - position"),
        "Position 3 takes order o1 back to sequence 1.",
    ),
    "an entry that was not published": (
        republished(lambda payloads: payloads[:2]),
        "The published entries are not 1-0 to n-0: nothing where 3-0 should be.",
    ),
    "a published entry that was deleted": (
        lambda _, redis: redis.xdel("order.cancelled", "2-0"),
        "The published entries are not 1-0 to n-0: 3-0 where 2-0 should be.",
    ),
    "an entry published twice": (
        republished(lambda payloads: [*payloads, payloads[-1]]),
        "The published entries are not 1-0 to n-0: 4-0 where nothing should be.",
    ),
    "swapped entries": (
        republished(lambda payloads: [payloads[1], payloads[0], payloads[2]]),
        "Entry 1-0 is not its ledger row, byte for byte.",
    ),
    "an entry with one space more": (
        republished(lambda payloads: [*payloads[:2], payloads[2] + " "]),
        "Entry 3-0 is not its ledger row, byte for byte.",
    ),
    "a stream that is gone": (
        republished(lambda _: []),
        "The published entries are not 1-0 to n-0: nothing where 1-0 should be.",
    ),
}

KINDS = LEDGER_DAMAGE | LOSS | PUBLICATION_DAMAGE


@pytest.mark.parametrize(("damage", "sentence"), KINDS.values(), ids=KINDS)
def test_damage_is_named(connection: Connection, redis: Redis, damage: Damage, sentence: str) -> None:
    damage(connection, redis)
    assert sentence in violations(connection, redis)


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
TIMES = ("time", "since", "until", "recorded_at", "created_at", "cancelled_at")
TEXTS = ("digest", "type", "source", "entry_id", "event_id", "sku", "operation", "reason", "code", "sentence")
FILLERS: Json = {**dict.fromkeys(TIMES, NOW), **dict.fromkeys(TEXTS, "-"), "line": 0, "bytes": b""}


def put(connection: Connection, table: Table, **values: Any) -> None:
    rest = {column.name: FILLERS[column.name] for column in table.columns if column.name in FILLERS}
    connection.execute(insert(table).values(rest | values))


def fill_orders(connection: Connection) -> None:
    for order_id, placed_at, sequence in [("o1", NOW, 2), ("o2", NOW, 1), ("o3", None, 0), ("o4", NOW, 0)]:
        put(connection, tables.orders, order_id=order_id, placed_at=placed_at, sequence=sequence)
    columns = "order_id", "item_id", "original_item_id", "quantity", "fulfilled", "open_quantity", "replaced_by"
    for *values, cancelled in [
        ("o1", "a", "a", 10, 0, 0, A2, True),
        ("o1", A2, "a", 4, 0, 0, A3, True),
        ("o1", A3, "a", 3, 3, 0, None, False),
        ("o1", "b", "b", 4, 4, 0, None, False),
        ("o2", "c", "c", 2, 0, 0, None, True),
        ("o4", "d", "d", 5, 0, 5, None, False),
    ]:
        put(connection, tables.order_items, **dict(zip(columns, values, strict=True)), cancelled=cancelled)
    lines = [["a", None, 3], ["b", None, 5]]
    put(connection, tables.fulfillments, order_id="o1", fulfillment_id="f1", lines=lines)
    put(connection, tables.conflicts, order_id="o1", fulfillment_id="f1", item_id="b", quantity=1)


def fill_events(connection: Connection) -> None:
    for outcome, event in STORY:
        name = {"source": "/test", "id": event["id"], "order_id": event["data"]["orderId"]}
        put(connection, tables.events, **name, outcome=outcome)
        if outcome == "waiting":
            waits_for = "order_not_placed" if event["id"] == "e7" else "fulfillments_missing"
            put(connection, tables.waiting_events, **name, waits_for=waits_for, event=json.dumps(event))
    put(connection, tables.dead_letters, entry_id="11-0")


def fill_ledger(connection: Connection) -> None:
    for position, row in enumerate(LEDGER, 1):
        order_id, sequence, cause_id, _, units = row
        name = {"cancellation_id": f"c-{order_id}-{sequence}", "order_id": order_id, "sequence": sequence}
        cause = {"cause_source": "/test", "cause_id": cause_id, "payload": payload(row)}
        put(connection, tables.cancellations, **name, **cause, units=units, position=position)
    put(connection, tables.publication, publication_id=1, next_position=4, appended_position=3)

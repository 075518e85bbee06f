"""Orders and conflicts come back from both databases as they were saved."""

from dataclasses import replace
from datetime import timedelta
from typing import cast

from sqlalchemy import Connection

from domain.operations import CancelItemPartially, CancelUnfulfilled, Terms
from domain.orders import Order
from domain.shipments import Conflict, Shipment, ShippedLine
from tests.builders import NOW, placed, play, shipment
from worker.storage import conflicts, orders

SORTED_BY_BYTE = ["", "A", "B", "Z", "_", "a", "a ", "a-1", "a1", "aB", "ab", "b", "ß", "é", "漢", "\ufffd", "🦦"]
LATER = NOW + timedelta(microseconds=1)


def a_rich_order(order_id: str = "o1") -> Order:
    """Every field in use: attributes, a partner, a chain of two replacements, a shipment, cancelled items."""
    more = {"partner": "p ' \\ 🦦", "priority": -3, "attributes": {"a": "%s", ":b": '"'}}
    items = [{"itemId": "b", "sku": "S", "quantity": 9, "attributes": {"price": "1.50"}}]
    items += [{"itemId": "a", "sku": "S", "quantity": 5}, {"itemId": "c", "sku": "T", "quantity": 2**31 - 1}]
    order = play(placed(order_id, {**more, "items": items})).placed_order
    order, _ = order.record(shipment("f1", b=2, a=1))
    order, _ = order.apply(CancelItemPartially("b", 7), Terms("seller", "out_of_stock", LATER))
    order, _ = order.record(shipment("f2", b=1))
    order, _ = order.apply(CancelUnfulfilled(), Terms("buyer", "buyer_request", NOW, "note ' \n :x"))
    return order


def test_an_order_comes_back_as_it_was_saved_in_all_its_fields(connection: Connection) -> None:
    order = a_rich_order()
    store(connection, order)
    shipments = [
        replace(shipment("f1", b=2, a=1), source="/s", event_id="1"),
        replace(shipment("f2", b=1), event_id="2"),
    ]
    orders.save_shipments(connection, [("o1", one) for one in shipments])
    loaded = load(connection, "o1")
    assert {name: recorded.digest for name, recorded in loaded.fulfillments.items()} == {
        name: recorded.digest for name, recorded in order.fulfillments.items()
    }
    assert [(one.source, one.event_id) for one in loaded.fulfillments.values()] == [("/s", "1"), ("/test", "2")]
    assert normal(replace(loaded, fulfillments={})) == normal(replace(order, fulfillments={}))
    assert loaded.totals() == order.totals()
    loaded.check_conservation()


def test_a_shipment_is_kept_line_by_line(connection: Connection) -> None:
    lines = (ShippedLine("a", None, 2**31 - 1), ShippedLine(None, "S ' 🦦", 1))
    shipped = Shipment("f1", LATER, lines, "/s", "e1")
    orders.save_shipments(connection, [("o1", shipped), ("o2", shipped)])
    row = orders.shipments_of(connection, "o1")["f1"]
    assert row.lines == [["a", None, 2**31 - 1], [None, "S ' 🦦", 1]]
    assert (row.time, row.digest, row.source, row.event_id) == (LATER, shipped.digest, "/s", "e1")


def test_only_what_has_changed_of_an_order_is_written(connection: Connection) -> None:
    before = play(placed("o1", a=("S", 5), b=("T", 5))).placed_order
    store(connection, before)
    loaded = load(connection, "o1")
    connection.exec_driver_sql("UPDATE order_items SET sku = 'marked'")
    after, _ = loaded.apply(CancelItemPartially("a", 2), Terms("seller", "manual", NOW))
    orders.save(connection, {"o1": loaded}, {"o1": after})
    found = {item.item_id: item.sku for item in load(connection, "o1").items.values()}
    assert found["b"] == "marked"
    assert [sku for item_id, sku in found.items() if item_id != "b"] == ["S", "S"]
    assert load(connection, "o1").sequence == 1


def test_many_orders_are_saved_and_loaded_at_once_and_kept_apart(connection: Connection) -> None:
    many = {f"o{n}": a_rich_order(f"o{n}") for n in range(200)}
    orders.save(connection, dict.fromkeys(many), dict(many))
    loaded = orders.load(connection, many.keys())
    for order_id, order in many.items():
        assert normal(cast(Order, loaded[order_id])) == normal(replace(order, fulfillments={}))


def test_a_lock_leaves_a_stub_that_is_no_order_yet_and_never_touches_one_that_is(connection: Connection) -> None:
    store(connection, a_rich_order())
    orders.lock(connection, {"o1", "o2"})
    orders.lock(connection, {"o2", "o1"})
    assert orders.load(connection, ["o2", "o1", "o3"])["o2"] is None
    assert (orders.is_known(connection, "o2"), orders.is_known(connection, "o3")) == (True, False)
    assert normal(load(connection, "o1")) == normal(replace(a_rich_order(), fulfillments={}))
    assert orders.page(connection, "", 10) == ["o1"]


def test_orders_sort_by_byte(connection: Connection) -> None:
    for order_id in reversed(SORTED_BY_BYTE[1:]):
        store(connection, play(placed(order_id, a=("S", 1))).placed_order)
    assert list(orders.page(connection, "", 100)) == SORTED_BY_BYTE[1:]
    assert sorted(SORTED_BY_BYTE, key=str.encode) == SORTED_BY_BYTE
    pages: list[str] = []
    last = ""
    while page := orders.page(connection, last, 3):
        pages += page
        last = page[-1]
    assert pages == SORTED_BY_BYTE[1:]


def test_conflicts_are_read_as_they_were_found_and_listed_newest_first(connection: Connection) -> None:
    found = [
        ("o1", Conflict("f1", "a", None, 2**33)),
        ("o2", Conflict("f", None, "S", 1)),
        ("o1", Conflict("f2", None, "S'", 1)),
    ]
    conflicts.add(connection, found, LATER)
    conflicts.add(connection, [], NOW)
    read = conflicts.of_order(connection, "o1")
    assert [Conflict(row.fulfillment_id, row.item_id, row.sku, row.quantity) for row in read] == [
        found[0][1],
        found[2][1],
    ]
    assert {(row.state, row.created_at) for row in read} == {("open", LATER)}
    assert [row.fulfillment_id for row in conflicts.listed(connection, 2)] == ["f2", "f"]


def test_a_conflict_is_resolved_once(connection: Connection) -> None:
    conflicts.add(connection, [("o1", Conflict("f1", "a", None, 1)), ("o1", Conflict("f2", "a", None, 1))], NOW)
    newest, oldest = conflicts.listed(connection, 9)
    assert conflicts.resolve(connection, oldest.conflict_id, "ann", "it's stopped", LATER)
    assert not conflicts.resolve(connection, oldest.conflict_id, "ben", None, NOW)
    assert not conflicts.resolve(connection, -1, "ben", None, NOW)
    found = conflicts.find(connection, oldest.conflict_id)
    assert found is not None
    assert (found.state, found.resolved_by, found.resolution) == ("resolved", "ann", "it's stopped")
    assert found.resolved_at == LATER
    assert [row.conflict_id for row in conflicts.listed(connection, 9, "open")] == [newest.conflict_id]
    assert [row.conflict_id for row in conflicts.listed(connection, 9, "resolved")] == [oldest.conflict_id]


def store(connection: Connection, order: Order) -> None:
    orders.save(connection, {order.order_id: None}, {order.order_id: order})


def load(connection: Connection, order_id: str) -> Order:
    order = orders.load(connection, [order_id])[order_id]
    assert order is not None
    return order


def normal(order: Order) -> Order:
    """No attributes and empty ones are the same to every reader."""
    items = {item_id: replace(item, attributes=item.attributes or {}) for item_id, item in order.items.items()}
    return replace(order, items=items, attributes=order.attributes or {})

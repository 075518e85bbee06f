"""Writing many rows with one statement: any number of them, and any value that a row can hold, on both databases."""

import os
import socket
from datetime import UTC, datetime, timedelta, timezone
from traceback import format_exception
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from tests.builders import NOW
from tests.integration.batches import statements
from worker.storage import bulk, database
from worker.storage.tables import conflicts, dead_letters, events, fulfillments, order_items, orders

ODD = {
    "quotes": 'it\'s "quoted" `so`',
    "backslashes": "a\\b\\\\c\\n\\u0041",
    "newlines": "a\nb\r\nc\td",
    "emoji": "🦦 é ß 漢字 \u200d \U0010ffff",
    "percent": "100 % %s %(rows)s %%",
    "parameter": ":rows :name ::text ? $1 @x",
    "sql": "'); DROP TABLE orders; --",
    "json": '{"a": [1, null, "b"]}',
    "number": "00123",
    "word": "null",
    "true": "true",
    "spaces": "  a  ",
    "empty": "",
    "separators": "\u2028\u2029\x85\x7f\x01",
    "long": "x" * 100_000,
}
MICROSECONDS = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.mark.parametrize("number", [0, 1, 500])
def test_any_number_of_rows_is_inserted(number: int, connection: Connection) -> None:
    bulk.insert(connection, orders, stubs(number))
    assert ids(connection) == [f"o{n:03}" for n in range(number)]


@pytest.mark.parametrize("number", [0, 1, 500])
def test_any_number_of_rows_is_updated_and_the_others_are_left_alone(number: int, connection: Connection) -> None:
    bulk.insert(connection, orders, stubs(501))
    changes = [{"order_id": f"o{n:03}", "partner": f"p{n}", "priority": -n} for n in range(number)]
    bulk.update(connection, orders, changes)
    found = {row.order_id: (row.partner, row.priority) for row in connection.execute(select(orders))}
    assert found == {f"o{n:03}": (f"p{n}", -n) if n < number else (None, 0) for n in range(501)}


@pytest.mark.parametrize("number", [0, 1, 500])
def test_any_number_of_rows_is_deleted_and_the_others_are_left_alone(number: int, connection: Connection) -> None:
    bulk.insert(connection, orders, stubs(501))
    bulk.delete(connection, orders, stubs(number))
    assert ids(connection) == [f"o{n:03}" for n in range(number, 501)]


@pytest.mark.parametrize("number", [0, 1, 500])
def test_however_many_rows_it_is_one_statement(number: int, connection: Connection) -> None:
    rows = [{**stub, "partner": "p"} for stub in stubs(number)]
    with statements(connection) as seen:
        assert len(bulk.insert(connection, orders, rows, on_conflict="update", returning=("order_id",))) == number
        bulk.update(connection, orders, rows)
        bulk.delete(connection, orders, stubs(number))
    assert [statement.split()[0] for statement in seen] == (["INSERT", "UPDATE", "DELETE"] if number else [])


def test_what_is_not_there_is_neither_updated_nor_deleted(connection: Connection) -> None:
    bulk.insert(connection, orders, stubs(1))
    bulk.update(connection, orders, [{"order_id": "unknown", "partner": "p"}])
    bulk.delete(connection, orders, [{"order_id": "unknown"}])
    assert [(row.order_id, row.partner) for row in connection.execute(select(orders))] == [("o000", None)]


def test_rows_with_a_key_of_two_columns_are_told_apart_by_both(connection: Connection) -> None:
    pairs = [("a", "b"), ("a", "c"), ("d", "b"), ("", "ab"), ("ab", "")]
    bulk.insert(connection, events, [claimed(source, id_) for source, id_ in pairs])
    bulk.update(connection, events, [{"source": "a", "id": "c", "outcome": "applied"}])
    bulk.delete(connection, events, [{"source": "a", "id": "b"}, {"source": "d", "id": "c"}])
    found = {(row.source, row.id): row.outcome for row in connection.execute(select(events))}
    assert found == {("a", "c"): "applied", ("d", "b"): None, ("", "ab"): None, ("ab", ""): None}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_an_odd_string_comes_back_as_it_was_in_every_kind_of_column(text: str, connection: Connection) -> None:
    key = text[:600]
    given = {"order_id": key, "partner": text, "attributes": {key: text, "list": [text, {"": text}]}}
    bulk.insert(connection, orders, [given])
    assert given.items() <= connection.execute(select(orders)).one()._asdict().items()
    bulk.update(connection, orders, [{**given, "placed_digest": text}])
    assert connection.execute(select(orders.c.placed_digest)).scalar_one() == text
    bulk.delete(connection, orders, [{"order_id": key}])
    assert ids(connection) == []


def test_nulls_stay_nulls_and_differ_from_what_is_empty(connection: Connection) -> None:
    values: list[Any] = [None, {}, [], {"a": None}, {"a": ""}, [None]]
    rows = [{"order_id": str(n), "partner": None, "attributes": value} for n, value in enumerate(values)]
    bulk.insert(connection, orders, rows)
    found = connection.execute(select(orders.c.attributes).order_by(orders.c.order_id)).scalars().all()
    assert found == values
    null = connection.exec_driver_sql("SELECT order_id FROM orders WHERE attributes IS NULL").scalars().all()
    assert null == ["0"]
    bulk.update(connection, orders, [{"order_id": "1", "partner": "p"}])
    bulk.update(connection, orders, [{"order_id": "1", "partner": None}])
    assert connection.execute(select(orders.c.partner).where(orders.c.order_id == "1")).scalar_one() is None


def test_json_comes_back_as_it_was(connection: Connection) -> None:
    value: dict[str, Any] = {
        "b": [1, -1, 2**31 - 1, 2**53, True, None, {"c": {"d": []}}],
        "a": "é",
        "": {"x": "\\u0041"},
    }
    bulk.insert(connection, orders, [{"order_id": "o1", "attributes": value}])
    assert connection.execute(select(orders.c.attributes)).scalar_one() == value


def test_numbers_at_their_bounds_come_back_as_they_were(connection: Connection) -> None:
    bounds = {"priority": -(2**31) + 1, "sequence": 2**31 - 1}
    bulk.insert(connection, orders, [{"order_id": "o1", **bounds}])
    found = connection.execute(select(orders.c.priority, orders.c.sequence)).one()
    assert tuple(found) == tuple(bounds.values())
    excess = {"order_id": "o1", "fulfillment_id": "f", "quantity": 2**53, "created_at": NOW}
    bulk.insert(connection, conflicts, [excess])
    assert connection.execute(select(conflicts.c.quantity)).scalar_one() == 2**53


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_truth_value_comes_back_as_it_was(cancelled: bool, connection: Connection) -> None:
    bulk.insert(connection, order_items, [item("o1", "a", cancelled=cancelled)])
    assert connection.execute(select(order_items.c.cancelled)).scalar_one() is cancelled
    assert len(connection.execute(select(order_items).where(order_items.c.cancelled.is_(cancelled))).all()) == 1


@pytest.mark.parametrize(
    "time",
    [
        MICROSECONDS,
        MICROSECONDS.replace(microsecond=0),
        MICROSECONDS.replace(microsecond=1),
        datetime(1970, 1, 1, tzinfo=UTC),
        MICROSECONDS.astimezone(timezone(timedelta(hours=-11, minutes=-30))),
        MICROSECONDS.astimezone(timezone(timedelta(hours=14))),
    ],
    ids=["microseconds", "no fraction", "one microsecond", "1970", "west", "east"],
)
def test_a_time_comes_back_to_the_microsecond_in_utc(time: datetime, connection: Connection) -> None:
    bulk.insert(connection, orders, [{"order_id": "o1", "placed_at": time}])
    found = connection.execute(select(orders.c.placed_at)).scalar_one()
    assert (found, found.tzinfo) == (time, UTC)
    assert connection.execute(select(orders).where(orders.c.placed_at == time)).all()


def test_times_sort_by_time_and_not_by_how_they_are_written(connection: Connection) -> None:
    zones = [timezone(timedelta(hours=hours)) for hours in (0, -11, 14, 5)]
    times = [(MICROSECONDS + timedelta(microseconds=n)).astimezone(zones[n % 4]) for n in range(12)]
    rows = [{"order_id": str(n), "placed_at": time} for n, time in enumerate(times)]
    bulk.insert(connection, orders, rows[::-1])
    connection.execute(insert(orders), [{"order_id": "late", "placed_at": MICROSECONDS + timedelta(seconds=1)}])
    found = connection.execute(select(orders.c.order_id).order_by(orders.c.placed_at)).scalars().all()
    assert found == [*(str(n) for n in range(12)), "late"]


def test_a_conflict_fails_where_it_should_and_says_so(connection: Connection) -> None:
    bulk.insert(connection, orders, stubs(1))
    with pytest.raises(IntegrityError), connection.begin_nested():
        bulk.insert(connection, orders, stubs(2))
    assert ids(connection) == ["o000"]


def test_an_error_quotes_no_row_since_errors_are_logged(connection: Connection) -> None:
    row = {"entry_id": "1-0", "digest": "zebra", "bytes": b"zebra", "code": "not_json", "created_at": NOW}
    with pytest.raises(IntegrityError, match=r"(?i)not.null") as told:
        connection.execute(dead_letters.insert().values(**row, sentence=None))
    assert "zebra" not in "".join(format_exception(told.value))


def test_a_conflict_is_passed_over_where_it_should_be_and_only_what_is_new_is_returned(connection: Connection) -> None:
    bulk.insert(connection, orders, [{"order_id": "o001", "partner": "first"}])
    rows = [{"order_id": f"o00{n}", "partner": "second"} for n in range(3)]
    new = bulk.insert(connection, orders, rows, on_conflict="do nothing", returning=("order_id", "partner"))
    assert sorted(map(tuple, new)) == [("o000", "second"), ("o002", "second")]
    partners = connection.execute(select(orders.c.partner).order_by(orders.c.order_id)).scalars().all()
    assert partners == ["second", "first", "second"]


def test_a_conflict_overwrites_where_it_should_only_the_columns_that_are_given(connection: Connection) -> None:
    bulk.insert(connection, orders, [{"order_id": "o1", "partner": "first", "priority": 5}])
    bulk.insert(connection, orders, [{"order_id": "o1", "partner": "second"}], on_conflict="update")
    assert connection.execute(select(orders.c.partner, orders.c.priority)).all() == [("second", 5)]


def test_ascending_keys_follow_the_order_of_the_rows(connection: Connection) -> None:
    rows = [{"order_id": "o1", "fulfillment_id": str(n), "quantity": n, "created_at": NOW} for n in range(500, 0, -1)]
    bulk.insert(connection, conflicts, rows[:250])
    bulk.insert(connection, conflicts, rows[250:])
    found = connection.execute(select(conflicts.c.quantity).order_by(conflicts.c.conflict_id)).scalars().all()
    assert found == list(range(500, 0, -1))


def test_what_no_column_can_hold_is_an_error_and_not_a_string(connection: Connection) -> None:
    with pytest.raises(ValueError, match="object"):
        bulk.insert(connection, fulfillments, [{"lines": [object()]}])


def stubs(number: int) -> list[dict[str, Any]]:
    return [{"order_id": f"o{n:03}"} for n in range(number)]


def test_a_postgresql_server_that_went_without_a_word_is_not_waited_for_long(postgres_url: str) -> None:
    engine = database.create(postgres_url)
    with engine.connect() as connection, socket.socket(fileno=os.dup(connection.connection.fileno())) as own:
        tcp = [own.getsockopt(socket.IPPROTO_TCP, name) for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)]
        assert sum(tcp) <= 60
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000  # milliseconds
    engine.dispose()


def ids(connection: Connection) -> list[str]:
    return list(connection.execute(select(orders.c.order_id).order_by(orders.c.order_id)).scalars())


def claimed(source: str, id_: str) -> dict[str, Any]:
    row = {"source": source, "id": id_, "digest": "d", "type": "t", "order_id": "o1", "entry_id": "1-0"}
    return {**row, "time": NOW, "recorded_at": NOW}


def item(order_id: str, item_id: str, *, cancelled: bool) -> dict[str, Any]:
    row = {"order_id": order_id, "item_id": item_id, "original_item_id": item_id, "line": 1, "sku": "S"}
    return {
        **row,
        "priority": 0,
        "placed_at": MICROSECONDS,
        "quantity": 1,
        "fulfilled": 0,
        "open_quantity": 0,
        "cancelled": cancelled,
    }

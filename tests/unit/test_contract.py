"""What comes in and what goes out: bad input ends as `InvalidEvent` with a code and a sentence that names the field."""

import json
from collections.abc import Callable
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pytest

from domain.errors import InvalidEvent
from domain.events import OrderShortage, SkuRestocked, SkuShortage, digest
from domain.parsing import parse, read_again
from tests.builders import (
    NOW,
    TIME,
    Json,
    closed,
    event,
    final,
    new_id,
    parsed,
    placed,
    play,
    requested,
    shipped,
    shortage,
    to_bytes,
)

PLACED = placed("o1", a=("SA", 10), b=("SB", 4))
SHORTAGE = shortage("o1", a=4)
SKU_SHORTAGE = event("inventory.shortage", {"sku": "SA", "availableQuantity": 4})
RESTOCKED = event("inventory.restocked", {"orderId": "o1", "items": [{"itemId": "a"}]})
SKU_RESTOCKED = event("inventory.restocked", {"sku": "SA"})
SHIPPED = shipped("o1", "f1", a=3)
FINAL = final(SHIPPED, "f1")
CLOSED = closed("o1", "f1")
REQUESTED = requested("o1", a=6)
VALID = {
    "placed": PLACED,
    "shortage": SHORTAGE,
    "sku shortage": SKU_SHORTAGE,
    "restocked": RESTOCKED,
    "sku restocked": SKU_RESTOCKED,
    "shipped": SHIPPED,
    "final": FINAL,
    "closed": CLOSED,
    "requested": REQUESTED,
}

MISSING = object()
KIBIBYTE = 1024


def changed(event: Json, path: str, value: Any) -> Json:
    """The event with another value at `path` ("data.items.0.sku"), or without it."""
    event = json.loads(json.dumps(event))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = event
    for part in parents:
        place = place[part]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return event


def with_text(event: Json, path: str, text: str | bytes) -> bytes:
    """The event with this text, JSON or not, as the value at `path`."""
    raw = to_bytes(changed(event, path, "@@"))
    return raw.replace(b'"@@"', text.encode() if isinstance(text, str) else text)


def invalid(raw: bytes, code: str, *parts: str) -> None:
    """`raw` is refused with this code, by a bounded, printable sentence that holds the parts."""
    with pytest.raises(InvalidEvent) as refused:
        parse(raw, NOW)
    sentence = str(refused.value)
    assert (refused.value.code, [part for part in parts if part not in sentence]) == (code, []), sentence
    assert sentence.isprintable()
    assert len(sentence) <= KIBIBYTE


@pytest.mark.parametrize("name", VALID)
def test_the_contracts_events_are_understood(name: str) -> None:
    assert parsed(VALID[name]).type == VALID[name]["type"]


def test_stock_is_of_an_order_or_of_a_sku() -> None:
    assert isinstance(parsed(SHORTAGE), OrderShortage)
    assert isinstance(parsed(SKU_SHORTAGE), SkuShortage)
    assert isinstance(parsed(SKU_RESTOCKED), SkuRestocked)


def test_the_real_input_of_2010_is_welcome() -> None:
    assert parsed(event("order.placed", PLACED["data"], time="2010-12-01T08:26:00Z")).time.year == 2010


# Bytes that are no event

BOMB = b"[" * 60_000
NOT_JSON: dict[str, bytes] = {
    "empty": b"",
    "blank": b"  \n",
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a string": b'"order.placed"',
    "a list": b"[]",
    "a list of an event": b"[" + to_bytes(PLACED) + b"]",
    "NaN": b"NaN",
    "cut off": to_bytes(PLACED)[:-1],
    "two events": to_bytes(PLACED) * 2,
    "text after it": to_bytes(PLACED) + b" x",
    "single quotes": b"{'specversion': '1.0'}",
    "a comment": b"/**/" + to_bytes(PLACED),
    "not UTF-8": with_text(PLACED, "data.items.0.sku", b'"\xff"'),
    "Latin-1": with_text(PLACED, "data.items.0.sku", "Überzug".encode("latin-1")),
    "an overlong form": with_text(PLACED, "data.items.0.sku", b'"\xc0\xaf"'),
    "a surrogate in UTF-8": with_text(PLACED, "data.items.0.sku", b'"\xed\xa0\x80"'),
    "BOM": b"\xef\xbb\xbf" + to_bytes(PLACED),
    "UTF-16": json.dumps(PLACED).encode("utf-16"),
    "UTF-16 without BOM": json.dumps(PLACED).encode("utf-16-le"),
    "UTF-32": json.dumps(PLACED).encode("utf-32"),
    "a nesting bomb": BOMB,
    "a nesting bomb of objects": b'{"a":' * 10_000,
    "a nesting bomb in an extension": with_text(PLACED, "ext", "[" * 20_000 + "]" * 20_000),
    "a nesting bomb in data": with_text(PLACED, "data.items", '{"a":' * 5_000 + "1" + "}" * 5_000),
    "a lone surrogate": with_text(PLACED, "data.items.0.sku", r'"\ud800"'),
    "a lone low surrogate": with_text(PLACED, "data.items.0.sku", r'"\udc00x"'),
    "a lone surrogate in an extension": with_text(PLACED, "ext", r'"\ud800"'),
    "a lone surrogate in a key": with_text(PLACED, "ext", r'{"\ud800": 1}'),
    "a raw NUL": with_text(PLACED, "data.items.0.sku", b'"\x00"'),
    "a raw line feed": with_text(PLACED, "data.items.0.sku", b'"a\nb"'),
    "5,000 digits": with_text(PLACED, "data.items.0.quantity", "9" * 5_000),
    "5,000 digits in an extension": with_text(PLACED, "ext", "9" * 5_000),
    "NaN in an extension": with_text(PLACED, "ext", "NaN"),
    "Infinity in an extension": with_text(PLACED, "ext", "Infinity"),
    "-Infinity deep in an extension": with_text(PLACED, "ext", '[{"x": -Infinity}]'),
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_bytes_that_are_not_one_json_object_are_refused(name: str) -> None:
    invalid(NOT_JSON[name], "not_json", "JSON")


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_a_quantity_that_is_no_number_is_refused(name: str) -> None:
    invalid(with_text(PLACED, "data.items.0.quantity", name), "invalid_field", "data.items[0].quantity")


def test_at_most_64_kibibytes_are_taken() -> None:
    padding = 64 * KIBIBYTE - len(with_text(PLACED, "ext", '""'))
    assert parse(with_text(PLACED, "ext", '"' + "x" * padding + '"'), NOW).id == PLACED["id"]
    invalid(with_text(PLACED, "ext", '"' + "x" * (padding + 1) + '"'), "too_large", "65537", "65536")


@pytest.mark.parametrize("raw", [b"[" * 200_000, b" " * 10_000_000, b"\xff" * 70_000], ids=["bomb", "10 MB", "binary"])
def test_too_much_is_refused_before_it_is_looked_at(raw: bytes) -> None:
    invalid(raw, "too_large", str(len(raw)))


@pytest.mark.parametrize(
    ("path", "text", "key"),
    [
        ("ext", '1, "id": "e2"', "'id'"),
        ("ext", '1, "ext": 1', "'ext'"),
        ("data.orderId", '"o1", "orderId": "o2"', "'orderId'"),
        ("data.items.0.quantity", '1, "quantity": 10', "'quantity'"),
        ("data.items.0.quantity", r'1, "\u0071uantity": 10', "'quantity'"),
        ("data.attributes", '{"k": "1", "k": "2"}', "'k'"),
        ("ext", '[{"x": {"y": 1, "y": 1}}]', "'y'"),
    ],
)
def test_a_key_that_is_given_twice_is_refused_at_any_depth(path: str, text: str, key: str) -> None:
    invalid(with_text(PLACED, path, text), "repeated_key", key, "twice")


# The envelope


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("field", ["specversion", "id", "source", "type", "time", "data"])
def test_every_event_carries_the_whole_envelope(name: str, field: str) -> None:
    invalid(to_bytes(changed(VALID[name], field, MISSING)), "missing_field", field)


@pytest.mark.parametrize(
    "type_",
    ["order.cancelled", "", "Order.placed", "order.placed ", "x" * 5_000, "\x00", "inventory.shortage, of a SKU"],
    ids=lambda type_: repr(type_[:30]),
)
@pytest.mark.parametrize("of", [PLACED, SKU_SHORTAGE], ids=["order", "SKU"])
def test_an_unknown_type_is_refused(type_: str, of: Json) -> None:
    invalid(to_bytes({**of, "type": type_}), "unknown_type", "type", "inventory.shortage")


@pytest.mark.parametrize("type_", [None, 1, True, ["order.placed"], {}], ids=repr)
def test_a_type_that_is_no_string_is_refused(type_: object) -> None:
    with pytest.raises(InvalidEvent, match="type"):
        parse(to_bytes({**PLACED, "type": type_}), NOW)


@pytest.mark.parametrize("version", ["0.3", "1", "1.1", "", 1.0, 1, None])
def test_another_version_of_cloudevents_is_refused(version: object) -> None:
    invalid(to_bytes({**PLACED, "specversion": version}), "invalid_field", "specversion", "1.0")


@pytest.mark.parametrize("data", [None, [], "{}", 1, True, [PLACED["data"]]], ids=repr)
def test_data_that_is_no_object_is_refused(data: object) -> None:
    invalid(to_bytes({**PLACED, "data": data}), "invalid_field", "data")


def test_cloudevents_extensions_are_welcome() -> None:
    extensions = {"subject": "o1", "datacontenttype": "application/json", "tracestate": "k=v", "sequence": 12}
    odd = {
        "orderId": "o2",
        "items": [],
        "null": None,
        "deep": [[{"x": [1.5, True, -0.0, 10**300]}]],
        "data_base64": "x",
    }
    assert parsed({**PLACED, **extensions, **odd}) == parsed(PLACED)


def test_the_traceparent_is_passed_on() -> None:
    assert parsed({**PLACED, "traceparent": "00-1-2-01"}).traceparent == "00-1-2-01"
    assert parsed(PLACED).traceparent is None


@pytest.mark.parametrize("value", ["", "x" * 201, "a\nb", 1, None, {"a": 1}], ids=lambda value: repr(value)[:8])
def test_a_traceparent_that_is_none_makes_no_event_wrong(value: object) -> None:
    assert parsed({**PLACED, "traceparent": value}).traceparent is None


# Fields

IDS = [
    (PLACED, "id"),
    (PLACED, "source"),
    (PLACED, "data.orderId"),
    (PLACED, "data.items.0.itemId"),
    (PLACED, "data.items.1.sku"),
    (SHORTAGE, "data.orderId"),
    (SHORTAGE, "data.items.0.itemId"),
    (SKU_SHORTAGE, "data.sku"),
    (RESTOCKED, "data.items.0.itemId"),
    (SKU_RESTOCKED, "data.sku"),
    (SHIPPED, "data.orderId"),
    (SHIPPED, "data.fulfillmentId"),
    (SHIPPED, "data.items.0.itemId"),
    (FINAL, "data.fulfillmentIds.0"),
    (CLOSED, "data.orderId"),
    (CLOSED, "data.fulfillmentIds.0"),
    (REQUESTED, "data.orderId"),
    (REQUESTED, "data.items.0.itemId"),
]
BAD_IDS = ["", "x" * 201, "\x00", "a\x00b", "a\nb", "a\n", "\t", "\x1f", "\x7f", "\x85", 1, 1.5, True, [], {}]


def named(path: str) -> str:
    """How a sentence names a field: `data.items[0].sku`."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split(".")).removeprefix(".")


@pytest.mark.parametrize("value", BAD_IDS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(("event", "path"), IDS, ids=lambda value: value if isinstance(value, str) else value["type"])
def test_ids_are_short_strings_without_control_characters(event: Json, path: str, value: object) -> None:
    invalid(to_bytes(changed(event, path, value)), "invalid_field", named(path))


@pytest.mark.parametrize("value", ["x" * 200, "ü" * 200, "\U0001f4e6", " ", "a/b", "0", "null"], ids=lambda v: v[:5])
def test_any_other_id_is_fine(value: str) -> None:
    assert parsed(placed(value, **{value: (value, 1)})).type == "order.placed"


REQUIRED = [
    (PLACED, ["data.orderId", "data.placedAt", "data.items", "data.items.0.itemId", "data.items.1.sku"]),
    (PLACED, ["data.items.0.quantity"]),
    (SHORTAGE, ["data.items", "data.items.0.fulfillableQuantity"]),
    (SKU_SHORTAGE, ["data.sku", "data.availableQuantity"]),
    (RESTOCKED, ["data.items", "data.items.0.itemId"]),
    (SHIPPED, ["data.orderId", "data.fulfillmentId", "data.items", "data.items.0.quantity"]),
    (CLOSED, ["data.orderId", "data.fulfillmentIds"]),
    (REQUESTED, ["data.orderId", "data.cancelledBy", "data.reason", "data.reason.code", "data.items.0.itemId"]),
]


@pytest.mark.parametrize(("event", "path"), [(event, path) for event, paths in REQUIRED for path in paths])
def test_a_missing_field_is_named(event: Json, path: str) -> None:
    invalid(to_bytes(changed(event, path, MISSING)), "missing_field", named(path), "missing")


@pytest.mark.parametrize(
    ("event", "path"),
    [
        (PLACED, "data.location"),
        (PLACED, "data.items.0.location"),
        (SHORTAGE, "data.location"),
        (SHORTAGE, "data.items.0.quantity"),
        (SHORTAGE, "data.sku"),
        (SKU_SHORTAGE, "data.location"),
        (SKU_SHORTAGE, "data.items"),
        (RESTOCKED, "data.items.0.sku"),
        (SKU_RESTOCKED, "data.location"),
        (SHIPPED, "data.carrier"),
        (SHIPPED, "data.items.0.location"),
        (CLOSED, "data.final"),
        (REQUESTED, "data.items.0.sku"),
        (REQUESTED, "data.reason.text"),
    ],
)
def test_an_unknown_field_in_data_is_refused(event: Json, path: str) -> None:
    invalid(to_bytes(changed(event, path, "x")), "unknown_field", named(path))


@pytest.mark.parametrize("key", ["x" * 60_000, "\x00", "a\nb", "\x1b[31m", "\u202e", ""], ids=lambda key: repr(key[:9]))
def test_an_unknown_field_of_any_name_gives_a_sentence_that_can_be_stored_and_shown(key: str) -> None:
    invalid(to_bytes({**SHORTAGE, "data": {**SHORTAGE["data"], key: 1}}), "unknown_field", "data")


@pytest.mark.parametrize("key", ["x" * 5_000, "\x00", "a\nb"], ids=lambda key: repr(key[:9]))
def test_an_attribute_of_any_name_gives_a_sentence_that_can_be_stored_and_shown(key: str) -> None:
    invalid(to_bytes(changed(PLACED, "data.attributes", {key: "v"})), "invalid_field", "data.attributes")


@pytest.mark.parametrize(
    ("event", "path", "spelling"),
    [
        (PLACED, "data.placedAt", "placed_at"),
        (PLACED, "data.orderId", "order_id"),
        (PLACED, "data.items.0.itemId", "item_id"),
        (SHORTAGE, "data.items.0.itemId", "item_id"),
        (SHORTAGE, "data.items.0.fulfillableQuantity", "fulfillable_quantity"),
        (SHIPPED, "data.fulfillmentId", "fulfillment_id"),
        (FINAL, "data.fulfillmentIds", "fulfillment_ids"),
        (CLOSED, "data.fulfillmentIds", "fulfillment_ids"),
        (REQUESTED, "data.cancelledBy", "cancelled_by"),
        (REQUESTED, "data.items.0.newQuantity", "new_quantity"),
    ],
)
def test_a_field_in_another_spelling_is_not_the_field(event: Json, path: str, spelling: str) -> None:
    value: Any = event
    for part in path.split("."):
        value = value[int(part) if part.isdigit() else part]
    renamed = changed(changed(event, path, MISSING), path.rpartition(".")[0] + "." + spelling, value)
    with pytest.raises(InvalidEvent) as refused:
        parse(to_bytes(renamed), NOW)
    assert refused.value.code in {"missing_field", "unknown_field", "invalid_field"}


# Quantities

ONE_OR_MORE = [(PLACED, "data.items.0.quantity"), (SHIPPED, "data.items.0.quantity")]
NONE_OR_MORE = [
    (SHORTAGE, "data.items.0.fulfillableQuantity"),
    (SKU_SHORTAGE, "data.availableQuantity"),
    (REQUESTED, "data.items.0.newQuantity"),
]


@pytest.mark.parametrize("text", ["1.0", "1e1", "0.5", '"1"', "true", "null", "[]", "{}", str(2**31), str(2**63), "-1"])
@pytest.mark.parametrize(("event", "path"), ONE_OR_MORE + NONE_OR_MORE)
def test_a_quantity_is_a_bounded_json_integer(event: Json, path: str, text: str) -> None:
    invalid(with_text(event, path, text), "invalid_field", named(path))


@pytest.mark.parametrize("digits", [20, 400, 4_300])
@pytest.mark.parametrize(("event", "path"), ONE_OR_MORE + NONE_OR_MORE)
def test_a_quantity_of_many_digits_is_refused(event: Json, path: str, digits: int) -> None:
    invalid(with_text(event, path, "9" * digits), "invalid_field", named(path))
    invalid(with_text(event, path, "-" + "9" * (digits - 1)), "invalid_field", named(path))


@pytest.mark.parametrize(("event", "path"), ONE_OR_MORE)
def test_what_is_placed_or_shipped_is_at_least_one(event: Json, path: str) -> None:
    invalid(with_text(event, path, "0"), "invalid_field", named(path))


@pytest.mark.parametrize(("event", "path"), NONE_OR_MORE)
def test_what_is_reported_may_be_none(event: Json, path: str) -> None:
    assert parse(with_text(event, path, "0"), NOW)


@pytest.mark.parametrize(("event", "path"), ONE_OR_MORE + NONE_OR_MORE)
def test_a_quantity_may_be_as_large_as_the_contract_says(event: Json, path: str) -> None:
    assert parse(with_text(event, path, str(2**31 - 1)), NOW)


@pytest.mark.parametrize("text", ["1.0", '"1"', "true", "null", str(2**31), str(-(2**31)), str(2**63)])
def test_a_priority_is_a_bounded_json_integer(text: str) -> None:
    invalid(with_text(PLACED, "data.priority", text), "invalid_field", "data.priority")


# Lines


@pytest.mark.parametrize("event", [PLACED, SHORTAGE, RESTOCKED, SHIPPED, REQUESTED], ids=lambda event: event["type"])
@pytest.mark.parametrize("items", [[], {}, "a", 1, True], ids=repr)
def test_items_that_are_no_list_or_empty_are_refused(event: Json, items: object) -> None:
    invalid(to_bytes(changed(event, "data.items", items)), "invalid_field", "data.items")


@pytest.mark.parametrize("line", [None, [], "a", 1], ids=repr)
@pytest.mark.parametrize("event", [PLACED, SHORTAGE, RESTOCKED, SHIPPED, REQUESTED], ids=lambda event: event["type"])
def test_a_line_that_is_no_object_is_refused(event: Json, line: object) -> None:
    invalid(to_bytes(changed(event, "data.items.0", line)), "invalid_field", "data.items[0]")


def test_items_that_are_null_are_not_a_request_for_the_whole_order() -> None:
    invalid(to_bytes(changed(REQUESTED, "data.items", None)), "invalid_field", "data.items")


def test_an_item_is_placed_once() -> None:
    twice = changed(PLACED, "data.items.1.itemId", "a")
    invalid(to_bytes(twice), "invalid_field", "itemId", "a")


def test_lines_of_one_sku_may_be_placed() -> None:
    assert parsed(placed("o1", a=("SA", 1), b=("SA", 1)))


@pytest.mark.parametrize("event", [SHORTAGE, SHIPPED], ids=lambda event: event["type"])
def test_a_line_is_named_by_item_or_by_sku(event: Json) -> None:
    parts = ("data.items[0]", "itemId", "sku")
    invalid(to_bytes(changed(event, "data.items.0.itemId", MISSING)), "invalid_field", *parts)
    invalid(to_bytes(changed(event, "data.items.0.sku", "SA")), "invalid_field", *parts)


@pytest.mark.parametrize("name", ["itemId", "sku"])
def test_a_line_twice_is_refused_in_a_shortage(name: str) -> None:
    lines = [{name: "a", "fulfillableQuantity": figure} for figure in (4, 4)]
    invalid(to_bytes(changed(SHORTAGE, "data.items", lines)), "invalid_field", "data", "'a'")


def test_an_item_and_a_sku_of_one_name_are_two_lines() -> None:
    lines = [{"itemId": "a", "fulfillableQuantity": 1}, {"sku": "a", "fulfillableQuantity": 1}]
    assert parsed(changed(SHORTAGE, "data.items", lines))


# Closing and requests


@pytest.mark.parametrize("ids", [MISSING, None, "f1", {}, 1], ids=["missing", "null", "text", "object", "number"])
@pytest.mark.parametrize("event", [FINAL, CLOSED], ids=["final", "closed"])
def test_a_closing_names_its_fulfillments(event: Json, ids: object) -> None:
    with pytest.raises(InvalidEvent, match="fulfillmentIds"):
        parse(to_bytes(changed(event, "data.fulfillmentIds", ids)), NOW)


def test_a_closing_may_say_that_nothing_shipped() -> None:
    assert parsed(closed("o1"))


@pytest.mark.parametrize("value", ["true", 1, None], ids=repr)
@pytest.mark.parametrize(("event", "path"), [(FINAL, "data.final"), (REQUESTED, "data.unfulfilledOnly")])
def test_a_switch_is_true_or_false(event: Json, path: str, value: object) -> None:
    invalid(to_bytes(changed(event, path, value)), "invalid_field", path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.cancelledBy", "partner"),
        ("data.cancelledBy", ""),
        ("data.cancelledBy", None),
        ("data.reason", "manual"),
        ("data.reason.code", "because"),
        ("data.reason.code", None),
        ("data.reason.note", 1),
        ("data.reason.note", "a\x00b"),
        ("data.reason.note", "x" * 60_000),
    ],
)
def test_a_request_says_by_whom_and_why_in_known_words(path: str, value: object) -> None:
    invalid(to_bytes(changed(REQUESTED, path, value)), "invalid_field", path)


def test_a_request_is_for_items_or_for_the_unfulfilled() -> None:
    both = changed(REQUESTED, "data.unfulfilledOnly", True)
    invalid(to_bytes(both), "invalid_field", "items", "unfulfilledOnly")


# Attributes

BAD_ATTRIBUTES: dict[str, Any] = {
    "17 entries": {f"k{number}": "v" for number in range(17)},
    "more than 1 KiB": {"a": "x" * 600, "b": "x" * 600},
    "more than 1 KiB in UTF-8": {"a": "ü" * 600},
    "one value of more than 1 KiB": {"a": "x" * 1_100},
    "a number": {"a": 1},
    "null": {"a": None},
    "an object": {"a": {}},
    "a list": [],
    "a string": "a=b",
    "no name": {"": "v"},
    "NUL in a value": {"a": "\x00"},
}


@pytest.mark.parametrize("name", BAD_ATTRIBUTES)
@pytest.mark.parametrize("path", ["data.attributes", "data.items.0.attributes"])
def test_attributes_are_few_and_short_strings(path: str, name: str) -> None:
    invalid(to_bytes(changed(PLACED, path, BAD_ATTRIBUTES[name])), "invalid_field", named(path))


def test_sixteen_attributes_of_less_than_a_kibibyte_are_fine() -> None:
    attributes = {f"k{number:02}": "v" * 50 for number in range(16)}
    assert parsed(changed(PLACED, "data.attributes", attributes))


# Times

BAD_TIMES = [
    "2026-01-01T00:00:00",
    "2026-01-01",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T24:00:00Z",
    "2026-02-30T00:00:00Z",
    "2016-12-31T23:59:60Z",
    "2026-01-01T00:00:00Z ",
    "0000-00-00T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "-0001-01-01T00:00:00Z",
    "12026-01-01T00:00:00Z",
    "1767225600",
    "1767225600.5",
    "-1",
    "1e9",
    "9" * 400,
    "yesterday",
    "",
    "\x00",
    1767225600,
    1767225600.5,
    True,
    None,
    [],
]


@pytest.mark.parametrize("value", BAD_TIMES, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("path", ["time", "data.placedAt"])
def test_a_time_is_rfc_3339_with_an_offset(path: str, value: object) -> None:
    invalid(to_bytes(changed(PLACED, path, value)), "invalid_field", path)


@pytest.mark.parametrize(
    "value", ["9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999999+23:59", "2126-01-01T00:00:00Z"]
)
@pytest.mark.parametrize("path", ["time", "data.placedAt"])
def test_a_time_of_the_far_future_is_ahead(path: str, value: str) -> None:
    invalid(to_bytes(changed(PLACED, path, value)), "time_ahead", path, value, "24 hours")


@pytest.mark.parametrize("path", ["time", "data.placedAt"])
def test_a_time_may_be_24_hours_ahead_and_no_more(path: str) -> None:
    assert parsed(changed(PLACED, path, "2026-01-03T05:45:00+05:45"))
    invalid(to_bytes(changed(PLACED, path, "2026-01-03T05:45:00.000001+05:45")), "time_ahead", path)


def test_a_leap_day_and_odd_offsets_are_times() -> None:
    for value in ("2024-02-29T23:59:59.123456-12:45", "2010-12-01T08:26:00+00:01", "1999-12-31T23:59:59-23:59"):
        assert parsed(changed(PLACED, "time", value))


# Sameness


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


SAME: dict[str, Callable[[Json], bytes]] = {
    "key order": lambda event: to_bytes(reversed_keys(event)),
    "spacing": lambda event: json.dumps(event, indent=4).encode(),
    "no spacing": lambda event: json.dumps(event, separators=(",", ":")).encode(),
    "escapes": lambda event: to_bytes(event).replace(b'"o1"', rb'"\u006f1"'),
    "tracing": lambda event: to_bytes({**event, "traceparent": "00-1-2-01", "tracestate": "k=v"}),
    "another id, source and time": lambda event: to_bytes({**event, "id": "x", "source": "/y", "time": TIME}),
}


@pytest.mark.parametrize("how", SAME)
@pytest.mark.parametrize("name", VALID)
def test_content_is_the_same_however_it_is_written(name: str, how: str) -> None:
    assert digest(parse(SAME[how](VALID[name]), NOW)) == digest(parsed(VALID[name]))


def test_attributes_are_the_same_in_any_order() -> None:
    one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    pair = [changed(PLACED, "data.attributes", attributes) for attributes in (one, other)]
    assert digest(parsed(pair[0])) == digest(parsed(pair[1]))


def test_the_same_moment_is_the_same_with_any_offset() -> None:
    there = parsed(changed(PLACED, "data.placedAt", "2026-01-01T01:00:00+01:00"))
    assert there.data == parsed(PLACED).data
    assert digest(there) == digest(parsed(PLACED))


@pytest.mark.parametrize(
    ("event", "path", "value"),
    [
        (PLACED, "data.orderId", "o2"),
        (PLACED, "data.placedAt", "2026-01-01T00:00:01Z"),
        (PLACED, "data.partner", "p"),
        (PLACED, "data.priority", 1),
        (PLACED, "data.items.1", MISSING),
        (PLACED, "data.items.0.quantity", 11),
        (PLACED, "data.items.0.attributes", {"a": "1"}),
        (SHORTAGE, "data.items.0.fulfillableQuantity", 5),
        (SHORTAGE, "data.items.0", {"sku": "a", "fulfillableQuantity": 4}),
        (SKU_SHORTAGE, "data.availableQuantity", 5),
        (SHIPPED, "data.fulfillmentId", "f2"),
        (FINAL, "data.fulfillmentIds", ["f1", "f2"]),
        (CLOSED, "data.fulfillmentIds", []),
        (REQUESTED, "data.cancelledBy", "seller"),
        (REQUESTED, "data.reason.note", "n"),
        (REQUESTED, "data.items", MISSING),
    ],
)
def test_other_content_is_told_apart(event: Json, path: str, value: object) -> None:
    assert digest(parsed(changed(event, path, value))) != digest(parsed(event))


# What goes out


def outgoing(cause: Json, more: Json | None = None) -> Json:
    """What is published for the only cancellation that `cause` sets off."""
    order = placed("o1", more, a=("SA", 10), b=("SB", 4))
    order["data"]["items"][0]["attributes"] = {"price": "1.20"}
    (message,) = play(order, shipped("o1", "f1", a=1), cause).published
    return message


def test_a_cancellation_goes_out_exactly_as_the_contract_shows() -> None:
    cause = event("inventory.shortage", SHORTAGE["data"], id="c1", source="/stock", time="2026-01-01T09:00:00+01:00")
    more = {"partner": "p", "attributes": {"currency": "EUR"}}
    cancellation_id = str(uuid5(NAMESPACE_OID, "/stock\nc1\no1\ncancelItemPartially\na"))
    message = outgoing({**cause, "traceparent": "00-1-2-01"}, more)
    assert message.pop("dataschema").endswith("/order.cancelled/v1")
    assert message == {
        "specversion": "1.0",
        "id": cancellation_id,
        "source": "/shortpick",
        "type": "order.cancelled",
        "subject": "o1",
        "time": "2026-01-02T00:00:00.000000Z",
        "datacontenttype": "application/json",
        "partitionkey": "o1",
        "traceparent": "00-1-2-01",
        "data": {
            "cancellationId": cancellation_id,
            "orderId": "o1",
            "sequence": 1,
            "operation": "cancelItemPartially",
            "cancelledBy": "seller",
            "cancelledAt": "2026-01-02T00:00:00.000000Z",
            "reason": {"code": "out_of_stock", "note": None},
            "partner": "p",
            "placedAt": "2026-01-01T00:00:00.000000Z",
            "attributes": {"currency": "EUR"},
            "items": [
                {
                    "itemId": "a",
                    "originalItemId": "a",
                    "sku": "SA",
                    "quantity": 10,
                    "fulfilledQuantity": 1,
                    "cancelledQuantity": 6,
                    "newItemId": new_id("o1", "a"),
                    "newQuantity": 4,
                    "attributes": {"price": "1.20"},
                }
            ],
            "order": {"hasCancellations": True, "shipped": False, "entirelyCancelled": False},
            "cause": {
                "id": "c1",
                "source": "/stock",
                "type": "inventory.shortage",
                "time": "2026-01-01T08:00:00.000000Z",
            },
        },
    }


def test_the_traceparent_goes_out_only_where_the_cause_had_one() -> None:
    assert "traceparent" not in outgoing(SHORTAGE)


def test_what_is_not_known_goes_out_as_null_or_empty() -> None:
    data = outgoing(shortage("o1", b=0))["data"]
    assert (data["partner"], data["attributes"], data["reason"]["note"]) == (None, {}, None)
    assert (data["items"][0]["newItemId"], data["items"][0]["newQuantity"]) == (None, None)
    assert data["items"][0]["attributes"] == {}


def test_a_cancellation_of_an_order_has_no_item_in_its_id() -> None:
    cause = requested("o1", {"unfulfilledOnly": True})
    name = f"/test\n{cause['id']}\no1\ncancelUnfulfilled\n"
    assert outgoing(cause)["id"] == str(uuid5(NAMESPACE_OID, name))


def test_cancellations_of_one_cause_differ_in_their_ids() -> None:
    published = play(PLACED, requested("o1", a=1, b=1)).published
    assert len({message["id"] for message in published}) == 2


def test_a_retry_of_a_cause_gives_the_same_ids() -> None:
    cause = shortage("o1", a=4)
    assert outgoing(cause) == outgoing(cause)


@pytest.mark.parametrize(
    "stored", ["zebra", '{"type": "zebra"}', json.dumps(changed(PLACED, "data.items.0.quantity", "zebra"))]
)
def test_an_error_of_what_was_stored_does_not_quote_it_since_errors_are_logged(stored: str) -> None:
    with pytest.raises(ValueError, match="validation error") as told:
        read_again(stored)
    assert "zebra" not in str(told.value)

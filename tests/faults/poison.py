"""What no worker must choke on: entries of the queue that are no events, each with the code of its dead letter."""

import json

from tests.builders import Json, placed, shortage, to_bytes

LARGEST = 64 * 1024
SKU = "S"
GOOD = to_bytes(shortage("o000", b=1))


def largest(order_id: str) -> Json:
    """The order of the most lines of two units each that is still small enough, written as short as can be."""
    order = placed(order_id, **{f"{n:04}": (SKU, 2) for n in range(2000)})
    items = order["data"]["items"]
    while (left := LARGEST - len(compact({**order, "pad": ""}))) < 0:
        del items[left // len(compact(items[0])) :]
    return {**order, "pad": "x" * left}


def compact(event: Json) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def _with(quantity: str) -> bytes:
    return GOOD.replace(b'"fulfillableQuantity": 1', f'"fulfillableQuantity": {quantity}'.encode())


POISON: dict[str, tuple[str, bytes]] = {
    "nothing": ("not_json", b""),
    "not JSON": ("not_json", b"three units of SKU PART-1 are missing"),
    "not UTF-8": ("not_json", GOOD.replace(b"o000", b"o\xff00")),
    "half an event": ("not_json", GOOD[: len(GOOD) // 2]),
    "two events": ("not_json", GOOD + GOOD),
    "a list": ("not_json", b"[" + GOOD + b"]"),
    "a number": ("not_json", b"5"),
    "null": ("not_json", b"null"),
    "100,000 brackets": ("too_large", b"[" * 100_000),
    "60,000 brackets": ("not_json", b"[" * 60_000),
    "60,000 brackets in an event": ("not_json", GOOD[:-1] + b', "more": ' + b"[" * 60_000),
    "8,000 objects in each other": ("not_json", b'{"data":' * 8_000),
    "a number of 5,000 digits": ("not_json", _with("9" * 5000)),
    "a number of 5,000 digits outside of data": ("not_json", GOOD[:-1] + b', "more": ' + b"9" * 5000 + b"}"),
    "a number beyond all floats": ("invalid_field", _with("1e400")),
    "NaN": ("invalid_field", _with("NaN")),
    "NaN outside of data": ("not_json", GOOD[:-1] + b', "more": NaN}'),
    "minus infinity": ("invalid_field", _with("-Infinity")),
    "2^63": ("invalid_field", _with(str(2**63))),
    "a key twice": ("repeated_key", GOOD.replace(b'"orderId"', b'"orderId": "o001", "orderId"')),
    "an escaped NUL": ("invalid_field", GOOD.replace(b"o000", b"o\\u0000")),
    "a NUL": ("not_json", GOOD.replace(b"o000", b"o\0")),
    "a lone surrogate": ("not_json", GOOD.replace(b"o000", b"\\ud800")),
    "a lone surrogate as UTF-8": ("not_json", GOOD.replace(b"o000", b"\xed\xa0\x80")),
    "10 MB": ("too_large", json.dumps({"data": "x" * 10_000_000}).encode()),
    "50,000 lines": ("too_large", to_bytes(placed("o000", **{f"l{n}": ("PART-1", 1) for n in range(50_000)}))),
    "a byte too many": ("too_large", compact(largest("o000")) + b" "),
}


OTHER_FIELDS: list[tuple[list[bytes], tuple[str, bytes]]] = [
    ([b"evnet", GOOD], ("not_json", b"evnet: " + GOOD)),
    ([b"event", GOOD, b"event", GOOD], ("not_json", b"event: " + GOOD + b"\nevent: " + GOOD)),
    ([b"type", b"order.placed", b"data", b"{}"], ("not_json", b"type: order.placed\ndata: {}")),
    ([b"payload", b"x" * 10_000_000], ("too_large", b"payload: " + b"x" * 10_000_000)),
]
"""Names and values of entries that have no event, or two, with the code and the bytes of their dead letter."""

"""From the bytes of a queue entry to an event, or to a sentence a person can act on."""

import json
import re
from collections import Counter
from datetime import datetime
from typing import Any, TypeGuard

from pydantic import ConfigDict, TypeAdapter, ValidationError

from domain.contract import MAX_AHEAD, MAX_EVENT_BYTES
from domain.errors import ContractFault, InvalidEvent
from domain.events import TYPES, AnyEvent, Event, OrderPlaced

# An error that nobody caught ends in a log, which must not tell what an event holds.
_ADAPTER: TypeAdapter[Event] = TypeAdapter(AnyEvent, config=ConfigDict(hide_input_in_errors=True))

_RFC3339_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")

# pydantic's error types, where the contract gives the error a code of its own; all others are `invalid_field`.
_CODES: dict[str, ContractFault] = {
    "json_invalid": "not_json",
    "json_type": "not_json",
    "extra_forbidden": "unknown_field",
    "missing": "missing_field",
}


def parse(raw: bytes, now: datetime) -> Event:
    """The event in `raw`; `now` (with an offset) bounds how far ahead its times may be. Raises `InvalidEvent`."""
    if len(raw) > MAX_EVENT_BYTES:
        raise InvalidEvent("too_large", f"the event has {len(raw)} bytes; at most {MAX_EVENT_BYTES} are allowed")
    try:
        event = _ADAPTER.validate_json(raw)
    except ValidationError as error:
        raise _invalid(error) from None
    document = _unambiguous(raw)
    _check_time("time", document["time"], event.time, now)
    if isinstance(event, OrderPlaced):
        _check_time("data.placedAt", document["data"]["placedAt"], event.data.placed_at, now)
    return event


def read_again(raw: str) -> Event:
    """An event that was parsed before, and stored."""
    return _ADAPTER.validate_json(raw)


def identify(raw: bytes) -> tuple[tuple[str, str] | None, str | None]:
    """What can be read of an event that does not keep the contract: its `(source, id)` and its order's id."""
    try:
        document = json.loads(raw) if len(raw) <= MAX_EVENT_BYTES else None
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(document, dict):
        return None, None
    source, id_ = document.get("source"), document.get("id")
    data = document.get("data")
    order_id = data.get("orderId") if isinstance(data, dict) else None
    key = (source, id_) if _is_id(source) and _is_id(id_) else None
    return key, order_id if _is_id(order_id) else None


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _check_time(field: str, written: str, time: datetime, now: datetime) -> None:
    if not _RFC3339_DATE.match(written):  # pydantic would also take a number in a string
        raise InvalidEvent("invalid_field", f"{field}: must be an RFC 3339 time with an offset (it is {written!a})")
    if time - now > MAX_AHEAD:
        raise InvalidEvent("time_ahead", f"{field} is {written}, more than 24 hours ahead of the clock here")


def _invalid(error: ValidationError) -> InvalidEvent:
    """The first thing that is wrong, as a code and a sentence. Input is quoted only where it is short."""
    first = error.errors(include_url=False)[0]
    code = _CODES.get(first["type"], "invalid_field")
    if first["type"] == "union_tag_not_found":
        return _without_known_type(first["input"])
    where = _path(first["loc"])
    if code == "unknown_field":
        return InvalidEvent(code, f"{where} is not part of the contract, and would be ignored; remove it")
    if code == "missing_field":
        return InvalidEvent(code, f"{where} is missing")
    if code == "not_json":
        return InvalidEvent(code, f"the bytes are not one JSON object in UTF-8: {first['msg']}")
    return InvalidEvent(code, f"{where}: {_message(first)}{_quoted(first.get('input'))}")


def _without_known_type(document: Any) -> InvalidEvent:
    if not isinstance(document, dict):
        return InvalidEvent("not_json", "the bytes are JSON, but not a JSON object")
    if not isinstance(document.get("type"), str):
        return InvalidEvent("missing_field", "type is missing, or is not a string")
    return InvalidEvent("unknown_type", "type is not one of those this program knows: " + ", ".join(TYPES))


def _message(error: Any) -> str:
    if error["type"] == "string_pattern_mismatch":
        return "must not contain control characters"
    message: str = error["msg"]
    return message[:1].lower() + message[1:]


def _quoted(value: object) -> str:
    if isinstance(value, str | int | float | bool | None) and len(shown := ascii(value)) <= 80:
        return f" (it is {shown})"
    return ""


def _path(location: tuple[int | str, ...]) -> str:
    """`('order.placed', 'data', 'items', 0, 'sku')` as `data.items[0].sku`: the first part is the model's tag."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in location[1:])
    return path.removeprefix(".") or "the event"


def _shown(name: str) -> str:
    """A field's name as it can be printed, since a sender may call a field anything."""
    short = name if len(name) <= 80 else name[:80] + "…"
    return short if short.isascii() and short.isprintable() else ascii(short)


def _unambiguous(raw: bytes) -> Any:
    """Refuses what a lenient parser lets pass: a key given twice, of which readers differ on which one counts, and
    numbers that are none. The bytes have passed the contract, so they are small and flat."""
    try:
        return _DECODER.decode(raw.decode())
    except RecursionError:
        raise InvalidEvent("not_json", "the event is nested too deeply") from None
    except ValueError as error:
        raise InvalidEvent("not_json", f"the bytes are not one JSON object: {error}") from None


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise InvalidEvent(
            "repeated_key", f"the key {ascii(repeated)[:80]} is given twice; it is unclear which one counts"
        )
    return found


def _no_constant(name: str) -> float:
    raise InvalidEvent("not_json", f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_no_constant)

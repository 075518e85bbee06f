"""Reading what is recorded, for the checker: tables, streams, and the chain of each item as first ordered."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise, zip_longest
from typing import Any, TypeVar

from redis import Redis
from sqlalchemy import Connection, Row, text

Rows = Sequence[Row[Any]]
Tables = Mapping[str, Rows]
Chains = Mapping[tuple[str, str], Rows]
Entries = Mapping[str, bytes]
Value = TypeVar("Value")


def table(connection: Connection, table: str) -> Rows:
    return connection.execute(text(f"SELECT * FROM {table} ORDER BY 1")).all()


def entries_of(redis: Redis, stream: str) -> Entries:
    entries: Any = redis.xrange(stream)
    return {entry_id.decode(): fields.get(b"event", b"") for entry_id, fields in entries}


def chains_of(items: Rows) -> Chains:
    """For each item as first ordered, by order and item id: it, and what took its place, to the end."""
    by_id = {(item.order_id, item.item_id): item for item in items}
    chains = {key: [item] for key, item in by_id.items() if item.item_id == item.original_item_id}
    for (order_id, item_id), chain in chains.items():
        following = by_id.get((order_id, chain[0].replaced_by))
        while following and following not in chain and following.original_item_id == item_id:
            chain.append(following)
            following = by_id.get((order_id, following.replaced_by))
    return chains


def totals_of(chain: Rows) -> dict[str, int]:
    """Units of an item as first ordered: what is cancelled follows from quantities, what is open from its column."""
    last = chain[-1]
    cancelled = sum(old.quantity - new.quantity for old, new in pairwise(chain)) + last.quantity * bool(last.cancelled)
    fulfilled, open_ = sum(item.fulfilled for item in chain), sum(item.open_quantity for item in chain)
    return {"ordered": chain[0].quantity, "fulfilled": fulfilled, "cancelled": cancelled, "open": open_}


def sums(pairs: Iterable[tuple[Any, int]]) -> Counter[Any]:
    sums: Counter[Any] = Counter()
    for key, number in pairs:
        sums[key] += number
    return sums


def grouped(pairs: Iterable[tuple[Any, Value]]) -> dict[Any, list[Value]]:
    groups: dict[Any, list[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def unequal(sentence: str, one: Mapping[Any, Any], other: Mapping[Any, Any]) -> Iterator[str]:
    """The sentence for each order or item that has other figures in the one than in the other."""
    for key in sorted(one.keys() | other.keys()):
        if one.get(key, 0) != other.get(key, 0):
            name = key if isinstance(key, str) else "/".join(key)
            yield sentence.format(name, one.get(key, 0), other.get(key, 0))


def first_difference(found: Sequence[object], expected: Sequence[object]) -> str | None:
    pairs = zip_longest(found, expected, fillvalue="nothing")
    return next((f"{one} where {other} should be" for one, other in pairs if one != other), None)


def from_json(column: Any) -> Any:
    """A JSON column, which is parsed already on PostgreSQL and a text on SQLite."""
    return json.loads(column) if isinstance(column, str) else column


def as_time(column: Any) -> datetime:
    """A time with its offset, which is a text on SQLite."""
    return datetime.fromisoformat(column) if isinstance(column, str) else column


def was_removed(tables: Tables, source: Any, time: Any) -> bool:
    """Whether an event may have been removed by age: it is not newer than what was removed of its source, so if it
    comes again it is recognised."""
    newest = {row.source: as_time(row.newest_time) for row in tables["pruned_events"]}
    return source in newest and as_time(time) <= newest[source]


def key_of(row: Row[Any]) -> tuple[str, str]:
    """What names an event, of a row about it."""
    return row.source, row.id


def name_of(row: Row[Any]) -> str:
    return " ".join(key_of(row))


def parsed_event(event: str | bytes) -> dict[str, Any]:
    """An event with a dictionary as its `data`, whatever was sent."""
    try:
        parsed = json.loads(event)
    except (ValueError, RecursionError):
        parsed = None
    event_ = parsed if isinstance(parsed, dict) else {}
    return event_ if isinstance(event_.get("data"), dict) else {**event_, "data": {}}


def arrival(entry_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split("-"))

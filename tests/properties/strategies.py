"""Orders, whatever may happen to them, and input of every kind."""

import json
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from domain.operations import CancelItem, CancelItemPartially, CancelOrder, CancelUnfulfilled, Operation
from tests.builders import (
    TIME,
    Json,
    again,
    closed,
    event,
    final,
    new_id,
    placed,
    requested,
    shipped_of,
    shortage_of,
    to_bytes,
)

ITEMS = ("d", "a", "e", "b", "c")
"""In item order, which is none that sorting gives."""
SKUS = ("SA", "SB", "SC")
FULFILLMENTS = ("f1", "f2", "f3", "f4", "f5", "f6")

History = tuple[Json, list[Json]]
"""An order, and what happens to it."""

units = st.integers(1, 12)
figures = st.integers(0, 14)


@st.composite
def orders(draw: st.DrawFn) -> Json:
    """An order of one to five lines, some of which share a SKU."""
    lines = draw(st.lists(st.tuples(st.sampled_from(SKUS), units), min_size=1, max_size=len(ITEMS)))
    return placed("o1", **dict(zip(ITEMS, lines, strict=False)))


@st.composite
def histories(draw: st.DrawFn, most: int = 12) -> History:
    """An order and whatever may happen to it; some of it comes twice, under another event id."""
    order = draw(orders())
    happened = draw(st.lists(_events(order), max_size=most))
    return order, happened + [again(event) for event in happened if draw(st.booleans())]


@st.composite
def histories_and_a_shortage(draw: st.DrawFn) -> tuple[History, Json]:
    """A short history, after which something is still open more often than not."""
    history = draw(histories(most=3))
    return history, draw(_shortages(history[0]))


@st.composite
def histories_and_operations(draw: st.DrawFn) -> tuple[History, list[Operation]]:
    history = draw(histories(most=3))
    item_id = _item_ids(history[0])
    operations: st.SearchStrategy[Operation] = st.one_of(
        st.builds(CancelItem, item_id),
        st.builds(CancelItemPartially, item_id, st.integers(-1, 13)),
        st.just(CancelOrder()),
        st.just(CancelUnfulfilled()),
    )
    return history, draw(st.lists(operations, min_size=1, max_size=8))


def _events(order: Json) -> st.SearchStrategy[Json]:
    shortages, shipments = _shortages(order), _shipments(order)
    named = st.sets(st.sampled_from(FULFILLMENTS)).map(sorted)
    finals = st.builds(lambda shipment, names: final(shipment, *names), shipments, named)
    closings = named.map(lambda names: closed("o1", *names))
    items = st.dictionaries(_item_ids(order), st.none() | figures, max_size=2)
    requests = items.map(lambda items: requested("o1", **items)) | st.just(requested("o1", {"unfulfilledOnly": True}))
    often = (shortages, shipments, shortages, shipments, shortages, shipments)
    return st.one_of(*often, finals, closings, requests).map(again)


def _shortages(order: Json) -> st.SearchStrategy[Json]:
    lines = st.dictionaries(_names(order), figures, min_size=1, max_size=3)
    return lines.map(lambda lines: shortage_of("o1", [(*name, figure) for name, figure in lines.items()]))


def _shipments(order: Json) -> st.SearchStrategy[Json]:
    few = st.integers(1, 5) | units
    lines = st.lists(st.builds(lambda name, units: (*name, units), _names(order), few), min_size=1, max_size=3)
    return st.builds(lambda name, lines: shipped_of("o1", name, lines), st.sampled_from(FULFILLMENTS), lines)


def _names(order: Json) -> st.SearchStrategy[tuple[str, str]]:
    """Lines of the order by item and by SKU, and now and then one that it does not have."""
    skus = [line["sku"] for line in order["data"]["items"]]
    by_item = st.tuples(st.just("itemId"), _item_ids(order))
    return st.one_of(by_item, by_item, st.tuples(st.just("sku"), st.sampled_from([*skus * 8, "SZ"])))


def _item_ids(order: Json) -> st.SearchStrategy[str]:
    """Mostly ids under which something was placed, else ids that the chain of an item has, or may never have."""
    first = [line["itemId"] for line in order["data"]["items"]]
    second = [new_id("o1", item_id) for item_id in first]
    third = [new_id("o1", item_id) for item_id in second]
    return st.sampled_from([*first * 16, *second * 3, *third, "zz"])


# Input of every kind

_EVENTS = (
    placed("o1", {"partner": "p", "priority": 1, "attributes": {"k": "v"}}, a=("SA", 10)),
    shortage_of("o1", [("itemId", "a", 4), ("sku", "SB", 0)]),
    event("inventory.shortage", {"sku": "SA", "availableQuantity": 4}),
    event("inventory.restocked", {"orderId": "o1", "items": [{"itemId": "a"}]}),
    event("inventory.restocked", {"sku": "SA"}),
    final(shipped_of("o1", "f1", [("itemId", "a", 3)]), "f1", "f2"),
    closed("o1", "f1"),
    requested("o1", {"reason": {"code": "manual", "note": "n"}}, a=6),
)
_KEYS = sorted({key for event in _EVENTS for key in (*event, *event["data"])} | {"itemId", "sku", "quantity", "note"})
_keys = st.sampled_from(_KEYS) | st.text(max_size=5)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, 2**63, -(10**400), TIME, "9999-12-31T23:59:59-23:59", "1767225600", "\x00", ""]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(sorted({event["type"] for event in _EVENTS})),
)
values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated_events(draw: st.DrawFn) -> bytes:
    """A valid event with up to three changes anywhere in it, as JSON (or nearly: with NaN and lone surrogates)."""
    event: Json = json.loads(to_bytes(draw(st.sampled_from(_EVENTS))))
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(list(_places(event)) or [(event, "type")]))
        draw(st.sampled_from([_replace, _drop, _respell, _add]))(draw, container, key)
    return to_bytes(event)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every field and every element, at any depth."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _replace(draw: st.DrawFn, container: Any, key: Any) -> None:
    container[key] = draw(values)


def _drop(draw: st.DrawFn, container: Any, key: Any) -> None:
    if isinstance(container, list) or key in container:
        del container[key]


def _respell(draw: st.DrawFn, container: Any, key: Any) -> None:
    if isinstance(container, dict) and key in container:
        spelling = draw(st.sampled_from([_snake, str.lower, str.title]))
        container[spelling(key)] = container.pop(key)


def _snake(name: str) -> str:
    return re.sub("([A-Z])", r"_\1", name).lower()


def _add(draw: st.DrawFn, container: Any, key: Any) -> None:
    if isinstance(container, dict):
        container[draw(_keys)] = draw(values)
    else:
        container.append(draw(values))


@st.composite
def mutated_bytes(draw: st.DrawFn) -> bytes:
    """A valid event with a stretch of its bytes cut out, replaced or doubled."""
    raw = to_bytes(draw(st.sampled_from(_EVENTS)))
    start = draw(st.integers(0, len(raw)))
    end = draw(st.integers(start, min(len(raw), start + 20)))
    return raw[:start] + draw(st.binary(max_size=8) | st.just(raw[start:end] * 2)) + raw[end:]

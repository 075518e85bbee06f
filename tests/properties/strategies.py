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

ITEMS = ("a", "b", "c", "d", "e")
SKUS = ("SA", "SB", "SC")
FULFILLMENTS = ("f1", "f2", "f3")

units = st.integers(1, 12)
figures = st.integers(0, 14)
_item_ids = st.sampled_from(ITEMS)
_chain_ids = st.builds(lambda item, depth: _renamed(item, depth), _item_ids, st.integers(0, 2))
_any_item = st.one_of(_item_ids, _chain_ids, st.just("zz"))
_names = st.one_of(st.tuples(st.just("itemId"), _any_item), st.tuples(st.just("sku"), st.sampled_from((*SKUS, "SZ"))))


def _renamed(item_id: str, depth: int) -> str:
    """The id of an item after it was cut `depth` times."""
    return _renamed(new_id("o1", item_id), depth - 1) if depth else item_id


@st.composite
def orders(draw: st.DrawFn) -> Json:
    """An order of one to five lines, some of which share a SKU."""
    lines = draw(st.lists(st.tuples(st.sampled_from(SKUS), units), min_size=1, max_size=len(ITEMS)))
    return placed("o1", **dict(zip(ITEMS, lines, strict=False)))


def shortages(named: st.SearchStrategy[tuple[str, str]] = _names) -> st.SearchStrategy[Json]:
    lines = st.dictionaries(named, figures, min_size=1, max_size=4)
    return lines.map(lambda lines: shortage_of("o1", [(how, name, figure) for (how, name), figure in lines.items()]))


_shipment_lines = st.lists(st.tuples(_names, units), min_size=1, max_size=4)
_shipments = st.builds(
    lambda fulfillment_id, lines: shipped_of("o1", fulfillment_id, [(*name, quantity) for name, quantity in lines]),
    st.sampled_from(FULFILLMENTS),
    _shipment_lines,
)
_named = st.sets(st.sampled_from(FULFILLMENTS)).map(sorted)
_finals = st.builds(lambda shipment, names: final(shipment, *names), _shipments, _named)
_closings = _named.map(lambda names: closed("o1", *names))
_requests = st.one_of(
    st.dictionaries(_any_item, st.none() | figures, max_size=3).map(lambda items: requested("o1", **items)),
    st.just(requested("o1", {"unfulfilledOnly": True})),
)
events = st.one_of(shortages(), shortages(), _shipments, _shipments, _finals, _closings, _requests).map(again)

operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(CancelItem, _any_item),
    st.builds(CancelItemPartially, _any_item, st.integers(-1, 13)),
    st.just(CancelOrder()),
    st.just(CancelUnfulfilled()),
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Json, list[Json]]:
    """An order and whatever may happen to it; some of it comes twice, under another event id."""
    happened = draw(st.lists(events, max_size=12))
    repeats = [again(event) for event in happened if draw(st.booleans())]
    return draw(orders()), happened + repeats


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

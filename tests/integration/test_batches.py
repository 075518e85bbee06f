"""Events in batches on both databases: bad ones among good ones, the same id again, and decisions that build on others."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from tests.builders import (
    Json,
    again,
    closed,
    event,
    new_id,
    placed,
    requested,
    shipped,
    shortage,
    sku_shortage_of_order,
    to_bytes,
)
from tests.integration.batches import Batches

TOGETHER = pytest.mark.parametrize("size", [None, 1], ids=["in one batch", "one by one"])
AHEAD = (datetime.now(UTC) + timedelta(hours=25)).isoformat()
FIRST = placed("o1", a=("SA", 9), b=("SB", 9))

BAD: dict[str, tuple[str, Json | bytes]] = {
    "nothing": ("not_json", b""),
    "not UTF-8": ("not_json", to_bytes(shortage("o1", a=1)).replace(b"o1", b"o\xff")),
    "a byte order mark": ("not_json", b"\xef\xbb\xbf" + to_bytes(shortage("o1", a=1))),
    "UTF-16": ("not_json", json.dumps(shortage("o1", a=1)).encode("utf-16")),
    "a list": ("not_json", to_bytes([shortage("o1", a=1)])),
    "NaN": ("not_json", to_bytes({**shortage("o1", a=1), "extra": float("nan")})),
    "nested deeply": ("not_json", b"[" * 60_000),
    "a lone surrogate": ("not_json", to_bytes(shortage("o1", a=1)).replace(b"o1", b"\\ud800")),
    "too large": ("too_large", to_bytes(shortage("o1", a=1)) + b" " * 65_536),
    "an unknown type": ("unknown_type", event("order.shipped", {"orderId": "o1"})),
    "an unknown field": ("unknown_field", placed("o9", {"location": "x"}, a=("SA", 1))),
    "a missing field": ("missing_field", event("fulfillment.closed", {"orderId": "o1"})),
    "a negative quantity": ("invalid_field", shortage("o1", a=-1)),
    "a quantity of 2^31": ("invalid_field", shortage("o1", a=2**31)),
    "a NUL": ("invalid_field", shortage("o\0", a=1)),
    "a key twice": ("repeated_key", to_bytes(shortage("o1", a=1)).replace(b'"orderId"', b'"orderId": "o2", "orderId"')),
    "a time ahead": ("time_ahead", {**shortage("o1", a=1), "time": AHEAD}),
    "a restock of an unknown item": (
        "unknown_line",
        event("inventory.restocked", {"orderId": "o1", "items": [{"itemId": "z"}]}),
    ),
    "a reused id": ("id_reused", {**shortage("o1", a=0), "id": FIRST["id"]}),
    "placed differently": ("placed_differently", placed("o1", a=("SA", 10), b=("SB", 9))),
    "a reused fulfillment": ("fulfillment_reused", shipped("o1", "f1", b=2)),
    "an unknown item": ("unknown_line", shortage("o1", a=0, z=0)),
    "an unknown SKU": ("unknown_line", sku_shortage_of_order("o1", SA=0, SZ=0)),
}


@pytest.fixture
def worker(emptied_engine: Engine) -> Batches:
    return Batches(emptied_engine)


@TOGETHER
@pytest.mark.parametrize(("code", "bad"), BAD.values(), ids=BAD.keys())
def test_a_bad_event_never_touches_its_neighbours(
    code: str, bad: Json | bytes, size: int | None, worker: Batches
) -> None:
    worker.feed(FIRST, shipped("o1", "f1", b=1), shortage("o1", a=5), bad, shortage("o1", a=3), size=size)
    assert worker.dead() == [code]
    assert [bytes(row.bytes) for row in worker.rows("SELECT bytes FROM dead_letters")] == [worker.entries[3].raw]
    assert len(worker.outcomes()) == 4
    assert worker.operations() == ["cancelItemPartially", "cancelItemPartially"]
    assert worker.totals("o1")["a"] == {"ordered": 9, "fulfilled": 0, "cancelled": 6, "open": 3}
    assert worker.totals("o1")["b"] == {"ordered": 9, "fulfilled": 1, "cancelled": 0, "open": 8}
    assert worker.wrong() == []


def test_every_kind_of_bad_event_in_one_batch_is_a_dead_letter_of_its_own(worker: Batches) -> None:
    worker.feed(FIRST, shipped("o1", "f1", b=1), *(bad for _, bad in BAD.values()), shortage("o1", a=3))
    found = {bytes(row.bytes): row.code for row in worker.rows("SELECT bytes, code FROM dead_letters")}
    assert found == {one.raw: code for one, (code, _) in zip(worker.entries[2:-1], BAD.values(), strict=True)}
    assert worker.operations() == ["cancelItemPartially"]
    worker.process(worker.entries)
    worker.process(worker.entries, size=1)
    assert len(worker.dead()) == len(BAD)
    assert worker.wrong() == []


@TOGETHER
def test_an_id_that_comes_again_with_other_content_is_a_dead_letter(size: int | None, worker: Batches) -> None:
    cut = shortage("o1", a=5)
    other = {**shortage("o1", a=2), "id": cut["id"]}
    worker.feed(FIRST, cut, other, cut, shortage("o1", b=0), size=size)
    assert worker.dead() == ["id_reused"]
    assert worker.totals("o1")["a"]["open"] == 5
    assert worker.totals("o1")["b"]["open"] == 0
    assert worker.wrong() == []


@TOGETHER
def test_an_id_that_comes_again_for_another_order_is_a_dead_letter(size: int | None, worker: Batches) -> None:
    cut = shortage("o1", a=5)
    worker.feed(FIRST, placed("o2", a=("SA", 9)), cut, {**shortage("o2", a=0), "id": cut["id"]}, size=size)
    assert worker.dead() == ["id_reused"]
    assert worker.totals("o2")["a"]["open"] == 9


@TOGETHER
def test_the_same_id_of_another_source_is_another_event(size: int | None, worker: Batches) -> None:
    cut = shortage("o1", a=5)
    worker.feed(FIRST, cut, {**shortage("o1", a=2), "id": cut["id"], "source": "/other"}, size=size)
    assert worker.totals("o1")["a"]["open"] == 2
    assert worker.dead() == []


@TOGETHER
def test_a_repeat_counts_once_however_it_is_written(size: int | None, worker: Batches) -> None:
    ask = requested("o1", a=4)
    written_anew = json.dumps({**dict(reversed(ask.items())), "traceparent": "x", "time": "2026-01-01T01:00:00+01:00"})
    worker.feed(FIRST, ask, ask, written_anew.encode(), FIRST, ask, size=size)
    assert worker.operations() == ["cancelItemPartially"]
    assert worker.outcomes() == {FIRST["id"]: "recorded", ask["id"]: "applied"}
    assert worker.dead() == []
    worker.process(worker.entries, size=2)
    assert worker.operations() == ["cancelItemPartially"]
    assert worker.wrong() == []


@TOGETHER
@pytest.mark.parametrize("first", [{"zz": 1}, {"a": -1}], ids=["refused by its order", "refused by the contract"])
def test_a_mended_event_may_come_under_the_id_of_a_dead_letter(
    first: dict[str, int], size: int | None, worker: Batches
) -> None:
    bad, mended = shortage("o1", **first), shortage("o1", a=4)
    worker.feed(FIRST, bad, {**mended, "id": bad["id"]}, size=size)
    assert len(worker.dead()) == 1
    assert worker.outcomes()[bad["id"]] == "applied"
    assert worker.totals("o1")["a"]["open"] == 4
    assert worker.wrong() == []


def test_a_mended_event_is_mended_once(worker: Batches) -> None:
    """What is mended wrongly, mended rightly and then changed again, all in one batch."""
    versions = [shortage("o1", zz=1), shortage("o1", zy=1), shortage("o1", a=4), shortage("o1", a=1)]
    worker.feed(FIRST, *({**one, "id": "the same"} for one in versions))
    assert worker.dead() == ["unknown_line", "unknown_line", "id_reused"]
    assert worker.totals("o1")["a"]["open"] == 4
    assert worker.wrong() == []


@TOGETHER
def test_item_after_item_until_the_whole_order_is_gone(size: int | None, worker: Batches) -> None:
    worker.feed(FIRST, shortage("o1", a=0), shortage("o1", b=0), shortage("o1", a=0, b=0), size=size)
    assert worker.operations() == ["cancelItem", "cancelOrder"]
    assert list(worker.outcomes().values()).count("nothing") == 1
    assert worker.wrong() == []


@TOGETHER
def test_replacements_are_replaced_again_and_keep_what_shipped(size: int | None, worker: Batches) -> None:
    second, third = new_id("o1", "a"), new_id("o1", new_id("o1", "a"))
    worker.feed(
        FIRST,
        shortage("o1", a=7),
        shipped("o1", "f1", a=2),  # by its old name
        shortage("o1", **{second: 5}),
        shipped("o1", "f2", **{second: 1}),  # by a name that was replaced meanwhile
        requested("o1", **{second: 4}),  # refused: a request takes its id literally
        requested("o1", **{third: 4}),
        closed("o1", "f1", "f2"),
        size=size,
    )
    assert worker.totals("o1")["a"] == {"ordered": 9, "fulfilled": 3, "cancelled": 6, "open": 0}
    assert worker.totals("o1")["b"] == {"ordered": 9, "fulfilled": 0, "cancelled": 9, "open": 0}
    assert worker.operations() == ["cancelItemPartially"] * 3 + ["cancelUnfulfilled"]
    assert sorted(worker.outcomes().values()).count("refused") == 1
    assert [one["data"]["sequence"] for one in worker.published()] == [1, 2, 3, 4]
    names = ["a", second, third]
    names.append(new_id("o1", names[-1]))
    assert [one["data"]["items"][0]["itemId"] for one in worker.published()] == names
    assert worker.wrong() == []


def test_the_sequence_goes_on_over_batches_and_each_order_counts_its_own(worker: Batches) -> None:
    worker.feed(FIRST, placed("o2", a=("SA", 9)))
    for keep in range(8, 0, -1):
        worker.feed(shortage("o1", a=keep), shortage("o2", a=keep))
    for order_id in ("o1", "o2"):
        assert [one["data"]["sequence"] for one in worker.published(order_id)] == list(range(1, 9))
    assert worker.wrong() == []


def test_the_same_cut_under_other_ids_cuts_once(worker: Batches) -> None:
    cut = shortage("o1", a=4)
    worker.feed(FIRST, cut, *(again(cut) for _ in range(20)), size=7)
    assert worker.operations() == ["cancelItemPartially"]
    assert sorted(worker.outcomes().values()) == ["applied"] + ["nothing"] * 20 + ["recorded"]

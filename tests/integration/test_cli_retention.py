"""What commands tell of an order, and of a SKU, after events were removed by age; on both databases."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.builders import closed, placed, requested, shipped, shortage, sku_shortage
from worker import shortages
from worker.process import Processor
from worker.upkeep import prune_events

ORDER = placed("o1", a=("SA", 9), b=("SB", 5))


@pytest.fixture
def engine(emptied_engine: Engine) -> Engine:
    return emptied_engine


@pytest.fixture
def database_url(emptied_engine: Engine) -> str:
    return emptied_engine.url.render_as_string(hide_password=False)


@pytest.fixture
def remove(engine: Engine) -> Callable[[], int]:
    """Remove all events that may be removed."""
    return lambda: prune_events(engine, None, timedelta(days=-2))


def test_why_tells_what_was_cancelled_and_what_was_shipped(shortpick: Any, decide: Any, remove: Any) -> None:
    cut = shortage("o1", a=4)
    decide(ORDER, shortage("o1", b=5), cut, shipped("o1", "f1", a=3, b=6), closed("o1", "f9"))
    before = shortpick("why", "o1").out
    assert "no longer on record" not in before
    assert remove() == 3
    ran = shortpick("why", "o1")
    assert ran.code == 0
    assert "Older events that cancelled nothing are no longer on record" in ran.out
    assert "Ordered: 9 of item 'a' (SKU 'SA') and 5 of item 'b' (SKU 'SB')." in ran.out
    assert f"inventory.shortage: event '{cut['id']}'" in ran.out
    assert "5 of the 9 of item 'a'" in ran.out
    assert "fulfillment.created: event " in ran.out
    assert "Shipment 'f1' was handed to the carrier: 3 of item 'a' and 6 of item 'b'." in ran.out
    assert "Conflict 1 (open): shipment 'f1' has 1 unit of item 'b' too many" in ran.out
    assert "these shipments must be reported: 'f9'" in ran.out
    table = "The order as it stands"
    assert ran.out[ran.out.index(table) :] == before[before.index(table) :]


def test_why_tells_the_rank_of_an_order_that_lost_nothing(
    shortpick: Any, decide: Any, remove: Any, processor: Processor
) -> None:
    """The other one, which would have lost, was cancelled by its buyer in the middle of the run."""
    one_by_one = replace(processor, orders_a_chunk=1)
    decide(ORDER, placed("o2", a=("SA", 2)), sku_shortage("SA", 9))
    shortages.run_once(one_by_one, "SA")
    decide(requested("o2"))
    while shortages.run_once(one_by_one, "SA"):
        pass
    before = shortpick("why", "o1", "--json").json[0]["allotments"]
    assert remove() == 3
    ran = shortpick("why", "o1")
    assert (ran.code, "this one was number 1 of 1" in ran.out) == (0, True)
    after = shortpick("why", "o1", "--json").json[0]["allotments"]
    assert after == [{**before[0], "entryId": "0-0"}]


def test_shortages_list_shows_those_whose_event_is_gone(
    shortpick: Any, decide: Any, remove: Any, processor: Processor
) -> None:
    enough = sku_shortage("SA", 99)
    decide(ORDER, enough, sku_shortage("SB", 1))
    for sku in ("SA", "SB"):
        shortages.run_once(processor, sku)
    before = shortpick("shortages", "list", "--json").json
    assert remove() == 2
    after = shortpick("shortages", "list", "--json").json
    gone = {"outcome": None, "reason": None, "shippedSince": None}
    assert after == [before[0], {**before[1], **gone}]
    assert (after[1]["id"], after[1]["sku"], after[1]["given"]) == (enough["id"], "SA", 9)
    assert shortpick("shortages", "list").code == 0


def test_a_dead_letter_that_is_too_old_says_what_to_do(shortpick: Any, decide: Any, remove: Any) -> None:
    decide({**ORDER, "time": "2026-01-02T00:00:00Z"})
    remove()
    decide(shortage("o1", a=4))
    shown = shortpick("dead-letters", "show", "1").out
    assert "too_old" in shown
    assert "nobody can tell any more whether it was acted on" in shown
    assert "It could not be acted on (too_old)" in shortpick("why", "o1").out

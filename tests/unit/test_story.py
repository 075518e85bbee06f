"""The sentences that `shortpick why` tells an order's story in."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.operations import CancelItem, CancelItemPartially, CancelOrder, CancelUnfulfilled
from tests.builders import TERMS, order, shipment
from worker.cli import story
from worker.cli.wording import lasting, listed, shown, shown_bytes
from worker.storage.waiting import Waiting

AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
LATER = AT + timedelta(minutes=3)


def event(reason: str, facts: dict[str, Any], **more: Any) -> dict[str, Any]:
    row = {"source": "/wms", "id": "7", "type": "inventory.shortage", "outcome": "applied", "entry_id": "2-0"}
    return {**row, "time": AT, "recorded_at": AT, "decided_at": AT, "reason": reason, "facts": facts, **more}


def test_the_opening_tells_what_was_ordered_under_the_first_ids() -> None:
    after, _ = order(a=("SA", 10), b=("SB", 1)).apply(CancelItemPartially("a", 4), TERMS)
    assert story.opening("o1", after, 0) == [
        "Order 'o1' was placed at 2026-01-01 00:00:00 UTC.",
        "Ordered: 10 of item 'a' (SKU 'SA') and 1 of item 'b' (SKU 'SB').",
    ]


@pytest.mark.parametrize(
    ("waiting", "end"),
    [(0, "has come."), (1, "has come; 1 event waits for it."), (2, "has come; 2 events wait for it.")],
)
def test_an_order_that_was_not_placed_says_so(waiting: int, end: str) -> None:
    assert story.opening("o1", None, waiting) == [f"Order 'o1' was not placed yet: no order.placed event {end}"]


def test_a_heading_names_the_event_and_both_times() -> None:
    assert story.heading(event("shortage", {}, recorded_at=LATER)) == (
        "inventory.shortage: event '7' of '/wms', of 2026-01-05 09:00:00 UTC, recorded 2026-01-05 09:03:00 UTC"
    )


DECISIONS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("placed", {"items": 1}, ["The order was placed with 1 item."]),
    (
        "already_placed",
        {},
        ["The order had been placed before with the same content, so there was nothing to do."],
    ),
    (
        "shortage",
        {"figures": [["item 'a'", 4]], "keeps": [["a", 10, 1, 4]]},
        [
            "Of item 'a', 4 units can be fulfilled in all.",
            "Item 'a' can keep 4 of its 10 units, of which 1 had shipped; 6 must be cut.",
        ],
    ),
    (
        "shortage",
        {"figures": [["SKU 'SA'", 0]], "keeps": [["a", 1, 0, 0]], "ship_complete": True},
        [
            "Of SKU 'SA', 0 units can be fulfilled in all.",
            "Item 'a' can keep 0 of its 1 unit; 1 must be cut.",
            "Orders ship complete or not at all here, so whatever had not shipped is cancelled.",
        ],
    ),
    (
        "no_cut",
        {"figures": [["item 'a'", 9]], "keeps": [["a", 3, 0, 3]]},
        [
            "Of item 'a', 9 units can be fulfilled in all.",
            "Item 'a' can keep 3 of its 3 units.",
            "So there was nothing to cancel.",
        ],
    ),
    (
        "no_cut",
        {"figures": [["item 'a'", 0]], "keeps": []},
        [
            "Of item 'a', 0 units can be fulfilled in all.",
            "Every item it names was cancelled already.",
            "So there was nothing to cancel.",
        ],
    ),
    ("shipped", {"fulfillment": "p1", "units": 2}, ["Shipment 'p1' with 2 units was handed to the carrier."]),
    (
        "shipped",
        {"fulfillment": "p1", "units": 1, "closed": True},
        [
            "Shipment 'p1' with 1 unit was handed to the carrier.",
            "Nothing more will ship, and nothing was left open to cancel.",
        ],
    ),
    (
        "already_recorded",
        {"fulfillment": "p1", "units": 1},
        ["Shipment 'p1' had been reported before with the same content, so it was not counted again."],
    ),
    (
        "closed",
        {"open": 3, "fulfilled": 1},
        ["Nothing more will ship. 1 unit had shipped; the 3 still open are cut."],
    ),
    ("nothing_open", {"open": 0}, ["Nothing more will ship, and nothing was left open to cancel."]),
    (
        "fulfillments_missing",
        {"missing": ["p2", "p3"]},
        [
            "Nothing more will ship; but before the rest may be cancelled, these shipments must be reported: "
            "'p2' and 'p3'."
        ],
    ),
    (
        "grace",
        {"figures": [["item 'a'", 4]], "keeps": [["a", 10, 0, 4]]},
        [
            "Of item 'a', 4 units can be fulfilled in all.",
            "Item 'a' can keep 4 of its 10 units; 6 must be cut.",
            "Before it cuts, shortages wait here for a while, and are then decided again.",
        ],
    ),
    (
        "paused",
        {"figures": [["item 'a'", 4]], "keeps": [["a", 10, 0, 4]]},
        [
            "Of item 'a', 4 units can be fulfilled in all.",
            "Item 'a' can keep 4 of its 10 units; 6 must be cut.",
            "Cancellations are paused, so it waits until they are resumed, and is decided again then.",
        ],
    ),
    (
        "paused",
        {"by": "buyer", "operations": [["cancelOrder", None]]},
        [
            "The buyer asked to cancel the whole order; the rules allow it.",
            "Cancellations are paused, so it waits until they are resumed, and is decided again then.",
        ],
    ),
    (
        "paused",
        {"fulfillment": "p1", "units": 2, "open": 3, "fulfilled": 2},
        [
            "Shipment 'p1' with 2 units was handed to the carrier.",
            "Nothing more will ship. 2 units had shipped; the 3 still open are cut.",
            "Cancellations are paused, so it waits until they are resumed, and is decided again then.",
        ],
    ),
    (
        "restocked",
        {"figures": [["item 'a'", 4]], "keeps": [["a", 10, 0, 4]], "restocked": ["a"]},
        [
            "Of item 'a', 4 units can be fulfilled in all.",
            "Item 'a' can keep 4 of its 10 units; 6 must be cut.",
            "But there was new stock since for item 'a', so that is not cut.",
            "So there was nothing to cancel.",
        ],
    ),
    (
        "restocked",
        {"items": ["a", "b"]},
        [
            "There is stock again for item 'a' and item 'b': shortages that happened before this and were not acted on "
            "are void."
        ],
    ),
    ("already_restocked", {"items": ["a"]}, ["There is stock again for item 'a', which was known already."]),
    ("order_not_placed", {}, ["Nothing can be decided before the order is placed."]),
    (
        "requested",
        {"by": "buyer", "operations": [["cancelItem", "a"], ["cancelItemPartially", "b"]]},
        ["The buyer asked to cancel item 'a' and part of item 'b'; the rules allow it."],
    ),
    (
        "requested",
        {"by": "seller", "operations": [["cancelUnfulfilled", None]]},
        ["The seller asked to cancel whatever has not shipped; the rules allow it."],
    ),
    (
        "order_fulfilled",
        {"by": "buyer", "operations": [["cancelOrder", None]], "rule": "something is fulfilled"},
        [
            "The buyer asked to cancel the whole order.",
            "This was refused, and nothing was changed: something is fulfilled (order_fulfilled; "
            "see docs/reasons.md#order_fulfilled).",
        ],
    ),
    ("of_a_later_version", {}, ["It was decided as 'applied', for the reason 'of_a_later_version'."]),
]


@pytest.mark.parametrize(("reason", "facts", "sentences"), DECISIONS)
def test_a_decision_is_told_with_its_facts(reason: str, facts: dict[str, Any], sentences: list[str]) -> None:
    assert story.decision(event(reason, facts)) == sentences


def test_a_shipment_is_told_with_its_lines() -> None:
    lines = {"lines": [["a", None, 2], [None, "SB", 1]]}
    assert story.decision(event("shipped", {"fulfillment": "p1", "units": 3}), lines) == [
        "Shipment 'p1' was handed to the carrier: 2 of item 'a' and 1 of SKU 'SB'."
    ]


def test_an_event_that_was_decided_at_once_did_not_wait() -> None:
    assert story.waited(event("shortage", {})) == []


def test_an_event_tells_what_it_waited_for_one_after_the_other_and_how_long() -> None:
    ends = [("order_not_placed", 180), ("fulfillments_missing", 270), ("grace", 271), ("paused", 271)]
    waited = [[reason, (AT + timedelta(seconds=seconds)).isoformat()] for reason, seconds in ends]
    assert story.waited(event("closed", {"waited": waited})) == [
        "It came before the order was placed, and waited 3 minutes for that.",
        "It waited 1 minute 30 seconds until every shipment that it names was reported.",
        "It waited 1 second of grace before it was decided again.",
        "It waited less than a second until cancellations were resumed.",
    ]


@pytest.mark.parametrize(
    ("waits_for", "what"),
    [("order_not_placed", "for the order to be placed"), ("fulfillments_missing", "for these shipments")],
)
def test_an_event_that_waits_tells_for_what_and_until_when(waits_for: str, what: str) -> None:
    wait = Waiting(("/wms", "7"), "o1", "2-0", waits_for, b"", AT, AT + timedelta(days=1))
    assert story.still_waits(wait, LATER) == (
        f"It has waited {what} for 3 minutes. It waits until 2026-01-06 09:00:00 UTC at most; "
        "then it becomes a dead letter."
    )


def row(position: int | None) -> dict[str, Any]:
    return {
        "sequence": 2,
        "operation": "cancelItemPartially",
        "units": 6,
        "reason": "out_of_stock",
        "cancelled_at": AT,
        "position": position,
    }


def data(**more: Any) -> dict[str, Any]:
    item = {"itemId": "a", "sku": "SA", "quantity": 10, "cancelledQuantity": 6, "newItemId": "n", "newQuantity": 4}
    return {"cancelledBy": "seller", "reason": {"code": "out_of_stock", "note": None}, "items": [{**item, **more}]}


def test_a_cancellation_tells_units_items_operation_and_position() -> None:
    assert story.cancellation(row(17), data(), published_to=17) == [
        "→ Cancelled at 2026-01-05 09:00:00 UTC: 6 units, in the seller's name, because: not enough stock "
        "(out_of_stock).",
        "  6 of the 10 of item 'a' (SKU 'SA'); the other 4 stay, as item 'n' from now on.",
        "  It is the order's cancellation 2, operation cancelItemPartially, published at position 17.",
    ]


def test_a_whole_item_and_a_note_are_told() -> None:
    whole = data(cancelledQuantity=10, newItemId=None, newQuantity=None)
    whole["reason"] = {"code": "buyer_request", "note": "wrong\x1bsize"}
    first, second, _ = story.cancellation(row(1), whole, published_to=1)
    assert first.endswith(r", noting 'wrong\x1bsize'.")
    assert second == "  10 of item 'a' (SKU 'SA'): all of it."


@pytest.mark.parametrize("position", [None, 18], ids=["without a position", "not in the stream"])
def test_a_cancellation_that_is_not_in_the_stream_is_not_yet_published(position: int | None) -> None:
    assert story.publication(position, published_to=17) == "not yet published"


def test_a_hold_on_which_the_program_failed_is_not_told_as_one_with_nothing_left_to_cancel() -> None:
    row = {"created_at": AT, "why": "breaker", "would": [["cancelOrder", "a", "SA", 2]], "decided_by": None}
    ended = {"state": "carried_out", "outcome": "nothing", "ended_at": LATER}
    assert story.hold({**row, **ended, "reason": "no_cut"})[-1] == (
        "Decided again at 2026-01-05 09:03:00 UTC: nothing was left to cancel by then."
    )
    assert story.hold({**row, **ended, "reason": "unprocessable"})[-1] == (
        "Decided again at 2026-01-05 09:03:00 UTC: the program failed on it, and nothing of it was cancelled. "
        "This is a fault to report."
    )


def test_a_conflict_asks_for_a_person() -> None:
    conflict = {"conflict_id": 3, "state": "open", "fulfillment_id": "p1", "item_id": None, "sku": "SA", "quantity": 1}
    assert story.conflict(conflict) == (
        "Conflict 3 (open): shipment 'p1' has 1 unit of SKU 'SA' too many: cancelled before, or never ordered. "
        "A person must resolve this: shortpick conflicts resolve."
    )


@pytest.mark.parametrize(("resolution", "end"), [("the parcel was stopped", ": the parcel was stopped."), (None, ".")])
def test_a_resolved_conflict_tells_who_did_what(resolution: str | None, end: str) -> None:
    conflict = {"conflict_id": 3, "fulfillment_id": "p1", "item_id": "a", "sku": None, "quantity": 1}
    resolved = {"state": "resolved", "resolved_by": "ann", "resolved_at": LATER, "resolution": resolution}
    assert story.conflict({**conflict, **resolved}).endswith(
        f"or never ordered. ann resolved it at 2026-01-05 09:03:00 UTC{end}"
    )


def test_the_standing_of_an_order() -> None:
    fresh = order(a=("SA", 2), b=("SB", 1))
    assert story.standing(fresh) == "Nothing was cancelled. 3 units are open: neither shipped nor cancelled."
    assert story.standing(fresh.apply(CancelItem("a"), TERMS)[0]) == "1 unit is open: neither shipped nor cancelled."
    assert story.standing(fresh.apply(CancelOrder(), TERMS)[0]) == "The order is entirely cancelled."
    part, _ = fresh.record(shipment("p1", a=2))
    rest = "What was not cancelled has shipped; nothing is open any more."
    assert story.standing(part.apply(CancelUnfulfilled(), TERMS)[0]) == rest
    assert story.standing(part.record(shipment("p2", b=1))[0]) == f"Nothing was cancelled. {rest}"


def test_what_a_terminal_would_act_on_is_escaped_and_the_rest_is_not() -> None:
    assert shown("Größe → \x1b[31m\x9b\u202e\n") == r"Größe → \x1b[31m\x9b\u202e\n"


def test_bytes_are_shown_as_ascii_and_bounded() -> None:
    assert shown_bytes(b"a\xff\x1b[31m", 7) == r"a\xff\x1b[31m"
    assert shown_bytes(b"abcdef", 4) == "abcd … (2 more bytes)"


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(milliseconds=20), "less than a second"),
        (timedelta(seconds=61), "1 minute 1 second"),
        (timedelta(hours=25, minutes=3, seconds=1), "1 day 1 hour"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(span: timedelta, words: str) -> None:
    assert lasting(span) == words


def test_a_list_is_told_as_one_would_say_it() -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]

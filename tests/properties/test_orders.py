"""What holds for every order, whatever happens to it."""

from collections.abc import Iterator
from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.decisions import decide
from domain.errors import EventRejected, InvalidEvent, OperationRefused
from domain.events import OrderShortage
from domain.operations import CancelItem, CancelItemPartially, CancelOrder, CancelUnfulfilled, Operation
from domain.orders import Order
from domain.parsing import parse
from domain.policy import Policy
from tests.builders import NOW, TERMS, Json, Played, again, parsed, play, to_bytes
from tests.properties import strategies
from tests.properties.strategies import History

many = settings(max_examples=120, deadline=None)
more = settings(max_examples=300, deadline=None)


def steps(history: History) -> Iterator[tuple[Order, Played]]:
    """After each event: the order before it, and all that was played so far."""
    placed, events = history
    played = play(placed)
    for event in events:
        before = played.placed_order
        try:
            played.take(event)
        except EventRejected:
            assert played.order == before
        yield before, played


def last(history: History) -> Played:
    played = play(history[0])
    for _, later in steps(history):
        played = later
    return played


@many
@given(strategies.histories())
def test_units_are_conserved(history: History) -> None:
    """Counted from the items and from what went out, not from the order's own totals."""
    ordered = {item["itemId"]: item["quantity"] for item in history[0]["data"]["items"]}
    for _, played in steps(history):
        found = dict.fromkeys(ordered, 0)
        for item in played.placed_order.items.values():
            assert 0 <= item.fulfilled <= item.quantity
            found[item.original_item_id] += item.fulfilled + item.open
        for message in played.published:
            for item in message["data"]["items"]:
                assert item["cancelledQuantity"] > 0
                found[item["originalItemId"]] += item["cancelledQuantity"]
        assert found == ordered
        assert {item_id: sum(units) for item_id, units in played.units.items()} == ordered


@many
@given(strategies.histories())
def test_no_shipped_unit_is_forgotten_or_counted_twice(history: History) -> None:
    played = last(history)
    told: dict[str, int] = {}
    for event in history[1]:
        if event["type"] == "fulfillment.created" and played.ended.get(event["id"]) not in {None, "nothing"}:
            told.setdefault(event["data"]["fulfillmentId"], sum(line["quantity"] for line in event["data"]["items"]))
    assert told.keys() == played.placed_order.fulfillments.keys()
    assert sum(told.values()) == played.placed_order.fulfilled + sum(c.quantity for c in played.conflicts)


@many
@given(strategies.histories())
def test_a_shipped_unit_is_never_cancelled(history: History) -> None:
    for before, played in steps(history):
        for item_id, totals in before.totals().items():
            assert played.units[item_id][0] >= totals.fulfilled
        for cancellation in played.cancellations:
            for item in cancellation.items:
                assert item.cancelled_quantity <= item.quantity - item.fulfilled_quantity


@many
@given(strategies.histories())
def test_cancelled_is_for_ever(history: History) -> None:
    for before, played in steps(history):
        for item_id, totals in before.totals().items():
            assert played.units[item_id][1] >= totals.cancelled
        for item in before.items.values():
            assert item.cancelled is None or played.placed_order.items[item.item_id] == item


@many
@given(strategies.histories())
def test_open_never_grows(history: History) -> None:
    for before, played in steps(history):
        for item_id, totals in before.totals().items():
            assert played.units[item_id][2] <= totals.open


@many
@given(strategies.histories())
def test_the_order_of_the_items_is_kept(history: History) -> None:
    item_order = [item["itemId"] for item in history[0]["data"]["items"]]
    for _, played in steps(history):
        assert [item.original_item_id for item in played.placed_order.current_items] == item_order
        assert list(played.placed_order.totals()) == item_order
        for cancellation in played.cancellations:
            items = [item.original_item_id for item in cancellation.items]
            assert items == sorted(items, key=item_order.index)


@many
@given(strategies.histories())
def test_cancellations_are_numbered_without_gaps_and_have_ids_of_their_own(history: History) -> None:
    played = last(history)
    assert [cancellation.sequence for cancellation in played.cancellations] == [
        *range(1, played.placed_order.sequence + 1)
    ]
    assert len({message["id"] for message in played.published}) == len(played.published)


@more
@given(strategies.histories_and_operations())
def test_a_refusal_changes_nothing_and_an_operation_leaves_the_order_it_was_given(
    asked: tuple[History, list[Operation]],
) -> None:
    history, operations = asked
    order = last(history).placed_order
    for operation in operations:
        kept = deepcopy(order)
        try:
            after, cancellation = order.apply(operation, TERMS)
        except OperationRefused:
            after = order
        else:
            after.check_conservation()
            assert cancellation.items
            assert after.open < order.open
            assert after.fulfilled == order.fulfilled
            assert after.sequence == order.sequence + 1
        assert order == kept
        order = after


@more
@given(strategies.histories_and_a_shortage())
def test_the_same_shortage_again_gives_nothing(reported: tuple[History, Json]) -> None:
    history, shortage = reported
    played = last(history)
    try:
        played.take(shortage)
    except EventRejected:
        return
    before = played.order
    played.take(again(shortage))
    assert played.outcomes[-1] == "nothing"
    assert played.order == before


@more
@given(strategies.histories_and_a_shortage())
def test_a_shortage_keeps_what_the_contract_says_and_is_issued_by_its_table(reported: tuple[History, Json]) -> None:
    order, shortage = last(reported[0]).placed_order, parsed(reported[1])
    assert isinstance(shortage, OrderShortage)
    keeps = expected_keeps(order, shortage)
    if keeps is None:
        return
    decision = decide(order, shortage, Policy())
    assert list(getattr(decision, "operations", ())) == expected_operations(order, keeps)


def expected_keeps(order: Order, shortage: OrderShortage) -> dict[str, int] | None:
    """What is left of each current item that is not cancelled; None if a line is unknown."""
    keeps = {item.item_id: item.quantity for item in order.current_items if not item.cancelled}
    for line in shortage.data.items:
        named = [
            item
            for item in order.current_items
            if (item.sku == line.sku if line.item_id is None else item == order.current(line.item_id))
        ]
        if not named:
            return None
        left = max(0, line.fulfillable_quantity - sum(item.fulfilled for item in named))
        for item in named:
            if not item.cancelled:
                more = min(left, item.quantity - item.fulfilled)
                left -= more
                keeps[item.item_id] = min(keeps[item.item_id], item.fulfilled + more)
    return keeps


def expected_operations(order: Order, keeps: dict[str, int]) -> list[Operation]:
    cuts = {item_id: keep for item_id, keep in keeps.items() if keep < order.items[item_id].quantity}
    if not cuts:
        return []
    if all(keep == order.items[item_id].fulfilled for item_id, keep in keeps.items()):
        return [CancelUnfulfilled() if order.fulfilled else CancelOrder()]
    return [CancelItemPartially(item_id, keep) if keep else CancelItem(item_id) for item_id, keep in cuts.items()]


@settings(max_examples=1_500, deadline=None)
@given(st.one_of(strategies.mutated_events(), strategies.mutated_bytes(), st.binary(max_size=300)))
def test_whatever_bytes_come_they_are_an_event_or_a_sentence(raw: bytes) -> None:
    try:
        event = parse(raw, NOW)
    except InvalidEvent as invalid:
        assert invalid.code
        assert str(invalid).isprintable()
    else:
        assert event.time.utcoffset() is not None


@many
@given(strategies.values.map(to_bytes))
def test_whatever_json_comes_it_is_an_event_or_a_sentence(raw: bytes) -> None:
    try:
        parse(raw, NOW)
    except InvalidEvent as invalid:
        assert str(invalid)

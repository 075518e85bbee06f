"""Order does not matter: the contract's property, for the histories that it names.

Every figure and every shipment is of a *group*: a line, or all lines of a SKU. What is shipped of a group stays within
each of its figures and within what was ordered of it. Lines that share a SKU are either one group, always named by SKU,
or groups of their own, always named by item; so no shipment by item ever exceeds its line and spills to another, and a
figure for a SKU is measured against everything that is shipped of it. A line that has its SKU for itself may be named
either way, from event to event. Items are named by the ids under which they were placed.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import Json, again, closed, final, placed, play, shipped_of, shortage_of
from tests.properties.strategies import ITEMS, SKUS, units

Units = dict[str, tuple[int, int, int]]
"""Per item: fulfilled, cancelled, open."""


@dataclass(frozen=True)
class Group:
    """Lines that are named together, by any of `names`; what is reported and shipped of them."""

    names: list[tuple[str, str]]
    ordered: dict[str, int]
    figures: list[int]
    shipments: list[int]

    def expected(self, closing: bool) -> Units:
        """The lowest figure and the shipped units both fill the lines in item order."""
        kept = _filled(self.ordered, min([*self.figures, sum(self.ordered.values())]))
        fulfilled = _filled(self.ordered, sum(self.shipments))
        left = fulfilled if closing else kept
        return {
            item_id: (fulfilled[item_id], quantity - left[item_id], left[item_id] - fulfilled[item_id])
            for item_id, quantity in self.ordered.items()
        }


@dataclass(frozen=True)
class History:
    placed: Json
    facts: list[Json]
    expected: Units


def _filled(ordered: dict[str, int], units: int) -> dict[str, int]:
    filled = {}
    for item_id, quantity in ordered.items():
        filled[item_id] = min(quantity, units)
        units -= filled[item_id]
    return filled


@st.composite
def histories(draw: st.DrawFn) -> History:
    lines = draw(st.lists(st.tuples(st.sampled_from(SKUS), units), min_size=1, max_size=len(ITEMS)))
    order = dict(zip(ITEMS, lines, strict=False))
    groups = [group for sku in SKUS for group in draw(_groups(sku, {i: q for i, (s, q) in order.items() if s == sku}))]
    shipments = draw(_shipments(groups))
    facts = draw(_shortages(groups)) + shipments
    names = [shipment["data"]["fulfillmentId"] for shipment in shipments]
    closing = draw(st.sampled_from(["none", "closed", "final"] if shipments else ["none", "closed"]))
    if closing == "closed":
        facts.append(closed("o1", *names))
    elif closing == "final":
        facts[-1] = final(facts[-1], *names)
    expected = {i: units for group in groups for i, units in group.expected(closing != "none").items()}
    return History(placed("o1", **order), facts, expected)


@st.composite
def _groups(draw: st.DrawFn, sku: str, ordered: dict[str, int]) -> list[Group]:
    if len(ordered) == 1:
        (item_id,) = ordered
        return [draw(_reported([("itemId", item_id), ("sku", sku)], ordered))]
    by_sku = draw(st.booleans())
    if ordered and by_sku:
        return [draw(_reported([("sku", sku)], ordered))]
    return [draw(_reported([("itemId", item_id)], {item_id: quantity})) for item_id, quantity in ordered.items()]


@st.composite
def _reported(draw: st.DrawFn, names: list[tuple[str, str]], ordered: dict[str, int]) -> Group:
    total = sum(ordered.values())
    figures = draw(st.lists(st.integers(0, total + 2), max_size=3))
    most = min([*figures, total])
    shipped = draw(st.integers(0, most))
    cuts = sorted(draw(st.lists(st.integers(0, shipped), max_size=2)))
    parts = [after - before for before, after in pairwise([0, *cuts, shipped])]
    return Group(names, ordered, figures, [part for part in parts if part])


@st.composite
def _shortages(draw: st.DrawFn, groups: list[Group]) -> list[Json]:
    """Each figure in one of a few events, of which none names a group twice."""
    events: list[list[tuple[str, str, int]]] = [[] for _ in range(3)]
    for group in groups:
        for lines, figure in zip(draw(st.permutations(events)), group.figures, strict=False):
            lines.append((*draw(st.sampled_from(group.names)), figure))
    return [shortage_of("o1", draw(st.permutations(lines))) for lines in events if lines]


@st.composite
def _shipments(draw: st.DrawFn, groups: list[Group]) -> list[Json]:
    """Each part in one of a few fulfillments, which may hold several of a group."""
    fulfillments: list[list[tuple[str, str, int]]] = [[] for _ in range(3)]
    for group in groups:
        for part in group.shipments:
            draw(st.sampled_from(fulfillments)).append((*draw(st.sampled_from(group.names)), part))
    numbered = [(f"f{number}", lines) for number, lines in enumerate(fulfillments) if lines]
    return draw(st.permutations([shipped_of("o1", name, lines) for name, lines in numbered]))


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[History, list[Json]]:
    """A history, and its events in any order, each up to three times: under its own id, or under another."""
    history = draw(histories())
    came = []
    for event in [history.placed, *history.facts]:
        repeats = draw(st.lists(st.booleans(), max_size=2))
        came += [event, *(again(event) if renamed else event for renamed in repeats)]
    return history, draw(st.permutations(came))


@settings(max_examples=300, deadline=None)
@given(histories())
def test_in_order_a_history_ends_as_its_figures_and_shipments_say(history: History) -> None:
    played = play(history.placed, *history.facts)
    assert played.units == history.expected
    assert not played.conflicts
    assert not played.waiting


@settings(max_examples=300, deadline=None)
@given(histories())
def test_an_order_may_be_placed_last(history: History) -> None:
    played = play(*history.facts, history.placed)
    assert played.units == history.expected
    assert not played.conflicts
    assert not played.waiting


@settings(max_examples=600, deadline=None)
@given(arrivals())
def test_any_order_of_arrival_and_any_repeats_end_in_the_same_quantities(arrival: tuple[History, list[Json]]) -> None:
    history, came = arrival
    played = play(*came)
    assert played.units == play(history.placed, *history.facts).units == history.expected
    assert not played.conflicts
    assert not played.waiting
    assert Counter(played.ended.values())["waiting"] == 0

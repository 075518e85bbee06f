"""Consistent histories: events of several orders whose outcome does not depend on how they meet, SKUs that run short
among them.

The orders that want a SKU are placed before its figures come. Each is given the same by the smallest figure whenever it
is carried out: what ships of it is no more than that, and ships later than the figures tell of. Figures of one source
fall with time. The second line of each order has a SKU of its own, with figures or a request that no shipment goes
against. An order is closed only where what it was given has shipped.
"""

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.builders import Json, closed, final, placed, requested, shipped_of, shortage_of, sku_shortage
from tests.model import Model
from tests.properties.happenings import SKUS, SOURCES

_units = st.integers(1, 5)


@dataclass(frozen=True)
class History:
    """`placings` must be recorded before the rest comes, which may come in any order; `newest_first`: who is served."""

    placings: list[Json]
    rest: list[Json]
    newest_first: bool

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """How Hypothesis shows it: an event a line."""
        events = "\n".join(f"  {json.dumps(one)}" for one in [*self.placings, *self.rest])
        printer.text(f"History, newest_first={self.newest_first}:\n{events}\n")

    def model(self) -> Model:
        """What must come of it, once all of it was sent."""
        model = Model(strategy="newest_first" if self.newest_first else "oldest_first")
        for one in [*self.placings, *self.rest]:
            model.feed(one)
        return model


def at(minute: int) -> str:
    return f"2026-01-01T{10 + minute // 60:02}:{minute % 60:02}:00Z"


@st.composite
def histories(draw: st.DrawFn) -> History:
    placings = [draw(_placings(f"o{number}", draw(st.integers(0, 9)), SKUS)) for number in range(1, 5)]
    late = [draw(_placings(f"late{number}", 300, ["U"])) for number in range(draw(st.integers(0, 2)))]
    figures, smallest = [], {}
    for sku in sorted(set(SKUS)):
        found = draw(st.lists(st.tuples(st.sampled_from(SOURCES), st.integers(0, 9)), max_size=3))
        figures += _falling(sku, found)
        smallest[sku] = min([units for _, units in found], default=1000)
    newest_first, rest = draw(st.booleans()), []
    for one in _in_turn(placings, newest_first) + late:
        line = one["data"]["items"][0]
        given = min(line["quantity"], smallest.get(line["sku"], 1000))
        smallest[line["sku"]] = smallest.get(line["sku"], 1000) - given
        rest += draw(_happenings(one["data"]["orderId"], given, one["data"]["items"][1]["quantity"]))
    rest = [*figures, *late, *rest]
    for number, one in enumerate([*placings, *rest], 1):
        one["id"] = f"h{number}"
    return History(placings, rest, newest_first)


@st.composite
def _placings(draw: st.DrawFn, name: str, minute: int, skus: list[str]) -> Json:
    more = {"placedAt": at(minute), "priority": draw(st.integers(0, 1)), "partner": draw(st.sampled_from(["p", "q"]))}
    return placed(name, more, a=(draw(st.sampled_from(skus)), draw(_units)), b=(f"own-{name}", draw(_units)))


def _falling(sku: str, found: list[tuple[str, int]]) -> list[Json]:
    """The larger a figure, the earlier it was."""
    ordered = sorted(found, key=lambda one: -one[1])
    return [
        sku_shortage(sku, units, source=source, time=at(200 + minute)) for minute, (source, units) in enumerate(ordered)
    ]


def _in_turn(placings: list[Json], newest_first: bool) -> list[Json]:
    by_time = sorted(placings, key=lambda one: (one["data"]["placedAt"], one["data"]["orderId"]), reverse=newest_first)
    return sorted(by_time, key=lambda one: -one["data"]["priority"])


@st.composite
def _happenings(draw: st.DrawFn, name: str, given: int, ordered: int) -> list[Json]:
    """`given`: units of its first line that are kept; `ordered`: units of its second."""
    closing = draw(st.sampled_from(["none", "none", "closed", "final"]))
    shipped = given if closing != "none" else draw(st.integers(0, given))
    parts: dict[str, list[tuple[str, str, int]]] = {"f1": [("itemId", "a", shipped)] if shipped else [], "f2": []}
    made: list[Json] = []
    if draw(st.booleans()):
        made.append(shortage_of(name, [("itemId", "a", draw(st.integers(given, given + 2)))]))
    if closing == "none" and draw(st.booleans()):
        made.append(requested(name, b=draw(st.integers(0, ordered - 1))))
    else:
        figures = draw(st.lists(st.integers(0, ordered + 1), max_size=2))
        made += [shortage_of(name, [("itemId", "b", figure)]) for figure in figures]
        units = draw(st.integers(0, min([ordered, *figures])))
        parts[draw(st.sampled_from(["f1", "f2"]))] += [("itemId", "b", units)] if units else []
    shipments = [shipped_of(name, one, lines) for one, lines in parts.items() if lines]
    names = [one["data"]["fulfillmentId"] for one in shipments]
    if closing == "closed" or (closing == "final" and not shipments):
        made.append(closed(name, *names))
    elif closing == "final":
        shipments[-1] = final(shipments[-1], *names)
    return [*made, *({**one, "time": at(250)} for one in shipments)]

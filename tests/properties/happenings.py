"""What may happen to the pipeline: events, free of any plan; settings that change; faults at points; turns."""

from typing import Any, get_args

from hypothesis import strategies as st

from tests.builders import (
    Json,
    closed,
    event,
    final,
    placed,
    requested,
    restocked,
    shipped_of,
    shortage_of,
    sku_restocked,
    sku_shortage,
)
from tests.properties.stage import Act, Fault
from worker.points import Point

SKUS = ("S", "S", "T")
"""The first is wanted more often."""
ORDERS = ("o1", "o2", "o3", "o4")
SOURCES = ("/test", "/other")
NEWEST = "the newest"
"""Stands for the id of the item that was attached to the order last."""
POINTS: tuple[Point, ...] = get_args(Point)
INSIDE = (
    "batch: before",
    "batch: after claim",
    "batch: after lock",
    "run: before",
    "release: before",
    "verdicts: before",
    "relay: before commit",
)
"""Where a transaction is open, which speaks to the database alone. Nobody else can have a turn there: it holds SQLite's
only write lock."""

_ACTS_INSIDE: list[Act] = ["crash", "crash", "crash", "database outage", "database outage"]
_OFTEN: dict[Point, int] = {"relay: before append": 2, "relay: appended": 3}
"""They are seldom come to."""
_ACTS: list[Act] = ["crash", "crash", "database outage", "redis outage", "meanwhile", "meanwhile"]

numbers = st.integers(0, 9)
"""Which of several: the first, the second …, and round again."""
_skus, _orders, _sources = st.sampled_from(SKUS), st.sampled_from(ORDERS), st.sampled_from(SOURCES)
_items = st.sampled_from("ab")
_few = st.integers(0, 5)
_fulfillments = st.sampled_from(["f1", "f2", "f3"])
_ago = st.sampled_from([0, 5, 60, 300, 3600, -60, -3000])
"""Seconds; some producers' clocks are ahead."""


@st.composite
def placings(draw: st.DrawFn) -> list[Json]:
    """All orders; small numbers, so that ties are common."""
    return [
        placed(
            name,
            {
                "placedAt": f"2026-01-01T10:0{draw(st.integers(0, 3))}:00Z",
                "priority": draw(st.integers(0, 1)),
                "partner": draw(st.sampled_from(["p", "q"])),
            },
            **{item: (draw(_skus), draw(st.integers(1, 5))) for item in "ab"},
        )
        for name in ORDERS
    ]


_lines = st.sampled_from(
    [("itemId", "a"), ("itemId", "b")] * 3
    + [("sku", "S"), ("sku", "T")] * 2
    + [("itemId", NEWEST), ("itemId", "unknown")]
)
"""How a line is named: mostly as it was placed."""
_closings = st.sets(_fulfillments, max_size=2).map(sorted)
_kinds = st.integers(0, 13)
_available = st.integers(0, 9)


@st.composite
def free_events(draw: st.DrawFn) -> tuple[Json, int]:
    """An event, and how many seconds ago it happened."""
    kind, ago, order, sku, source = draw(_kinds), draw(_ago), draw(_orders), draw(_skus), draw(_sources)
    match kind:
        case 0 | 1 | 2 | 3:
            return sku_shortage(sku, draw(_available), source=source), ago
        case 4:
            return sku_restocked(sku, source=source), ago
        case 5:
            return restocked(order, draw(_items)), ago
        case 6 | 7 | 8:
            return {**shortage_of(order, [(*draw(_lines), draw(_few))]), "source": source}, ago
        case _:
            return _of_order(draw, kind, order), ago


def _of_order(draw: st.DrawFn, kind: int, order: str) -> Json:
    fulfillment = draw(_fulfillments)
    match kind:
        case 9 | 10:
            made = shipped_of(order, fulfillment, [(*draw(_lines), draw(_few) + 1)])
            return final(made, fulfillment, *draw(_closings)) if draw(st.booleans()) else made
        case 11:
            return closed(order, *draw(_closings))
        case 12:
            return requested(order, draw(st.sampled_from([{}, {"unfulfilledOnly": True}])))
        case _:
            return requested(order, **{draw(_items): draw(_few)})


bad_input = st.sampled_from(
    [b"", b"\xff", b"[" * 9000, b"x" * 70_000, event("order.shipped", {}), event("inventory.shortage", {"sku": "S"})]
)

CHANGES: dict[str, list[Any]] = {
    "order_shortage_grace_seconds": [0, 60, 600],
    "sku_shortage_grace_seconds": [0, 60, 600],
    "preflight_orders": [0, 1, 2],
    "preflight_units": [0, 4],
    "preflight_share": [0, 0.5],
    "preflight_share_from_orders": [1, 10],
    "breaker_window_seconds": [60, 1200],
    "breaker_orders": [0, 1, 3],
    "breaker_units": [0, 5],
    "breaker_source_orders": [0, 2],
    "breaker_source_units": [0, 6],
    "breaker_sku_orders": [0, 1],
    "breaker_sku_units": [0, 4],
    "protected_orders": ["", "o1", "o2,o3"],
    "protected_partners": ["", "p"],
    "batch_size": [1, 2],
    "max_pending": [1, 100],
}
"""Settings under which what comes of a consistent history stays the same, once all that is held was approved."""
FREE_CHANGES = CHANGES | {
    "ship_complete": [False, True],
    "allocation": ["oldest_first", "newest_first"],
    "shadow": [False, True],
    "waiting_limit_seconds": [300, 86400],
}


def changes(of: dict[str, list[Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    often = {"order_shortage_grace_seconds", "sku_shortage_grace_seconds", "ship_complete", "shadow"}
    names = [*sorted(of), *sorted(often.intersection(of)) * 2]
    return st.sampled_from([(name, value) for name in names for value in of[name]])


def faults(*kinds: str, always: bool = False) -> st.SearchStrategy[Fault | None]:
    """One at a point of these kinds of work ("batch", "relay" …), or often none."""
    points = [point for point in POINTS if point.split(":")[0] in kinds for _ in range(_OFTEN.get(point, 1))]
    found = [Fault(point, act) for point in points for act in (_ACTS_INSIDE if point.startswith(INSIDE) else _ACTS)]
    return st.sampled_from([*[None] * (not always and len(found)), *found])


_outdated = st.sampled_from([False, False, False, True])
TURNS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "send": {"chosen": st.lists(numbers, min_size=1, max_size=4)},
    "make_up": {"events": st.lists(free_events(), min_size=1, max_size=4)},
    "read": {"fault": faults("ingress"), "refused": st.sampled_from([False, False, False, True])},
    "work": {
        "number": numbers,
        "of_batch": faults("batch"),
        "of_run": faults("run"),
        "behind": st.sampled_from([0, 0, 2.0005]),
        "outdated": _outdated,
    },
    "beat": {"fault": faults("release", "verdicts"), "outdated": _outdated},
    "publish": {"number": st.integers(0, 1), "fault": faults("relay")},
    "decide_holds": {
        "verdict": st.sampled_from(["approved", "approved", "rejected"]),
        "number": numbers,
        "together": st.booleans(),
        "at_once": st.sampled_from([True, True, False]),
        "fault": faults("verdicts", always=True),
    },
    "resume": {"number": numbers, "fault": faults("release", always=True)},
    "close_a_breaker": {"number": numbers},
}
"""What goes on by itself: events come, and processes and people have their turns. Methods, and what they are given."""


def _turns(often: dict[str, int]) -> st.SearchStrategy[list[tuple[str, dict[str, Any]]]]:
    made = {name: st.tuples(st.just(name), st.fixed_dictionaries(arguments)) for name, arguments in TURNS.items()}
    weighted = st.sampled_from([name for name in TURNS for _ in range(often.get(name, 1))])
    return st.lists(weighted.flatmap(made.__getitem__), max_size=5)


FREE_TURNS = _turns({"make_up": 3, "work": 8, "decide_holds": 2})
TURNS_OF_A_STORY = _turns({"make_up": 0, "send": 2, "work": 8, "decide_holds": 2})

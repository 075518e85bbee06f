"""What came of an event whose cuts a guardrail had held, by what became of the holds."""

import pytest

from domain.outcomes import outcome_of

OPEN, APPROVED, REJECTED, SHADOW = ("open", None), ("approved", None), ("rejected", None), ("shadow", None)
CUT, NOTHING, REFUSED, VOID = (("carried_out", outcome) for outcome in ("applied", "nothing", "refused", "void"))
OVERTAKEN, RESTOCKED = ("superseded", "stale"), ("superseded", "void")

HOLDS = {
    "one that was carried out": ([CUT], ("applied", "approved")),
    "one that was carried out beside open ones": ([CUT, OPEN, REJECTED], ("applied", "approved")),
    "one that nobody has decided": ([OPEN, REJECTED, RESTOCKED], ("held", "guardrail")),
    "one that was approved only": ([APPROVED, NOTHING], ("held", "guardrail")),
    "one of shadow mode": ([SHADOW], ("held", "guardrail")),
    "approved, and nothing was left to cancel": ([NOTHING, REJECTED], ("nothing", "approved")),
    "approved, and refused by then": ([REFUSED], ("refused", "approved")),
    "approved, and one of them refused by then": ([REFUSED, NOTHING], ("nothing", "approved")),
    "approved, and restocked by then": ([VOID], ("void", "restocked")),
    "approved, and one of them restocked by then": ([VOID, NOTHING], ("nothing", "approved")),
    "rejected": ([REJECTED, OVERTAKEN], ("nothing", "rejected")),
    "overtaken by a newer figure": ([OVERTAKEN], ("stale", "newer_figure")),
    "overtaken by a restock": ([OVERTAKEN, RESTOCKED], ("void", "restocked")),
}


@pytest.mark.parametrize(("holds", "expected"), HOLDS.values(), ids=HOLDS)
def test_what_came_of_an_event_by_its_holds(holds: list[tuple[str, str | None]], expected: tuple[str, str]) -> None:
    assert outcome_of(holds, cut=False) == expected


def test_an_event_that_cut_without_its_holds_was_applied_whatever_became_of_them() -> None:
    assert outcome_of([OPEN, REJECTED], cut=True) == ("applied", "shortage")
    assert outcome_of([], cut=True) == ("applied", "shortage")
    assert outcome_of([CUT], cut=True) == ("applied", "approved")


def test_without_holds_there_is_nothing_to_tell() -> None:
    assert outcome_of([], cut=False) is None

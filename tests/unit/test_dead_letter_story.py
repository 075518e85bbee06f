"""The sentences in which a dead letter's story is told."""

from datetime import UTC, datetime
from typing import Any

import pytest

from worker.cli import dead_letter_story as story

AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
LETTER = {"dead_letter_id": 5, "id": "7", "source": "/wms", "code": "c", "sentence": "It is bad", "created_at": AT}
BY_ANN = {"decided_by": "ann", "decided_at": AT, "decided_because": "the order has come"}
RETRIED = {**LETTER, **BY_ANN, "state": "retried", "retried_as": "9-0"}
SHE_DID = "ann put it on the queue again at 2026-01-05 09:00:00 UTC, because: the order has come."


def test_it_tells_which_event_it_was_and_why_nothing_was_done() -> None:
    assert story.heading(LETTER) == "Dead letter 5: event '7' of '/wms', set aside 2026-01-05 09:00:00 UTC"
    assert story.heading({**LETTER, "id": None}) == "Dead letter 5: an event, set aside 2026-01-05 09:00:00 UTC"
    assert story.failure(LETTER) == [
        "It could not be acted on (c): It is bad.",
        "Its bytes are kept, and what to do is told: shortpick dead-letters show 5",
    ]


def test_an_open_one_asks_for_a_person() -> None:
    assert story.dealt_with({**LETTER, "state": "open"}, None, None) == [
        "Nobody has dealt with it: shortpick dead-letters retry or dismiss."
    ]


def test_a_dismissed_one_tells_by_whom_and_why() -> None:
    assert story.dealt_with({**LETTER, **BY_ANN, "state": "dismissed"}, None, None) == [
        "ann dismissed it at 2026-01-05 09:00:00 UTC, because: the order has come."
    ]


CAME_OF_IT: dict[str, tuple[Any, Any, str]] = {
    "nothing yet": (None, None, "It was not decided again yet."),
    "a decision": (
        None,
        {"entry_id": "9-0", "outcome": "applied", "reason": "shortage"},
        "It was decided then: applied (shortage).",
    ),
    "a dead letter": ({"dead_letter_id": 8}, None, "It could not be acted on then either: see dead letter 8."),
    "a dead letter, since its id was taken": (
        {"dead_letter_id": 8},
        {"entry_id": "8-0", "outcome": "applied", "reason": "shortage"},
        "It could not be acted on then either: see dead letter 8.",
    ),
    "a repeat": (
        None,
        {"entry_id": "8-0", "outcome": "nothing", "reason": "no_cut"},
        "An event had come under its id meanwhile, and was decided: nothing (no_cut). So it was a repeat of that one, "
        "and nothing more came of it.",
    ),
}


@pytest.mark.parametrize(("again", "event", "sentence"), CAME_OF_IT.values(), ids=CAME_OF_IT)
def test_a_retried_one_tells_by_whom_and_what_came_of_it(again: Any, event: Any, sentence: str) -> None:
    assert story.dealt_with(RETRIED, again, event) == [SHE_DID, sentence]


def test_what_came_again_tells_of_the_dead_letter_it_was() -> None:
    assert story.came_before(RETRIED) == "It had come before and was dead letter 5, which ann put on the queue again."

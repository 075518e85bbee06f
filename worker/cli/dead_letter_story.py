"""A dead letter's story in plain sentences: why it came to nothing, who dealt with it, and what came of that. Pure."""

from collections.abc import Mapping
from typing import Any

from worker.cli.wording import when

Row = Mapping[str, Any]


def heading(row: Row) -> str:
    """Which event a row of `dead_letters` was."""
    event = f"event {row['id']!r} of {row['source']!r}" if row["id"] is not None else "an event"
    return f"Dead letter {row['dead_letter_id']}: {event}, set aside {when(row['created_at'])}"


def failure(row: Row) -> list[str]:
    """Why nothing was done."""
    return [
        f"It could not be acted on ({row['code']}): {row['sentence']}.",
        f"Its bytes are kept, and what to do is told: shortpick dead-letters show {row['dead_letter_id']}",
    ]


def decided(row: Row) -> str:
    """Who dealt with it, how, when and why; without a full stop."""
    did = "put it on the queue again" if row["state"] == "retried" else "dismissed it"
    return f"{row['decided_by']} {did} at {when(row['decided_at'])}, because: {row['decided_because']}"


def dealt_with(row: Row, again: Row | None, event: Row | None) -> list[str]:
    """What a person did about it, and what came of it: a dead letter `again`, or the `event` of its id."""
    if row["state"] == "open":
        return ["Nobody has dealt with it: shortpick dead-letters retry or dismiss."]
    sentences = [f"{decided(row)}."]
    if row["state"] == "dismissed":
        return sentences
    if again:
        sentences.append(f"It could not be acted on then either: see dead letter {again['dead_letter_id']}.")
    elif event is None:
        sentences.append("It was not decided again yet.")
    elif event["entry_id"] == row["retried_as"]:
        sentences.append(f"It was decided then: {event['outcome']} ({event['reason']}).")
    else:
        sentences.append(
            f"An event had come under its id meanwhile, and was decided: {event['outcome']} ({event['reason']}). So it "
            "was a repeat of that one, and nothing more came of it."
        )
    return sentences


def came_before(row: Row) -> str:
    """Of an event, or another dead letter, that is this dead letter come again."""
    name = f"dead letter {row['dead_letter_id']}"
    return f"It had come before and was {name}, which {row['decided_by']} put on the queue again."

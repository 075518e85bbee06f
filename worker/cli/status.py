"""`shortpick status`: whether it runs, what has stopped, what is left to do, and how fast it goes, on one screen."""

from datetime import datetime
from typing import Any

import typer
from sqlalchemy import Row

from domain.outgoing import rfc3339
from worker.cli.context import Json, Pipeline, StateDir, emit, json_fields, messages, pipeline, say, say_table
from worker.cli.standing import SILENT_AFTER, QueueStatus, Recorded, look_at_queue, look_at_records
from worker.cli.wording import lasting, when
from worker.storage.database import reading
from worker.storage.reports import Amount
from worker.streams import ForeignEntry

WAITING_FOR = {
    "order_not_placed": "waiting for their order to be placed",
    "fulfillments_missing": "waiting for fulfillments that they name",
    "grace": "waiting for the end of their grace",
    "paused": "waiting until cancellations are resumed",
}


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Whether it runs, what has stopped, what is left to do and since when, and how fast it goes."""
    with pipeline(state_dir) as p:
        queue = look_at_queue(p)
        published = _last_in_stream(p)
        with reading(p.engine) as connection:
            left = look_at_records(connection, published)
    if as_json:
        emit(_json(queue, left))
    else:
        _tell(p, queue, left)


def _last_in_stream(p: Pipeline) -> int | None:
    """None if the stream ends with what somebody else wrote."""
    try:
        return p.outbox.last_position()
    except ForeignEntry as error:
        messages.print(f"{error}; nothing is published until a person decides", style="bold red", markup=False)
        return None


def _json(queue: QueueStatus, recorded: Recorded) -> dict[str, Any]:
    return {
        "at": rfc3339(recorded.at),
        "ingress": {
            "hasGroup": queue.has_group,
            "silent": queue.silent,
            "secondsSinceRead": queue.idle.total_seconds() if queue.idle is not None else None,
        },
        "pauses": [json_fields(_without(row, "resumed")) for row in recorded.pauses],
        "breakers": [json_fields(_without(row, "closed")) for row in recorded.breakers],
        "unread": {**_amount(queue.unread), "atLeast": queue.unread_at_least},
        "pending": _amount(queue.pending),
        "waiting": {waits_for: _amount(one) for waits_for, one in recorded.waiting.items()},
        **json_fields({name: _amount(one) for name, one in recorded.left.items()}),
        "eventsPerSecond": round(queue.events_per_second, 3),
        "cancellationsPerSecond": round(recorded.cancellations_per_second, 3),
    }


def _without(row: Row[Any], beginning: str) -> dict[str, Any]:
    """A row without the columns that tell of its end."""
    return {name: value for name, value in row._mapping.items() if not name.startswith(beginning)}


def _amount(one: Amount) -> dict[str, Any]:
    return {"count": one.number, "oldestAt": rfc3339(one.since) if one.since else None}


def _tell(p: Pipeline, queue: QueueStatus, recorded: Recorded) -> None:
    say(running(p, queue), "bold red" if queue.silent else "")
    for row in recorded.breakers:
        say(
            f"BREAKER OPEN since {when(row.opened_at)}: {of_breaker(row)}; the cause was event {row.cause_id!r} of "
            f"{row.cause_source!r}. What it stops is held: shortpick breaker list",
            "bold red",
        )
    say()
    waiting = recorded.waiting or {"": Amount(0, None)}
    rows: list[tuple[str, Amount, datetime]] = [
        ("unread in the queue", queue.unread, queue.at),
        ("read, and not decided", queue.pending, queue.at),
        *((WAITING_FOR.get(one, f"waiting {one}".strip()), waiting[one], recorded.at) for one in waiting),
        ("shortages of a SKU, not carried out", recorded.left["shortages"], recorded.at),
        ("held until a person decides", recorded.left["held"], recorded.at),
        ("approved, and not carried out", recorded.left["approved"], recorded.at),
        ("cancelled, and not published", recorded.left["unpublished"], recorded.at),
        ("dead letters open", recorded.left["dead_letters"], recorded.at),
        ("conflicts open", recorded.left["conflicts"], recorded.at),
    ]
    cells = [[what, one.number, lasting(at - one.since) if one.since else None] for what, one, at in rows]
    if queue.unread_at_least:
        cells[0][1] = f"{queue.unread.number:,} or more"
    say_table(["what", "how many", "the oldest since"], cells)
    say()
    came, made = _rate(queue.events_per_second), _rate(recorded.cancellations_per_second)
    say(f"A second, over the last minute: {came} events came, {made} cancellations were made.")


def _rate(per_second: float) -> str:
    return f"{per_second:,.1f}" if per_second >= 1 or not per_second else f"{per_second:.2f}"


def running(p: Pipeline, queue: QueueStatus) -> str:
    """Whether ingress reads."""
    start = "is `shortpick ingress` running?"
    if queue.idle is None:
        never = "Nothing was ever read from the queue"
        return f"{never} ({start})" if queue.silent else f"{never}, and nothing is unread."
    span = lasting(queue.idle)
    if not queue.silent:
        if queue.idle <= SILENT_AFTER:
            return "Running: ingress reads the queue."
        return f"Ingress last found something in the queue {span} ago; nothing has come since."
    if queue.pending.number >= max(1, p.settings.max_pending // 2):
        start = "it waits while so much is pending; is `shortpick worker` running?"
    return f"ingress has not read for {span} ({start})"


def of_breaker(row: Row[Any]) -> str:
    """What a breaker limits."""
    return "everything" if row.scope == "everything" else f"{_SCOPES.get(row.scope, row.scope)} {row.name!r}"


_SCOPES = {"sku": "SKU"}

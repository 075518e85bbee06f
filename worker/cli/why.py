"""`shortpick why`: the story of an order, as a timeline."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import typer
from redis.exceptions import RedisError
from sqlalchemy import Connection

from domain.orders import Order
from domain.policy import Paused
from worker.cli import dead_letter_story, story
from worker.cli.context import Failure, Json, Pipeline, StateDir, emit, json_fields, messages, pipeline, say, say_table
from worker.cli.orders import as_json as order_as_json
from worker.storage import allocations, conflicts, dead_letters, holds, inbox, ledger, orders, pauses, waiting
from worker.storage.database import now, reading
from worker.storage.inbox import Key
from worker.storage.waiting import Waiting, arrival
from worker.streams import ForeignEntry

Row = dict[str, Any]
STAND = ("item", "SKU", "ordered", "shipped", "cancelled", "open", "now item")


@dataclass(frozen=True, slots=True)
class Records:
    """All that is recorded of an order, `at` a time; `published_to` is the last position in the outgoing stream."""

    order_id: str
    order: Order | None
    events: list[Row]
    cancellations: list[Row]
    fulfillments: list[Row]
    conflicts: list[Row]
    dead_letters: list[Row]
    retried: dict[str, Row]
    """Dead letters that were put on the queue again, by the entry that this made."""
    failed_again: dict[str, Row]
    """What of these came to nothing again, by the same."""
    waiting: dict[Key, Waiting]
    allotments: list[Row]
    holds: list[Row]
    pending: list[Row]
    paused: Paused
    published_to: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Chapter:
    """One thing that happened, and what came of it."""

    heading: str
    sentences: list[str]


def register(app: typer.Typer) -> None:
    app.command()(why)


def why(
    order: Annotated[str, typer.Argument(metavar="ORDER", help="The order's id.")],
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """What happened to an order: each event, what was decided and why, and what was published where."""
    with pipeline(state_dir) as p:
        records = _records(p, order)
    if as_json:
        emit(_json(records))
    else:
        _tell(records)


def chapter(p: Pipeline, order_id: str, key: Key) -> Chapter:
    """What is told of one event of an order."""
    records = _records(p, order_id)
    (event,) = (row for row in records.events if (row["source"], row["id"]) == key)
    return Chapter(story.heading(event), _event(event, records))


def _records(p: Pipeline, order_id: str) -> Records:
    last_in_stream = _last_in_stream(p)
    with reading(p.engine) as connection:
        known = last_in_stream if last_in_stream is not None else ledger.positions(connection).appended
        records = _read(connection, order_id, known)
        if not orders.is_known(connection, order_id) and not records.dead_letters:
            raise Failure(f"nothing is known of an order {order_id!r}; is the id right, and is this its pipeline?")
        return records


def _read(connection: Connection, order_id: str, published_to: int) -> Records:
    events = [dict(row._mapping) for row in inbox.of_order(connection, order_id)]
    order = orders.load(connection, [order_id])[order_id]
    letters = [dict(row._mapping) for row in dead_letters.of_order(connection, order_id)]
    retried = {row["retried_as"]: row for row in letters if row["retried_as"]}
    return Records(
        order_id=order_id,
        order=order,
        events=sorted(events, key=lambda row: arrival(row["entry_id"])),
        cancellations=[dict(row._mapping) for row in ledger.of_order(connection, order_id)],
        fulfillments=[dict(row._mapping) for row in orders.shipments_of(connection, order_id).values()],
        conflicts=[dict(row._mapping) for row in conflicts.of_order(connection, order_id)],
        dead_letters=[{name: value for name, value in row.items() if name != "bytes"} for row in letters],
        retried=retried,
        failed_again={
            entry_id: dict(row._mapping) for entry_id, row in dead_letters.of_entries(connection, retried).items()
        },
        waiting={one.key: one for one in waiting.of_orders(connection, [order_id])},
        allotments=[dict(row._mapping) for row in allocations.of_order(connection, order_id)],
        holds=[dict(row._mapping) for row in holds.of_order(connection, order_id)],
        pending=[dict(row._mapping) for row in allocations.pending(connection, order)] if order else [],
        paused=pauses.paused(connection),
        published_to=published_to,
        at=now(connection),
    )


def _last_in_stream(p: Pipeline) -> int | None:
    """A position is given a moment before its entry is in the stream, so the stream says what is published. The story
    is told without it too: it lives in the database."""
    try:
        return p.outbox.last_position()
    except (RedisError, ForeignEntry) as error:
        messages.print(
            f"What is published is told as last seen, since Redis cannot be asked: {error}",
            style="yellow",
            markup=False,
        )
        return None


def _tell(records: Records) -> None:
    for sentence in story.opening(records.order_id, records.order, len(records.waiting)):
        say(sentence, style="bold")
    if records.order and not any(row["reason"] == "placed" for row in records.events):
        say(story.incomplete())
    for number, chapter in enumerate(_chapters(records), start=1):
        say()
        say(f"{number}. {chapter.heading}", style="bold")
        for sentence in chapter.sentences:
            say(f"   {sentence}")
    for row in records.pending:
        say()
        say(story.pending(row, records.paused, records.at), style="bold")
    if records.order:
        say()
        say("The order as it stands, in units:", style="bold")
        say_table(STAND, stand(records.order))
        say(story.standing(records.order))


def stand(order: Order) -> list[tuple[object, ...]]:
    """Per item as first ordered; the last column is the id that stands for what is left of it."""
    rows: list[tuple[object, ...]] = []
    for item_id, of in order.totals().items():
        end = order.current(item_id)
        current = end.item_id if end and not end.cancelled else None
        rows.append((item_id, order.items[item_id].sku, of.ordered, of.fulfilled, of.cancelled, of.open, current))
    return rows


def _chapters(records: Records) -> Iterator[Chapter]:
    """Events and dead letters in the order of their arrival; shortages of a SKU where they came to this order, and
    shipments whose event is not on record where they happened."""
    letters = [
        (row["created_at"], row["entry_id"], Chapter(dead_letter_story.heading(row), _dead_letter(row, records)))
        for row in records.dead_letters
    ]
    events = [
        (row["recorded_at"], row["entry_id"], Chapter(story.heading(row), _event(row, records)))
        for row in records.events
    ]
    allotted = [
        (
            row["decided_at"],
            row["entry_id"],
            Chapter(story.heading(row), [*story.allotment(row), *_held(row, records), *_cancelled(row, records)]),
        )
        for row in records.allotments
    ]
    shipments = [(row["time"], "0-0", _shipment(row, records)) for row in _shipments_alone(records)]
    told = sorted(letters + events + allotted + shipments, key=lambda one: (one[0], arrival(one[1])))
    return (chapter for _, _, chapter in told)


def _shipments_alone(records: Records) -> list[Row]:
    known = {(row["source"], row["id"]) for row in records.events}
    return [row for row in records.fulfillments if (row["source"], row["event_id"]) not in known]


def _shipment(row: Row, records: Records) -> Chapter:
    """A shipment whose event is not on record: removed by age, or given up since it waited too long to be the last."""
    return Chapter(
        story.shipment_heading(row), [story.handed_over(row["fulfillment_id"], row["lines"]), *_conflicts(row, records)]
    )


def _conflicts(shipment: Row, records: Records) -> list[str]:
    """What of a shipment no open quantity could take."""
    return [story.conflict(row) for row in records.conflicts if row["fulfillment_id"] == shipment["fulfillment_id"]]


def _held(event: Row, records: Records) -> list[str]:
    """What of an event is, or was, held for the order."""
    of_event = (row for row in records.holds if (row["source"], row["id"]) == (event["source"], event["id"]))
    return [sentence for row in of_event for sentence in story.hold(row)]


def _cancelled(event: Row, records: Records) -> list[str]:
    """What an event cancelled of the order."""
    return [
        sentence
        for row in records.cancellations
        if (row["cause_source"], row["cause_id"]) == (event["source"], event["id"])
        for sentence in story.cancellation(row, json.loads(row["payload"])["data"], records.published_to)
    ]


def _dead_letter(row: Row, records: Records) -> list[str]:
    event = next((one for one in records.events if (one["source"], one["id"]) == (row["source"], row["id"])), None)
    again = records.failed_again.get(row["retried_as"])
    return [
        *_came_before(row, records),
        *dead_letter_story.failure(row),
        *dead_letter_story.dealt_with(row, again, event),
    ]


def _came_before(row: Row, records: Records) -> list[str]:
    """Of an event, or a dead letter, that a person put on the queue again."""
    before = records.retried.get(row["entry_id"])
    return [dead_letter_story.came_before(before)] if before else []


def _event(event: Row, records: Records) -> list[str]:
    key = (event["source"], event["id"])
    shipment = next((row for row in records.fulfillments if (row["source"], row["event_id"]) == key), None)
    sentences = [*_came_before(event, records), *story.decision(event, shipment)]
    if shipment:
        sentences += _conflicts(shipment, records)
    if wait := records.waiting.get(key):
        sentences.append(story.still_waits(wait, records.at))
    return [*sentences, *story.waited(event), *_held(event, records), *_cancelled(event, records)]


def _json(records: Records) -> dict[str, Any]:
    return {
        "orderId": records.order_id,
        "placed": records.order is not None,
        "order": order_as_json(records.order) if records.order else None,
        "events": [_event_json(row, records.waiting) for row in records.events],
        "cancellations": [_cancellation_json(row, records.published_to) for row in records.cancellations],
        "allotments": [json_fields(row) for row in records.allotments],
        "holds": [json_fields(row) for row in records.holds],
        "pending": [json_fields(row) for row in records.pending],
        "fulfillments": [json_fields(row) for row in records.fulfillments],
        "conflicts": [json_fields(row) for row in records.conflicts],
        "deadLetters": [json_fields(row) for row in records.dead_letters],
        "story": [asdict(chapter) for chapter in _chapters(records)],
    }


def _event_json(row: Row, waits: dict[Key, Waiting]) -> dict[str, Any]:
    wait = waits.get((row["source"], row["id"]))
    told = {"waits_for": wait.waits_for, "since": wait.since, "until": wait.until} if wait else None
    return {**json_fields(row), "waiting": json_fields(told) if told else None}


def _cancellation_json(row: Row, published_to: int) -> dict[str, Any]:
    published = row["position"] is not None and row["position"] <= published_to
    fields = json_fields({name: value for name, value in row.items() if name != "payload"})
    return {**fields, "published": published, "event": json.loads(row["payload"])}

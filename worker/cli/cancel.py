"""`shortpick cancel`: a request of a person, sent through the queue like any other, and what came of it."""

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import typer

from domain.decisions import carry_out, decide
from domain.errors import InvalidEvent
from domain.events import CancellationRequested, digest
from domain.operations import ReasonCode
from domain.outcomes import Cut, Held, Refused, Waiting
from domain.outgoing import order_cancelled, rfc3339
from domain.parsing import parse
from worker import bootstrap
from worker.cli import story
from worker.cli.context import Failure, Json, Pipeline, StateDir, emit, json_fields, messages, pipeline, say, say_table
from worker.cli.why import STAND, Row, chapter, stand
from worker.cli.wording import explained
from worker.storage import dead_letters, inbox, orders, pauses
from worker.storage.database import reading

SOURCE = "/shortpick/cli"
POLL_SECONDS = 0.05


def register(app: typer.Typer) -> None:
    app.command()(cancel)


def cancel(
    order: Annotated[str, typer.Argument(metavar="ORDER", help="The order's id.")],
    item: Annotated[str | None, typer.Option("--item", help="Only this item, by its present id.")] = None,
    new_quantity: Annotated[
        int | None, typer.Option("--new-quantity", help="Keep so many units of the item.", min=0)
    ] = None,
    unfulfilled_only: Annotated[
        bool,
        typer.Option("--unfulfilled-only", help="Only what has not shipped; otherwise the order must be untouched."),
    ] = False,
    reason: Annotated[
        ReasonCode, typer.Option("--reason", help="The reason code that subscribers are told.")
    ] = "manual",
    note: Annotated[str | None, typer.Option("--note", help="A note that subscribers are told.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="The same key again does nothing more, however often it is run.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would do, and change nothing.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the decision.", min=0)] = 30,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Cancel an order, or a part of it. Waits for the decision and shows it; exit code 1 if it was refused."""
    if new_quantity is not None and item is None:
        raise Failure("--new-quantity says how many units of an item to keep; name the item with --item")
    data: dict[str, Any] = {
        "orderId": order,
        "cancelledBy": "buyer" if reason == "buyer_request" else "seller",
        "reason": {"code": reason, "note": note},
    }
    if item is not None:
        data["items"] = [{"itemId": item, "newQuantity": new_quantity or 0}]
    if unfulfilled_only:
        data["unfulfilledOnly"] = True
    event, raw = _event(data, key)
    with pipeline(state_dir) as p:
        if dry_run:
            _show(p, event)
        else:
            _send(p, event, raw, timeout, as_json)


def _event(data: dict[str, Any], key: str | None) -> tuple[CancellationRequested, bytes]:
    now = datetime.now(UTC)
    document = {
        "specversion": "1.0",
        "id": str(uuid4()) if key is None else key,
        "source": SOURCE,
        "type": "cancellation.requested",
        "time": rfc3339(now),
        "data": data,
    }
    raw = json.dumps(document).encode()
    try:
        event = parse(raw, now)
    except InvalidEvent as error:
        raise Failure(f"this request would not be accepted: {error}") from None
    assert isinstance(event, CancellationRequested)
    return event, raw


def _send(p: Pipeline, event: CancellationRequested, raw: bytes, timeout: float, as_json: bool) -> None:
    """Send the request unless it was sent before, and show what was decided."""
    if _decision(p, event):
        messages.print("This key was used before, with the same request; this is what came of it.")
        entry_id = None
    else:
        (entry_id,) = p.queue.add([raw])
    deadline = time.monotonic() + timeout
    while not (row := _decision(p, event, entry_id)):
        if time.monotonic() >= deadline:
            raise Failure(
                f"the request was sent as event {event.id!r}, and not decided within {timeout:g} seconds; it will be "
                "when `shortpick ingress` and `shortpick worker` run, and `shortpick why` tells what came of it"
            )
        time.sleep(POLL_SECONDS)
    if as_json:
        emit(json_fields(row))
    else:
        told = chapter(p, event.data.order_id, event.key)
        say(told.heading, style="bold")
        for sentence in told.sentences:
            say(f"   {sentence}")
    if row["outcome"] == "refused":
        raise typer.Exit(1)


def _decision(p: Pipeline, event: CancellationRequested, entry_id: str | None = None) -> Row | None:
    """What was decided about the request; None: nothing yet."""
    with reading(p.engine) as connection:
        row = inbox.of_key(connection, event.key)
        letter = dead_letters.of_entry(connection, entry_id) if entry_id else None
    if letter:
        raise Failure(f"the request could not be acted on ({letter.code}): {letter.sentence}. {explained(letter.code)}")
    if row is None:
        return None
    if row.digest != digest(event):
        raise Failure(f"the key {event.id!r} was used before, for another request; give this one a key of its own")
    return dict(row._mapping)


def _show(p: Pipeline, event: CancellationRequested) -> None:
    """Decide the request on the order as it stands, and change nothing."""
    with reading(p.engine) as connection:
        order = orders.load(connection, [event.data.order_id])[event.data.order_id]
        paused = pauses.paused(connection)
    decision = decide(order, event, bootstrap.policy(p.settings))
    messages.print("A dry run: nothing is sent, and nothing changes.")
    cut = decision.cut if isinstance(decision, Held) else decision
    match cut:
        case Cut() if order:
            change = carry_out(order, cut, event.time)
            for one in change.cancellations:
                say(f"It would cancel by {one.operation.name}:")
                for item in order_cancelled(one, order, event)["data"]["items"]:
                    say(f"   {story.cut(item)}")
            if isinstance(decision, Held):
                say(f"But it would be held, because {story.WHY_HELD[decision.reason]}, until a person approves it.")
            if paused.holds(event.source):
                say("But cancellations are paused, so it would wait until they are resumed, and be decided again then.")
            if change.order:
                say_table(STAND, stand(change.order))
        case Refused(code, facts):
            raise Failure(f"it would be refused ({code}): {facts['rule']}; see {explained(code)}")
        case Waiting():
            say(f"Order {event.data.order_id!r} was not placed yet; the request would wait for that.")
        case _:
            raise AssertionError(f"a request is never decided as {cut}")

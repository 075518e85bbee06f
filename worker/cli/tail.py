"""`shortpick tail`: cancellations as they are published."""

import base64
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from worker.cli.context import Json, Pipeline, StateDir, emit, pipeline, say
from worker.cli.wording import counted, shown_bytes

CHUNK = 100
SHOWN_BYTES = 200


def register(app: typer.Typer) -> None:
    app.command()(tail)


def tail(
    position: Annotated[
        int | None, typer.Option("--from", help="Begin at this position; otherwise with what is new.", min=1)
    ] = None,
    count: Annotated[int | None, typer.Option("--count", help="End after so many.", min=1)] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for more, or stop at the end.")] = True,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """The order.cancelled events as they are published. Without --from, --no-follow begins with the first one."""
    with pipeline(state_dir) as p:
        begin = position if position is not None else p.outbox.last_position() + 1 if follow else 1
        try:
            for number, (at, event) in enumerate(_published(p, begin, follow), start=1):
                _show(at, event, as_json)
                if number == count:
                    return
        except KeyboardInterrupt:  # how one ends to follow
            return


def _published(p: Pipeline, begin: int, follow: bool) -> Iterator[tuple[int, bytes]]:
    """Positions and events from `begin` on; with `follow` without end."""
    block = max(1, int(p.settings.redis_timeout_seconds * 500))  # half of the client's timeout
    after = begin - 1
    while entries := p.outbox.read(after, CHUNK, block if follow else None) or follow:
        if entries is True:
            continue
        yield from entries
        after = entries[-1][0]


def _show(position: int, raw: bytes, as_json: bool) -> None:
    """What somebody else wrote to the stream is shown as such: this command is how one finds it."""
    try:
        event = json.loads(raw)
        line = _line(event)
    except (ValueError, LookupError, TypeError, AttributeError):
        event, line = None, f"not an order.cancelled event: {shown_bytes(raw, SHOWN_BYTES)}"
    if as_json:
        foreign = {"bytes": base64.b64encode(raw).decode()} if event is None else {}
        emit({"position": position, "event": event, **foreign})
    else:
        say(f"{position:>8}  {line}")
    sys.stdout.flush()


def _line(event: dict[str, Any]) -> str:
    data = event["data"]
    items = data["items"]
    units = counted(sum(item["cancelledQuantity"] for item in items), "unit")
    names = ", ".join(item["itemId"] for item in items[:3]) + (" …" if len(items) > 3 else "")
    return f"{event['time']}  {data['orderId']}  {data['operation']}  {units} of {names}  {data['reason']['code']}"

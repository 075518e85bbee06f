"""`shortpick tail`: cancellations as they are published."""

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from worker.cli.context import Json, Pipeline, StateDir, out, pipeline

CHUNK = 100


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
                _show(at, json.loads(event), as_json)
                if number == count:
                    return
        except KeyboardInterrupt:  # how one ends to follow
            return


def _published(p: Pipeline, begin: int, follow: bool) -> Iterator[tuple[int, bytes]]:
    """Positions and events from `begin` on; with `follow` without end."""
    block = int(p.settings.redis_timeout_seconds * 500)  # half of the client's timeout
    after = begin - 1
    while entries := p.outbox.read(after, CHUNK, block if follow else None) or follow:
        if entries is True:
            continue
        yield from entries
        after = entries[-1][0]


def _show(position: int, event: dict[str, dict[str, object]], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"position": position, "event": event}, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    data = event["data"]
    items: list[dict[str, object]] = data["items"]  # type: ignore[assignment]  # parsed JSON
    units = sum(int(str(item["cancelledQuantity"])) for item in items)
    lines = ", ".join(_shown(str(item["itemId"])) for item in items[:3]) + (" …" if len(items) > 3 else "")
    reason: dict[str, object] = data["reason"]  # type: ignore[assignment]  # parsed JSON
    out.print(
        f"{position:>8}  {event['time']}  {_shown(str(data['orderId']))}  {data['operation']}  "
        f"{units} {'unit' if units == 1 else 'units'} of {lines}  {reason['code']}",
        markup=False,
    )


def _shown(text: str) -> str:
    """Text from an event, without anything that a terminal would act on."""
    return text if text.isprintable() else ascii(text)

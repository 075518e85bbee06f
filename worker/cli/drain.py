"""`shortpick drain`: wait until everything that was sent is decided and published."""

import time
from dataclasses import dataclass
from typing import Annotated

import typer
from redis.exceptions import ResponseError

from worker.cli.context import Failure, Pipeline, StateDir, messages, pipeline
from worker.cli.wording import counted, is_are
from worker.storage import allocations, holds, ledger, pauses, waiting
from worker.storage.database import reading

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Left:
    """What is not done yet."""

    unread: bool
    pending: int
    running: int
    approved: bool
    unpublished: int

    def __str__(self) -> str:
        parts = []
        if self.unread:
            parts.append("events in the queue were not read yet (is `shortpick ingress` running?)")
        if self.pending:
            were = f"{counted(self.pending, 'event')} {'was' if self.pending == 1 else 'were'} read and not decided yet"
            parts.append(f"{were} (is `shortpick worker` running?)")
        if self.running:
            parts.append(
                f"{is_are(self.running, 'shortage')} of a SKU not carried out yet (is `shortpick worker` running?)"
            )
        if self.approved:
            parts.append("approved cuts are not carried out yet (do `shortpick worker` and `shortpick beat` run?)")
        if self.unpublished:
            parts.append(
                f"{is_are(self.unpublished, 'cancellation')} not published yet (is `shortpick relay` running?)"
            )
        return "; ".join(parts)


def register(app: typer.Typer) -> None:
    app.command()(drain)


def drain(
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait at most.", min=0)] = 60,
    state_dir: StateDir = None,
) -> None:
    """Return when nothing is pending or unpublished; otherwise exit with 1 after the timeout, and say what is left."""
    deadline = time.monotonic() + timeout
    with pipeline(state_dir) as p:
        while str(unfinished := left(p)):
            if time.monotonic() >= deadline:
                raise Failure(f"not drained after {timeout:g} seconds: {unfinished}")
            time.sleep(POLL_SECONDS)
        messages.print("Everything is decided and published.")
        with reading(p.engine) as connection:
            shortages, _ = allocations.unfinished_count(connection)
            if shortages:
                they = f"{counted(shortages, 'shortage')} of a SKU {'waits' if shortages == 1 else 'wait'}"
                messages.print(f"{they} for its time, or until cancellations are resumed; that is no reason to wait.")
            held = holds.count(connection).get("open", 0)
            if held:
                messages.print(f"{is_are(held, 'cut')} held until a person decides; that is no reason to wait.")
            for waits_for, number in sorted(waiting.count(connection).items()):
                they = f"{counted(number, 'event')} {'waits' if number == 1 else 'wait'}"
                messages.print(f"{they} {_WAITS_FOR.get(waits_for, waits_for)}; that is no reason to wait.")


_WAITS_FOR = {
    "order_not_placed": "for their order to be placed",
    "fulfillments_missing": "for fulfillments that they name",
    "grace": "for the end of their grace",
    "paused": "until cancellations are resumed",
}


def left(p: Pipeline) -> Left:
    """The queue is looked at first: what is acknowledged is committed, so the ledger is complete for it. Of the queue
    what is unread comes first, or an entry could go from unread to pending between the two questions."""
    try:
        unread, pending = p.queue.has_unread(), p.queue.pending()
    except ResponseError as error:  # no stream: nothing was ever sent; no group: nothing was ever read
        if "no such key" not in str(error) and "NOGROUP" not in str(error):
            raise
        unread, pending = bool(p.redis.xlen(p.queue.stream)), 0
    with reading(p.engine) as connection:
        _, running = allocations.unfinished_count(connection)
        approved = bool(holds.approved(connection, pauses.paused(connection), 1))
        return Left(unread, pending, running, approved, ledger.unpublished(connection, p.outbox.last_position()))

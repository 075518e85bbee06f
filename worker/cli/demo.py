"""`shortpick demo`: a simulated shop against the whole pipeline, and what came of it."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from worker import bootstrap
from worker.cli import drain
from worker.cli.context import Failure, Pipeline, messages, pipeline
from worker.cli.demo_subscriber import Subscriber
from worker.cli.demo_summary import find, show
from worker.embedded import Embedded
from worker.simulator import Sent, Shop

CHUNK = 20
CHUNK_SECONDS = 0.03
SETTLE_SECONDS = 60.0


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    orders: Annotated[int, typer.Option("--orders", help="How many orders the shop places.", min=1)] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same shop.")] = 7,
    state_dir: Annotated[
        Path, typer.Option("--state-dir", help="A folder for the demo alone: an earlier demo in it is removed.")
    ] = Path(".shortpick/demo"),
) -> None:
    """Run a simulated shop against the whole pipeline: real Redis, SQLite, every process. Takes under a minute."""
    sent = list(Shop(seed, datetime.now(UTC)).events(orders))
    _make_room(state_dir)
    messages.print("Starting Redis and every process …")
    with Embedded(state_dir) as embedded, pipeline(state_dir) as p, _subscribed(p) as subscriber:
        _feed(sent[:1], embedded, p, subscriber)
        _settle(embedded, p, subscriber)  # now every process is up: the time to start is not the pipeline's
        started = time.monotonic()
        _feed(sent[1:], embedded, p, subscriber)
        _settle(embedded, p, subscriber)
        findings = find(p, Counter(one.kind for one in sent), subscriber, time.monotonic() - started)
    show(findings, state_dir)
    if findings.failures:
        raise Failure("the demo failed: " + "; ".join(findings.failures))


def _make_room(state_dir: Path) -> None:
    """Remove an earlier demo, and nothing that is none."""
    marker = state_dir / "demo"
    if state_dir.exists() and any(state_dir.iterdir()) and not marker.exists():
        raise Failure(f"{state_dir} holds something that is no demo; name another folder with --state-dir")
    shutil.rmtree(state_dir, ignore_errors=True)
    state_dir.mkdir(parents=True)
    marker.touch()


@contextmanager
def _subscribed(p: Pipeline) -> Iterator[Subscriber]:
    subscriber = Subscriber(bootstrap.outbox(p.settings, bootstrap.redis(p.settings)))
    subscriber.start()
    try:
        yield subscriber
    finally:
        subscriber.stop()


def _feed(sent: list[Sent], embedded: Embedded, p: Pipeline, subscriber: Subscriber) -> None:
    """Send at a steady pace, so that the time from event to cancellation means something."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=messages, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("events sent", total=len(sent), told="")
        next_chunk = time.monotonic()
        for first in range(0, len(sent), CHUNK):
            chunk = [one.raw for one in sent[first : first + CHUNK]]
            subscriber.expect(chunk, time.time())
            p.queue.add(chunk)
            progress.update(task, advance=len(chunk), told=f"{subscriber.received:,} cancellations published")
            _report_restarts(embedded)
            next_chunk += CHUNK_SECONDS
            time.sleep(max(0.0, next_chunk - time.monotonic()))
    if len(sent) > 1:
        messages.print(f"Sent {len(sent):,} events; waiting until all are decided and published …")


def _settle(embedded: Embedded, p: Pipeline, subscriber: Subscriber) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while str(left := drain.left(p)) or subscriber.received < p.outbox.last_position():
        if time.monotonic() > deadline:
            raise Failure(f"the demo did not come to an end: {left or 'the subscriber has not read everything'}")
        _report_restarts(embedded)
        time.sleep(drain.POLL_SECONDS)


def _report_restarts(embedded: Embedded) -> None:
    for name, how in embedded.restart_dead().items():
        messages.print(f"{name} {how} and has been started again", style="yellow")

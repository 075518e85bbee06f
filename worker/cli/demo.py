"""`shortpick demo`: a simulated shop against the whole pipeline, and what came of it."""

import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from worker import bootstrap
from worker.cli import demo_runaway, drain
from worker.cli.context import Failure, Pipeline, messages, pipeline
from worker.cli.demo_subscriber import Subscriber
from worker.cli.demo_summary import find, show
from worker.embedded import Embedded
from worker.simulator import Sent, Shop

CHUNK = 20
CHUNK_SECONDS = 0.03
# Longer than SHORTPICK_REDELIVER_AFTER_SECONDS, after which what a killed worker held is dispatched again.
SETTLE_SECONDS = 90.0
LINE_SECONDS = 2.0
Scenario = Literal["shop", "runaway"]


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    orders: Annotated[int, typer.Option("--orders", help="How many orders the shop places.", min=1)] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same shop.")] = 7,
    state_dir: Annotated[
        Path, typer.Option("--state-dir", help="A folder for the demo alone: an earlier demo in it is removed.")
    ] = Path(".shortpick/demo"),
    scenario: Annotated[
        Scenario, typer.Option("--scenario", help="shop: a usual day. runaway: a feed that reports zeros by mistake.")
    ] = "shop",
) -> None:
    """Run a simulated shop against the whole pipeline: real Redis, SQLite, every process. Takes under a minute."""
    if scenario == "runaway":
        _run_away(orders, seed, state_dir)
        return
    sent = list(Shop(seed, datetime.now(UTC)).events(orders))
    _make_room(state_dir)
    messages.print("Starting Redis and every process …")
    with _running(state_dir) as embedded, pipeline(state_dir) as p, _subscribed(p) as subscriber:
        _send(sent[:1], p, subscriber)
        _settle(embedded, p, subscriber)  # now every process is up: the time to start is not the pipeline's
        started = time.monotonic()
        _feed(sent[1:], embedded, p, subscriber)
        _settle(embedded, p, subscriber)
        findings = find(p, sent, subscriber, time.monotonic() - started)
    show(findings, state_dir)
    if findings.failures:
        raise Failure("the demo failed: " + "; ".join(findings.failures))


def _run_away(orders: int, seed: int, state_dir: Path) -> None:
    """The worst day of such a system, and what the guardrails make of it."""
    _make_room(state_dir)
    messages.print("Starting Redis and every process, eight of them workers …")
    with (
        _running(state_dir, demo_runaway.GUARDRAILS) as embedded,
        pipeline(state_dir) as p,
        _subscribed(p) as subscriber,
    ):

        def play(events: list[bytes]) -> None:
            p.queue.add(events)
            _settle(embedded, p, subscriber)

        failures = demo_runaway.play(p, demo_runaway.Story(seed, orders), play, state_dir)
    if failures:
        raise Failure("the demo failed: " + "; ".join(failures))


def _make_room(state_dir: Path) -> None:
    """Remove an earlier demo, and nothing that is none."""
    marker = state_dir / "demo"
    if state_dir.exists() and any(state_dir.iterdir()) and not marker.exists():
        raise Failure(f"{state_dir} holds something that is no demo; name another folder with --state-dir")
    shutil.rmtree(state_dir, ignore_errors=True)
    state_dir.mkdir(parents=True)
    marker.touch()


@contextmanager
def _running(state_dir: Path, chosen: Mapping[str, str | int | float] | None = None) -> Iterator[Embedded]:
    """The pipeline, which is ended in order whatever happens: a second Ctrl-C would leave its processes behind."""
    embedded = Embedded(state_dir, chosen or {})
    try:
        embedded.start()
        yield embedded
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        messages.print("Ending every process …")
        embedded.stop()
        signal.signal(signal.SIGINT, before)


@contextmanager
def _subscribed(p: Pipeline) -> Iterator[Subscriber]:
    subscriber = Subscriber(bootstrap.outbox(p.settings, bootstrap.redis(p.settings)))
    subscriber.start()
    try:
        yield subscriber
    finally:
        subscriber.stop()


def _feed(sent: list[Sent], embedded: Embedded, p: Pipeline, subscriber: Subscriber) -> None:
    """Send everything, and tell how it goes: a bar on a terminal, elsewhere a line now and then."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
    terminal = sys.stderr.isatty()
    next_line = time.monotonic() + LINE_SECONDS
    with Progress(*columns, console=messages, disable=not terminal) as progress:
        task = progress.add_task("events sent", total=len(sent), told="")
        for number, chunk in _paced(sent):
            _send(chunk, p, subscriber)
            published = f"{subscriber.received:,} cancellations published"
            progress.update(task, completed=number, told=published)
            if not terminal and time.monotonic() >= next_line:
                messages.print(f"{number:,} of {len(sent):,} events sent, {published}")
                next_line += LINE_SECONDS
            _report_restarts(embedded)
    messages.print(f"Sent {len(sent):,} events; waiting until all are decided and published …")


def _paced(sent: list[Sent]) -> Iterator[tuple[int, list[Sent]]]:
    """Chunks at a steady pace, so that the time from event to cancellation means something; each with how many events
    there were up to its end."""
    next_chunk = time.monotonic()
    for first in range(0, len(sent), CHUNK):
        chunk = sent[first : first + CHUNK]
        yield first + len(chunk), chunk
        next_chunk += CHUNK_SECONDS
        time.sleep(max(0.0, next_chunk - time.monotonic()))


def _send(sent: list[Sent], p: Pipeline, subscriber: Subscriber) -> None:
    events = [one.raw for one in sent]
    subscriber.expect(events, time.time())
    p.queue.add(events)


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

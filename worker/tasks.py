"""The Celery tasks: shims without logic. Their names say what the program does."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery.exceptions import Reject, SoftTimeLimitExceeded
from redis.exceptions import RedisError

from worker import bootstrap, process, release, shortages, upkeep, verdicts
from worker.app import RETRY_SECONDS, app, connections, start_runs
from worker.ingress import DispatchFailed
from worker.storage.database import TRANSIENT
from worker.streams import Batch

log = structlog.get_logger(__name__)

SKUS_A_MESSAGE = 50


@app.task(name="shortpick.decide_cancellations")
def decide_cancellations(entry_ids: list[str], starts: int = 0) -> None:
    """Decide queue entries, apply what was decided, acknowledge them."""
    with _outages("decide_cancellations"):
        process.process(connections().processor, Batch(entry_ids, starts))


# The one task whose message is the only copy of what it carries; so it is acknowledged late.
@app.task(name="shortpick.accept_events", acks_late=True, reject_on_worker_lost=True)
def accept_events(events: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Put one event or a list of them on the queue, for producers that speak Celery."""
    listed = events if isinstance(events, list) else [events]
    own = connections()
    try:
        bootstrap.queue(own.settings, own.redis).add([json.dumps(event).encode() for event in listed])
    except (RedisError, MemoryError) as error:
        log.warning("task.unavailable", task="accept_events", error=type(error).__name__, detail=str(error))
        time.sleep(RETRY_SECONDS)
        raise Reject(str(error), requeue=True) from None  # a long trace would be sent along, see below


@app.task(name="shortpick.cut_sku_shortage")
def cut_sku_shortage(skus: list[str], going_on: bool = False) -> None:
    """Carry out shortages of SKUs for a moment; what is not done then goes behind what else is to do."""
    with _outages("cut_sku_shortage"):
        unfinished, unseen = shortages.run(connections().processor, skus, going_on=going_on)
        start_runs(unfinished, going_on=True)  # by itself: it may take long, and must not hold up the others
        start_runs(unseen)


@app.task(name="shortpick.release_due")
def release_due() -> None:
    """Start shortages that are due; decide again what has waited for its time; bury what has waited too long; carry out
    what was approved."""
    processor = connections().processor
    with _outages("release_due"):
        skus = shortages.due(processor)
        for first in range(0, len(skus), SKUS_A_MESSAGE):
            start_runs(skus[first : first + SKUS_A_MESSAGE])
    with _outages("release_due"):
        release.release_due(processor)
        verdicts.carry_out_approved(processor)


@app.task(name="shortpick.prune")
def prune() -> None:
    """Remove what is old and nobody needs any more."""
    own = connections()
    queue, outbox = bootstrap.queue(own.settings, own.redis), bootstrap.outbox(own.settings, own.redis)
    with _outages("prune"):
        upkeep.prune(own.engine, queue, outbox, bootstrap.retention(own.settings))


def dispatch(batch: Batch) -> None:
    """Hand a batch to the workers. Raises `DispatchFailed`."""
    try:
        decide_cancellations.apply_async((list(batch.entry_ids), batch.starts), ignore_result=True)
    except decide_cancellations.OperationalError as error:
        raise DispatchFailed(str(error)) from error


@contextmanager
def _outages(task: str) -> Iterator[None]:
    """An outage, or no time left, ends what a task does, and is told on one line. What is not done is asked for again:
    a batch by ingress, the rest by the clock.

    Raised, it would reach the worker's parent with a trace of more than the 64 KiB that a pipe holds. While the parent
    has lost the broker it reads none, and the time limit then cuts the trace in two: the parent cannot read on, and
    hangs (seen).
    """
    try:
        yield
    except (RedisError, SoftTimeLimitExceeded, *TRANSIENT) as error:
        log.warning("task.unavailable", task=task, error=type(error).__name__, detail=str(error))

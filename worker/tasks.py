"""The Celery tasks: shims without logic. Their names say what the program does."""

import json
import time
from typing import Any

from celery.exceptions import Reject
from redis.exceptions import RedisError

from worker import bootstrap, process, release, shortages, upkeep, verdicts
from worker.app import app, connections, start_runs
from worker.ingress import DispatchFailed
from worker.streams import Batch

RETRY_SECONDS = 0.2
SKUS_A_MESSAGE = 50


@app.task(name="shortpick.decide_cancellations")
def decide_cancellations(entry_ids: list[str], starts: int = 0) -> None:
    """Decide queue entries, apply what was decided, acknowledge them."""
    process.process(connections().processor, Batch(entry_ids, starts))


# The one task whose message is the only copy of what it carries; so it is acknowledged late.
@app.task(name="shortpick.accept_events", acks_late=True, reject_on_worker_lost=True)
def accept_events(events: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Put one event or a list of them on the queue, for producers that speak Celery."""
    listed = events if isinstance(events, list) else [events]
    own = connections()
    try:
        bootstrap.queue(own.settings, own.redis).add([json.dumps(event).encode() for event in listed])
    except RedisError as error:
        time.sleep(RETRY_SECONDS)
        raise Reject(str(error), requeue=True) from error


@app.task(name="shortpick.cut_sku_shortage")
def cut_sku_shortage(skus: list[str], going_on: bool = False) -> None:
    """Carry out shortages of SKUs for a moment; what is not done then goes behind what else is to do."""
    unfinished, unseen = shortages.run(connections().processor, skus, going_on=going_on)
    start_runs(unfinished, going_on=True)  # by itself: it may take long, and must not hold up the others
    start_runs(unseen)


@app.task(name="shortpick.release_due")
def release_due() -> None:
    """Start shortages that are due; decide again what has waited for its time; bury what has waited too long; carry out
    what was approved."""
    processor = connections().processor
    try:
        skus = shortages.due(processor)
        for first in range(0, len(skus), SKUS_A_MESSAGE):
            start_runs(skus[first : first + SKUS_A_MESSAGE])
    finally:
        release.release_due(processor)
        verdicts.carry_out_approved(processor)


@app.task(name="shortpick.prune")
def prune() -> None:
    """Remove what is old and nobody needs any more."""
    own = connections()
    queue, outbox = bootstrap.queue(own.settings, own.redis), bootstrap.outbox(own.settings, own.redis)
    upkeep.prune(own.engine, queue, outbox, bootstrap.retention(own.settings))


def dispatch(batch: Batch) -> None:
    """Hand a batch to the workers. Raises `DispatchFailed`."""
    try:
        decide_cancellations.apply_async((list(batch.entry_ids), batch.starts), ignore_result=True)
    except decide_cancellations.OperationalError as error:
        raise DispatchFailed(str(error)) from error

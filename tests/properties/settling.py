"""A pipeline is brought to rest, and judged."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy import Connection, text

from tests import checker
from tests.model import Model
from tests.properties.pipeline import Pipeline
from tests.properties.stage import OUTAGES
from tests.records import as_time, from_json, key_of, name_of, parsed_event, table
from worker.storage.database import TRANSIENT

TURNS = 300
ROUNDS = 30
ROUND_SECONDS = 700
"""Longer than every grace."""

_UNDONE = """
    SELECT (SELECT count(*) FROM waiting_events WHERE waits_for IN ('grace', 'paused'))
         + (SELECT count(*) FROM allocations WHERE finished_at IS NULL)
         + (SELECT count(*) FROM holds WHERE state = 'approved' AND :approved)
         + (SELECT count(*) FROM holds WHERE state = 'open' AND :open)
"""
_TOLD_OF_FAULTS = {
    "batch.isolated",
    "event.unprocessable",
    "release.isolated",
    "shortage.failed",
    "holds.isolated",
    "hold.unprocessable",
}
"""What is logged where the program fails on what it should be able to do."""


def settle(pipeline: Pipeline, *, approve: bool) -> None:
    """Resume what is paused, let the time pass, and let everybody have turns until nothing is left to do; with `approve`,
    all that is held is approved."""
    pipeline.resume(None)
    for source in pipeline.paused().sources:
        pipeline.resume(source)
    for _ in range(ROUNDS):
        _empty_queue(pipeline)
        pipeline.pass_time(ROUND_SECONDS)
        pipeline.beat()
        while pipeline.messages:
            pipeline.work(0)
        if approve:
            pipeline.give(pipeline.open_holds(), "approved")
        for number in range(len(pipeline.relays)):
            pipeline.publish(number)
        if not _undone(pipeline, approve):
            return
    raise AssertionError(f"it does not come to rest: {_undone(pipeline, approve)} things are undone")


def _empty_queue(pipeline: Pipeline) -> None:
    for _ in range(TURNS):
        if not (pipeline.queue.has_unread() or pipeline.queue.pending() or pipeline.messages):
            return
        pipeline.read()
        while pipeline.messages:
            pipeline.work(0)
        pipeline.pass_time(1 + pipeline.settings.redeliver_after_seconds)
    raise AssertionError(f"{pipeline.queue.pending()} entries stay pending")


def _undone(pipeline: Pipeline, approve: bool) -> int:
    carried_out = {"approved": not pipeline.settings.shadow, "open": approve}
    with pipeline.engine.connect() as connection:
        undone: int = connection.execute(text(_UNDONE), carried_out).scalar_one()
        written: int = connection.execute(text("SELECT count(*) FROM cancellations")).scalar_one()
    return undone + written - pipeline.redis.xlen(pipeline.settings.cancelled_stream)


def judge(pipeline: Pipeline, told: Sequence[Mapping[str, Any]], model: Model | None) -> None:
    """Nothing is wrong, once all is quiet. `told`: what was logged; `model`: what must have come of it, if that is known."""
    with pipeline.engine.connect() as connection:
        wrong = checker.violations(connection, pipeline.redis, now=pipeline.clock.time)
        wrong += _wrong_letters(connection, pipeline)
        wrong += _failures(connection, told)
        wrong += _wrong_limits(connection, pipeline.limits)
        wrong += checker.agreement(connection, model) if model else []
        pipeline.done.update(_what_came(connection))
    assert not wrong, "\n".join([*wrong, *pipeline.stage.story])


def repeat_everything(pipeline: Pipeline) -> None:
    """Send again whatever was recorded: not a row changes that says what was cancelled, held or published."""
    with pipeline.engine.connect() as connection:
        before = _standing(connection)
        recorded = {event.entry_id for event in table(connection, "events")}
    pipeline.change("batch_size", 100)  # it is faster
    pipeline.send(*(event for entry_id, event in list(pipeline.sent.items()) if entry_id in recorded))
    _empty_queue(pipeline)
    pipeline.publish()
    with pipeline.engine.connect() as connection:
        assert _standing(connection) == before


def _standing(connection: Connection) -> dict[str, Any]:
    return {name: table(connection, name) for name in ("orders", "order_items", "cancellations", "holds", "events")}


def _wrong_letters(connection: Connection, pipeline: Pipeline) -> Iterator[str]:
    """Of all that was sent, whether or not the stream still has it: what came of it, and whether its letter is true."""
    letters, events = table(connection, "dead_letters"), table(connection, "events")
    dead, dead_bytes = {letter.entry_id for letter in letters}, {bytes(letter.bytes) for letter in letters}
    content = {key_of(event): _content(pipeline.sent[event.entry_id]) for event in events}
    for entry_id, raw in pipeline.sent.items():
        event = parsed_event(raw)
        known = content.get((event.get("source"), event.get("id"))) == _content(raw)
        if not known and entry_id not in dead and raw not in dead_bytes:
            yield f"Entry {entry_id} is lost: {raw[:200]!r}"
    for letter in letters:
        recorded = letter.entry_id in {event.entry_id for event in events}
        blameless = pipeline.ended_badly[letter.entry_id] <= pipeline.settings.max_lone_starts
        if letter.code == "worker_lost" and (recorded or blameless):
            yield f"Entry {letter.entry_id} was given up, though {'it is recorded' if recorded else 'no worker died'}."
        if letter.code == "bytes_lost" and letter.entry_id not in pipeline.deleted:
            yield f"The bytes of entry {letter.entry_id} were lost, though nobody has deleted it."


def _wrong_limits(connection: Connection, limits: Collection[float]) -> Iterator[str]:
    """How long an event may wait is counted from when it came. `limits`: those that were ever set, in seconds."""
    for event in table(connection, "waiting_events"):
        span = (as_time(event.until) - as_time(event.since)).total_seconds()
        if event.waits_for in ("order_not_placed", "fulfillments_missing") and span not in limits:
            yield f"Event {name_of(event)} may wait for {span} seconds, and no limit says so."


def _content(raw: bytes) -> Any:
    event = parsed_event(raw)
    return event.get("type"), event["data"]


def _failures(connection: Connection, told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where the program failed on an event, or on all that it did at once, and went on without it."""
    for letter in table(connection, "dead_letters"):
        if letter.code == "unprocessable":
            yield f"Entry {letter.entry_id} could not be processed: {letter.sentence}"
    for one in [*table(connection, "allotments"), *table(connection, "holds")]:
        if str(one.reason).startswith("unprocessable"):
            yield f"Order {one.order_id} could not be processed: {one}"
    for line in told:
        if line["event"] in _TOLD_OF_FAULTS and not _is_outage(line):
            yield f"It logged {line}"


def _is_outage(line: Mapping[str, Any]) -> bool:
    named = {type(fault).__name__ for fault in OUTAGES.values()}
    return isinstance(line.get("exc_info"), (RedisError, *TRANSIENT)) or line.get("error") in named


def _what_came(connection: Connection) -> list[str]:
    """What events, holds, letters and runs ended as, to see that there was something of everything."""
    events = table(connection, "events")
    came = [f"waited: {reason}" for event in events for reason, _ in from_json(event.facts).get("waited", [])]
    came += [f"{event.outcome}: {event.reason}" for event in events]
    came += [f"held by {hold.why}" for hold in table(connection, "holds")]
    came += [f"hold {hold.state}: {hold.reason}" for hold in table(connection, "holds")]
    came += [f"dead letter: {letter.code}" for letter in table(connection, "dead_letters")]
    came += [f"operation {row.operation}" for row in table(connection, "cancellations")]
    return came

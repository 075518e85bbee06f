"""Batches of events decided straight on a database, without a queue, and what stands there afterwards."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any

from fakeredis import FakeRedis
from sqlalchemy import Connection, Engine, event, text

from domain.policy import Policy
from tests import checker
from tests.builders import NOW, Json, to_bytes
from worker import shortages
from worker.process import Processor, process_entries
from worker.release import release_due
from worker.storage import pauses
from worker.storage.database import transaction
from worker.streams import Entry, Outbox, Overdue, Queue

_numbers = count(1)
_BASE = int(NOW.timestamp() * 1000)


def entries(*events: Json | bytes) -> list[Entry]:
    """Queue entries whose ids rise, over all calls; they come after `builders.NOW`."""
    return [Entry(f"{_BASE + next(_numbers)}-0", one if isinstance(one, bytes) else to_bytes(one)) for one in events]


def processor(
    engine: Engine, waiting_limit: timedelta = timedelta(hours=24), policy: Policy | None = None
) -> Processor:
    """A processor for `process_entries`; nobody listens to its Redis."""
    client = FakeRedis()
    queue, outbox = Queue(client, "order.events", "shortpick"), Outbox(client, "order.cancelled")
    return Processor(engine, queue, outbox, policy or Policy(), waiting_limit, 5, 1000)


@contextmanager
def statements(where: Engine | Connection) -> Iterator[list[str]]:
    """The SQL statements that are sent meanwhile; one that is sent for many rows one by one counts as many."""
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, executemany: bool) -> None:
        seen.extend([statement] * (len(parameters) if executemany else 1))

    event.listen(where, "before_cursor_execute", note)
    yield seen
    event.remove(where, "before_cursor_execute", note)
    seen[:] = [statement for statement in seen if not statement.startswith("BEGIN")]


@dataclass
class Batches:
    """A worker on a database: feeds it batches, and reads what came of them."""

    engine: Engine
    policy: Policy = field(default_factory=Policy)
    entries: list[Entry] = field(default_factory=list)
    """All that was fed."""
    old_after: timedelta = timedelta(days=6)

    def feed(self, *events: Json | bytes, size: int | None = None, waiting_limit: timedelta | None = None) -> int:
        """Process the events in batches of `size`, or all in one; returns the number of cancellations."""
        fresh = entries(*events)
        self.entries += fresh
        return self.process(fresh, size, waiting_limit)

    def entries_of(self, *events: Json) -> list[Entry]:
        """Events as entries that count as fed."""
        fresh = entries(*events)
        self.entries += fresh
        return fresh

    def process(self, fed: Sequence[Entry], size: int | None = None, waiting_limit: timedelta | None = None) -> int:
        """Process these very entries, again if need be."""
        worker = replace(processor(self.engine, policy=self.policy), old_after=self.old_after)
        worker = worker if waiting_limit is None else replace(worker, waiting_limit=waiting_limit)
        step = size or len(fed)
        return sum(process_entries(worker, fed[start : start + step]) for start in range(0, len(fed), step))

    def run(self, *skus: str, chunk: int = 250) -> int:
        """Carry out the shortages of these SKUs, or of all that are due; returns in how many transactions."""
        worker, steps = replace(processor(self.engine, policy=self.policy), orders_a_chunk=chunk), 0
        for sku in skus or shortages.due(worker, timedelta(0)):
            steps += 1
            while shortages.run_once(worker, sku):
                steps += 1
        return steps

    def run_once(self, sku: str, chunk: int = 250) -> bool:
        """One chunk; returns whether there is more to do."""
        return shortages.run_once(replace(processor(self.engine, policy=self.policy), orders_a_chunk=chunk), sku)

    def release(self) -> int:
        """Decide again what is due."""
        return release_due(processor(self.engine, policy=self.policy))

    def pause(self, source: str | None = None) -> None:
        with transaction(self.engine) as connection:
            pauses.pause(connection, source, "a test", "somebody")

    def resume(self, source: str | None = None) -> None:
        with transaction(self.engine) as connection:
            pauses.resume(connection, source, "a test", "somebody")

    def rows(self, sql: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(sql), values).all())

    def let_time_pass(self) -> None:
        """As if whatever waits had waited for a year."""
        past = "2025-01-01T00:00:00.000000+00:00"
        with self.engine.begin() as connection:
            connection.execute(text(f"UPDATE waiting_events SET since = '{past}', until = '{past}'"))
            connection.execute(text(f"UPDATE allocations SET due_at = '{past}'"))

    def facts(self, event_id: str) -> list[Json]:
        found = self.rows("SELECT facts FROM events WHERE id = :event_id", event_id=event_id)
        return [json.loads(row.facts) if isinstance(row.facts, str) else row.facts for row in found]

    def outcomes(self) -> dict[str, str]:
        """By event id."""
        return {row.id: row.outcome for row in self.rows("SELECT id, outcome FROM events")}

    def published(self, order_id: str | None = None) -> list[Json]:
        """The outgoing events, of one order if it is named, in ledger order."""
        found = [json.loads(row.payload) for row in self.rows("SELECT payload FROM cancellations ORDER BY ledger_id")]
        return [one for one in found if order_id in (None, one["subject"])]

    def operations(self, order_id: str | None = None) -> list[str]:
        return [one["data"]["operation"] for one in self.published(order_id)]

    def totals(self, order_id: str) -> dict[str, dict[str, int]]:
        """Per item as first ordered: what is fulfilled and open by the items, what is cancelled by what went out."""
        items = self.rows("SELECT * FROM order_items WHERE order_id = :order_id ORDER BY line", order_id=order_id)
        told = [item for one in self.published(order_id) for item in one["data"]["items"]]
        cancelled = Counter({item["originalItemId"]: 0 for item in told})
        for item in told:
            cancelled[item["originalItemId"]] += item["cancelledQuantity"]
        return {
            first.item_id: {
                "ordered": first.quantity,
                "fulfilled": sum(i.fulfilled for i in items if i.original_item_id == first.item_id),
                "cancelled": cancelled[first.item_id],
                "open": sum(i.open_quantity for i in items if i.original_item_id == first.item_id),
            }
            for first in items
            if first.item_id == first.original_item_id
        }

    def dead(self) -> list[str]:
        """The codes of the dead letters."""
        return [row.code for row in self.rows("SELECT code FROM dead_letters ORDER BY dead_letter_id")]

    def waiting(self) -> dict[str, str]:
        """By event id, what it waits for."""
        return {row.id: row.waits_for for row in self.rows("SELECT id, waits_for FROM waiting_events")}

    def conflicts(self) -> list[Json]:
        """Conflicts as the worked cases write them."""
        found = self.rows("SELECT fulfillment_id, item_id, sku, quantity FROM conflicts ORDER BY conflict_id")
        return [
            {
                "fulfillmentId": row.fulfillment_id,
                **({"sku": row.sku} if row.item_id is None else {"itemId": row.item_id}),
                "quantity": row.quantity,
            }
            for row in found
        ]

    def wrong(self, paused: bool = False) -> list[str]:
        """What the checker finds, publishing aside: nothing is published here."""
        redis = FakeRedis()
        for one in self.entries:
            redis.xadd("order.events", {"event": one.raw}, id=one.entry_id)
        redis.xgroup_create("order.events", "shortpick", "$", mkstream=True)
        with self.engine.connect() as connection:
            found = checker.violations(connection, redis, paused=paused)
        redis.close()
        return [one for one in found if not one.startswith(("The positions are", "The published entries are"))]


def starts_of(overdue: Iterable[Overdue]) -> dict[str, int]:
    """How often each overdue entry was started."""
    return {one.entry_id: one.starts for one in overdue}

"""Cancellations that are published, for tests of what becomes of the outgoing stream."""

from itertools import count
from typing import Any

from redis import Redis
from sqlalchemy import Engine

from tests import checker
from tests.builders import placed, shortage
from tests.integration.batches import entries
from worker.process import Processor, process_entries
from worker.relay import Relay

STREAM = "order.cancelled"


class Publisher:
    """Cancels orders of its own, and publishes that."""

    def __init__(self, processor: Processor, relay: Relay) -> None:
        self.processor, self.relay = processor, relay
        self._numbers = count(1)

    def publish(self, how_many: int) -> list[str]:
        """Cancel so many more orders, and publish that; returns their ids."""
        names = [f"o{next(self._numbers):03}" for _ in range(how_many)]
        process_entries(self.processor, entries(*(placed(name, a=("SA", 1)) for name in names)))
        process_entries(self.processor, entries(*(shortage(name, a=0) for name in names)))
        run_some(self.relay)
        return names


def run_some(relay: Relay) -> None:
    """As often as its loop would in a moment: what it misses once it may notice next time."""
    for _ in range(4):
        relay.run_once()


def positions(redis: Redis) -> list[int]:
    """What the stream holds."""
    found: Any = redis.xrange(STREAM)
    return [int(entry_id.partition(b"-")[0]) for entry_id, _ in found]


def wrong(engine: Engine, redis: Redis) -> list[str]:
    """What the checker finds."""
    with engine.connect() as connection:
        return checker.violations(connection, redis)

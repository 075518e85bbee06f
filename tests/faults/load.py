"""The load of the fault tests: every kind of event, SKUs that run short, cuts that wait for their grace, for the end of a
pause and for a person. However it is disturbed, what comes of it is known."""

import random
from collections.abc import Sequence
from typing import Any

from tests.builders import Json, placed, shortage, to_bytes
from tests.histories import ShortHistory
from tests.model import Model
from worker.settings import Settings

PROTECTED = tuple(f"o{number:03}" for number in range(5, 120, 12))
"""Orders whose cuts are held."""


def fault_settings(**chosen: Any) -> Settings:
    """Small batches and chunks, so that there is a middle; short times, so that what is left comes soon."""
    return Settings(
        **{
            "batch_size": 5,
            "max_pending": 60,
            "redeliver_after_seconds": 2,
            "retry_after_seconds": 0.2,
            "task_limit_seconds": 1.9,
            "task_soft_limit_seconds": 1.8,
            "max_lone_starts": 20,
            "sku_shortage_grace_seconds": 1,
            "release_due_every_seconds": 0.5,
            "protected_orders": ",".join(PROTECTED),
            **chosen,
        }
    )


class Load:
    """`placings` come first, and are done before the rest; each event comes twice, in any order."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, history = rng, ShortHistory(rng)
        self.fed = [*history.placings, *history.figures, *history.events]
        self.placings = [to_bytes(one) for one in history.placings]
        self.events = [to_bytes(one) for one in history.events] * 2
        rng.shuffle(self.placings)
        rng.shuffle(self.events)

    def add(self, placings: Sequence[Json], events: Sequence[Json], times: int = 1) -> None:
        """More orders, and events that come so many times each, among the others."""
        self.fed += [*placings, *events]
        self.placings += map(to_bytes, placings)
        self.events += [to_bytes(one) for one in events] * times
        self._rng.shuffle(self.placings)
        self._rng.shuffle(self.events)

    def another_cut(self, order_id: str) -> list[bytes]:
        """One more order, and a shortage that cancels it whole: something new to publish, whatever came before."""
        more = [placed(order_id, a=("EXTRA", 2)), shortage(order_id, a=0)]
        self.fed += more
        return [to_bytes(one) for one in more]

    def model(self) -> Model:
        """What must come of it."""
        model = Model()
        for one in self.fed:
            model.feed(one)
        return model


def in_parts(events: Sequence[bytes], number: int) -> list[list[bytes]]:
    """The same in so many parts, about equally large."""
    return [list(events[n::number]) for n in range(number)]

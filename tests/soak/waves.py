"""The load of a soak: wave after wave of orders and of what happens to them, of which it is known what must come."""

import random
from collections import deque

from sqlalchemy import Engine, text

from tests.builders import Json, to_bytes
from tests.histories import ShortHistory
from tests.model import Model

GUARDED = "guarded"
"""A partner of whose orders each cut is held."""
ONE_IN = 12


class Wave:
    """120 orders that want three SKUs of their own; once all are placed, the SKUs run short, and all else happens."""

    def __init__(self, name: str, rng: random.Random) -> None:
        history = ShortHistory(rng, name)
        for number, one in enumerate(history.placings):
            if number % ONE_IN == 0:
                one["data"]["partner"] = GUARDED
        self.name = name
        self.fed: list[Json] = [*history.placings, *history.figures, *history.events]
        self.placings = _twice_in_any_order(history.placings, rng)
        self.events = _twice_in_any_order(history.events, rng)
        self._orders = len(history.placings)

    def is_placed(self, engine: Engine) -> bool:
        """Whether all its orders are recorded, but for those that are placed late."""
        with engine.connect() as connection:
            number = connection.execute(_PLACED, {"first": f"{self.name}o", "last": f"{self.name}o999"}).scalar_one()
        return bool(number == self._orders)

    def model(self) -> Model:
        model = Model()
        for one in self.fed:
            model.feed(one)
        return model


class Waves:
    """What is to be sent next, so that it never ends; and in the end the rest of it."""

    def __init__(self, rng: random.Random, engine: Engine) -> None:
        self._rng, self._engine = rng, engine
        self._due: deque[bytes] = deque()
        self._unplaced: list[Wave] = []
        self.all: list[Wave] = []

    def next(self, number: int) -> list[bytes]:
        """So many events, of new orders if of no others."""
        self._look_for_placed()
        while len(self._due) < number:
            wave = Wave(f"w{len(self.all):04}-", self._rng)
            self.all.append(wave)
            self._unplaced.append(wave)
            self._due += wave.placings
        return [self._due.popleft() for _ in range(number)]

    def rest(self, number: int) -> list[bytes] | None:
        """At most so many events of the orders that there are; None once there are no more."""
        self._look_for_placed()
        if not self._due and not self._unplaced:
            return None
        return [self._due.popleft() for _ in range(min(number, len(self._due)))]

    def _look_for_placed(self) -> None:
        for wave in [one for one in self._unplaced if one.is_placed(self._engine)]:
            self._unplaced.remove(wave)
            self._due += wave.events


class Models:
    """The reference models of waves, which have nothing to do with each other, as one."""

    def __init__(self, waves: list[Wave]) -> None:
        models = [wave.model() for wave in waves]
        self._totals = {order: totals for model in models for order, totals in model.totals().items()}
        self.conflicts: list[Json] = [conflict for model in models for conflict in model.conflicts]

    def totals(self) -> dict[str, dict[str, dict[str, int]]]:
        return self._totals


def _twice_in_any_order(events: list[Json], rng: random.Random) -> list[bytes]:
    twice = [to_bytes(one) for one in events] * 2
    rng.shuffle(twice)
    return twice


_PLACED = text("SELECT count(*) FROM orders WHERE placed_at IS NOT NULL AND order_id BETWEEN :first AND :last")

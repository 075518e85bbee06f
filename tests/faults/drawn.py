"""Hypothesis' values as a load: many at once, since real processes would take too long for one after the other."""

import random
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

Value = TypeVar("Value")


def drawn(strategy: st.SearchStrategy[Value], number: int, rng: random.Random) -> list[Value]:
    """About so many values."""
    found: list[Value] = []

    @seed(rng.getrandbits(64))
    @settings(max_examples=number, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(value: Value) -> None:
        found.append(value)

    collect()
    return found

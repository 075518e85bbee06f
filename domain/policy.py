"""What an operator may set about decisions, and the moment they are made at: given to `decide` as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

Strategy = Literal["oldest_first", "newest_first"]
"""Whom the units that are left of a SKU serve first: higher priority always, then the older or the newer order."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Whose cuts wait until a person resumes them: those of every source, or those of some."""

    everything: bool = False
    sources: frozenset[str] = frozenset()

    def holds(self, source: str) -> bool:
        return self.everything or source in self.sources


@dataclass(frozen=True, slots=True)
class Policy:
    """`ship_complete`: an order that would be cut at all is cancelled as far as it is unfulfilled. `order_grace` and
    `sku_grace`: how long a shortage of an order, or of a SKU, waits and is then decided again before it cuts."""

    ship_complete: bool = False
    strategy: Strategy = "oldest_first"
    order_grace: timedelta = timedelta(0)
    sku_grace: timedelta = timedelta(0)
    paused: Paused = Paused()


@dataclass(frozen=True, slots=True)
class Moment:
    """When an event is decided: `now`, on the database's clock, where it was recorded first at `since`. It `happened`
    at its `time`, but not after its entry came. `restocked` is when each SKU was restocked last."""

    now: datetime
    since: datetime
    happened: datetime
    restocked: Mapping[str, datetime] = field(default_factory=dict)

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


HoldReason = Literal["protected", "preflight", "breaker", "shadow"]


@dataclass(frozen=True, slots=True)
class Protected:
    """Whose cuts are always held."""

    orders: frozenset[str] = frozenset()
    partners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Limits:
    """How many orders and units may be cancelled; 0: any number."""

    orders: int = 0
    units: int = 0

    def allow(self, orders: int, units: int) -> bool:
        return (not self.orders or orders <= self.orders) and (not self.units or units <= self.units)


@dataclass(frozen=True, slots=True)
class Preflight:
    """What one shortage of a SKU may cancel by itself; `share` of the SKU's open units (0: any), which counts where at
    least `share_from_orders` orders want it."""

    limits: Limits = Limits()
    share: float = 0.0
    share_from_orders: int = 10

    def exceeded(self, orders: int, units: int, wanting: int, wanted: int) -> bool:
        """Whether to hold what would cut `units` of the `wanted` ones, of `orders` of the `wanting` ones."""
        too_large_a_share = bool(self.share) and wanting >= self.share_from_orders and units > self.share * wanted
        return too_large_a_share or not self.limits.allow(orders, units)


@dataclass(frozen=True, slots=True)
class Breaker:
    """What may be cancelled within a sliding window: by everything together, for each source, and of each SKU."""

    window: timedelta = timedelta(hours=1)
    everything: Limits = Limits()
    each_source: Limits = Limits()
    each_sku: Limits = Limits()

    @property
    def limits_anything(self) -> bool:
        return any(limits.orders or limits.units for limits in (self.everything, self.each_source, self.each_sku))


@dataclass(frozen=True, slots=True)
class Policy:
    """`ship_complete`: an order that would be cut at all is cancelled as far as it is unfulfilled. `order_grace` and
    `sku_grace`: how long a shortage of an order, or of a SKU, waits and is then decided again before it cuts. `hold`:
    why every cut is held. `approved`: a person has approved it, so it passes all of these but a pause."""

    ship_complete: bool = False
    strategy: Strategy = "oldest_first"
    order_grace: timedelta = timedelta(0)
    sku_grace: timedelta = timedelta(0)
    paused: Paused = Paused()
    protected: Protected = Protected()
    preflight: Preflight = Preflight()
    breaker: Breaker = Breaker()
    hold: HoldReason | None = None
    approved: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """When an event is decided: `now`, on the database's clock, where it was recorded first at `since`. It `happened`
    at its `time`, but not after its entry came. `restocked` is when each SKU was restocked last."""

    now: datetime
    since: datetime
    happened: datetime
    restocked: Mapping[str, datetime] = field(default_factory=dict)

"""The breaker: how much may be cancelled within a window, counted cut by cut, so that a limit is never overshot."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from domain.operations import Cancellation
from domain.policy import Breaker, Limits

Scope = Literal["everything", "source", "sku"]
Key = tuple[Scope, str]
"""What is counted together: everything (with an empty name), or one source's, or one SKU's."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What an event would cancel of one order: units by SKU."""

    source: str
    units: Mapping[str, int]

    @property
    def keys(self) -> list[Key]:
        return [("everything", ""), ("source", self.source), *(("sku", sku) for sku in sorted(self.units))]

    def units_of(self, key: Key) -> int:
        return self.units[key[1]] if key[0] == "sku" else sum(self.units.values())


@dataclass(slots=True)
class Count:
    """Orders and units cancelled within the window; `open`: the breaker is, and lets nothing pass."""

    orders: int = 0
    units: int = 0
    open: bool = False


@dataclass(slots=True)
class Gate:
    """Lets cuts pass one by one as long as no limit is exceeded. `counts` are those of the window so far, `added` what
    has passed here, and `tripped` the breakers that were opened here, each with the `(source, id)` of its cause."""

    breaker: Breaker
    counts: Mapping[Key, Count]
    added: dict[Key, Count] = field(default_factory=dict)
    tripped: dict[Key, tuple[str, str]] = field(default_factory=dict)

    def admit(self, tally: Tally, cause: tuple[str, str]) -> Key | None:
        """Count a cut and let it pass; or return the key of the breaker that stops it. One that is not open yet opens
        when a cut would exceed its limits."""
        keys = limited(tally, self.breaker)
        for key in keys:
            if self.counts.get(key, Count()).open or key in self.tripped:
                return key
        for key in keys:
            before, more = self.counts.get(key, Count()), self.added.get(key, Count())
            if not limits_of(key, self.breaker).allow(
                before.orders + more.orders + 1, before.units + more.units + tally.units_of(key)
            ):
                self.tripped[key] = cause
                return key
        for key in keys:
            count = self.added.setdefault(key, Count())
            count.orders += 1
            count.units += tally.units_of(key)
        return None


def limits_of(key: Key, breaker: Breaker) -> Limits:
    return {"everything": breaker.everything, "source": breaker.each_source, "sku": breaker.each_sku}[key[0]]


def limited(tally: Tally, breaker: Breaker) -> list[Key]:
    """The keys of a cut that have a limit."""
    return [key for key in tally.keys if limits_of(key, breaker) != Limits()]


def tally_of(source: str, cancellations: Iterable[Cancellation]) -> Tally:
    units: dict[str, int] = {}
    for sku, number in _units(cancellations):
        units[sku] = units.get(sku, 0) + number
    return Tally(source, units)


def _units(cancellations: Iterable[Cancellation]) -> Iterator[tuple[str, int]]:
    for cancellation in cancellations:
        for item in cancellation.items:
            yield item.sku, item.cancelled_quantity

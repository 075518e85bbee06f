"""Histories of events whose outcome does not depend on how they meet."""

import random

from tests.builders import Json, closed, placed, requested, shipped, shortage, sku_shortage


def at(minute: int) -> str:
    return f"2026-01-01T{10 + minute // 60:02}:{minute % 60:02}:00Z"


class ShortHistory:
    """Events whose outcome does not depend on their order, but for the figures, which come after the placings.

    Shipped is only what is kept anyway, and of other lines than the short ones only what no other event cuts. Histories
    with other names have nothing to do with each other.
    """

    def __init__(self, rng: random.Random, name: str = "") -> None:
        self.skus = [f"{name}{sku}" for sku in ("PART-1", "PART-2", "DRY")]
        self._dry = self.skus[2]
        self.placings = [self._placed(f"{name}o{n:03}", n, rng) for n in range(120)]
        self.figures = [sku_shortage(sku, 0 if sku == self._dry else 60, time=at(200)) for sku in self.skus]
        self.figures += [{**one, "id": one["id"] + "-again"} for one in self.figures]
        late = [self._placed(f"{name}late-{n:03}", 300 + n, rng) for n in range(20)]
        self.events = [*self.figures, *late, *(one for order in self._by_rank() for one in self._events(order, rng))]

    def _placed(self, name: str, minute: int, rng: random.Random) -> Json:
        lines = {"a": (rng.choice(self.skus), rng.randint(1, 6)), "b": (f"OTHER-{rng.randint(1, 3)}", 6)}
        return placed(name, {"placedAt": at(minute), "priority": rng.randint(0, 2)}, **lines)

    def _by_rank(self) -> list[tuple[Json, bool]]:
        """The orders in allocation order, each with whether it is given all it wants."""
        left, found = {sku: 0 if sku == self._dry else 60 for sku in self.skus}, []
        for one in sorted(self.placings, key=lambda e: (-e["data"]["priority"], e["data"]["placedAt"])):
            line = one["data"]["items"][0]
            left[line["sku"]] -= line["quantity"]
            found.append((one, left[line["sku"]] >= 0))
        return found

    def _events(self, order: tuple[Json, bool], rng: random.Random) -> list[Json]:
        data, is_kept = order[0]["data"], order[1]
        name, line, events = data["orderId"], data["items"][0], []
        if is_kept and rng.random() < 0.5:
            events.append({**shipped(name, "f1", a=rng.randint(1, line["quantity"])), "time": at(250)})
        match rng.randrange(5):
            case 0:
                events.append(shortage(name, b=rng.randint(0, 6)))
            case 1:
                events.append(requested(name, b=rng.randint(0, 5)))
            case 2:
                events.append({**shipped(name, "f2", b=rng.randint(1, 6)), "time": at(250)})
            case 3 if line["sku"] == self._dry:
                events += [{**shipped(name, "f3", b=2), "time": at(250)}, closed(name, "f3")]
        return events

"""From the event in to the cancellation out, at a steady load and at as much as goes through."""

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.contestants.shortpick import Shortpick
from benchmarks.events import placed, shipped, short
from worker import bootstrap
from worker.cli.demo_subscriber import Subscriber

RATES = (50, 500, 2000, 4000)
SECONDS = 10.0
WARM_UP_SECONDS = 1.0
TICK_SECONDS = 0.01
ON_THEIR_WAY = 4000
"""At saturation, so many events are always on their way."""
EVENTS_AN_ORDER = 3


def measure(shortpick: Shortpick, rates: tuple[int | None, ...] = (*RATES, None)) -> list[dict[str, Any]]:
    """For each load, in events a second, the milliseconds from XADD to the arrival at a subscriber; `None` is
    saturation."""
    return [_at(shortpick, rate) for rate in rates]


def name_of(row: dict[str, Any]) -> str:
    """The load of a row, for people."""
    return f"{row['events_per_second']:,}{' (saturation)' if row['saturated'] else ''}"


def _at(shortpick: Shortpick, rate: int | None) -> dict[str, Any]:
    client = bootstrap.redis(shortpick.settings)
    subscriber = Subscriber(bootstrap.outbox(shortpick.settings, client), after=shortpick.outbox.last_position())
    subscriber.start()
    begun = time.time()
    sent = _send(shortpick, subscriber, rate)
    seconds = _arrived(subscriber, sent // EVENTS_AN_ORDER)
    lasted = time.time() - begun
    subscriber.stop()
    client.close()
    shortpick.note_published()
    quantiles = statistics.quantiles(seconds, n=100)
    return {
        "events_per_second": rate or round(sent / lasted),
        "saturated": rate is None,
        "cancellations": len(seconds),
        "median_ms": 1000 * statistics.median(seconds),
        "p99_ms": 1000 * quantiles[98],
        "max_ms": 1000 * max(seconds),
    }


def _send(shortpick: Shortpick, subscriber: Subscriber, rate: int | None) -> int:
    """Events at a steady pace, whatever becomes of them, or as fast as they go through; returns how many."""
    begun, sent = time.time(), 0
    events = _events(f"latency-{rate}-{begun:.0f}")

    def send(number: int) -> int:
        batch, now = list(itertools.islice(events, number)), time.time()
        if now > begun + WARM_UP_SECONDS:
            subscriber.expect([one for one in batch if b"inventory.shortage" in one], now)
        if batch:
            shortpick.queue.add(batch)
        return len(batch)

    while (seconds := time.time() - begun) < SECONDS + WARM_UP_SECONDS:
        done = EVENTS_AN_ORDER * subscriber.received
        sent += send(max(0, (done + ON_THEIR_WAY if rate is None else int(rate * seconds)) - sent))
        time.sleep(TICK_SECONDS if rate is None else max(TICK_SECONDS, 1 / rate))
    return sent + send(-sent % EVENTS_AN_ORDER)


def _events(name: str) -> Iterator[bytes]:
    """Order after order, without end."""
    for number in itertools.count():
        order = f"{name}-{number}"
        yield from (placed(order), shipped(order), short(order))


def _arrived(subscriber: Subscriber, sent: int) -> list[float]:
    deadline = time.monotonic() + 60
    while subscriber.received < sent and time.monotonic() < deadline:
        time.sleep(0.01)
    return list(subscriber.seconds.values())

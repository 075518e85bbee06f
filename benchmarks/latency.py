"""From the event in to the cancellation out, at a steady load."""

import statistics
import time
from typing import Any

from benchmarks.contestants.shortpick import Shortpick
from benchmarks.events import placed, shipped, short
from worker import bootstrap
from worker.cli.demo_subscriber import Subscriber

RATES = (50, 500, 2000, 4000)
SECONDS = 8.0
TICK_SECONDS = 0.01


def measure(shortpick: Shortpick, rates: tuple[int, ...] = RATES) -> list[dict[str, Any]]:
    """For each load, in events a second, the milliseconds from XADD to the arrival at a subscriber."""
    return [_at(shortpick, rate) for rate in rates]


def _at(shortpick: Shortpick, rate: int) -> dict[str, Any]:
    client = bootstrap.redis(shortpick.settings)
    subscriber = Subscriber(bootstrap.outbox(shortpick.settings, client), after=shortpick.outbox.last_position())
    subscriber.start()
    sent = _send(shortpick, subscriber, rate)
    seconds = _arrived(subscriber, sent)
    subscriber.stop()
    client.close()
    shortpick.note_published()
    quantiles = statistics.quantiles(seconds, n=100)
    return {
        "events_per_second": rate,
        "cancellations": len(seconds),
        "median_ms": 1000 * statistics.median(seconds),
        "p99_ms": 1000 * quantiles[98],
        "max_ms": 1000 * max(seconds),
    }


def _send(shortpick: Shortpick, subscriber: Subscriber, rate: int) -> int:
    """Events at a steady pace, whatever becomes of them; returns how many cancellations they lead to."""
    total, sent, orders = int(rate * SECONDS), 0, 0
    begun = time.time()
    pending: list[bytes] = []
    name = f"latency-{rate}-{begun:.0f}"
    while sent < total:
        due = min(total, int(rate * (time.time() - begun)))
        while len(pending) < due - sent:
            order = f"{name}-{orders}"
            pending += [placed(order), shipped(order), short(order)]
            orders += 1
        batch, pending = pending[: due - sent], pending[due - sent :]
        if batch:
            subscriber.expect([one for one in batch if b"inventory.shortage" in one], time.time())
            shortpick.queue.add(batch)
            sent += len(batch)
        time.sleep(max(TICK_SECONDS, 1 / rate) if rate > 1 / TICK_SECONDS else 1 / rate)
    shortpick.queue.add(pending)
    return orders


def _arrived(subscriber: Subscriber, sent: int) -> list[float]:
    deadline = time.monotonic() + 60
    while subscriber.received < sent and time.monotonic() < deadline:
        time.sleep(0.01)
    return list(subscriber.seconds.values())

"""A soak: a steady load while everything is disturbed, then rest, then a verdict."""

import time
from collections.abc import Callable
from typing import Any

from tests import checker
from tests.faults.scene import Scene
from tests.soak.havoc import Havoc
from tests.soak.memory import QUARTERS, Memory
from tests.soak.people import People
from tests.soak.waves import Models, Waves

BETWEEN_FAULTS_SECONDS = (0.5, 5.0)
WORK_SECONDS = 15.0
"""So long a fault waits at the most until something was done since the last one; what does not work cannot be disturbed."""
BACKLOG_SECONDS = 10.0
"""While an entry has waited for longer, no more are sent: the load follows what the pipeline can do under all this."""
REST_SECONDS = 300.0
TELL_EVERY_SECONDS = 30.0


class Soak:
    """`rate`: entries a second. `sent` counts them; `done`: events that were decided in each quarter of the time."""

    def __init__(
        self,
        scene: Scene,
        havoc: Havoc,
        people: People,
        waves: Waves,
        memory: Memory,
        tell: Callable[[str], None],
        *,
        rate: float,
        seconds: float,
    ) -> None:
        self.scene, self.havoc, self.people, self.waves, self.memory = scene, havoc, people, waves, memory
        self.sent, self.longest_wait_seconds = 0, 0.0
        self.done: list[int] = []
        self._rate, self._seconds, self._tell = rate, seconds, tell
        self._oldest: bytes | None = None
        self._next_fault = self._latest_fault = 0.0

    def run(self) -> None:
        begun = fed = time.monotonic()
        next_tell = begun + TELL_EVERY_SECONDS
        while (now := time.monotonic()) < begun + self._seconds:
            self.havoc.mend()
            if number := int((now - fed) * self._rate):
                fed = now
                self._feed(number)
            self._disturb(now)
            if now > next_tell:
                next_tell = now + TELL_EVERY_SECONDS
                self._tell(f"{now - begun:>5.0f} s: {self.sent:,} entries, {self.havoc.counted.total()} faults")
            if now - begun > self._seconds * (len(self.done) + 1) / QUARTERS:
                self._note_done()
            self.people.act()
            self.scene.revive()
            self.memory.sample()
            time.sleep(0.05)
        self._note_done()

    def rest(self) -> float:
        """No more faults, and no more orders: what is not done is brought to its end. Returns the seconds that it took
        after the last event. Raises an `AssertionError` if it takes too long."""
        self.havoc.end()
        self.scene.wait_for(self._is_all_sent, "all orders to be placed", REST_SECONDS)
        begun = time.monotonic()
        self.scene.wait_for(self._is_at_rest, "everything to come to rest", REST_SECONDS)
        return time.monotonic() - begun

    def problems(self) -> list[str]:
        """What is wrong, in sentences."""
        with self.scene.engine.connect() as connection:
            found = checker.violations(connection, self.scene.redis)
            found += checker.agreement(connection, Models(self.waves.all))
        if dead := self.scene.number("SELECT count(*) FROM dead_letters"):
            found.append(f"{dead} events became dead letters.")
        return found

    def _feed(self, number: int) -> None:
        oldest = self._oldest_undone()
        waited = 0.0 if oldest is None else time.time() - int(oldest.partition(b"-")[0]) / 1000
        self.longest_wait_seconds = max(waited, self.longest_wait_seconds)
        if waited < BACKLOG_SECONDS:
            self.scene.queue.add(self.waves.next(number))
            self.sent += number

    def _disturb(self, now: float) -> None:
        if now < self._next_fault:
            return
        oldest = self._oldest_undone()
        if oldest is not None and oldest == self._oldest and now < self._latest_fault:
            return
        self.havoc.strike()
        self._oldest = oldest
        self._next_fault = now + self.scene.rng.uniform(*BETWEEN_FAULTS_SECONDS)
        self._latest_fault = now + WORK_SECONDS

    def _oldest_undone(self) -> bytes | None:
        """The id of the first entry that is not done."""
        redis: Any = self.scene.redis
        first: bytes | None = redis.xpending("order.events", "shortpick")["min"]
        if first is not None:
            return first
        (group,) = redis.xinfo_groups("order.events")
        unread = redis.xrange("order.events", b"(" + group["last-delivered-id"], "+", 1)
        return unread[0][0] if unread else None

    def _is_all_sent(self) -> bool:
        self.people.act(ending=True)
        events = self.waves.rest(50)
        if events:
            self.scene.queue.add(events)
            self.sent += len(events)
        return events is None

    def _is_at_rest(self) -> bool:
        self.memory.sample()
        return self.people.act(ending=True) and self.scene.is_at_rest()

    def _note_done(self) -> None:
        self.done.append(self.scene.number("SELECT count(*) FROM events") - sum(self.done))

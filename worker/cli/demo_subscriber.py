"""The demo's own subscriber: it reads what is published, and takes the time from event to cancellation."""

import json
import time
from threading import Event as Flag
from threading import Thread

from redis.exceptions import RedisError

from worker.streams import Outbox

BLOCK_MILLISECONDS = 200


class Subscriber:
    """A thread that reads the outgoing stream from its beginning, or after a position. `positions` and `events` are in
    order of arrival."""

    def __init__(self, outbox: Outbox, after: int = 0) -> None:
        self._outbox, self._after = outbox, after
        self._sent: dict[tuple[str, str], float] = {}
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name="subscriber", daemon=True)
        self.positions: list[int] = []
        self.events: list[bytes] = []
        self.seconds: dict[tuple[str, str], float] = {}

    @property
    def received(self) -> int:
        return len(self.positions)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def expect(self, events: list[bytes], at: float) -> None:
        """Note when events were sent (seconds since 1970); of a repeat the first time counts."""
        for raw in events:
            try:
                event = json.loads(raw)
            except ValueError:  # one of the broken ones
                continue
            self._sent.setdefault((event["source"], event["id"]), at)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except RedisError:  # it is being started again; what it holds is read then
                self._stopping.wait(BLOCK_MILLISECONDS / 1000)

    def _read(self) -> None:
        last = self.positions[-1] if self.positions else self._after
        for position, raw in self._outbox.read(last, 500, BLOCK_MILLISECONDS):
            at = time.time()
            cause = json.loads(raw)["data"]["cause"]
            key = (cause["source"], cause["id"])
            self.events.append(raw)
            self.positions.append(position)
            if key in self._sent:  # anything else is found by the checks: it is in no ledger row
                self.seconds.setdefault(key, at - self._sent[key])

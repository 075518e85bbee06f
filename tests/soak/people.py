"""What people do meanwhile, by the commands that they have: they pause all cuts and resume them, and approve holds."""

import subprocess
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

from tests.faults.scene import Scene

_OPEN_HOLDS = "SELECT hold_id FROM holds WHERE state = 'open' ORDER BY hold_id LIMIT 100"
_PAUSES = "SELECT count(*) FROM pauses WHERE resumed_at IS NULL"


class People:
    """One command at a time, beside all else. It may fail while everything is disturbed; then another one is given.
    `done`: how many of each succeeded, and how many failed."""

    def __init__(self, scene: Scene) -> None:
        self.done: Counter[str] = Counter()
        self._scene = scene
        self._pool = ThreadPoolExecutor(1)
        self._running: Future[None] = self._pool.submit(lambda: None)
        self._next = 0.0

    def act(self, *, ending: bool = False) -> bool:
        """Give the next command, if it is time for it. At the end it always is, and nothing is paused any more. Returns
        whether there was nothing to be done."""
        if not self._running.done() or (time.monotonic() < self._next and not ending):
            return False
        self._running.result()
        self._next = time.monotonic() + self._scene.rng.uniform(2, 10)
        held = [str(row.hold_id) for row in self._scene.rows(_OPEN_HOLDS)]
        if self._scene.number(_PAUSES):
            self._give("resume", "--reason", "a soak")
        elif held and (ending or self._scene.rng.random() < 0.6):
            self._give("holds", "approve", "--expect", str(len(held)), "--reason", "a soak", *held)
        elif not ending:
            self._give("pause", "--reason", "a soak")
        else:
            return True
        return False

    def _give(self, *command: str) -> None:
        self._running = self._pool.submit(self._carry_out, command)

    def _carry_out(self, command: tuple[str, ...]) -> None:
        try:
            code = self._scene.command(*command).returncode
        except subprocess.TimeoutExpired:
            code = None
        name = " ".join(part for part in command[:2] if part.isalpha())
        self.done[name if code == 0 else f"{name}, failed"] += 1

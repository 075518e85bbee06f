"""Processes that meet: one stands still in the middle of its work, and goes on when the others wait for it."""

import os
import signal
import time

import psutil

from tests.faults.scene import Scene
from worker.points import Point

WORKERS = 8
CROWD = {
    "worker_concurrency": WORKERS,
    "batch_size": 1,
    "max_pending": 200,
    # Long enough that nobody who waits is ended, however slow the machine is.
    "redeliver_after_seconds": 30,
    "task_limit_seconds": 25,
    "task_soft_limit_seconds": 24,
}
"""Settings of many worker processes, of which each takes one event at a time."""
_WAIT_FOR_LOCKS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def standing_still(scene: Scene) -> list[psutil.Process]:
    """The processes that are stopped."""
    return [one for one in scene.family() if _status(one) == psutil.STATUS_STOPPED]


def go_on(processes: list[psutil.Process]) -> None:
    for one in processes:
        os.kill(one.pid, signal.SIGCONT)


def wait_for_locks(scene: Scene) -> int:
    """How many processes wait for others' locks in the database."""
    return scene.number(_WAIT_FOR_LOCKS)


def meet(scene: Scene, point: Point, events: list[bytes]) -> None:
    """These events are worked on by all workers at once: whoever comes to the point first goes on only when all others
    wait for it. (On SQLite nobody can tell who waits; there it is a second.)"""
    scene.faults.lay(point, "stop")
    scene.queue.add(events)
    scene.wait_for(lambda: len(standing_still(scene)) == 1, "one worker to stand still")
    if scene.engine.dialect.name == "postgresql":
        scene.wait_for(lambda: wait_for_locks(scene) >= WORKERS - 1, "all others to wait for it")
    else:
        time.sleep(1)
    go_on(standing_still(scene))


def _status(one: psutil.Process) -> str:
    try:
        return one.status()
    except psutil.NoSuchProcess:  # it ended at this moment
        return psutil.STATUS_DEAD

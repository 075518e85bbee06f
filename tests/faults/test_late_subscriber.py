"""Group 12: a group that has not read for longer than the retention finds everything when it reads at last; what all
groups are done with goes."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.crowds import go_on
from tests.faults.scene import Scene

RETENTION_SECONDS = 0.5
SHORT = {"queue_retention_seconds": RETENTION_SECONDS, "prune_every_seconds": RETENTION_SECONDS}

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def test_queue_entries_stay_until_every_group_has_read_them(new_scene: Callable[..., Scene]) -> None:
    """First Shortpick's own group is late, then another one."""
    scene = new_scene(**SHORT)
    os.kill(scene.process("ingress").pid, signal.SIGSTOP)
    scene.queue.add(scene.load.placings)
    outlast_the_retention(scene)
    assert scene.redis.xlen("order.events") == len(scene.load.placings)
    scene.redis.xgroup_create("order.events", "audit", "0")
    go_on([scene.process("ingress")])
    scene.wait_for(scene.is_quiet, "all orders to be placed")
    scene.feed()
    scene.finish()
    outlast_the_retention(scene)
    assert scene.redis.xlen("order.events") == len(scene.load.placings) + len(scene.load.events)
    scene.counted["late group"] = 2
    scene.judge()
    read_at_last(scene, "order.events", "audit")


def test_cancellations_stay_until_every_group_has_read_them(new_scene: Callable[..., Scene]) -> None:
    scene = new_scene(**SHORT, cancelled_retention_seconds=RETENTION_SECONDS)
    scene.redis.xgroup_create("order.cancelled", "refunds", "0", mkstream=True)
    scene.place()
    scene.feed()
    scene.finish()
    outlast_the_retention(scene)
    assert scene.is_published()
    scene.counted["late group"] = 1
    scene.judge()
    read_at_last(scene, "order.cancelled", "refunds")
    scene.judge()


def read_at_last(scene: Scene, stream: str, group: str) -> None:
    """The group reads, one half after the other; what it is done with goes, and nothing else."""
    number = scene.redis.xlen(stream)
    first, *others = read(scene, stream, group, number // 2)
    scene.redis.xack(stream, group, *others)
    outlast_the_retention(scene)
    assert scene.redis.xlen(stream) == number
    scene.redis.xack(stream, group, first)
    left = number - number // 2
    scene.wait_for(lambda: scene.redis.xlen(stream) == left, "what was read to go")
    outlast_the_retention(scene)
    assert scene.redis.xlen(stream) == left
    scene.redis.xack(stream, group, *read(scene, stream, group, left))
    scene.wait_for(lambda: scene.redis.xlen(stream) == 0, "the rest to go")


def read(scene: Scene, stream: str, group: str, number: int) -> list[bytes]:
    """The ids of so many entries that the group has not read before."""
    ((_, entries),) = scene.redis.xreadgroup(group, "somebody", {stream: ">"}, number)
    assert len(entries) == number
    return [entry_id for entry_id, _ in entries]


def outlast_the_retention(scene: Scene) -> None:
    """Until everything that is there now is older than that, and was looked at since."""
    time.sleep(RETENTION_SECONDS)
    pruned = prunings(scene)
    scene.wait_for(lambda: prunings(scene) > pruned + 1, "old entries to be looked for")


def prunings(scene: Scene) -> int:
    """How often it was done."""
    return sum("Task shortpick.prune" in line and "succeeded" in line for line in scene.log("worker").splitlines())

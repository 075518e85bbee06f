"""Groups 1 and 2 at random: every process is killed while the load goes on, alone and with all others at once; while cuts
wait for their grace, for the end of a pause and for a person, and while they are made."""

import time

from tests.end_to_end.processes import NAMES
from tests.faults.scene import Scene

VICTIMS = (*NAMES, "worker child", "everything")
TIMES = 2


def test_whatever_is_killed_at_any_time_nothing_is_lost_and_nothing_done_twice(scene: Scene) -> None:
    victims = list(VICTIMS) * TIMES
    scene.rng.shuffle(victims)
    in_the_middle = 0

    def kill_next() -> None:
        nonlocal in_the_middle
        victim = victims.pop()
        scene.repeat(100)
        wait_until_begun(scene)
        time.sleep(scene.rng.uniform(0, 0.05))
        in_the_middle += not scene.is_quiet()
        strike(scene, victim)
        scene.wait_for(scene.worker_is_ready, "the worker to be ready")

    scene.wait_for(scene.worker_is_ready, "the worker to be ready")
    third = len(victims) // 3
    scene.place(kill_next, third)
    scene.feed(kill_next, third)
    assert victims == []
    scene.finish(lambda: strike(scene, "everything"))
    scene.judge()
    assert in_the_middle >= len(VICTIMS)
    assert "ingress.redelivered" in scene.log("ingress")
    assert scene.number("SELECT sum(cut_orders) FROM allocations") > 30


def strike(scene: Scene, victim: str) -> None:
    match victim:
        case "worker child":
            scene.kill_worker_child()
        case "everything":
            for name in NAMES:
                scene.kill(name)
        case name:
            scene.kill(name)


def wait_until_begun(scene: Scene) -> None:
    """Until something of the load is pending (or, on a machine that is fast, all of it was done meanwhile)."""
    scene.wait_for(lambda: scene.queue.pending() > 0 or not scene.queue.has_unread(), "the load to begin")

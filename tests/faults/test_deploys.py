"""Group 11: deploys. SIGTERM ends every process in order, however much there is to do, and the next one goes on."""

import time
from collections.abc import Callable, Sequence

import pytest

from tests.end_to_end.processes import NAMES, STOP_SECONDS
from tests.faults.load import in_parts
from tests.faults.scene import Scene

BUSY = 150
"""So many entries wait whenever a process is told to stop."""


@pytest.mark.parametrize("database_url", ["postgresql", pytest.param("sqlite", marks=pytest.mark.small)], indirect=True)
def test_a_stop_under_load_is_orderly(scene: Scene) -> None:
    scene.place()
    scene.wait_for(lambda: scene.are_ready(NAMES), "all processes to be ready")
    scene.queue.add(scene.load.events[::2])
    keep_busy(scene)
    keep_busy(scene)
    scene.wait_for(lambda: scene.queue.pending() > 0, "the load to begin")
    for name in NAMES:
        assert scene.stop(name) == 0, scene.log(name)
        scene.counted[f"stop {name}"] += 1
    deadline = time.monotonic() + 30
    while scene.family() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert scene.family() == []
    assert scene.queue.has_unread()
    scene.queue.add(scene.load.events[1::2])
    scene.finish()
    scene.judge()
    all_ended_in_order(scene)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_hundred_restarts_under_load_are_orderly(new_scene: Callable[..., Scene]) -> None:
    """One process after the other, and all at once; at times the new one runs before the old one is stopped."""
    scene = new_scene(batch_size=20, max_pending=60)
    together = [NAMES] * 10 + [(name,) for name in NAMES] * 15
    scene.rng.shuffle(together)
    scene.place()
    seconds: dict[str, float] = dict.fromkeys(NAMES, 0)
    for names, part in zip(together, in_parts(scene.load.events, len(together)), strict=True):
        scene.queue.add(part)
        scene.wait_for(lambda names=names: scene.are_ready(names), "the processes to be ready")
        for name, took in restart(scene, names, overlap=scene.rng.random() < 0.3).items():
            seconds[name] = max(seconds[name], took)
            scene.counted[f"stop {name}"] += 1
    scene.note("slowest stops: " + ", ".join(f"{name} {most:.1f} s" for name, most in seconds.items()))
    scene.finish()
    scene.judge()
    assert scene.counted.total() == 100
    all_ended_in_order(scene)


def restart(scene: Scene, names: Sequence[str], *, overlap: bool) -> dict[str, float]:
    """Deploy these processes anew while there is much to do; returns how long each took to stop, in seconds."""
    scene.family()  # which ends with the scene, whatever happens
    old = {name: scene.running(name) for name in names}
    if overlap:
        for name in names:
            scene.start(name)
        scene.wait_for(lambda: scene.are_ready(names), "the new processes to be ready")
    keep_busy(scene)
    told = time.monotonic()
    for process in old.values():
        process.terminate()
    took = {}
    for name, process in old.items():
        assert process.wait(STOP_SECONDS) == 0, scene.log(name)
        took[name] = time.monotonic() - told
    if not overlap:
        for name in names:
            scene.start(name)
    return took


def keep_busy(scene: Scene) -> None:
    scene.repeat(BUSY)
    assert scene.queue.has_unread()


def all_ended_in_order(scene: Scene) -> None:
    assert {code for _, code in scene.ended} <= {0}
    for name in NAMES:
        assert "Traceback" not in scene.log(name), scene.log(name).partition("Traceback")[2][:3000]

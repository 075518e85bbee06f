"""Group 1: SIGKILL of the worker's children and of its parent, at each named point of a batch, again and again."""

from typing import get_args

import pytest

from tests.faults.faults import Act
from tests.faults.scene import Scene
from worker.points import Point

BATCH = [point for point in get_args(Point) if point.startswith("batch: ")]


@pytest.mark.parametrize("act", ["kill", "kill parent"])
def test_a_worker_is_killed_at_every_point_of_a_batch(scene: Scene, act: Act) -> None:
    scene.place()
    for point in BATCH:
        scene.faults.lay(point, act, chance=0.3)
    scene.feed()
    scene.finish()
    scene.judge()
    assert sorted(scene.faults.met()) == sorted((point, act) for point in BATCH)

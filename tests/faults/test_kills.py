"""Group 1: SIGKILL of the worker's children, of its parent, and of both, at each named point, again and again."""

import signal
from collections import Counter
from typing import get_args

import pytest

from tests.faults.faults import Act
from tests.faults.scene import Scene
from worker.points import Point

BATCH = [point for point in get_args(Point) if point.startswith("batch: ")]
RUN: list[Point] = ["run: before commit", "run: after commit"]
# Little passes these. What is killed before its commit passes again; but a child that has lost only its parent goes on.
RELEASE: dict[Act, list[Point]] = {
    "kill": ["release: before commit"] * 3 + ["release: after commit"],
    "kill parent": ["release: before commit"],
    "kill both": ["release: before commit", "release: after commit"],
}
VERDICTS: dict[Act, list[Point]] = {
    "kill": ["verdicts: before commit"] * 3 + ["verdicts: after commit"],
    "kill parent": ["verdicts: after commit"],
    "kill both": ["verdicts: before commit", "verdicts: after commit"],
}


@pytest.mark.parametrize(
    ("act", "database_url"),
    [
        pytest.param("kill", "postgresql", marks=pytest.mark.small),
        ("kill", "sqlite"),
        ("kill parent", "postgresql"),
        ("kill parent", "sqlite"),
        ("kill both", "postgresql"),
        ("kill both", "sqlite"),
    ],
    indirect=["database_url"],
)
def test_a_worker_is_killed_at_every_point_of_a_batch(scene: Scene, act: Act) -> None:
    scene.place()
    for point in BATCH:
        scene.faults.lay(point, act, chance=0.3)
    scene.feed()
    scene.wait_until_met()
    scene.finish()
    scene.judge()
    assert Counter(scene.faults.met()) == Counter((point, act) for point in BATCH)
    only_killed(scene)


@pytest.mark.parametrize("act", RELEASE)
def test_a_worker_is_killed_while_it_cuts_releases_and_carries_out_what_was_approved(scene: Scene, act: Act) -> None:
    """At each point of a run of a SKU's shortage, of the release of what waited, and of holds that were approved."""
    scene.place()
    runs = RUN * 2 if act == "kill" else RUN
    for point in runs:
        scene.faults.lay(point, act, chance=0.5)
    for point in RELEASE[act]:
        scene.faults.lay(point, act)

    def disturb_verdicts() -> None:
        for point in VERDICTS[act]:
            scene.faults.lay(point, act)
        scene.wait_until_met()

    scene.feed()
    scene.wait_until_met()
    scene.finish(disturb_verdicts)
    scene.judge()
    assert Counter(scene.faults.met()) == Counter((point, act) for point in (*runs, *RELEASE[act], *VERDICTS[act]))
    only_killed(scene)


def only_killed(scene: Scene) -> None:
    """Nothing has ended by itself."""
    assert scene.ended.keys() <= {("worker", -signal.SIGKILL)}

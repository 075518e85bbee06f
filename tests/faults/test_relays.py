"""Group 8: three relays at once, of which one or two stand still for seconds, wherever they can: there is no gap in the
positions, no duplicate and no swap."""

import random
import time
from typing import get_args

from tests.builders import Json, placed, requested, to_bytes
from tests.faults.crowds import go_on, standing_still
from tests.faults.load import in_parts
from tests.faults.scene import Scene
from worker.points import Point

RELAY: list[Point] = [point for point in get_args(Point) if point.startswith("relay: ")]
WITH_LOCK: Point = "relay: before commit"
ROUNDS: list[tuple[Point, ...]] = [
    *((point,) for point in RELAY * 2),
    *((one, other) for one in RELAY for other in RELAY if one < other and WITH_LOCK not in (one, other)),
]
CERTAIN = 3
"""Orders of each part that are cancelled whole, so that there is something to publish."""
_WAIT_FOR_THE_LOCK = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%publication%'
"""


def test_relays_that_stand_still_anywhere_make_no_gap_and_no_swap(scene: Scene, rng: random.Random) -> None:
    for name in ("relay-2", "relay-3"):
        scene.start(name)
    parts = iter(_parts(scene, 2 * len(ROUNDS)))
    scene.place()
    rounds = rng.sample(ROUNDS, len(ROUNDS))
    for points in rounds:
        _stand_still(scene, points, next(parts), next(parts))
    scene.finish()
    scene.judge()
    assert sorted(scene.faults.met()) == sorted((point, "stop") for points in rounds for point in points)


def _stand_still(scene: Scene, points: tuple[Point, ...], before: list[bytes], meanwhile: list[bytes]) -> None:
    """Somebody stands still at each of the points, while others go on, unless it is with the lock."""
    for point in points:
        scene.faults.lay(point, "stop")
    scene.queue.add(before)
    scene.wait_for(lambda: len(standing_still(scene)) == len(points), f"relays to stand still at {points}")
    published = scene.redis.xlen("order.cancelled")
    scene.queue.add(meanwhile)
    if WITH_LOCK not in points:
        scene.wait_for(lambda: scene.redis.xlen("order.cancelled") >= published + CERTAIN, "others to publish")
        time.sleep(scene.rng.uniform(0, 2))
    elif scene.engine.dialect.name == "postgresql":
        _wait_in_vain(scene)
    else:
        time.sleep(scene.rng.uniform(1, 2))  # nobody can tell who waits
    go_on(standing_still(scene))


def _wait_in_vain(scene: Scene) -> None:
    """Until both other relays wait for the lock; then nothing is published."""
    scene.wait_for(lambda: scene.number(_WAIT_FOR_THE_LOCK) == 2, "the other relays to wait for the lock")
    published = scene.redis.xlen("order.cancelled")
    time.sleep(scene.rng.uniform(0, 2))
    assert scene.redis.xlen("order.cancelled") == published


def _parts(scene: Scene, number: int) -> list[list[bytes]]:
    """The load, each part with some orders that are cancelled whole."""
    names = [f"whole-{n}" for n in range(CERTAIN * number)]
    wholes: list[Json] = [requested(name) for name in names]
    scene.load.add([placed(name, a=("SA", 2)) for name in names], [])
    scene.load.fed += wholes
    certain = in_parts([to_bytes(one) for one in wholes], number)
    return [part + sure for part, sure in zip(in_parts(scene.load.events, number), certain, strict=True)]

"""Group 3: one event on which deciding takes all memory, every time, so that it fails or takes the worker's child with it.
It ends as a dead letter, and its neighbours are done."""

from collections.abc import Callable

import pytest

from tests.builders import placed, shipped, shortage, to_bytes
from tests.faults import greed
from tests.faults.scene import Scene

LONE_STARTS = 3
SIGNS = {"memory error": '"event":"task.out_of_memory"', "kill": "exited with 'signal 9 (SIGKILL)'"}
"""What the worker's parent logs of it."""


@pytest.mark.parametrize("how", SIGNS)
def test_an_event_that_takes_all_memory_is_a_dead_letter_and_its_neighbours_are_done(
    new_scene: Callable[..., Scene], how: str
) -> None:
    scene = new_scene({"worker": {greed.VARIABLE: how}}, max_lone_starts=LONE_STARTS)
    before = [placed(greed.ORDER, a=("EXTRA", 9)), shipped(greed.ORDER, "f1", a=1)]
    scene.load.placings += map(to_bytes, before)
    scene.load.fed += before
    scene.place()
    culprit = shortage(greed.ORDER, a=4)
    assert scene.stop("ingress") == 0
    scene.queue.add([*scene.load.events[:2], to_bytes(culprit), *scene.load.events[2:4]])
    scene.start("ingress")  # it reads them as one batch
    scene.feed()
    scene.finish()
    scene.judge()
    assert '"started_before":5,"event":"ingress.redelivered"' in scene.log("ingress")
    met = scene.log("worker").count(SIGNS[how])
    assert LONE_STARTS <= met <= 1 + LONE_STARTS  # on a slow disk, one of them may end by its time limit before that
    assert dead_letters(scene) == [("worker_lost", to_bytes(culprit))]
    assert scene.number(f"SELECT count(*) FROM events WHERE id = '{culprit['id']}'") == 0
    assert scene.ended == {}
    scene.counted[how] += met

    scene.give("worker")
    assert scene.stop("worker") == 0
    scene.queue.add([raw for _, raw in dead_letters(scene)])
    scene.wait_for(scene.is_published, "it to be done in the end")
    scene.load.fed.append(culprit)
    scene.judge()
    assert scene.number(f"SELECT count(*) FROM events WHERE id = '{culprit['id']}' AND outcome = 'applied'") == 1


def dead_letters(scene: Scene) -> list[tuple[str, bytes]]:
    with scene.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT code, bytes FROM dead_letters").all()
    return [(row.code, bytes(row.bytes)) for row in found]

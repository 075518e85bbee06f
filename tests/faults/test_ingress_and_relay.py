"""Group 2: SIGKILL of ingress after it has read and after it has dispatched; of the relay before an append, after it, and
in its middle, where half of it was sent or its reply is lost."""

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.faults.load import in_parts
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.servers import RedisServer
from worker.points import Point
from worker.settings import variable

POINTS: list[Point] = [
    "ingress: read",
    "ingress: dispatched",
    "relay: positions given",
    "relay: before append",
    "relay: appended",
]
TIMES = 3
APPEND = b"'%d-0', position + n - 2"
"""Stands in the script that appends, and in no other request."""


def test_ingress_and_relay_are_killed_at_every_point(scene: Scene) -> None:
    scene.place()
    for number, part in enumerate(in_parts(scene.load.events, TIMES)):
        for point in POINTS:
            scene.faults.lay(point)
        scene.queue.add(part + scene.load.another_cut(f"extra-{number}"))
        scene.wait_until_met()
    scene.finish()
    scene.judge()
    assert sorted(scene.faults.met()) == sorted((point, "kill") for point in POINTS * TIMES)
    assert "ingress.redelivered" in scene.log("ingress")
    assert scene.ended == {("ingress", -signal.SIGKILL): 2 * TIMES, ("relay", -signal.SIGKILL): 3 * TIMES}


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_append_is_broken_off_or_its_reply_is_lost_and_the_relay_is_killed_or_goes_on(
    new_scene: Callable[..., Scene], proxy: Proxy
) -> None:
    scene = new_scene({"relay": {variable("redis_url"): f"redis://127.0.0.1:{proxy.port}/0"}})
    scene.place()
    faults: dict[str, Callable[[], None]] = {
        "half of an append": lambda: proxy.break_request(APPEND),
        "half of an append, then a kill": lambda: proxy.break_request(APPEND, then=scene.running("relay").kill),
        "reply to an append": lambda: proxy.lose_reply(APPEND),
        "reply to an append, then a kill": lambda: proxy.lose_reply(APPEND, then=scene.running("relay").kill),
    }
    chosen = list(faults) * 2
    scene.rng.shuffle(chosen)
    for number, (name, part) in enumerate(zip(chosen, in_parts(scene.load.events, len(chosen)), strict=True)):
        faults[name]()
        scene.queue.add(part + scene.load.another_cut(f"extra-{number}"))
        scene.wait_for(lambda number=number: proxy.met[APPEND] > number, "the fault to be met")
        scene.counted[name] += 1
        scene.wait_for(scene.is_published, "what was not published to be published")
    scene.finish()
    scene.judge()
    assert scene.ended == {("relay", -signal.SIGKILL): 4}
    assert scene.log("relay").count("relay.unavailable") == 4

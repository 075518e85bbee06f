"""Group 4: Redis is killed, stopped or emptied, comes late, loses what it had, and what it was about to say."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from celery import Celery

from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.servers import PostgresServer, RedisServer
from worker.settings import Settings
from worker.streams import Queue

Count = Callable[[Scene, Mapping[str, int]], None]

REQUESTS = {
    "make the group": b"\r\nXGROUP\r\n",
    "read": b"\r\nXREADGROUP\r\n",
    "what is pending": b"\r\nXPENDING\r\n",
    "how large it is": b"local sizes",
    "claim": b"'XCLAIM'",
    "acknowledge": b"\r\nXACK\r\n",
    "add": b"\r\nXADD\r\n",
    "trim": b"\r\nXTRIM\r\n",
    "look at groups": b"\r\nXINFO\r\n$6\r\nGROUPS",
    "look at the end": b"\r\nXINFO\r\n$6\r\nSTREAM",
    "read the last one": b"\r\nXRANGE\r\n",
    "append": b"'XADD'",
    "wake": b"\r\n$20\r\norder.cancelled.wake\r\n$1\r\n1",
    "wait to be woken": b"\r\nBLPOP\r\n",
    "send a message": b"\r\nLPUSH\r\n$9\r\nshortpick",
    "take a message": b"\r\nBRPOP\r\n",
    "note that it was taken": b"\r\nHSET\r\n",
    "note that it is done": b"\r\nHDEL\r\n",
    "declare Celery's queue": b"\r\nSADD\r\n",
    "connect": b"\r\nSETINFO\r\n",
}
"""What the processes ask of Redis, and how such a request is known."""
COMMANDS = """
    blpop brpop client eval exec exists hdel hset lpush ltrim multi sadd xack xadd xclaim xgroup xinfo xpending xrange
    xreadgroup xtrim zadd zrem
    del evalsha get hello hget info llen ping rpush script select set unwatch watch zrange
"""
"""Those of `REQUESTS`; and in the last line those that Celery sends now and then, for what can be done without."""
OF_THE_TEST = "flushall xlen"
NOTED = "SELECT appended_position FROM publication"
"""How much is known to be published."""

PATIENT = {
    "redis_timeout_seconds": 2,
    "task_soft_limit_seconds": 3,
    "task_limit_seconds": 4,
    "redeliver_after_seconds": 4.5,
    "retry_after_seconds": 0.2,
}
"""A task has longer than Redis has to answer, as it should."""


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """Redis fails alike, whatever the database."""
    return postgres_url


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One for each test, since it is broken."""
    appendfsync = getattr(request, "param", "everysec")
    with RedisServer(tmp_path_factory.mktemp("redis"), appendfsync=appendfsync) as server:
        yield server


@pytest.fixture
def proxy(redis_url: str, redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.mark.parametrize("redis_server", ["always"], indirect=True)
def test_redis_is_killed_and_comes_back_with_all_that_it_had_accepted(
    redis_server: RedisServer, new_scene: Callable[..., Scene], counted: Count
) -> None:
    scene = new_scene(**PATIENT)
    kills = 0

    def kill() -> None:
        nonlocal kills
        time.sleep(scene.rng.uniform(0, 0.2))
        redis_server.kill()
        time.sleep(scene.rng.uniform(0, 1))
        redis_server.start()
        kills += 1

    scene.place()
    scene.feed(kill)
    scene.finish(kill)
    scene.judge()
    assert scene.redis.xlen("order.events") == len(scene.load.placings + scene.load.events)
    assert scene.ended == {}
    counted(scene, {"Redis killed": kills, "outages seen": scene.log("ingress").count("ingress.unavailable")})


def test_redis_comes_back_without_the_last_things_that_it_had_said(
    redis_server: RedisServer, scene: Scene, counted: Count
) -> None:
    """As it may after a power cut, unless it syncs always: entries are appended again, and acknowledgements made again."""
    for _ in range(3):
        scene.faults.lay("relay: before append", "sleep", seconds=1.5)
    scene.place()
    scene.feed()
    scene.wait_for(lambda: published(scene) > 0, "the first ones to be published")
    kept, ends_at = append_only_file(redis_server).stat().st_size, published(scene)
    scene.wait_for(lambda: scene.number(NOTED) > ends_at, "more to be published")
    redis_server.kill()
    os.truncate(append_only_file(redis_server), kept)
    redis_server.start()
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    lost = [line for line in scene.log("relay").splitlines() if "relay.stream_lost_entries" in line]
    counted(scene, {"Redis killed": 1, "losses told by the relay": len(lost)})


def test_redis_hangs_for_longer_than_anybody_waits(
    redis_server: RedisServer, new_scene: Callable[..., Scene], counted: Count
) -> None:
    scene = new_scene(**PATIENT)
    stops = 0

    def hang() -> None:
        nonlocal stops
        time.sleep(scene.rng.uniform(0, 0.2))
        redis_server.pause()
        time.sleep(12)
        redis_server.resume()
        stops += 1

    scene.place()
    scene.feed()
    hang()
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    timeouts = {f"timeouts of {name}": scene.log(name).count(".unavailable") for name in ("ingress", "relay")}
    counted(scene, {"Redis stopped for 12 s": stops, **timeouts})


@pytest.mark.parametrize("how", ["lost", "late"])
def test_the_reply_to_any_command_is_lost_or_comes_too_late(
    how: str, settings: Settings, proxy: Proxy, new_scene: Callable[..., Scene], counted: Count
) -> None:
    def disturb(*names: str) -> None:
        for name in names:
            if how == "lost":
                proxy.lose_reply(REQUESTS[name])
            else:
                proxy.delay_reply(REQUESTS[name], seconds=2.5)

    disturb("make the group", "connect", "declare Celery's queue")
    scene = new_scene(redis_url=f"redis://127.0.0.1:{proxy.port}/0", prune_every_seconds=1, **PATIENT)

    def disturb_all() -> None:
        disturb(*REQUESTS)
        hand_to_celery(settings, scene)

    scene.place()
    scene.feed(disturb_all, parts=2 if how == "lost" else 1)
    scene.finish(disturb_all)
    deadline = time.monotonic() + 30
    while set(REQUESTS.values()) - proxy.met.keys() and time.monotonic() < deadline:
        hand_to_celery(settings, scene)  # it may be lost on its way
        time.sleep(1)
    proxy.forget()
    scene.wait_for(scene.is_published, "everything to be published, and acknowledged")
    scene.judge()
    assert scene.ended == {}
    sent = {name.removeprefix("cmdstat_") for name in scene.redis.info("commandstats")}
    assert sent <= {*COMMANDS.split(), *OF_THE_TEST.split()}, "commands that are new belong to REQUESTS"
    counted(scene, {f"replies {how}: {name}": proxy.met[request] for name, request in REQUESTS.items()})


@pytest.mark.small
def test_replies_of_redis_and_of_postgresql_are_lost(
    settings: Settings,
    proxy: Proxy,
    postgres_server: PostgresServer,
    postgres_url: str,
    new_scene: Callable[..., Scene],
    counted: Count,
) -> None:
    """One reply to each command, and to some COMMITs."""
    with Proxy(postgres_server.port) as database:
        scene = new_scene(
            redis_url=f"redis://127.0.0.1:{proxy.port}/0",
            database_url=postgres_url.replace(f":{postgres_server.port}/", f":{database.port}/"),
        )

        def lose() -> None:
            for request in REQUESTS.values():
                proxy.lose_reply(request)
            hand_to_celery(settings, scene)
            lost = database.met[b"COMMIT"] + 10
            database.lose_reply(b"COMMIT", times=10)
            scene.wait_for(lambda: database.met[b"COMMIT"] == lost, "answers to COMMIT to be lost")

        scene.place()
        scene.feed(lose)
        scene.finish()
        scene.judge()
        assert scene.ended == {}
        counted(scene, {"replies lost: COMMIT": database.met[b"COMMIT"], "replies lost: Redis": proxy.met.total()})


def test_the_celery_queue_and_the_outgoing_stream_are_deleted_under_load(scene: Scene, counted: Count) -> None:
    deleted = {"Celery queue deleted": 0, "outgoing stream deleted": 0}

    def delete() -> None:
        for _ in range(100):
            deleted["Celery queue deleted"] += scene.redis.delete("shortpick")
            time.sleep(0.005)
        deleted["outgoing stream deleted"] += scene.redis.delete("order.cancelled")

    scene.place()
    scene.feed(delete, parts=3)
    scene.finish(delete)
    # Also when nothing more is to be published.
    deleted["outgoing stream deleted"] += scene.redis.delete("order.cancelled")
    scene.wait_for(scene.is_published, "everything to be published again")
    scene.judge()
    assert scene.ended == {}
    told = scene.log("relay").count("relay.stream_lost_entries")
    counted(scene, {**deleted, "losses told by the relay": told})


def test_all_of_redis_is_emptied_and_what_is_sent_again_is_done(scene: Scene, counted: Count) -> None:
    """What was accepted and not done is gone with its stream; but nobody has to lend a hand, and nothing is done twice."""
    scene.place()
    scene.feed()
    scene.wait_for(lambda: scene.number(NOTED) > 0, "the first ones to be published")
    scene.redis.flushall()
    events = scene.load.placings + scene.load.events
    scene.queue.add(events)
    scene.wait_for(lambda: bool(scene.redis.xinfo_groups("order.events")), "ingress to make its group again")
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    assert scene.redis.xlen("order.events") == len(events)
    counted(scene, {"Redis emptied": 1, "losses told by the relay": scene.log("relay").count("stream_lost_entries")})


def test_redis_comes_up_after_everything_else(
    redis_server: RedisServer, queue: Queue, new_scene: Callable[..., Scene], counted: Count
) -> None:
    redis_server.stop()
    scene = new_scene()
    complaints = {
        "ingress": "ingress.unavailable",
        "worker": "Cannot connect to redis",
        "relay": "relay.unavailable",
        "beat": "beat.unavailable",
    }
    for name, words in complaints.items():
        scene.wait_for(lambda name=name, words=words: words in scene.log(name), f"{name} to complain")
    redis_server.start()
    scene.place()
    scene.feed()
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    counted(scene, {"processes without Redis": len(complaints)})


def published(scene: Scene) -> int:
    return scene.redis.xlen("order.cancelled")


def append_only_file(server: RedisServer) -> Path:
    """Where Redis writes what it is told (since version 7 it has several such files)."""
    return max(server.folder.rglob("*.aof"), key=lambda path: path.stat().st_mtime_ns)


def hand_to_celery(settings: Settings, scene: Scene) -> None:
    """Send some events once more, by the task for producers that speak Celery. (It may be lost on the way to Redis.)"""
    with Celery(broker=settings.redis_url, set_as_current=False) as producer:
        events = [json.loads(raw) for raw in scene.rng.sample(scene.load.events, 5)]
        producer.send_task("shortpick.accept_events", (events,), queue="shortpick", ignore_result=True)

"""Group 10: the disk of PostgreSQL, of Redis, of SQLite is full. It is a limit on the size of files, since to mount a
small disk takes privileges: what is written beyond it fails with EFBIG, which goes the way of ENOSPC."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psycopg
import pytest
from redis.exceptions import ResponseError
from sqlalchemy import text

from tests.faults.scene import Scene
from tests.servers import PostgresServer, RedisServer

Count = Callable[[Scene, Mapping[str, int]], None]

pytestmark = pytest.mark.skipif(shutil.which("prlimit") is None, reason="Linux has it")
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

MEBIBYTE = 1024 * 1024
WAL_FILE = 16 * MEBIBYTE
"""The size of each file of the write-ahead log: with this as the limit, it has room."""
LARGE_EVENTS = """
    ALTER TABLE events SET (autovacuum_enabled = false);
    INSERT INTO events (source, id, digest, type, time, entry_id, recorded_at)
    SELECT 'filler', n::text, repeat(md5(n::text), 60), '', now(), '0-1', now() FROM generate_series(1, 9000) n
"""
"""Makes the table larger than that, four rows a page, and leaves no room in it."""
WAL_OFFSET = f"SELECT (pg_current_wal_lsn() - '0/0') % {WAL_FILE}"


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One for each test, since it is broken."""
    with RedisServer(tmp_path_factory.mktemp("redis"), appendfsync=getattr(request, "param", "everysec")) as server:
        yield server


@on_postgresql
def test_postgresql_has_no_room_for_rows(postgres_server: PostgresServer, scene: Scene, counted: Count) -> None:
    with scene.engine.begin() as connection:
        connection.execute(text(LARGE_EVENTS))

    def fill_the_disk() -> None:
        if failures():
            return  # the events of the second half came before, or find room in between
        with no_room(postgres_server, WAL_FILE):
            scene.wait_for(lambda: failures() > 5, "writes to fail")
            assert acknowledged_too_early(scene) == []
            assert status(scene)["pending"]["count"] > 0

    def failures() -> int:
        return scene.log("worker").count("File too large")

    scene.place()
    scene.take_time()
    scene.feed(fill_the_disk)
    scene.finish()
    with scene.engine.begin() as connection:
        connection.execute(text("DELETE FROM events WHERE source = 'filler'"))
    scene.judge()
    assert scene.ended == {}
    counted(scene, {"writes of PostgreSQL that failed": failures()})


@on_postgresql
def test_postgresql_has_no_room_for_its_log(postgres_server: PostgresServer, scene: Scene, counted: Count) -> None:
    """It panics, and may end; then somebody starts it once there is room."""
    log = postgres_server.folder / "postgres.log"
    panics_before = log.read_text(errors="replace").count("PANIC")

    def fill_the_disk() -> None:
        while not 2 * MEBIBYTE < scene.number(WAL_OFFSET) < 14 * MEBIBYTE:
            scene.number(f"SELECT 1 FROM pg_logical_emit_message(false, '', repeat('x', {MEBIBYTE}))")
        missed = {name: scene.log(name).count(".unavailable") for name in ("worker", "relay")}
        with no_room(postgres_server, MEBIBYTE):
            scene.wait_for(
                lambda: all(scene.log(name).count(".unavailable") > n for name, n in missed.items()), "an outage"
            )

    scene.place()
    scene.feed(fill_the_disk)
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    counted(scene, {"panics of PostgreSQL": log.read_text(errors="replace").count("PANIC") - panics_before})


@on_postgresql
def test_redis_has_no_room(redis_server: RedisServer, scene: Scene, counted: Count) -> None:
    refused = 0

    def fill_the_disk() -> None:
        nonlocal refused
        with no_room(redis_server, append_only_file(redis_server) + 1000):
            before = {name: scene.log(name).count("MISCONF") for name in ("ingress", "worker", "relay")}
            scene.wait_for(
                lambda: all(scene.log(name).count("MISCONF") > n for name, n in before.items()), "writes to be refused"
            )
            assert acknowledged_too_early(scene) == []
            assert status(scene)["pending"]["count"] > 0
            with pytest.raises(ResponseError, match="MISCONF"):
                scene.queue.add(scene.load.events[:1])
            refused += 1
        scene.wait_for(lambda: accepts(scene), "Redis to take writes")
        scene.wait_for(scene.is_quiet, "what is left to be done")
        scene.take_time()  # the batches that come next, and not those that were left

    scene.place()
    scene.take_time()
    scene.feed(fill_the_disk)
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    counts = {f"refusals told by {name}": scene.log(name).count("MISCONF") for name in ("ingress", "worker", "relay")}
    counted(scene, {"events refused": refused, **counts})


@on_postgresql
@pytest.mark.parametrize("redis_server", ["always"], indirect=True)
def test_redis_that_syncs_always_ends_without_room(redis_server: RedisServer, scene: Scene, counted: Count) -> None:
    """Rather than lose what it said it had; somebody starts it once there is room."""
    ends = 0

    def fill_the_disk() -> None:
        nonlocal ends
        with no_room(redis_server, append_only_file(redis_server) + 1000):
            scene.wait_for(lambda: not redis_server.is_running(), "Redis to end")
            ends += 1

    scene.place()
    scene.feed(fill_the_disk)
    scene.finish()
    scene.judge()
    assert scene.redis.xlen("order.events") == len(scene.load.placings + scene.load.events)
    assert scene.ended == {}
    counted(scene, {"Redis ended": ends})


@on_sqlite
def test_sqlite_has_no_room(scene: Scene, counted: Count) -> None:
    failed = "disk I/O error"

    def fill_the_disk() -> None:
        before = scene.log("worker").count(failed)
        limit_files_of_processes(scene, "524288")
        scene.wait_for(lambda: scene.log("worker").count(failed) > before, "writes to fail")
        assert acknowledged_too_early(scene) == []
        assert status(scene)["pending"]["count"] > 0
        limit_files_of_processes(scene, "unlimited")

    scene.place()
    scene.take_time()
    scene.feed(fill_the_disk)
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    counted(scene, {"writes to SQLite that failed": scene.log("worker").count(failed)})


@contextmanager
def no_room(server: PostgresServer | RedisServer, size: int) -> Iterator[None]:
    """Meanwhile, no file of the server grows beyond that; then it runs, and has room."""
    server.limit_files(size)
    try:
        yield
    finally:
        if server.is_running():
            server.limit_files(None)
        start(server)


def start(server: PostgresServer | RedisServer) -> None:
    """Return once it answers: PostgreSQL may be recovering, or end while it does, if that began without room."""
    server.start()
    deadline = time.monotonic() + 60
    while isinstance(server, PostgresServer):
        try:
            psycopg.connect(server.url("postgres")).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL does not recover"
            time.sleep(0.1)
            server.start()


def limit_files_of_processes(scene: Scene, size: str) -> None:
    for process in [*scene.family(), *scene.family()]:  # the second time those that a child's end has brought meanwhile
        subprocess.run(["prlimit", f"--fsize={size}:", f"--pid={process.pid}"], check=False)


def append_only_file(server: RedisServer) -> int:
    """How large it is."""
    return max(path.stat().st_size for path in server.folder.rglob("*.aof"))


def accepts(scene: Scene) -> bool:
    try:
        return bool(scene.queue.add(scene.load.events[:1]))
    except ResponseError:
        return False


def status(scene: Scene) -> dict[str, dict[str, int]]:
    """What `shortpick status` tells."""
    done = scene.command("status", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def acknowledged_too_early(scene: Scene) -> list[tuple[str, str]]:
    """Events whose entries are acknowledged, and that are not recorded."""
    (group,) = scene.redis.xinfo_groups("order.events")
    pending = {one["message_id"] for one in scene.redis.xpending_range("order.events", "shortpick", "-", "+", 10_000)}
    read = scene.redis.xrange("order.events", "-", group["last-delivered-id"])
    events = [json.loads(fields[b"event"]) for entry_id, fields in read if entry_id not in pending]
    with scene.engine.connect() as connection:
        recorded = {(row.source, row.id) for row in connection.execute(text("SELECT source, id FROM events"))}
    return [key for event in events if (key := (event["source"], event["id"])) not in recorded]

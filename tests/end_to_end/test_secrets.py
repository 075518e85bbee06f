"""No log tells what an event holds, or a password: real processes at level debug, through good days and bad ones."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from tests.builders import Json, new_id, placed, requested, shortage, sku_shortage, to_bytes
from tests.end_to_end.processes import NAMES, Processes
from tests.end_to_end.test_hostile import accept, envelope
from tests.servers import RedisServer
from worker import bootstrap
from worker.settings import Settings
from worker.storage import database
from worker.streams import Queue

BODY = "zebra"
"""Stands in what people write into events, and in what is no event."""
PASSWORD = "sesame"
TAKEN = new_id("tripping", "a")

GOOD: list[Json] = [
    placed("o1", {"attributes": {"name": BODY, BODY: "x"}}, a=("SA", 9)),
    requested("o1", {"reason": {"code": "manual", "note": f"call {BODY}"}}, a=4),
    requested("o1", {"reason": {"code": "manual", "note": f"call {BODY}"}}, a=9),
    {**requested("unseen", {"reason": {"code": "manual", "note": BODY}}), "comment": BODY},
    placed("o2", {"attributes": {"name": BODY}}, a=("SB", 9)),
    sku_shortage("SB", 3),
]
ONE_ID = placed("o3", {"attributes": {"name": BODY}}, a=("SA", 9))
NO_EVENTS: list[bytes] = [
    BODY.encode(),
    b"\xff" + BODY.encode(),
    to_bytes(placed("o4", {BODY: BODY}, a=("SA", 9))),
    to_bytes(placed("o4", {"priority": BODY}, a=("SA", 9))),
    to_bytes({**placed("o4", a=("SA", 9)), "type": BODY}),
    to_bytes({**placed("o4", a=("SA", 9)), "time": BODY}),
    to_bytes(placed("o4", {"attributes": {"name": BODY * 30_000}}, a=("SA", 9))),
    to_bytes(ONE_ID),
    to_bytes({**ONE_ID, "data": {**ONE_ID["data"], "priority": 1}}),
    to_bytes({**placed("o3", {"attributes": {"name": BODY * 2}}, a=("SA", 9))}),
    to_bytes(placed("tripping", {"attributes": {"name": BODY}}, **{"a": ("SA", 9), TAKEN: ("SB", 9)})),
    to_bytes({**shortage("tripping", a=2), "comment": BODY}),
    to_bytes(placed("refused", {"partner": "refused", "attributes": {"name": BODY}}, a=("SA", 9))),
]
"""Among them events of other content under one id or of one order, one on which the program fails, and one that the
database refuses."""
CODES = {
    "not_json",
    "unprocessable",
    "unknown_field",
    "invalid_field",
    "unknown_type",
    "too_large",
    "id_reused",
    "placed_differently",
}
MESSAGES = [
    accept({"id": BODY}, argsrepr=BODY, kwargsrepr=BODY),
    accept([placed("o5", {"attributes": {"name": BODY}}, a=("SA", 9))] * 3, argsrepr=BODY),
    envelope(BODY, argsrepr=BODY),
    envelope(BODY, "application/x-yaml"),
    envelope(json.dumps([[BODY], {}, {}]), task="unknown"),
    BODY,
]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that can be killed."""
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """SQLite has no password, and its errors quote no rows."""
    return postgres_url


@pytest.fixture
def settings(redis_server: RedisServer, database_url: str) -> Settings:
    return Settings(
        redis_url=redis_server.url.replace("//", f"//shortpick:{PASSWORD}@"),
        database_url=database_url.replace("postgres@", f"postgres:{PASSWORD}@"),
        log_level="debug",
        redeliver_after_seconds=2,
        retry_after_seconds=0.2,
        task_limit_seconds=1.9,
        task_soft_limit_seconds=1.8,
        release_due_every_seconds=0.5,
    )


def test_no_log_tells_what_an_event_holds_or_a_password(
    settings: Settings, redis_server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    let_in(redis_server)
    redis = bootstrap.redis(settings)
    queue = bootstrap.queue(settings, redis)
    execute(engine, "ALTER TABLE orders ADD CONSTRAINT refused CHECK (partner <> 'refused')")
    said = []
    with Processes(settings, tmp_path) as processes:
        wait_for(processes.worker_is_ready)
        queue.add([*map(to_bytes, GOOD), *NO_EVENTS])
        for message in MESSAGES:
            redis.lpush("shortpick", message)
        wait_for(lambda: redis.llen("shortpick") == 0 and processes.log("worker").count("message.refused") == 4)
        wait_for(lambda: is_quiet(queue))
        said += [processes.command("status")]

        with database_down(engine):
            queue.add([to_bytes(placed("o6", {"attributes": {"name": BODY}}, a=("SA", 9)))])
            wait_for(lambda: "OperationalError" in processes.log("worker") + processes.log("relay"))
            said += [processes.command(name) for name in ("status", "doctor")]
        wait_for(lambda: is_quiet(queue))

        redis_server.kill()
        wait_for(lambda: all("onnect" in processes.log(name) for name in ("ingress", "relay", "beat")))
        wait_for(lambda: "Cannot connect" in processes.log("worker"))
        said += [processes.command("doctor")]
        redis_server.start()  # it has forgotten the user
        said += [processes.command("status")]
    redis.close()
    for name in NAMES:
        for secret in (BODY, PASSWORD):
            assert secret not in processes.log(name)
    for fact in (
        '"level":"debug"',
        "event.unprocessable",
        "batch.isolated",
        "event.dead_letter",
        "message.refused",
        "order.cancelled",
    ):
        assert fact in processes.log("worker")
    for one in said:
        assert PASSWORD not in one.stdout + one.stderr
    assert [one.returncode for one in said] == [0, 1, 1, 1, 1]
    with engine.connect() as connection:
        codes = set(connection.execute(text("SELECT code FROM dead_letters")).scalars())
    assert codes >= CODES


def let_in(server: RedisServer) -> None:
    with Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "shortpick", "on", f">{PASSWORD}", "~*", "&*", "+@all")


@contextmanager
def database_down(engine: Engine) -> Iterator[None]:
    """Whoever is connected is put out, and nobody is let in."""
    name = engine.url.database
    elsewhere = database.create(engine.url.set(database="postgres").render_as_string(hide_password=False))
    with elsewhere.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
        admin.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        admin.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
        yield
        admin.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    elsewhere.dispose()


def execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def is_quiet(queue: Queue) -> bool:
    return not queue.has_unread() and queue.pending() == 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

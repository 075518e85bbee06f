"""`shortpick doctor` on real servers: each finding is brought about, and everything else is still told."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from domain.policy import Policy, Protected
from tests.builders import placed, shipped, shortage, sku_shortage
from tests.servers import PostgresServer, RedisServer, free_port
from worker.cli import doctor_database
from worker.process import Processor
from worker.storage.tables import stored
from worker.streams import Queue

STREAM, CANCELLED = "order.events", "order.cancelled"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server of this module's own, to be set wrongly."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(autouse=True)
def production(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of which nothing is to be said."""
    monkeypatch.setenv("SHORTPICK_BREAKER_ORDERS", "100")
    monkeypatch.setenv("SHORTPICK_SKU_SHORTAGE_GRACE_SECONDS", "300")


@pytest.fixture
def told(shortpick: Any) -> Callable[[], dict[str, str]]:
    """Run it; returns what is not ok, by check. The exit code must be 1 just if there are faults."""

    def run() -> dict[str, str]:
        ran = shortpick("doctor", "--json")
        found = [one for one in ran.json if one["level"] != "ok"]
        assert ran.code == any(one["level"] == "fault" for one in found), ran.out + ran.err
        return {one["check"]: f"{one['level']}: {one['says']} {one['change']}" for one in found}

    return run


@contextmanager
def configured(redis: Redis, **settings: Any) -> Iterator[None]:
    """Redis with these settings for a while."""
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    before = {name: redis.config_get(name)[name] for name in names}
    for name, value in names.items():
        redis.config_set(name, value)
    yield
    for name, value in before.items():
        redis.config_set(name, value)


def execute(engine: Engine, *statements: str, **values: Any) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)


def ago(minutes: float) -> str:
    return stored(datetime.now(UTC) - timedelta(minutes=minutes))


@pytest.mark.usefixtures("queue")
def test_of_a_pipeline_as_it_must_be_everything_is_ok(
    shortpick: Any, told: Any, decide: Callable[..., None], publish: Callable[[], int], engine: Engine
) -> None:
    decide(placed("o1", a=("SA", 1)), shortage("o1", a=0))
    assert publish() == 1
    assert told() == {}
    ran = shortpick("doctor")
    assert ran.code == 0
    assert ran.err == "0 faults, 0 warnings.\n"
    lines = {line[9:31].strip(): line[31:].strip() for line in ran.out.splitlines()}
    assert {line.split()[0] for line in ran.out.splitlines()} == {"ok"}
    assert lines["outgoing stream"] == "order.cancelled is the ledger's own, and ends at position 1."
    on_postgresql = engine.dialect.name == "postgresql"
    assert ("postgresql durability" in lines) == on_postgresql
    assert ("the database" in lines["clocks"]) == on_postgresql


# settings and connections


def test_settings_that_are_wrong_are_a_fault(anywhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHORTPICK_REDIS_URL", raising=False)
    monkeypatch.setenv("SHORTPICK_BATCH_SIZE", "many")
    ran = anywhere("doctor", "--json")
    assert ran.code == 1
    (found,) = ran.json
    assert (found["level"], found["check"]) == ("fault", "settings")
    assert "SHORTPICK_REDIS_URL is not set" in found["says"]
    assert "SHORTPICK_BATCH_SIZE is wrong" in found["says"]


@on_sqlite
@pytest.mark.usefixtures("queue")
def test_what_is_dangerous_in_the_settings_is_a_warning(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTPICK_QUEUE_RETENTION_SECONDS", "60")
    assert told().keys() == {"settings"}


@on_postgresql
def test_a_driver_that_is_not_installed_is_told(told: Any, shortpick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'shortpick[postgres]'" in told()["settings"]
    assert "pip install 'shortpick[postgres]'" in shortpick("status").err


@pytest.fixture
def elsewhere(state_dir: Path) -> Callable[..., None]:
    """Have the commands look for other servers."""

    def move(**addresses: str) -> None:
        file = state_dir / "shortpick.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | addresses))

    return move


@on_sqlite
def test_where_redis_is_down_the_database_is_still_looked_at(shortpick: Any, elsewhere: Any, decide: Any) -> None:
    decide(b"nonsense")
    elsewhere(redis_url=f"redis://:secret@127.0.0.1:{free_port()}/0")
    ran = shortpick("doctor", "--json")
    found = {one["check"]: one for one in ran.json}
    assert ran.code == 1
    assert [one["check"] for one in ran.json if one["level"] == "fault"] == ["redis"]
    assert "Connection refused" in found["redis"]["says"]
    assert "SHORTPICK_REDIS_URL" in found["redis"]["change"]
    assert found["tables"]["level"] == "ok"
    assert found["dead letters"]["level"] == "warning"
    assert "queue" not in found
    assert "secret" not in ran.out


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("address", ["sqlite:////no/such/folder/file.db", "postgresql://me:secret@127.0.0.1:{}/db"])
def test_where_the_database_is_down_redis_is_still_looked_at(shortpick: Any, elsewhere: Any, address: str) -> None:
    elsewhere(database_url=address.format(free_port()))
    ran = shortpick("doctor", "--json")
    found = {one["check"]: one for one in ran.json}
    assert ran.code == 1
    assert [one["check"] for one in ran.json if one["level"] == "fault"] == ["database"]
    assert "SHORTPICK_DATABASE_URL" in found["database"]["change"]
    assert found["redis persistence"]["level"] == found["consumer group"]["level"] == "ok"
    assert "secret" not in ran.out


@on_sqlite
@pytest.mark.usefixtures("queue")
def test_a_broker_of_its_own_is_connected_to(
    told: Any, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORTPICK_BROKER_URL", f"redis://127.0.0.1:{redis_server.port}/1")
    assert told() == {}
    for address, said in (
        (f"redis://:secret@127.0.0.1:{free_port()}/0", "refused"),
        (f"amqp://me:secret@127.0.0.1:{free_port()}//", "refused"),
        ("sentinel://127.0.0.1:26379", "master_name"),
    ):
        monkeypatch.setenv("SHORTPICK_BROKER_URL", address)
        found = told()
        assert found.keys() == {"broker"}
        assert said in found["broker"]
        assert "secret" not in found["broker"]


# Redis


@on_sqlite
@pytest.mark.usefixtures("queue")
def test_a_redis_that_may_lose_the_queue_is_a_fault(told: Any, redis: Redis) -> None:
    with configured(redis, appendonly="no", maxmemory_policy="allkeys-lru"):
        found = told()
    assert found.keys() == {"redis persistence", "redis eviction"}
    assert found["redis persistence"].startswith("fault: appendonly is no")
    assert found["redis eviction"].startswith("fault: maxmemory-policy is allkeys-lru")


@on_sqlite
@pytest.mark.usefixtures("queue")
def test_a_redis_that_is_nearly_full_or_seldom_writes_is_a_warning(told: Any, redis: Redis) -> None:
    used: Any = redis.info("memory")
    with configured(redis, appendfsync="no", maxmemory=int(used["used_memory"] / 0.87)):
        found = told()
    assert {check: said.partition(":")[0] for check, said in found.items()} == {
        "redis appendfsync": "warning",
        "redis memory": "warning",
    }


@on_sqlite
@pytest.mark.usefixtures("queue")
def test_a_redis_that_hides_its_configuration_is_a_warning(
    told: Any, redis: Redis, redis_server: RedisServer, elsewhere: Any
) -> None:
    try:
        for rights, checks in (("-config", {"redis appendfsync"}), ("-config -info", {"redis", "queue"})):
            more = ["-xinfo"] if "queue" in checks else []
            redis.execute_command("ACL", "SETUSER", "managed", "on", ">pw", "~*", "&*", "+@all", *rights.split(), *more)
            elsewhere(redis_url=f"redis://managed:pw@127.0.0.1:{redis_server.port}/0")
            found = told()
            assert checks <= found.keys()
            assert all(said.startswith("warning:") for said in found.values()), found
    finally:
        redis.execute_command("ACL", "DELUSER", "managed")


@on_sqlite
@pytest.mark.usefixtures("queue")
def test_a_replica_is_a_fault(told: Any, redis: Redis) -> None:
    redis.replicaof("127.0.0.1", free_port())
    try:
        assert told()["redis role"].startswith("fault: It is a replica")
    finally:
        redis.replicaof("NO", "ONE")


@on_sqlite
@pytest.mark.parametrize(("ahead", "level"), [(4, None), (20, "warning"), (-100, "fault")])
@pytest.mark.usefixtures("queue")
def test_clocks_that_are_apart_are_told(
    told: Any, monkeypatch: pytest.MonkeyPatch, ahead: int, level: str | None
) -> None:
    monkeypatch.setattr(Redis, "time", lambda _: (int(datetime.now(UTC).timestamp()) + ahead, 0))
    found = told().get("clocks")
    assert (found or "").partition(":")[0] == (level or "")


# the database


@pytest.mark.usefixtures("queue")
def test_tables_of_another_version_are_a_fault_and_redis_is_still_looked_at(
    told: Any, shortpick: Any, engine: Engine
) -> None:
    for version, says, change in (
        ("'0001'", "older version", "shortpick db upgrade"),
        ("'9999'", "newer version", "too"),
        ("NULL", "no tables", "shortpick db upgrade"),
    ):
        execute(engine, "DELETE FROM alembic_version")
        if version != "NULL":
            execute(engine, f"INSERT INTO alembic_version VALUES ({version})")
        found = told()
        assert found.keys() == {"tables"}
        assert found["tables"].startswith("fault: ")
        assert says in found["tables"]
        assert change in found["tables"]
        refused = shortpick("status")
        assert refused.code == 1
        assert change in refused.err


@on_postgresql
@pytest.mark.usefixtures("queue")
def test_a_postgresql_that_may_lose_commits_or_takes_none_is_a_fault(
    told: Any, postgres_server: PostgresServer, postgres_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres_url.rpartition("/")[2]
    execute(
        engine,
        f"ALTER DATABASE {name} SET synchronous_commit = off",
        f"ALTER DATABASE {name} SET default_transaction_read_only = on",
    )
    monkeypatch.setattr(doctor_database, "NEARLY_ALL", 0)
    found = told()
    assert found.keys() == {"postgresql durability", "postgresql role", "postgresql connections"}
    assert found["postgresql durability"].startswith("fault: synchronous_commit is off")
    assert found["postgresql role"].startswith("fault: ")
    assert " of 97 are taken" in found["postgresql connections"]
    assert not found["postgresql connections"].startswith("warning: 0 of")


# the pipeline


@on_sqlite
def test_a_queue_without_a_group_is_a_warning(told: Any, redis: Redis) -> None:
    assert told().keys() == {"consumer group"}  # nothing was ever sent
    redis.xadd(STREAM, {"event": b"{}"}, id="1700000000000-0")
    found = told()
    assert found.keys() == {"consumer group", "unread"}
    assert "shortpick ingress" in found["consumer group"]


@on_sqlite
def test_entries_that_were_read_and_lie_there_are_a_warning(told: Any, queue: Queue, redis: Redis) -> None:
    redis.xadd(STREAM, {"event": b"{}"}, id=f"{int((datetime.now(UTC).timestamp() - 400) * 1000)}-0")
    queue.read(1, 1)
    found = told()
    assert found.keys() == {"pending"}
    assert "1 entries were read and not decided, the oldest for 6 minutes" in found["pending"]


@on_sqlite
def test_a_key_of_another_kind_is_told_and_the_rest_too(told: Any, redis: Redis) -> None:
    redis.set(STREAM, "a text")
    redis.set(CANCELLED, "a text")
    found = told()
    assert found.keys() == {"queue", "outgoing stream"}
    assert all("WRONGTYPE" in said for said in found.values())


@pytest.mark.usefixtures("queue")
def test_an_outgoing_stream_that_is_behind_ahead_or_foreign_is_told(
    told: Any, decide: Callable[..., None], publish: Callable[[], int], redis: Redis
) -> None:
    decide(*(placed(f"o{n}", a=("SA", 1)) for n in range(2)), shortage("o0", a=0), shortage("o1", a=0))
    assert [publish(), publish()] == [2, 0]
    assert told() == {}
    redis.delete(CANCELLED)
    assert told()["outgoing stream"].startswith("warning: Redis has lost entries of order.cancelled, which ends at 0")
    for entry_id, says in (
        ("2-0", "is not the cancellation that the database has there"),
        ("7-0", "the database has given positions only up to 2"),
        ("7-3", "ends with entry 7-3, which Shortpick did not write"),
    ):
        redis.xadd(CANCELLED, {"event": "foreign"}, id=entry_id)
        found = told()
        assert found["outgoing stream"].startswith("fault: ")
        assert says in found["outgoing stream"]


@pytest.mark.usefixtures("queue")
def test_what_a_person_should_know_of_is_a_warning_each(
    told: Any, shortpick: Any, decide: Callable[..., None], processor: Processor, engine: Engine
) -> None:
    careful = replace(processor, policy=Policy(protected=Protected(frozenset({"o1", "o2"}), frozenset())))
    decide(placed("o1", a=("SA", 5)), placed("o2", a=("SA", 5)), placed("o3", a=("SB", 5)))
    decide(shortage("o1", a=0), shortage("o2", a=0), by=careful)
    decide(shortage("o3", a=0), shipped("o3", "f1", a=1), shortage("o9", a=0), sku_shortage("SC", 1), b"nonsense")
    found = told()
    assert found.keys() == {"held", "dead letters", "conflicts"}
    assert "2 cuts are held" in found["held"]
    shortpick("holds", "approve", "1", "--reason", "checked", "--by", "ann")
    execute(engine, "UPDATE holds SET decided_at = :at WHERE state = 'approved'", at=ago(6))
    execute(engine, "UPDATE cancellations SET cancelled_at = :at", at=ago(6))
    execute(engine, "UPDATE waiting_events SET since = :at", at=ago(61))
    execute(engine, "UPDATE allocations SET due_at = :at", at=ago(6))
    execute(engine, "INSERT INTO breakers (scope, name, opened_at) VALUES ('sku', 'S', :at)", at=ago(6))
    more = {"approved", "unpublished", "waiting", "shortages", "breaker"}
    found = told()
    assert found.keys() == {"held", "dead letters", "conflicts"} | more
    execute(engine, "UPDATE waiting_events SET until = :at", at=ago(6))
    assert "1 waiting event is overdue, the oldest for 6 minutes" in told()["overdue"]
    shortpick("pause", "--reason", "zeros", "--by", "ann")
    found = told()
    assert "ann paused them: zeros" in found["pause"]
    assert not {"approved", "shortages"} & found.keys()
    assert all(said.startswith("warning: ") for said in found.values())

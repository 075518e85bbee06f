"""Group 5: PostgreSQL is restarted, refuses, ends connections, transactions and statements, and loses its answers."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from tests.faults.entry import POSTGRESQL_OPTIONS
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.servers import PostgresServer

Count = Callable[[Scene, Mapping[str, int]], None]

BATCH = ("worker", '"task":"decide_cancellations"')
RUN = ("worker", "shortage.failed")
RELEASE = ("worker", '"task":"release_due"')
RELAY = ("relay", "relay.unavailable")
KINDS = {"batches": BATCH, "runs": RUN, "what is released": RELEASE, "the relay": RELAY}
"""What is told, and by whom, when these meet an outage."""

TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'shortpick' AND pid <> pg_backend_pid()
"""
MIDDLE = "o060"
"""An order with about as many before it as after it."""


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture(autouse=True)
def is_up_again(postgres_server: PostgresServer, postgres_url: str) -> Iterator[None]:
    """Other tests use the same server."""
    yield
    postgres_server.start()


def test_postgresql_is_restarted_and_crashes(postgres_server: PostgresServer, scene: Scene, counted: Count) -> None:
    restarts = {"PostgreSQL restarted": 0, "PostgreSQL crashed": 0}

    def restart() -> None:
        for kind, mode in zip(restarts, ("fast", "immediate"), strict=True):
            time.sleep(scene.rng.uniform(0, 0.3))
            postgres_server.restart("fast" if mode == "fast" else "immediate")
            restarts[kind] += 1

    scene.place()
    scene.take_time()
    scene.feed(restart)
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    counted(scene, {**restarts, "failures told": failures(scene)})


def test_connections_are_terminated_again_and_again(scene: Scene, counted: Count) -> None:
    terminated = 0

    def terminate() -> None:
        nonlocal terminated
        for _ in range(20):
            terminated += scene.number(TERMINATE)
            time.sleep(0.05)

    scene.place()
    scene.take_time()
    scene.feed(terminate)
    scene.finish(terminate)
    scene.judge()
    assert scene.ended == {}
    counted(scene, {"connections terminated": terminated, "failures told": failures(scene)})


def test_the_answer_to_commit_is_lost(
    postgres_server: PostgresServer, postgres_url: str, new_scene: Callable[..., Scene], counted: Count
) -> None:
    """For a while, of every transaction: of batches, of runs, of what is released and approved, of the relay."""
    with Proxy(postgres_server.port) as proxy:
        scene = new_scene(database_url=postgres_url.replace(f":{postgres_server.port}/", f":{proxy.port}/"))
        expected = iter([[BATCH, RELEASE, RELAY], [BATCH, RUN, RELEASE, RELAY]])

        def lose() -> None:
            before = {kind: told(scene, kind) for kind in next(expected)}
            proxy.lose_reply(b"COMMIT", times=10**6)
            scene.wait_for(lambda: all(told(scene, kind) > n for kind, n in before.items()), "each to lose an answer")
            proxy.forget()

        def lose_of_what_was_approved() -> None:
            before = told(scene, RELEASE)
            proxy.lose_reply(b"COMMIT", times=10**6)
            scene.wait_for(lambda: told(scene, RELEASE) > before, "what was approved to lose an answer")
            proxy.forget()

        scene.place()
        scene.feed(lose)
        scene.finish(lose_of_what_was_approved)
        scene.judge()
        assert scene.ended == {}
        counted(scene, {f"answers to COMMIT lost by {name}": told(scene, kind) for name, kind in KINDS.items()})


def test_locks_and_statements_take_longer_than_the_timeouts(new_scene: Callable[..., Scene], counted: Count) -> None:
    timeouts = json.dumps({"lock_timeout": "300ms", "statement_timeout": "1s"})
    scene = new_scene(environment={POSTGRESQL_OPTIONS: timeouts})
    lock_timeouts = [("worker", "lock timeout"), ("relay", "lock timeout")]

    def lock() -> None:
        """Hold some orders, and the row that the relay locks, until both have given up."""
        before = {kind: told(scene, kind) for kind in lock_timeouts}
        with scene.engine.connect() as connection:
            connection.execute(text(f"SELECT FROM orders WHERE order_id < '{MIDDLE}' FOR UPDATE"))
            connection.execute(text("SELECT FROM publication FOR UPDATE"))
            scene.wait_for(lambda: all(told(scene, kind) > n for kind, n in before.items()), "lock timeouts")
            connection.rollback()

    scene.place()
    with failing_at_random(scene, "INSERT ON events", 0.1, "PERFORM pg_sleep(2)"):
        scene.feed(lock)
        scene.wait_for(lambda: told(scene, ("worker", "statement timeout")) > 0, "a statement timeout")
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    counts = {f"{one}s of the {name}": told(scene, (name, one)) for name, one in lock_timeouts}
    counted(scene, {**counts, "statement timeouts": told(scene, ("worker", "statement timeout"))})


def test_transactions_are_aborted_by_deadlocks_and_serialization_failures(scene: Scene, counted: Count) -> None:
    deadlock = ("worker", "deadlock detected")

    def lock_the_other_way_round() -> None:
        """Hold the later orders; and once a batch waits for one of them, want the earlier ones, which it may hold."""
        with scene.engine.connect() as connection:
            connection.execute(text("SET LOCAL deadlock_timeout = '30s'"))  # the other finds out, and is aborted
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            connection.execute(text(f"SELECT FROM orders WHERE order_id >= '{MIDDLE}' FOR UPDATE"))
            while not blocked_by(connection) and not scene.is_quiet():
                time.sleep(0.01)
            earlier = f"SELECT FROM orders WHERE order_id < '{MIDDLE}' ORDER BY order_id DESC FOR UPDATE"
            # Came too late: a second after it began to wait, the other looks just once.
            with suppress(OperationalError):
                connection.execute(text(earlier))
            connection.rollback()

    scene.place()
    fail = "RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'"
    with failing_at_random(scene, "INSERT ON cancellations", 0.3, fail):
        scene.feed(lock_the_other_way_round, parts=4)
        scene.wait_for(lambda: told(scene, ("worker", "could not serialize")) > 0, "a serialization failure")
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    failures = told(scene, ("worker", "could not serialize"))
    counted(scene, {"deadlocks": told(scene, deadlock), "serialization failures": failures})


def test_postgresql_comes_up_after_everything_else_and_then_has_no_connection_left(
    postgres_server: PostgresServer, new_scene: Callable[..., Scene], postgres_url: str, counted: Count
) -> None:
    postgres_server.stop()
    scene = new_scene()
    refused = {name: (name, "onnection refused") for name in ("worker", "relay")}
    scene.wait_for(lambda: all(told(scene, kind) for kind in refused.values()), "the server to be missed")
    postgres_server.start()
    with ExitStack() as taken:
        full = {name: (name, "too many clients") for name in ("worker", "relay")}
        first = taken.enter_context(psycopg.connect(postgres_url, autocommit=True))

        def all_are_refused() -> bool:
            first.execute(TERMINATE)
            take_the_rest(postgres_url, taken)
            return all(told(scene, kind) for kind in full.values())

        scene.wait_for(all_are_refused, "connections to be refused")
    scene.place()
    scene.feed()
    scene.finish()
    scene.judge()
    assert scene.ended == {}
    missed = {f"{name} without PostgreSQL": told(scene, kind) for name, kind in refused.items()}
    counted(scene, {**missed, **{f"{name} without a connection": told(scene, kind) for name, kind in full.items()}})


def told(scene: Scene, kind: tuple[str, str]) -> int:
    """How often a process has said so."""
    name, words = kind
    return scene.log(name).count(words)


def failures(scene: Scene) -> int:
    return sum(told(scene, kind) for kind in KINDS.values())


def blocked_by(connection: Connection) -> int:
    """How many sessions wait for this one. (`pg_stat_activity` would show those of the transaction's first look.)"""
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    return int(connection.execute(text(blocked)).scalar_one())


@contextmanager
def failing_at_random(scene: Scene, event: str, share: float, statement: str) -> Iterator[None]:
    """So many of the rows that are written meet a statement."""
    function = f"BEGIN IF random() < {share} THEN {statement}; END IF; RETURN NEW; END"
    with scene.engine.begin() as connection:
        connection.execute(text(f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $${function}$$"))
        connection.execute(text(f"CREATE TRIGGER fail BEFORE {event} FOR EACH ROW EXECUTE FUNCTION fail()"))
    yield
    with scene.engine.begin() as connection:
        connection.execute(text("DROP FUNCTION fail CASCADE"))


def take_the_rest(url: str, taken: ExitStack) -> None:
    """Take connections until there are no more."""
    with suppress(psycopg.OperationalError):
        while True:
            taken.enter_context(psycopg.connect(url))

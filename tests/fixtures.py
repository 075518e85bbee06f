"""Fixtures with real servers: Redis, PostgreSQL and SQLite, started once a run, and a fresh database for each test."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, text

from tests.servers import PostgresServer, RedisServer
from worker import bootstrap, migrations
from worker.process import Processor
from worker.settings import Settings
from worker.storage import database
from worker.streams import Outbox, Queue


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A Redis that is up and empty."""
    redis_server.start()
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """A migrated database to copy."""
    _migrate(postgres_server.create_database("template_shortpick"))
    return "template_shortpick"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    # A test may have restarted the server meanwhile.
    admin = create_engine(_driver(postgres_server.url("postgres")), isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {postgres_template}"))
    yield postgres_server.url(name)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "shortpick.db")
    return f"sqlite:///{tmp_path / 'shortpick.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database of each kind: the same tests run on both."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = database.create(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    """The settings of a pipeline on these servers, with short times."""
    return Settings(
        redis_url=redis_url,
        database_url=database_url,
        redeliver_after_seconds=2,
        retry_after_seconds=0.2,
        task_limit_seconds=1.5,
        task_soft_limit_seconds=1,
    )


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    """A client made as the processes make theirs."""
    client = bootstrap.redis(settings)
    yield client
    client.close()


@pytest.fixture
def queue(settings: Settings, redis: Redis) -> Queue:
    queue = bootstrap.queue(settings, redis)
    queue.ensure_group()
    return queue


@pytest.fixture
def outbox(settings: Settings, redis: Redis) -> Outbox:
    return bootstrap.outbox(settings, redis)


@pytest.fixture
def processor(settings: Settings, engine: Engine, redis: Redis, queue: Queue) -> Processor:
    """What a worker process has; the queue's group exists."""
    return bootstrap.processor(settings, engine, redis)


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def _migrate(url: str) -> None:
    engine = database.create(url)
    migrations.upgrade(engine)
    engine.dispose()

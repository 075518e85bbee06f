"""Databases that a module's tests share, where a fresh one for each of many small tests would take too long."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine

from tests.integration.races import Race
from tests.servers import PostgresServer
from worker import migrations
from worker.storage import database
from worker.storage.tables import metadata


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[Engine]:
    """A migrated database of each kind, one for the whole module. Use it through one of the fixtures below."""
    name = f"shared_{uuid4().hex}"
    path = tmp_path_factory.mktemp("shared") / "shortpick.db"
    url = f"sqlite:///{path}" if request.param == "sqlite" else postgres_server.create_database(name)
    engine = database.create(url)
    migrations.upgrade(engine)
    yield engine
    engine.dispose()
    if request.param == "postgresql":
        postgres_server.drop_database(name)


@pytest.fixture
def emptied_engine(shared_engine: Engine) -> Engine:
    """The shared database without a row, but for that of `publication`."""
    with shared_engine.begin() as connection:
        for table in metadata.sorted_tables:
            if table.name != "publication":
                connection.execute(table.delete())
        connection.exec_driver_sql("UPDATE publication SET next_position = 1, appended_position = 0")
    return shared_engine


@pytest.fixture
def connection(emptied_engine: Engine) -> Iterator[Connection]:
    """A transaction on the shared database that is rolled back in the end."""
    with emptied_engine.connect() as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def race(database_url: str) -> Iterator[Race]:
    """A fresh database of each kind, for threads that meet on it."""
    race = Race(database_url)
    yield race
    race.close()

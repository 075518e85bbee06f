"""Databases that a module's tests share, where a fresh one for each of many small tests would take too long; and the
command line, run in this process."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis
from sqlalchemy import Connection, Engine

from tests.builders import Json
from tests.integration.batches import entries
from tests.integration.races import Race
from tests.servers import PostgresServer
from worker import bootstrap, migrations
from worker.cli.main import run
from worker.process import Processor, process_entries
from worker.settings import Settings
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
        connection.exec_driver_sql(
            "UPDATE publication SET next_position = 1, appended_position = 0, first_position = 1"
        )
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


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    raw: bytes
    err: str

    @property
    def json(self) -> list[Json]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def state_dir(settings: Settings, tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    addresses = {"redis_url": settings.redis_url, "database_url": settings.database_url}
    (folder / "shortpick.json").write_text(json.dumps(addresses))
    return folder


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Ran]:
    """Run a command line to its end, in this process."""

    def ran(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["shortpick", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()  # what was logged by deciding the test's events
        code = 0
        try:
            run()
        except SystemExit as end:
            code = int(end.code or 0)
        raw, err = capfdbinary.readouterr()
        return Ran(code, raw.decode(errors="replace"), raw, err.decode())

    return ran


@pytest.fixture
def shortpick(anywhere: Callable[..., Ran], state_dir: Path) -> Callable[..., Ran]:
    """Run a command on the pipeline in `state_dir`."""
    return lambda *arguments, stdin=b"": anywhere(*arguments, "--state-dir", str(state_dir), stdin=stdin)


@pytest.fixture
def decide(processor: Processor) -> Callable[..., None]:
    """Decide events, in one transaction, without the queue."""

    def decided(*events: Json | bytes, by: Processor = processor) -> None:
        process_entries(by, entries(*events))

    return decided


@pytest.fixture
def publish(settings: Settings, engine: Engine, redis: Redis) -> Callable[[], int]:
    return bootstrap.relay(settings, engine, redis).run_once

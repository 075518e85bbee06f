"""Ten thousand holds approved and rejected while new events arrive (on SQLite five thousand), every command and worker
killed in the middle: each hold is decided once, with who and why."""

import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from domain.policy import Limits, Policy, Preflight
from tests import demand
from tests.builders import placed, shipped, shortage, sku_shortage
from tests.end_to_end.processes import environment
from tests.integration.batches import Batches
from worker.settings import Settings
from worker.storage import database

REPOSITORY = Path(__file__).resolve().parents[2]
EACH = {"postgresql": 5000, "sqlite": 2500}
PATIENCE_SECONDS = 60


@pytest.fixture
def worker(engine: Engine) -> Batches:
    return Batches(engine, Policy(preflight=Preflight(Limits(orders=10))))


class Commands:
    """Starts commands with the settings, and keeps what they print."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._environment, self.log = environment(settings), log

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            arguments = [sys.executable, *command]
            return subprocess.Popen(arguments, cwd=REPOSITORY, env=self._environment, stdout=log, stderr=log)

    def kill_in_the_middle(self, worker: Batches, done: str, above: int, *command: str) -> None:
        """Kill a command once it has brought more than so many holds into a state; on PostgreSQL while it can bring no
        further ones. (SQLite's lock is not fair: who asks for it now and then is kept out until the command has ended.)"""
        process = self.start(*command)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            with database.reading(worker.engine) as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("LOCK TABLE holds IN EXCLUSIVE MODE"))
                if connection.execute(text(f"SELECT count(*) FROM holds WHERE {done}")).scalar_one() > above:
                    process.kill()
                    assert process.wait() == -9
                    return
            time.sleep(0.002)


def count(worker: Batches, where: str) -> int:
    (row,) = worker.rows(f"SELECT count(*) AS number FROM holds WHERE {where}")
    return int(row.number)


def decide(commands: Commands, worker: Batches, verb: str, cause: str, sku: str, each: int) -> None:
    """Decide all holds of a cause; the first command is killed in the middle, the second one does the rest."""
    command = ["-m", "worker.cli", "holds", verb, "--cause", cause, "--by", "ann", "--reason", f"{verb} it"]
    undecided = f"sku = '{sku}' AND state = 'open'"
    decided = f"sku = '{sku}' AND state <> 'open'"
    commands.kill_in_the_middle(worker, decided, 0, *command, "--expect", str(each))
    left = count(worker, undecided)
    assert 0 < left < each
    assert commands.start(*command, "--expect", str(left + 1)).wait(PATIENCE_SECONDS) == 1
    assert commands.start(*command, "--expect", str(left)).wait(PATIENCE_SECONDS) == 0, commands.log.read_text()
    assert count(worker, undecided) == 0


def test_ten_thousand_holds_are_decided_once_each_whatever_is_killed(
    settings: Settings, redis: Redis, worker: Batches, tmp_path: Path
) -> None:
    commands, each = Commands(settings, tmp_path / "commands.log"), EACH[worker.engine.dialect.name]
    with worker.engine.begin() as connection:
        for sku in ("DRY", "WET"):
            demand.load(connection, sku, each)
    dry, wet = (sku_shortage(sku, 0, time="2026-01-01T23:00:00Z") for sku in ("DRY", "WET"))
    worker.feed(dry, wet)
    worker.run()
    assert (count(worker, "state = 'open'"), worker.operations()) == (2 * each, [])

    stopping = Event()
    others = Thread(target=new_events, args=(worker, stopping))
    others.start()
    try:
        decide(commands, worker, "approve", dry["id"], "DRY", each)
        decide(commands, worker, "reject", wet["id"], "WET", each)
        done = "state = 'carried_out'"
        for portion in (each // 5, each // 2):
            commands.kill_in_the_middle(worker, done, portion, "-m", "tests.integration.carrying_out")
        assert commands.start("-m", "tests.integration.carrying_out").wait(PATIENCE_SECONDS) == 0
    finally:
        stopping.set()
        others.join()

    assert (count(worker, done), count(worker, "state = 'rejected'")) == (each, each)
    assert count(worker, "decided_by = 'ann' AND decided_because IN ('approve it', 'reject it')") == 2 * each
    (left,) = worker.rows("SELECT sum(open_quantity) AS units FROM order_items WHERE sku = 'DRY'")
    assert left.units == 0
    (kept,) = worker.rows(
        "SELECT sum(open_quantity) AS units, sum(quantity) AS all_units FROM order_items WHERE sku = 'WET'"
    )
    assert kept.units == kept.all_units
    assert worker.outcomes()[dry["id"]] == "applied"
    assert worker.outcomes()[wet["id"]] == "nothing"
    assert worker.wrong() == []


def new_events(worker: Batches, stopping: Event) -> None:
    """Shipments of orders with a hold, and orders of their own."""
    own, number = Batches(worker.engine, worker.policy, worker.entries), 0
    while not stopping.is_set():
        others: list[Any] = [placed(f"new-{number}", a=("NEW", 5)), shortage(f"new-{number}", a=2)]
        own.feed(shipped(f"DRY-{number:07}", "f1", a=1), *others)
        number += 1
        time.sleep(0.05)

"""Every process with the rights that docs/security.md gives, which is where they are read from: enough for the work, and
no more."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from tests import checker
from tests.builders import closed, placed, requested, restocked, shipped, shortage, sku_shortage, to_bytes
from tests.end_to_end.processes import NAMES, Processes, environment
from tests.servers import PostgresServer, RedisServer
from tests.tls import Certificates, TlsProxy, speak_tls
from worker import bootstrap, migrations
from worker.settings import Settings
from worker.storage import database

PAGE = (Path(__file__).parents[2] / "docs/security.md").read_text()
ACL = re.findall(r"^ACL SETUSER .*$", PAGE, re.MULTILINE)
SQL = re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ADDRESSES = dict(re.findall(r"^(SHORTPICK_\w+_URL)=(.*)$", PAGE, re.MULTILINE))
REDIS_PASSWORDS = dict(re.findall(r"ACL SETUSER (\w+) on >(\S+)", PAGE))
PASSWORDS = dict(re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '(.*)'", PAGE))

EVENTS = [
    placed("o1", a=("SA", 9), b=("SB", 2)),
    placed("o2", a=("SA", 9)),
    placed("o3", a=("SC", 9)),
    shortage("o1", a=4),
    requested("o2", a=3),
    shipped("o1", "f1", a=2),
    closed("o1", "f1"),
    sku_shortage("SC", 4),
    restocked("o2", "a"),
    shortage("late", a=1),
    placed("late", a=("SA", 2)),
    shortage("held", a=1),
    shortage("o3", z=1),
    placed("held", a=("SA", 2)),
]
COMMANDS = [
    ["doctor"],
    ["health"],
    ["status"],
    ["report"],
    ["why", "o1"],
    ["orders", "export"],
    ["tail", "--no-follow"],
    ["pause", "--reason", "a test"],
    ["resume", "--reason", "a test"],
    ["cancel", "o3", "--note", "a test"],
    ["holds", "approve", "--all", "--expect", "1", "--reason", "a test"],
    ["dead-letters", "retry", "--code", "unknown_line", "--reason", "a test"],
    ["dead-letters", "dismiss", "--code", "not_json", "--reason", "a test"],
    ["conflicts", "list"],
    ["drain"],
]


@dataclass(frozen=True)
class Place:
    """Two servers that take TLS only, set up as the page says."""

    redis_port: int
    authority: Path
    postgres: PostgresServer
    settings: Settings

    def redis(self, user: str | None) -> Redis:
        """A client as ours; None: without a name."""
        login = f"{user}:{REDIS_PASSWORDS[user]}@" if user else ""
        address = f"rediss://{login}127.0.0.1:{self.redis_port}/0?ssl_ca_certs={self.authority}"
        return bootstrap.redis(self.settings.model_copy(update={"redis_url": address}))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("rights")
    certificates = Certificates.made(folder)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder))
        postgres = stack.enter_context(PostgresServer())
        proxy = stack.enter_context(TlsProxy(redis.port, certificates))
        with Redis.from_url(redis.url) as everybody:
            for line in ACL:
                everybody.execute_command(*line.split())
        addresses = {
            name.removeprefix("SHORTPICK_").lower(): url.replace("/etc/shortpick/ca.pem", str(certificates.authority))
            .replace("redis.internal:6379", f"127.0.0.1:{proxy.port}")
            .replace("postgres.internal", f"127.0.0.1:{postgres.port}")
            for name, url in ADDRESSES.items()
        }
        if not speak_tls(postgres, certificates):
            addresses["database_url"] = addresses["database_url"].partition("?")[0]
        short = {"prune_every_seconds": 0.5, "release_due_every_seconds": 0.5, "protected_orders": "held"}
        settings = Settings(**addresses, **short)
        with_rights(postgres, settings)
        yield Place(proxy.port, certificates.authority, postgres, settings)


def with_rights(postgres: PostgresServer, settings: Settings) -> None:
    """The database, as the page says. The owner is the one whom the superuser acts for."""
    superuser, inside = postgres.url("postgres"), postgres.url("shortpick")
    execute(superuser, SQL[0])
    execute(inside, SQL[1])
    owner = settings.database_url.replace("shortpick:", "shortpick_owner:").replace(
        PASSWORDS["shortpick"], PASSWORDS["shortpick_owner"]
    )
    engine = database.create(owner)
    migrations.upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(SQL[2])
    engine.dispose()


def execute(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in filter(str.strip, statements.split(";")):
            connection.execute(statement)


@pytest.fixture
def engine(place: Place) -> Iterator[Engine]:
    """As the processes connect."""
    engine = database.create(place.settings.database_url)
    yield engine
    engine.dispose()


def test_the_rights_on_the_page_are_enough(place: Place, engine: Engine, tmp_path: Path) -> None:
    producer, admin = place.redis("producer"), place.redis("admin")
    with Processes(place.settings, tmp_path) as processes:
        for event in [*map(to_bytes, EVENTS), b"not an event"]:
            producer.xadd("order.events", {"event": event})
        assert processes.command("drain").returncode == 0, admin.acl_log()
        done = commands(place.settings)
        wait_for(lambda: "shortpick.prune" in processes.log("worker"))
        assert processes.stop("worker") == 0
    assert done.returncode == 0, done.stdout + done.stderr
    with engine.connect() as connection:
        assert checker.violations(connection, admin) == []
        assert connection.execute(text("SELECT count(*) FROM cancellations")).scalar_one() > 5
    denied = [entry for entry in admin.acl_log() if entry["username"] == "shortpick"]
    assert [one["object"] for one in denied if not one["object"].startswith("client")] == []
    for name in NAMES:
        assert not any(word in processes.log(name) for word in ("ermission", "Error")), processes.log(name)[-3000:]


REDIS_DENIED = {
    "producer": [
        "XRANGE order.events - +",
        "XADD order.cancelled * event {}",
        "XTRIM order.events MAXLEN 0",
        "DEL order.events",
        "XGROUP DESTROY order.events shortpick",
        "LPUSH shortpick x",
        "KEYS *",
        "FLUSHALL",
        "CONFIG GET dir",
    ],
    "shortpick": [
        "XADD other * event {}",
        "GET other",
        "XGROUP DESTROY order.events shortpick",
        "XGROUP DELCONSUMER order.events shortpick shortpick",
        "KEYS *",
        "FLUSHALL",
        "CONFIG SET dir /tmp",
        "SHUTDOWN",
        "ACL LIST",
        "CLIENT KILL TYPE normal",
        "PUBLISH x y",
    ],
    "subscriber": [
        "XADD order.cancelled * event {}",
        "XTRIM order.cancelled MAXLEN 0",
        "DEL order.cancelled",
        "XGROUP DESTROY order.cancelled refunds",
        "XRANGE order.events - +",
        "XREADGROUP GROUP shortpick x STREAMS order.events >",
        "GET other",
    ],
}


@pytest.mark.parametrize(
    ("user", "command"), [(user, command) for user, denied in REDIS_DENIED.items() for command in denied]
)
def test_no_user_of_redis_may_do_more(user: str, command: str, place: Place) -> None:
    with pytest.raises(NoPermissionError):
        place.redis(user).execute_command(*command.split())


def test_a_script_has_no_other_rights_than_its_user(place: Place) -> None:
    with pytest.raises(ResponseError, match=r"(?i)can't access|no permission"):
        place.redis("shortpick").eval("return redis.call('GET', 'other')", 0)


def test_a_subscriber_may_read_and_acknowledge(place: Place) -> None:
    admin, subscriber = place.redis("admin"), place.redis("subscriber")
    admin.xgroup_create("order.cancelled", "refunds", "0", mkstream=True)
    subscriber.xreadgroup("refunds", "one", {"order.cancelled": ">"}, 10)
    subscriber.xack("order.cancelled", "refunds", "1-0")
    admin.xgroup_destroy("order.cancelled", "refunds")


def test_nobody_is_let_in_without_a_name(place: Place) -> None:
    with pytest.raises(AuthenticationError):
        place.redis(None).ping()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM cancellations",
        "UPDATE cancellations SET payload = payload",
        "TRUNCATE cancellations",
        "DELETE FROM orders",
        "DELETE FROM order_items",
        "DROP TABLE cancellations",
        "ALTER TABLE orders ADD COLUMN x text",
        "CREATE TABLE x (y text)",
        "CREATE SCHEMA x",
        "CREATE TEMPORARY TABLE x (y text)",
        "UPDATE alembic_version SET version_num = 'x'",
        "CREATE ROLE x",
        "COPY orders TO PROGRAM 'cat'",
    ],
)
def test_the_role_that_runs_may_do_no_more(statement: str, engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(ProgrammingError, match=r"permission denied|must be "):
        connection.execute(text(statement))


def test_only_the_two_roles_are_let_in(place: Place) -> None:
    with psycopg.connect(place.postgres.url("shortpick"), autocommit=True) as superuser:
        superuser.execute("CREATE ROLE somebody LOGIN PASSWORD 'sesame'")
    address = place.settings.database_url.replace(f"shortpick:{PASSWORDS['shortpick']}", "somebody:sesame")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(address)


def commands(settings: Settings) -> subprocess.CompletedProcess[str]:
    """All in one process, since to start one for each would take long."""
    script = f"""
import sys
from worker.cli.main import run
wrong = []
for arguments in {COMMANDS!r}:
    sys.argv = ["shortpick", *arguments]
    try:
        run()
    except SystemExit as end:
        if end.code:
            wrong.append(arguments)
sys.exit(f"failed: {{wrong}}" if wrong else 0)
"""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment(settings), capture_output=True, text=True, timeout=100, check=False)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

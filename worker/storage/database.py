"""Engines and transactions: PostgreSQL for production, SQLite (WAL) as the embedded default."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, func, make_url, select
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, ProgrammingError, TimeoutError

# What another try may mend: the server, the connection or a lock was the trouble. A missing table counts too, since a
# migration mends it and no event is at fault.
TRANSIENT = (OperationalError, InterfaceError, InternalError, ProgrammingError, TimeoutError)

POSTGRESQL_OPTIONS = {
    # A plan that is kept was made for tables as they were: made on empty ones, it reads whole tables from then on.
    "plan_cache_mode": "force_custom_plan",
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
}
# A server that went without a word would otherwise be waited for as long as the system likes: two hours and more.
POSTGRESQL_PATIENCE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
SQLITE_BUSY_SECONDS = 30
CONNECT_SECONDS = 10


def create(url: str, *, pool_size: int = 2, connect_seconds: int = CONNECT_SECONDS) -> Engine:
    """An engine for `url` (`postgresql://…` or `sqlite:///…`). Connects only when it is used, in so many seconds (2 or
    more)."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        arguments = {"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False}
        engine = create_engine(parsed, connect_args=arguments, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin)
        return engine
    options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in POSTGRESQL_OPTIONS.items())
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        hide_parameters=True,  # they hold event bodies, and errors are logged
        pool_pre_ping=True,
        connect_args={
            "options": options,
            "connect_timeout": connect_seconds,
            "application_name": "shortpick",
            **POSTGRESQL_PATIENCE,
        },
    )
    event.listen(engine, "handle_error", _leave_out_details)
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: committed at the end of the block, rolled back by an error."""
    with engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that only reads, and so holds nobody up: all other transactions on SQLite take its write lock."""
    with engine.connect().execution_options(read_only=True) as connection:
        yield connection


def clock() -> datetime:
    """This machine's time, in UTC: the one place where whatever decides asks for it."""
    return datetime.now(UTC)


def now(connection: Connection) -> datetime:
    """The time of the transaction on the database's clock (SQLite: this machine's), in UTC."""
    if connection.dialect.name == "sqlite":
        return clock()
    time: datetime = connection.execute(select(func.now())).scalar_one()
    return time.astimezone(UTC)


def describe(error: DBAPIError | TimeoutError) -> str:
    """The database's own message, on one line, without the statement and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split())[:300]


def _leave_out_details(context: ExceptionContext) -> None:
    """Of an error of the server, keep what went wrong: its details quote rows, and errors are logged."""
    original, wrapped = context.original_exception, context.sqlalchemy_exception
    diagnosis = getattr(original, "diag", None)
    if wrapped is None or diagnosis is None or not diagnosis.message_primary:
        return
    original.args = (diagnosis.message_primary,)
    wrapped.args = (f"({type(original).__module__}.{type(original).__name__}) {diagnosis.message_primary}",)


def _prepare_sqlite(dbapi_connection: Any, _record: object) -> None:
    dbapi_connection.isolation_level = None  # the driver must not begin transactions of its own
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail at once with SQLITE_BUSY_SNAPSHOT, timeout or not.
    only_reads = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")

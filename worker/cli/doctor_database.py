"""What `shortpick doctor` says of the database: its version, its tables, and whether it keeps what was committed. The
rules are pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from worker.cli.findings import Finding, fault, ok, warning
from worker.cli.wording import listed
from worker.migrations import Version, version

OLDEST_POSTGRESQL, OLDEST_TESTED_POSTGRESQL = 11, 15
OLDEST_SQLITE = (3, 35)
NEARLY_ALL = 0.8
_SETTINGS = (
    "default_transaction_read_only",
    "fsync",
    "full_page_writes",
    "max_connections",
    "superuser_reserved_connections",
    "synchronous_commit",
)


@dataclass(frozen=True, slots=True)
class PostgresqlSettings:
    """What a PostgreSQL server is set to, by name, whether it is a standby, and how many are connected to it."""

    values: Mapping[str, str]
    standby: bool
    connections: int


def look_at_database(connection: Connection) -> Iterator[Finding]:
    yield of_version(connection.dialect.name, connection.dialect.server_version_info or ())
    if connection.dialect.name == "postgresql":
        yield from of_postgresql(_postgresql(connection))
    yield of_tables(version(connection))


def _postgresql(connection: Connection) -> PostgresqlSettings:
    rows = connection.execute(_SETTINGS_QUERY, {"names": list(_SETTINGS)})
    values = {row.name: row.setting for row in rows}
    connected, standby = connection.execute(_CONNECTED_QUERY).one()
    return PostgresqlSettings(values, standby, int(connected))


_SETTINGS_QUERY = text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
# Unlike pg_stat_activity, this tells everybody of all of them.
_CONNECTED_QUERY = text("SELECT sum(numbackends), pg_is_in_recovery() FROM pg_stat_database")


def of_version(dialect: str, told: tuple[object, ...]) -> Finding:
    numbers = tuple(part for part in told if isinstance(part, int))
    dotted = ".".join(map(str, numbers))
    if dialect == "sqlite":
        says = f"SQLite {dotted}."
        if numbers < OLDEST_SQLITE:
            return fault("database version", f"{says[:-1]} is too old.", "Run Python with SQLite 3.35 or newer.")
        return ok("database version", says)
    if numbers < (OLDEST_POSTGRESQL,):
        return fault("database version", f"PostgreSQL {dotted} is too old.", "Upgrade it to 15 or newer.")
    if numbers < (OLDEST_TESTED_POSTGRESQL,):
        change = "Upgrade it to 15 or newer."
        return warning("database version", f"PostgreSQL {dotted} is older than what was tested.", change)
    return ok("database version", f"PostgreSQL {dotted}.")


def of_tables(tables: Version) -> Finding:
    check = "tables"
    match tables:
        case "current":
            return ok(check, "They are of this version.")
        case "none":
            return fault(check, "The database has no tables of Shortpick.", "Run: shortpick db upgrade")
        case "behind":
            return fault(check, "They are of an older version.", "Stop the workers, then run: shortpick db upgrade")
        case "ahead":
            return fault(check, "They are of a newer version than this program.", "Upgrade Shortpick here too.")


def of_postgresql(server: PostgresqlSettings) -> list[Finding]:
    return [_durability(server), _role(server), _connections(server)]


def _durability(server: PostgresqlSettings) -> Finding:
    check = "postgresql durability"
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if server.values[name] == "off"]
    if not off:
        return ok(check, "What was committed is on the disk.")
    return fault(
        check,
        f"{listed(off)} {'is' if len(off) == 1 else 'are'} off: after a crash, what was committed, and acknowledged to "
        "the queue, may be lost or damaged.",
        "Set it to on.",
    )


def _role(server: PostgresqlSettings) -> Finding:
    check = "postgresql role"
    if server.standby:
        return fault(check, "The server is a standby: it takes no writes.", "Name the primary server.")
    if server.values["default_transaction_read_only"] == "on":
        return fault(check, "default_transaction_read_only is on: no writes are taken.", "Set it to off.")
    return ok(check, "It takes writes.")


def _connections(server: PostgresqlSettings) -> Finding:
    check = "postgresql connections"
    usable = int(server.values["max_connections"]) - int(server.values["superuser_reserved_connections"])
    says = f"{server.connections} of {usable} are taken"
    if server.connections >= NEARLY_ALL * usable:
        return warning(
            check,
            f"{says}: soon nobody can connect.",
            "Raise max_connections, run fewer worker processes, or find out who else connects.",
        )
    return ok(check, f"{says}.")

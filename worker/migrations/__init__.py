"""Alembic migrations. `shortpick db upgrade` runs them."""

from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

Version = Literal["none", "behind", "current", "ahead"]
"""What the tables are, seen from this program: there are none, or they are older, its own, or newer."""


class NewerTables(Exception):
    """The database was upgraded by a newer Shortpick; upgrade this one too."""


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version; does nothing where they are. Raises `NewerTables`."""
    with engine.connect() as connection:
        if version(connection) == "ahead":
            raise NewerTables(NewerTables.__doc__)
        connection.rollback()
        config = _config()
        config.attributes["connection"] = connection
        if engine.dialect.name == "postgresql":  # a migration of many rows takes its time
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.commit()
        command.upgrade(config, "head")
        connection.commit()


def version(connection: Connection) -> Version:
    """How the database's tables compare with those of this program."""
    current = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(_config())
    if current is None:
        return "none"
    if current == scripts.get_current_head():
        return "current"
    return "behind" if current in {script.revision for script in scripts.walk_revisions()} else "ahead"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config

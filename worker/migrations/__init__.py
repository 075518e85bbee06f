"""Alembic migrations. `shortpick db upgrade` runs them."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version; does nothing where they are."""
    with engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        if engine.dialect.name == "postgresql":  # a migration of many rows takes its time
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.commit()
        command.upgrade(config, "head")
        connection.commit()


def missing(connection: Connection) -> bool:
    """Whether the tables are of another version than this program."""
    current = MigrationContext.configure(connection).get_current_revision()
    return current != ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config

"""The migrations: they make what the program expects, may be run again, and leave nothing when they are undone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, select, text

import worker.migrations
from domain.policy import Policy, Protected
from tests.builders import placed, requested, sku_shortage
from tests.integration.batches import Batches
from worker.migrations import NewerTables, upgrade, version
from worker.storage import conflicts, dead_letters, ledger, orders, waiting
from worker.storage.database import create
from worker.storage.ledger import Positions
from worker.storage.tables import Id, metadata, order_items, shipped_units
from worker.upkeep import prune_dead_letters, prune_events


def test_the_migrations_make_just_the_tables_of_the_program(engine: Engine) -> None:
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert version(connection) == "current"


def test_they_make_the_keys_and_indexes_of_the_program(engine: Engine, tmp_path: Path) -> None:
    """Partial indexes and primary keys are not part of what Alembic compares."""
    other = create(f"sqlite:///{tmp_path / 'other.db'}")
    metadata.create_all(other)
    if engine.dialect.name == "sqlite":
        assert structure(engine) == structure(other)
    assert {name: keys(engine, name) for name in metadata.tables} == {
        name: keys(other, name) for name in metadata.tables
    }
    other.dispose()


def test_upgrading_again_changes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        orders.lock(connection, ["o1"])
        connection.execute(text("UPDATE publication SET next_position = 7"))
    upgrade(engine)
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT order_id FROM orders")).all() == [("o1",)]
        assert connection.execute(text("SELECT next_position, appended_position FROM publication")).all() == [(7, 0)]


def test_publication_starts_at_one_and_there_is_one_row_of_it(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM publication")).all() == [(1, 1, 0, 1)]


def test_a_database_that_was_never_migrated_has_no_tables(tmp_path: Path) -> None:
    engine = create(f"sqlite:///{tmp_path / 'new.db'}")
    with engine.connect() as connection:
        assert version(connection) == "none"
    engine.dispose()


def test_downgrading_leaves_nothing_and_upgrading_brings_it_back(engine: Engine) -> None:
    downgrade(engine)
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    with engine.connect() as connection:
        assert version(connection) == "none"
    upgrade(engine)
    assert set(inspect(engine).get_table_names()) == {"alembic_version", *metadata.tables}


def test_an_older_and_a_newer_version_are_told_apart(engine: Engine) -> None:
    downgrade(engine, "0001")
    with engine.begin() as connection:
        assert version(connection) == "behind"
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert version(connection) == "ahead"
    with pytest.raises(NewerTables, match="upgrade this one too"):
        upgrade(engine)


def test_on_postgresql_every_id_sorts_by_byte_whatever_the_database_sorts_by(postgres_url: str) -> None:
    engine = create(postgres_url)
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT table_name, column_name FROM information_schema.columns WHERE collation_name = 'C'")
        ).all()
    engine.dispose()
    ids = {
        (table.name, column.name) for table in metadata.sorted_tables for column in table.columns if column.type is Id
    }
    assert len(ids) > 10
    assert ids <= {(row.table_name, row.column_name) for row in found}


@pytest.mark.parametrize("setting", ["transaction_isolation", "TimeZone", "lock_timeout", "statement_timeout"])
def test_on_postgresql_connections_are_set_up(setting: str, postgres_url: str) -> None:
    expected = {"transaction_isolation": "read committed", "TimeZone": "UTC"}
    expected |= {"lock_timeout": "10s", "statement_timeout": "1min"}
    engine = create(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(text(f"SHOW {setting}")).scalar_one() == expected[setting]
    engine.dispose()


def downgrade(engine: Engine, revision: str = "base") -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(worker.migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()


def structure(engine: Engine) -> Any:
    """Per table and index of SQLite, its columns and whether it is unique and partial."""
    with engine.connect() as connection:
        tables = sorted(metadata.tables)
        columns = {
            name: connection.execute(text(f"SELECT * FROM pragma_table_info('{name}')")).all() for name in tables
        }
        indexes = {
            name: sorted(
                (row.origin, row.unique, row.partial, row.name if row.origin == "c" else "")
                for row in connection.execute(text(f"SELECT * FROM pragma_index_list('{name}')"))
            )
            for name in tables
        }
    return {name: sorted(row[1:] for row in rows) for name, rows in columns.items()}, indexes


def keys(engine: Engine, table: str) -> Any:
    found = inspect(engine)
    unique = sorted(sorted(one["column_names"]) for one in found.get_unique_constraints(table))
    indexes = sorted(
        (one["name"] or "", tuple(one["column_names"]), bool(one["unique"]))
        for one in found.get_indexes(table)
        if not one.get("duplicates_constraint")
    )
    return found.get_pk_constraint(table)["constrained_columns"], unique, indexes


def test_what_an_older_version_has_recorded_is_carried_over(engine: Engine) -> None:
    """From 0001: what an order's items need to be served in turn, and the units that have shipped of each SKU."""
    downgrade(engine, "0001")
    time, later = "'2026-01-01T00:00:00.000000+00:00'", "'2026-01-02T00:00:00.000000+00:00'"
    item = "'o1', '{0}', '{0}', {1}, '{2}', 5, 0, 5, false"
    lines = '[["a", null, 2], [null, "SB", 1], ["b", null, 1], ["no-such-item", null, 9]]'
    with engine.begin() as connection:
        for statement in (
            f"INSERT INTO orders (order_id, placed_at, priority) VALUES ('o1', {time}, 7), ('stub', NULL, 0)",
            "INSERT INTO order_items (order_id, item_id, original_item_id, line, sku, quantity, fulfilled, open_quantity, "
            f"cancelled) VALUES ({item.format('a', 1, 'SA')}), ({item.format('b', 2, 'SB')})",
            "INSERT INTO events (source, id, digest, type, order_id, time, entry_id, recorded_at) "
            f"VALUES ('/wms', 'e1', '-', 'fulfillment.created', 'o1', {later}, '1-0', {time})",
            "INSERT INTO fulfillments (order_id, fulfillment_id, time, lines, digest, source, event_id) "
            f"VALUES ('o1', 'f1', {later}, '{lines}', '-', '/wms', 'e1')",
            "INSERT INTO waiting_events (source, id, order_id, entry_id, waits_for, event, since, until) "
            f"VALUES ('/wms', 'e2', 'o1', '2-0', 'fulfillments_missing', '{{}}', {time}, {later})",
        ):
            connection.exec_driver_sql(statement)
    upgrade(engine)
    with engine.connect() as connection:
        items = connection.execute(select(order_items.c.priority, order_items.c.placed_at)).all()
        shipped = connection.execute(select(shipped_units).order_by(shipped_units.c.sku)).all()
        assert waiting.of_orders(connection, ["o1"])[0].waited == ()
    assert items == [(7, datetime(2026, 1, 1, tzinfo=UTC))] * 2
    # Not later than when it was recorded, whatever its producer's clock said.
    assert [tuple(row) for row in shipped] == [
        ("o1", "f1", sku, 2, datetime(2026, 1, 1, tzinfo=UTC)) for sku in ("SA", "SB")
    ]


def test_dead_letters_and_conflicts_of_an_older_version_are_open_and_can_be_dealt_with(engine: Engine) -> None:
    downgrade(engine, "0003")
    time = "'2026-01-01T00:00:00.000000+00:00'"
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO dead_letters (entry_id, digest, bytes, code, sentence, created_at) "
            f"VALUES ('1-0', '-', '', 'not_json', 'a sentence', {time})",
            "INSERT INTO conflicts (order_id, fulfillment_id, item_id, quantity, created_at) "
            f"VALUES ('o1', 'f1', 'a', 1, {time})",
        ):
            connection.exec_driver_sql(statement)
    upgrade(engine)
    at = datetime(2026, 1, 2, tzinfo=UTC)
    with engine.begin() as connection:
        assert dead_letters.count(connection, "open") == {"not_json": 1}
        assert dead_letters.retried(connection, {1: "2-0"}, "ann", "-", at) == 1
        assert conflicts.resolve(connection, 1, "ann", None, at)
    downgrade(engine, "0003")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT state FROM dead_letters")).all() == [("retried",)]


def test_what_was_recorded_before_anything_was_removed_by_age_can_be(engine: Engine) -> None:
    """From 0003: events, dead letters, and a stream that begins with its first position."""
    downgrade(engine, "0003")
    time = "'2026-01-01T00:00:00.000000+00:00'"
    event = f"'-', 'order.placed', 'o1', {time}, '1-0', 'recorded', 'placed', '{{}}', {time}, {time}"
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO events (source, id, digest, type, order_id, time, entry_id, outcome, reason, facts, recorded_at, "
            f"decided_at) VALUES ('/shop', 'e1', {event}), ('/shop', 'e2', {event})",
            "INSERT INTO dead_letters (entry_id, digest, bytes, code, sentence, created_at) "
            f"VALUES ('2-0', '-', '-', 'not_json', '-', {time})",
            "UPDATE publication SET next_position = 8, appended_position = 7",
        ):
            connection.exec_driver_sql(statement)
    upgrade(engine)
    with engine.connect() as connection:
        assert ledger.positions(connection) == Positions(assigned=7, appended=7, first=1)
    assert (prune_events(engine, None, timedelta(0)), prune_dead_letters(engine, None, timedelta(0))) == (2, 1)
    downgrade(engine, "0003")
    upgrade(engine)


@pytest.mark.parametrize(
    ("policy", "available"),
    [(Policy(), 8), (Policy(ship_complete=True, protected=Protected(frozenset({"o1"}))), 6)],
    ids=["all are cut", "one is held"],
)
def test_a_shortage_that_is_half_carried_out_goes_on_after_an_upgrade(
    policy: Policy, available: int, engine: Engine
) -> None:
    """From 0005, where what the served orders keep was not counted along."""
    worker = Batches(engine, policy)
    worker.feed(*(placed(f"o{n}", {"placedAt": f"2026-01-01T0{n}:00:00Z"}, a=("S", 4), b=("T", 1)) for n in range(4)))
    worker.feed(sku_shortage("S", available, time="2026-01-01T09:00:00Z"))
    for _ in range(2):
        worker.run_once("S", chunk=1)
    worker.feed(requested("o0"))
    downgrade(engine, "0005")
    upgrade(engine)
    worker.run("S", chunk=1)
    open_units = worker.rows(
        "SELECT sum(open_quantity) FROM order_items WHERE sku = 'S' GROUP BY order_id ORDER BY order_id"
    )
    assert [int(units) for (units,) in open_units] == [0, 4, 4, 0]
    assert worker.wrong() == []


def test_on_postgresql_an_update_of_an_order_writes_no_index(postgres_url: str) -> None:
    engine = create(postgres_url)
    upgrade(engine)
    size = text("SELECT pg_relation_size('orders_pkey')")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO orders (order_id) SELECT 'o' || n FROM generate_series(1, 2000) n"))
        before = connection.execute(size).scalar_one()
        connection.execute(text("UPDATE orders SET sequence = 1"))
        assert connection.execute(size).scalar_one() == before
    engine.dispose()

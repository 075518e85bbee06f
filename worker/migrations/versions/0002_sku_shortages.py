"""shortages and restocks of a SKU, grace and pauses"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from worker.storage.tables import UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ASCENDING = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    _order_items()
    _shipped_units()
    _events()
    _allocations()
    with op.batch_alter_table("waiting_events") as batch:
        batch.drop_index("waiting_events_by_until")
        batch.create_index("waiting_events_by_time", ["waits_for", "until"])
        batch.add_column(sa.Column("waited", JSON, server_default="[]", nullable=False))
    op.create_table(
        "pauses",
        sa.Column("pause_id", ASCENDING, autoincrement=True, nullable=False),
        sa.Column("source", ID, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("paused_at", UtcTime(), nullable=False),
        sa.Column("resumed_by", sa.Text(), nullable=True),
        sa.Column("resumed_at", UtcTime(), nullable=True),
        sa.Column("resumed_because", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("pause_id"),
    )
    _partial_index("pauses_in_force", "pauses", ["pause_id"], "resumed_at IS NULL")


def _order_items() -> None:
    with op.batch_alter_table("order_items") as batch:
        batch.add_column(sa.Column("priority", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("placed_at", UtcTime(), nullable=True))
        batch.add_column(sa.Column("restocked_at", UtcTime(), nullable=True))
    op.execute(
        "UPDATE order_items SET priority = o.priority, placed_at = o.placed_at "
        "FROM orders o WHERE o.order_id = order_items.order_id"
    )
    with op.batch_alter_table("order_items") as batch:
        batch.alter_column("priority", existing_type=sa.Integer(), nullable=False)
        batch.alter_column("placed_at", existing_type=UtcTime(), nullable=False)
    columns = ["sku", "priority", "placed_at", "order_id", "line", "open_quantity"]
    _partial_index("order_items_open", "order_items", columns, "open_quantity > 0")


def _shipped_units() -> None:
    op.create_table(
        "shipped_units",
        sa.Column("order_id", ID, nullable=False),
        sa.Column("fulfillment_id", ID, nullable=False),
        sa.Column("sku", ID, nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("time", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "fulfillment_id", "sku"),
    )
    if op.get_context().dialect.name == "postgresql":
        lines, item, sku, units = "jsonb_array_elements(f.lines) AS l(value)", "value->>0", "value->>1", "value->>2"
    else:
        lines, (item, sku, units) = "json_each(f.lines) AS l", (f"json_extract(l.value, '$[{n}]')" for n in range(3))
    time = "CASE WHEN e.recorded_at < f.time THEN e.recorded_at ELSE f.time END"  # whatever its producer's clock said
    op.execute(
        f"""
        INSERT INTO shipped_units (order_id, fulfillment_id, sku, quantity, time)
        SELECT f.order_id, f.fulfillment_id, coalesce({sku}, i.sku), sum(CAST({units} AS bigint)), {time}
        FROM fulfillments f CROSS JOIN {lines}
        JOIN events e ON e.source = f.source AND e.id = f.event_id
        LEFT JOIN order_items i ON i.order_id = f.order_id AND i.item_id = {item}
        WHERE coalesce({sku}, i.sku) IS NOT NULL
        GROUP BY f.order_id, f.fulfillment_id, coalesce({sku}, i.sku), {time}
        """
    )
    op.create_index("shipped_units_by_sku", "shipped_units", ["sku", "time"])


def _events() -> None:
    with op.batch_alter_table("events") as batch:
        batch.alter_column("order_id", existing_type=ID, nullable=True)
        batch.add_column(sa.Column("sku", ID, nullable=True))


def _allocations() -> None:
    op.create_table(
        "stock_figures",
        sa.Column("sku", ID, nullable=False),
        sa.Column("source", ID, nullable=False),
        sa.Column("newest_at", UtcTime(), nullable=False),
        sa.Column("restocked_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("sku", "source"),
    )
    op.create_table(
        "allocations",
        sa.Column("allocation_id", ASCENDING, autoincrement=True, nullable=False),
        sa.Column("source", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("sku", ID, nullable=False),
        sa.Column("time", UtcTime(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("happened_at", UtcTime(), nullable=False),
        sa.Column("recorded_at", UtcTime(), nullable=False),
        sa.Column("due_at", UtcTime(), nullable=False),
        sa.Column("available", sa.BigInteger(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=True),
        sa.Column("ship_complete", sa.Boolean(), nullable=True),
        sa.Column("orders", sa.Integer(), server_default="0", nullable=False),
        sa.Column("wanted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("given", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("shipped", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cut_orders", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cut_units", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_priority", sa.Integer(), nullable=True),
        sa.Column("last_placed_at", UtcTime(), nullable=True),
        sa.Column("last_order_id", ID, nullable=True),
        sa.Column("moved_at", UtcTime(), nullable=True),
        sa.Column("finished_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("allocation_id"),
        sa.UniqueConstraint("source", "id"),
    )
    _partial_index("allocations_open", "allocations", ["sku"], "finished_at IS NULL")
    op.create_table(
        "allotments",
        sa.Column("allocation_id", ASCENDING, nullable=False),
        sa.Column("order_id", ID, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.BigInteger(), nullable=False),
        sa.Column("given", sa.BigInteger(), nullable=False),
        sa.Column("left_units", sa.BigInteger(), nullable=False),
        sa.Column("shipped", sa.BigInteger(), nullable=False),
        sa.Column("cut_units", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("facts", JSON, nullable=False),
        sa.Column("decided_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("allocation_id", "order_id"),
    )
    op.create_index("allotments_by_order", "allotments", ["order_id"])


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    op.create_index(name, table, columns, postgresql_where=sa.text(condition), sqlite_where=sa.text(condition))


def downgrade() -> None:
    for table in ("pauses", "allotments", "allocations", "stock_figures", "shipped_units"):
        op.drop_table(table)
    op.execute("DELETE FROM events WHERE order_id IS NULL")
    with op.batch_alter_table("events") as batch:
        batch.drop_column("sku")
        batch.alter_column("order_id", existing_type=ID, nullable=False)
    op.drop_index("order_items_open", "order_items")
    with op.batch_alter_table("order_items") as batch:
        for name in ("restocked_at", "placed_at", "priority"):
            batch.drop_column(name)
    with op.batch_alter_table("waiting_events") as batch:
        batch.drop_index("waiting_events_by_time")
        batch.drop_column("waited")
        batch.create_index("waiting_events_by_until", ["until"])

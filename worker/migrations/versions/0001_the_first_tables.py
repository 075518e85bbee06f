"""the first tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from worker.storage.tables import UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ASCENDING = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "cancellations",
        sa.Column("ledger_id", ASCENDING, autoincrement=True, nullable=False),
        sa.Column("cancellation_id", sa.Text(), nullable=False),
        sa.Column("order_id", ID, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("cause_source", ID, nullable=False),
        sa.Column("cause_id", ID, nullable=False),
        sa.Column("cancelled_at", UtcTime(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("ledger_id"),
        sa.UniqueConstraint("cancellation_id"),
        sa.UniqueConstraint("order_id", "sequence"),
    )
    with op.batch_alter_table("cancellations", schema=None) as batch_op:
        batch_op.create_index("cancellations_by_position", ["position"], unique=True)
        batch_op.create_index(
            "cancellations_unpositioned",
            ["ledger_id"],
            unique=False,
            postgresql_where=sa.text("position IS NULL"),
            sqlite_where=sa.text("position IS NULL"),
        )

    op.create_table(
        "conflicts",
        sa.Column("conflict_id", ASCENDING, autoincrement=True, nullable=False),
        sa.Column("order_id", ID, nullable=False),
        sa.Column("fulfillment_id", ID, nullable=False),
        sa.Column("item_id", sa.Text(), nullable=True),
        sa.Column("sku", sa.Text(), nullable=True),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.PrimaryKeyConstraint("conflict_id"),
    )
    with op.batch_alter_table("conflicts", schema=None) as batch_op:
        batch_op.create_index("conflicts_by_order", ["order_id"], unique=False)

    op.create_table(
        "dead_letters",
        sa.Column("dead_letter_id", ASCENDING, autoincrement=True, nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("id", sa.Text(), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.PrimaryKeyConstraint("dead_letter_id"),
        sa.UniqueConstraint("entry_id", "digest"),
    )
    with op.batch_alter_table("dead_letters", schema=None) as batch_op:
        batch_op.create_index("dead_letters_by_order", ["order_id"], unique=False)

    op.create_table(
        "events",
        sa.Column("source", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("order_id", ID, nullable=False),
        sa.Column("time", UtcTime(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("facts", JSON, nullable=True),
        sa.Column("recorded_at", UtcTime(), nullable=False),
        sa.Column("decided_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("source", "id"),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index("events_by_order", ["order_id"], unique=False)

    op.create_table(
        "fulfillments",
        sa.Column("order_id", ID, nullable=False),
        sa.Column("fulfillment_id", ID, nullable=False),
        sa.Column("time", UtcTime(), nullable=False),
        sa.Column("lines", JSON, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("source", ID, nullable=False),
        sa.Column("event_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("order_id", "fulfillment_id"),
    )
    op.create_table(
        "order_items",
        sa.Column("order_id", ID, nullable=False),
        sa.Column("item_id", ID, nullable=False),
        sa.Column("original_item_id", ID, nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("sku", ID, nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("fulfilled", sa.Integer(), nullable=False),
        sa.Column("open_quantity", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("cancelled_reason", sa.Text(), nullable=True),
        sa.Column("cancelled_note", sa.Text(), nullable=True),
        sa.Column("cancelled_by", sa.Text(), nullable=True),
        sa.Column("cancelled_at", UtcTime(), nullable=True),
        sa.Column("replaced_by", ID, nullable=True),
        sa.Column("attributes", JSON, nullable=True),
        sa.PrimaryKeyConstraint("order_id", "item_id"),
    )
    op.create_table(
        "orders",
        sa.Column("order_id", ID, nullable=False),
        sa.Column("placed_at", UtcTime(), nullable=True),
        sa.Column("placed_digest", sa.Text(), nullable=True),
        sa.Column("partner", sa.Text(), nullable=True),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attributes", JSON, nullable=True),
        sa.Column("sequence", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("order_id"),
    )
    op.create_table(
        "publication",
        sa.Column("publication_id", sa.Integer(), nullable=False),
        sa.Column("next_position", sa.BigInteger(), nullable=False),
        sa.Column("appended_position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("publication_id"),
    )
    op.create_table(
        "waiting_events",
        sa.Column("source", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("order_id", ID, nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("waits_for", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("until", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("source", "id"),
    )
    with op.batch_alter_table("waiting_events", schema=None) as batch_op:
        batch_op.create_index("waiting_events_by_order", ["order_id"], unique=False)
        batch_op.create_index("waiting_events_by_until", ["until"], unique=False)
    op.execute("INSERT INTO publication (publication_id, next_position, appended_position) VALUES (1, 1, 0)")


def downgrade() -> None:
    with op.batch_alter_table("waiting_events", schema=None) as batch_op:
        batch_op.drop_index("waiting_events_by_until")
        batch_op.drop_index("waiting_events_by_order")

    op.drop_table("waiting_events")
    op.drop_table("publication")
    op.drop_table("orders")
    op.drop_table("order_items")
    op.drop_table("fulfillments")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index("events_by_order")

    op.drop_table("events")
    with op.batch_alter_table("dead_letters", schema=None) as batch_op:
        batch_op.drop_index("dead_letters_by_order")

    op.drop_table("dead_letters")
    with op.batch_alter_table("conflicts", schema=None) as batch_op:
        batch_op.drop_index("conflicts_by_order")

    op.drop_table("conflicts")
    with op.batch_alter_table("cancellations", schema=None) as batch_op:
        batch_op.drop_index(
            "cancellations_unpositioned",
            postgresql_where=sa.text("position IS NULL"),
            sqlite_where=sa.text("position IS NULL"),
        )
        batch_op.drop_index("cancellations_by_position")

    op.drop_table("cancellations")

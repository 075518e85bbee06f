"""holds and breakers"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from worker.storage.tables import UtcTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ASCENDING = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("allocations") as batch:
        batch.add_column(sa.Column("hold", sa.Text(), nullable=True))
    op.create_table(
        "holds",
        sa.Column("hold_id", ASCENDING, autoincrement=True, nullable=False),
        sa.Column("source", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("order_id", ID, nullable=False),
        sa.Column("sku", ID, nullable=True),
        sa.Column("allocation_id", ASCENDING, nullable=True),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("happened_at", UtcTime(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("would", JSON, nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_because", sa.Text(), nullable=True),
        sa.Column("decided_at", UtcTime(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("hold_id"),
        sa.UniqueConstraint("source", "id", "order_id"),
    )
    op.create_index("holds_by_order", "holds", ["order_id"])
    _partial_index("holds_undecided", ["state", "hold_id"], "state IN ('open', 'approved')")
    _partial_index("holds_undecided_by_sku", ["sku"], "state = 'open'")
    op.create_table(
        "breakers",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", ID, nullable=False),
        sa.Column("opened_at", UtcTime(), nullable=True),
        sa.Column("cause_source", ID, nullable=True),
        sa.Column("cause_id", ID, nullable=True),
        sa.Column("closed_at", UtcTime(), nullable=True),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.Column("closed_because", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("scope", "name"),
    )
    op.create_table(
        "breaker_counts",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", ID, nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("orders", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", "since"),
    )


def _partial_index(name: str, columns: list[str], condition: str) -> None:
    op.create_index(name, "holds", columns, postgresql_where=sa.text(condition), sqlite_where=sa.text(condition))


def downgrade() -> None:
    for table in ("breaker_counts", "breakers", "holds"):
        op.drop_table(table)
    with op.batch_alter_table("allocations") as batch:
        batch.drop_column("hold")

"""what is removed by age, and where the outgoing stream begins"""

import sqlalchemy as sa
from alembic import op

from worker.storage.tables import UtcTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
PRUNABLE = sa.text("outcome IN ('nothing', 'recorded', 'refused', 'stale', 'void')")


def upgrade() -> None:
    op.create_table(
        "pruned_events",
        sa.Column("source", ID, nullable=False),
        sa.Column("newest_time", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("source"),
    )
    op.create_index("events_prunable", "events", ["decided_at"], postgresql_where=PRUNABLE, sqlite_where=PRUNABLE)
    op.create_index("dead_letters_by_time", "dead_letters", ["created_at"])
    op.add_column("publication", sa.Column("first_position", sa.BigInteger(), server_default="1", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("publication") as batch:
        batch.drop_column("first_position")
    op.drop_index("dead_letters_by_time", "dead_letters")
    op.drop_index("events_prunable", "events")
    op.drop_table("pruned_events")

"""what people have done about dead letters and conflicts"""

import sqlalchemy as sa
from alembic import op

from worker.storage.tables import UtcTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dead_letters", sa.Column("decided_by", sa.Text(), nullable=True))
    op.add_column("dead_letters", sa.Column("decided_because", sa.Text(), nullable=True))
    op.add_column("dead_letters", sa.Column("decided_at", UtcTime(), nullable=True))
    op.add_column("dead_letters", sa.Column("retried_as", sa.Text(), nullable=True))
    op.add_column("conflicts", sa.Column("resolved_by", sa.Text(), nullable=True))
    op.add_column("conflicts", sa.Column("resolved_at", UtcTime(), nullable=True))
    op.add_column("conflicts", sa.Column("resolution", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("conflicts") as batch:
        for column in ("resolution", "resolved_at", "resolved_by"):
            batch.drop_column(column)
    with op.batch_alter_table("dead_letters") as batch:
        for column in ("retried_as", "decided_at", "decided_because", "decided_by"):
            batch.drop_column(column)

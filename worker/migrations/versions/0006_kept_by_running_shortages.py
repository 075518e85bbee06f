"""what orders keep of a running shortage is counted along, and not anew for each step"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_KEPT = """
    UPDATE allocations SET kept = coalesce((
        SELECT sum(i.open_quantity) FROM allotments t JOIN order_items i ON i.order_id = t.order_id
        WHERE t.allocation_id = allocations.allocation_id AND i.sku = allocations.sku
            AND (i.restocked_at IS NULL OR i.restocked_at <= allocations.happened_at)
            AND NOT (t.outcome = 'held' AND coalesce(allocations.ship_complete, false))
    ), 0)
    WHERE finished_at IS NULL
"""


def upgrade() -> None:
    op.add_column("allocations", sa.Column("kept", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("allotments", sa.Column("released", sa.BigInteger(), nullable=False, server_default="0"))
    for name, table, columns, condition in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
    op.execute(_KEPT)


def downgrade() -> None:
    for name, table, _, _ in _INDEXES:
        op.drop_index(name, table)
    with op.batch_alter_table("allotments") as batch:
        batch.drop_column("released")
    with op.batch_alter_table("allocations") as batch:
        batch.drop_column("kept")


_INDEXES = (
    ("allotments_released", "allotments", ["allocation_id", "released"], "released <> 0"),
    ("holds_decided", "holds", ["allocation_id"], "state IN ('rejected', 'carried_out')"),
)

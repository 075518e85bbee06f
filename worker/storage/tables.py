"""The tables. One module of this package per family of them reads and writes them.

Two do two jobs on purpose: `events` is the inbox and the decision record, `cancellations` the ledger and the outbox.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.types import TypeEngine


class UtcTime(TypeDecorator[datetime]):
    """A time with an offset; UTC where it is stored. On SQLite a text that sorts by time."""

    impl = String(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(String(32))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return stored(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return time.astimezone(UTC)


def stored(time: datetime) -> str:
    """A time as it stands in JSON rows and in SQLite: UTC, microseconds, always of one width."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


# Ids sort by byte on both databases, so that ties break alike.
Id = Text().with_variant(Text(collation="C"), "postgresql")
Ascending = BigInteger().with_variant(Integer, "sqlite")
Json = JSON().with_variant(JSONB, "postgresql")

metadata = MetaData()


def _where(condition: str) -> dict[str, Any]:
    """An index over these rows only."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


orders = Table(
    "orders",
    metadata,
    Column("order_id", Id, primary_key=True),
    # Null until order.placed has come: the row stands from the first event that names the order, to be locked.
    Column("placed_at", UtcTime),
    Column("placed_digest", Text),
    Column("partner", Text),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("attributes", Json),
    Column("sequence", Integer, nullable=False, server_default="0"),
    # The row comes as a stub, and is updated in the same transaction: with room beside it no index is written again.
    postgresql_with={"fillfactor": 40},
)

_ALLOCATION_ORDER = ("sku", "priority", "placed_at", "order_id")

order_items = Table(
    "order_items",
    metadata,
    Column("order_id", Id, primary_key=True),
    Column("item_id", Id, primary_key=True),
    Column("original_item_id", Id, nullable=False),
    Column("line", Integer, nullable=False),
    Column("sku", Id, nullable=False),
    # Of its order, for the index below.
    Column("priority", Integer, nullable=False),
    Column("placed_at", UtcTime, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("fulfilled", Integer, nullable=False),
    Column("open_quantity", Integer, nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("cancelled_reason", Text),
    Column("cancelled_note", Text),
    Column("cancelled_by", Text),
    Column("cancelled_at", UtcTime),
    Column("replaced_by", Id),
    Column("attributes", Json),
    Column("restocked_at", UtcTime),
    # The open demand of a SKU in allocation order, with its units.
    Index("order_items_open", *_ALLOCATION_ORDER, "line", "open_quantity", **_where("open_quantity > 0")),
)

fulfillments = Table(
    "fulfillments",
    metadata,
    Column("order_id", Id, primary_key=True),
    Column("fulfillment_id", Id, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("lines", Json, nullable=False),
    Column("digest", Text, nullable=False),
    Column("source", Id, nullable=False),
    Column("event_id", Id, nullable=False),
)

# Units of a SKU that left with a fulfillment: what is counted against a figure that is older.
shipped_units = Table(
    "shipped_units",
    metadata,
    Column("order_id", Id, primary_key=True),
    Column("fulfillment_id", Id, primary_key=True),
    Column("sku", Id, primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    Column("time", UtcTime, nullable=False),
    Index("shipped_units_by_sku", "sku", "time"),
)

events = Table(
    "events",
    metadata,
    Column("source", Id, primary_key=True),
    Column("id", Id, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("type", Text, nullable=False),
    # One of the two, as the event names it.
    Column("order_id", Id),
    Column("sku", Id),
    Column("time", UtcTime, nullable=False),
    Column("entry_id", Text, nullable=False),
    # Null only inside the transaction that claims the event.
    Column("outcome", Text),
    Column("reason", Text),
    Column("facts", Json),
    Column("recorded_at", UtcTime, nullable=False),
    Column("decided_at", UtcTime),
    Index("events_by_order", "order_id"),
    # What may be removed once it is old: neither what cancelled something, nor what waits or is held.
    Index("events_prunable", "decided_at", **_where("outcome IN ('nothing', 'recorded', 'refused', 'stale', 'void')")),
)

# Per source, the newest `time` among its events that were removed.
pruned_events = Table(
    "pruned_events",
    metadata,
    Column("source", Id, primary_key=True),
    Column("newest_time", UtcTime, nullable=False),
)

cancellations = Table(
    "cancellations",
    metadata,
    Column("ledger_id", Ascending, primary_key=True, autoincrement=True),
    Column("cancellation_id", Text, nullable=False, unique=True),
    Column("order_id", Id, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("operation", Text, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("cause_source", Id, nullable=False),
    Column("cause_id", Id, nullable=False),
    Column("cancelled_at", UtcTime, nullable=False),
    # The event as it is published, byte for byte.
    Column("payload", Text, nullable=False),
    Column("position", BigInteger),
    UniqueConstraint("order_id", "sequence"),
    Index("cancellations_by_position", "position", unique=True),
)
Index(
    "cancellations_unpositioned",
    cancellations.c.ledger_id,
    **_where("position IS NULL"),
)

waiting_events = Table(
    "waiting_events",
    metadata,
    Column("source", Id, primary_key=True),
    Column("id", Id, primary_key=True),
    Column("order_id", Id, nullable=False),
    Column("entry_id", Text, nullable=False),
    Column("waits_for", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("since", UtcTime, nullable=False),
    Column("until", UtcTime, nullable=False),
    # What it has waited for before, each with when that was over.
    Column("waited", Json, nullable=False, server_default="[]"),
    Index("waiting_events_by_order", "order_id"),
    Index("waiting_events_by_time", "waits_for", "until"),
)

# The newest figures of a SKU, by source: a shortage's or restock's time, and a restock's alone.
stock_figures = Table(
    "stock_figures",
    metadata,
    Column("sku", Id, primary_key=True),
    Column("source", Id, primary_key=True),
    Column("newest_at", UtcTime, nullable=False),
    Column("restocked_at", UtcTime),
)

# A shortage of a SKU, and how far its run has come through the orders that want it.
allocations = Table(
    "allocations",
    metadata,
    Column("allocation_id", Ascending, primary_key=True, autoincrement=True),
    Column("source", Id, nullable=False),
    Column("id", Id, nullable=False),
    Column("sku", Id, nullable=False),
    Column("time", UtcTime, nullable=False),
    Column("traceparent", Text),
    # Its `time`, but not after its queue entry came.
    Column("happened_at", UtcTime, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
    Column("due_at", UtcTime, nullable=False),
    Column("available", BigInteger, nullable=False),
    # Set when it begins, so that no change of settings divides a run.
    Column("strategy", Text),
    Column("ship_complete", Boolean),
    # Why all that it would cut is held.
    Column("hold", Text),
    # Of the orders that it has served so far, and the last of them.
    Column("orders", Integer, nullable=False, server_default="0"),
    Column("wanted", BigInteger, nullable=False, server_default="0"),
    Column("given", BigInteger, nullable=False, server_default="0"),
    Column("shipped", BigInteger, nullable=False, server_default="0"),
    # What was open in them when their turn was over, and serves nobody else.
    Column("kept", BigInteger, nullable=False, server_default="0"),
    Column("cut_orders", Integer, nullable=False, server_default="0"),
    Column("cut_units", BigInteger, nullable=False, server_default="0"),
    Column("last_priority", Integer),
    Column("last_placed_at", UtcTime),
    Column("last_order_id", Id),
    Column("moved_at", UtcTime),
    Column("finished_at", UtcTime),
    UniqueConstraint("source", "id"),
    Index("allocations_open", "sku", **_where("finished_at IS NULL")),
)

# What an order was given of a SKU that was short, and what was decided of it.
allotments = Table(
    "allotments",
    metadata,
    Column("allocation_id", Ascending, primary_key=True),
    Column("order_id", Id, primary_key=True),
    Column("rank", Integer, nullable=False),
    Column("wanted", BigInteger, nullable=False),
    Column("given", BigInteger, nullable=False),
    # When its turn came.
    Column("left_units", BigInteger, nullable=False),
    Column("shipped", BigInteger, nullable=False),
    Column("cut_units", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("facts", Json, nullable=False),
    Column("decided_at", UtcTime, nullable=False),
    # By how much less is open in the order since, as long as the run goes on: shipped, cancelled, or restocked.
    Column("released", BigInteger, nullable=False, server_default="0"),
    Index("allotments_by_order", "order_id"),
    Index("allotments_released", "allocation_id", "released", **_where("released <> 0")),
)

# Cuts that a guardrail has stopped, one for each event and order.
holds = Table(
    "holds",
    metadata,
    Column("hold_id", Ascending, primary_key=True, autoincrement=True),
    Column("source", Id, nullable=False),
    Column("id", Id, nullable=False),
    Column("type", Text, nullable=False),
    Column("order_id", Id, nullable=False),
    # Of a shortage of a SKU: which one, and its run.
    Column("sku", Id),
    Column("allocation_id", Ascending),
    # The event as an event of this order, to be decided again: of a shortage of a SKU, with what the order may keep.
    Column("event", Text, nullable=False),
    Column("happened_at", UtcTime, nullable=False),
    Column("why", Text, nullable=False),
    # What it would cancel: [[operation, item id as first ordered, SKU, units], …], and the units together.
    Column("would", Json, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    # open, approved, rejected, superseded, carried_out; or shadow, which nobody decides.
    Column("state", Text, nullable=False),
    Column("decided_by", Text),
    Column("decided_because", Text),
    Column("decided_at", UtcTime),
    # What came of it, once it is approved and carried out, or superseded.
    Column("outcome", Text),
    Column("reason", Text),
    Column("ended_at", UtcTime),
    UniqueConstraint("source", "id", "order_id"),
    Index("holds_by_order", "order_id"),
    Index("holds_undecided", "state", "hold_id", **_where("state IN ('open', 'approved')")),
    Index("holds_undecided_by_sku", "sku", **_where("state = 'open'")),
    Index("holds_decided", "allocation_id", **_where("state IN ('rejected', 'carried_out')")),
)

# Breakers: open from the cut that would have exceeded a limit until a person closes it.
breakers = Table(
    "breakers",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("name", Id, primary_key=True),
    Column("opened_at", UtcTime),
    Column("cause_source", Id),
    Column("cause_id", Id),
    Column("closed_at", UtcTime),
    Column("closed_by", Text),
    Column("closed_because", Text),
)

# What was cancelled, by time: the sliding window is made of these.
breaker_counts = Table(
    "breaker_counts",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("name", Id, primary_key=True),
    Column("since", UtcTime, primary_key=True),
    Column("orders", BigInteger, nullable=False),
    Column("units", BigInteger, nullable=False),
)

pauses = Table(
    "pauses",
    metadata,
    Column("pause_id", Ascending, primary_key=True, autoincrement=True),
    # Null: of every source.
    Column("source", Id),
    Column("reason", Text, nullable=False),
    Column("paused_by", Text, nullable=False),
    Column("paused_at", UtcTime, nullable=False),
    Column("resumed_by", Text),
    Column("resumed_at", UtcTime),
    Column("resumed_because", Text),
    Index("pauses_in_force", "pause_id", **_where("resumed_at IS NULL")),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("dead_letter_id", Ascending, primary_key=True, autoincrement=True),
    Column("entry_id", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("code", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    # What could be read of the event, so that an order's story can tell of it.
    Column("source", Text),
    Column("id", Text),
    Column("order_id", Text),
    Column("created_at", UtcTime, nullable=False),
    # open, retried or dismissed; of a retried one, the queue entry that has its bytes now.
    Column("state", Text, nullable=False, server_default="open"),
    Column("decided_by", Text),
    Column("decided_because", Text),
    Column("decided_at", UtcTime),
    Column("retried_as", Text),
    UniqueConstraint("entry_id", "digest"),
    Index("dead_letters_by_order", "order_id"),
    Index("dead_letters_by_time", "created_at"),
)

conflicts = Table(
    "conflicts",
    metadata,
    Column("conflict_id", Ascending, primary_key=True, autoincrement=True),
    Column("order_id", Id, nullable=False),
    Column("fulfillment_id", Id, nullable=False),
    Column("item_id", Text),
    Column("sku", Text),
    Column("quantity", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    # open or resolved; the resolution is what a person has done.
    Column("state", Text, nullable=False, server_default="open"),
    Column("resolved_by", Text),
    Column("resolved_at", UtcTime),
    Column("resolution", Text),
    Index("conflicts_by_order", "order_id"),
)

publication = Table(
    "publication",
    metadata,
    Column("publication_id", Integer, primary_key=True),
    Column("next_position", BigInteger, nullable=False),
    # Up to here a relay has seen the stream take them; a stream that ends earlier has lost data.
    Column("appended_position", BigInteger, nullable=False),
    # Here the stream begins: what lies before was trimmed, and is not appended again if the stream is lost.
    Column("first_position", BigInteger, nullable=False, server_default="1"),
)

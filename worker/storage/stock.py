"""What is known of a SKU's stock: the newest figures of each source, and the units that have left."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from worker.storage import bulk
from worker.storage.tables import shipped_units, stock_figures


@dataclass(frozen=True, slots=True)
class Figure:
    """That a source told of a SKU's stock, and when that was; a restock if it said that there is some again."""

    sku: str
    source: str
    happened: datetime
    restock: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """The times of the newest figures: by SKU and source, and of restocks by SKU."""

    newest: Mapping[tuple[str, str], datetime]
    restocked: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class ShippedUnits:
    """Units of a SKU that left with a fulfillment."""

    order_id: str
    fulfillment_id: str
    sku: str
    quantity: int
    time: datetime


def note(connection: Connection, figures: Sequence[Figure]) -> None:
    """Note when figures were told; the newest time counts. Locks what it notes until the end of the transaction, in
    key order, so that of two transactions with the same SKU and source one sees the other's."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in sorted(figures, key=lambda one: (one.sku, one.source, one.happened)):
        row = rows.setdefault(
            (one.sku, one.source), {"sku": one.sku, "source": one.source, "newest_at": None, "restocked_at": None}
        )
        row["newest_at"] = one.happened
        row["restocked_at"] = one.happened if one.restock else row["restocked_at"]
    bulk.insert(connection, stock_figures, list(rows.values()), on_conflict="keep greatest")


def figures(connection: Connection, skus: Collection[str]) -> Figures:
    """The newest figures of these SKUs."""
    newest: dict[tuple[str, str], datetime] = {}
    restocked: dict[str, datetime] = {}
    for row in connection.execute(_FIGURES, {"values": skus}) if skus else []:
        newest[row.sku, row.source] = row.newest_at
        if row.restocked_at:
            restocked[row.sku] = max(row.restocked_at, restocked.get(row.sku, row.restocked_at))
    return Figures(newest, restocked)


_FIGURES = select(stock_figures).where(bulk.among(stock_figures.c.sku))


def add_shipped(connection: Connection, units: Sequence[ShippedUnits]) -> None:
    bulk.insert(connection, shipped_units, [{name: getattr(one, name) for name in one.__slots__} for one in units])

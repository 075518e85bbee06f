"""What could not be acted on: the original bytes, a reason code and a sentence that says what to do."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select
from sqlalchemy.dialects import postgresql, sqlite

from domain.errors import RejectionCode
from worker.storage.inbox import Key
from worker.storage.tables import dead_letters

Code = RejectionCode | Literal["id_reused", "waited_too_long", "worker_lost", "unprocessable", "bytes_lost"]
"""Why an entry came to nothing; docs/reasons.md tells what to do."""

ROWS_A_STATEMENT = 1000  # SQLite takes 32,766 parameters


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that came to nothing. `key` and `order_id` are what could be read of it."""

    entry_id: str
    raw: bytes
    code: Code
    sentence: str
    key: Key | None = None
    order_id: str | None = None


def add(connection: Connection, letters: Sequence[DeadLetter], at: datetime) -> None:
    """Write dead letters; a repeat of the same entry with the same bytes adds none."""
    if not letters:
        return
    rows = [
        {
            "entry_id": one.entry_id,
            "digest": hashlib.sha256(one.raw).hexdigest(),
            "bytes": one.raw,
            "code": one.code,
            "sentence": one.sentence,
            "source": one.key[0] if one.key else None,
            "id": one.key[1] if one.key else None,
            "order_id": one.order_id,
            "created_at": at,
        }
        for one in sorted(letters, key=lambda one: one.entry_id)
    ]
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    for first in range(0, len(rows), ROWS_A_STATEMENT):
        values = rows[first : first + ROWS_A_STATEMENT]
        connection.execute(dialect.insert(dead_letters).values(values).on_conflict_do_nothing())


def listed(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    """The newest dead letters, without their bytes."""
    columns: list[ColumnElement[Any]] = [column for column in dead_letters.columns if column.name != "bytes"]
    statement: Select[Any] = select(*columns, func.length(dead_letters.c.bytes).label("size"))
    return connection.execute(statement.order_by(dead_letters.c.dead_letter_id.desc()).limit(limit)).all()


def find(connection: Connection, dead_letter_id: int) -> Row[Any] | None:
    return connection.execute(select(dead_letters).where(dead_letters.c.dead_letter_id == dead_letter_id)).one_or_none()


def of_entry(connection: Connection, entry_id: str) -> Row[Any] | None:
    """The dead letter of a queue entry."""
    return connection.execute(select(dead_letters).where(dead_letters.c.entry_id == entry_id)).first()


def of_order(connection: Connection, order_id: str) -> Sequence[Row[Any]]:
    statement = select(dead_letters).where(dead_letters.c.order_id == order_id)
    return connection.execute(statement.order_by(dead_letters.c.dead_letter_id)).all()


def count(connection: Connection) -> dict[str, int]:
    """How many dead letters there are, by code."""
    statement = select(dead_letters.c.code, func.count()).group_by(dead_letters.c.code).order_by(dead_letters.c.code)
    return {row[0]: row[1] for row in connection.execute(statement)}

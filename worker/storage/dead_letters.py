"""What could not be acted on: the original bytes, a reason code and a sentence that says what to do."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from domain.errors import RejectionCode
from worker.storage.inbox import Key
from worker.storage.tables import dead_letters

Code = RejectionCode | Literal["id_reused", "too_old", "waited_too_long", "worker_lost", "unprocessable", "bytes_lost"]
"""Why an entry came to nothing; docs/reasons.md tells what to do."""

State = Literal["open", "retried", "dismissed"]

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


def listed(
    connection: Connection, limit: int, state: State | None = None, code: str | None = None
) -> Sequence[Row[Any]]:
    """The newest dead letters, in this state and of this code if they are given, without their bytes."""
    columns: list[ColumnElement[Any]] = [column for column in dead_letters.columns if column.name != "bytes"]
    statement: Select[Any] = select(*columns, func.length(dead_letters.c.bytes).label("size"))
    statement = statement.where(*_meant(state, code))
    return connection.execute(statement.order_by(dead_letters.c.dead_letter_id.desc()).limit(limit)).all()


def find(connection: Connection, dead_letter_id: int) -> Row[Any] | None:
    return connection.execute(select(dead_letters).where(dead_letters.c.dead_letter_id == dead_letter_id)).one_or_none()


def of_entry(connection: Connection, entry_id: str) -> Row[Any] | None:
    """The dead letter of a queue entry."""
    return connection.execute(select(dead_letters).where(dead_letters.c.entry_id == entry_id)).first()


def of_order(connection: Connection, order_id: str) -> Sequence[Row[Any]]:
    statement = select(dead_letters).where(dead_letters.c.order_id == order_id)
    return connection.execute(statement.order_by(dead_letters.c.dead_letter_id)).all()


def of_entries(connection: Connection, entry_ids: Collection[str]) -> dict[str, Row[Any]]:
    """The dead letters of queue entries, by these, without their bytes."""
    columns = [column for column in dead_letters.columns if column.name != "bytes"]
    statement: Select[Any] = select(*columns).where(dead_letters.c.entry_id.in_(sorted(entry_ids)))
    return {row.entry_id: row for row in connection.execute(statement)}


def count(connection: Connection, state: State | None = None, code: str | None = None) -> dict[str, int]:
    """How many dead letters there are, by code."""
    statement = select(dead_letters.c.code, func.count()).where(*_meant(state, code))
    found = connection.execute(statement.group_by(dead_letters.c.code).order_by(dead_letters.c.code))
    return {row[0]: row[1] for row in found}


def select_ids(
    connection: Connection, dead_letter_ids: Collection[int], code: str | None, everything: bool
) -> list[int]:
    """The ids of the open dead letters that are meant: these, or those of a code, or all."""
    meant = _meant("open", code)
    if code is None and not everything:
        meant.append(dead_letters.c.dead_letter_id.in_(sorted(dead_letter_ids)))
    return list(connection.scalars(select(dead_letters.c.dead_letter_id).where(*meant).order_by("dead_letter_id")))


def still_open(connection: Connection, dead_letter_ids: Collection[int]) -> Sequence[Row[Any]]:
    """Those of them that nobody has dealt with meanwhile."""
    meant = (dead_letters.c.dead_letter_id.in_(sorted(dead_letter_ids)), *_meant("open", None))
    return connection.execute(select(dead_letters).where(*meant).order_by("dead_letter_id")).all()


def retried(connection: Connection, entry_ids: Mapping[int, str], by: str, because: str, at: datetime) -> int:
    """Note by which queue entries dead letters came again; returns of how many nobody else had done so. One that was
    dismissed at the same moment is retried none the less: it is on the queue."""
    if not entry_ids:
        return 0
    values = {"state": "retried", "retried_as": case(dict(entry_ids), value=dead_letters.c.dead_letter_id)}
    meant = (dead_letters.c.dead_letter_id.in_(sorted(entry_ids)), dead_letters.c.state != "retried")
    return _decide(connection, meant, values, by, because, at)


def dismiss(connection: Connection, dead_letter_ids: Collection[int], by: str, because: str, at: datetime) -> int:
    """Note that nothing is to be done about these any more; returns how many of them were open."""
    meant = (dead_letters.c.dead_letter_id.in_(sorted(dead_letter_ids)), *_meant("open", None))
    return _decide(connection, meant, {"state": "dismissed"}, by, because, at)


def _decide(
    connection: Connection, meant: Sequence[ColumnElement[bool]], values: Any, by: str, because: str, at: datetime
) -> int:
    values = {**values, "decided_by": by, "decided_because": because, "decided_at": at}
    return connection.execute(update(dead_letters).where(*meant).values(values)).rowcount


def _meant(state: State | None, code: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if state is not None:
        conditions.append(dead_letters.c.state == state)
    if code is not None:
        conditions.append(dead_letters.c.code == code)
    return conditions

"""Writing many rows, and finding rows by many values, with one statement, the same on both databases.

The rows travel as one JSON parameter, which the server turns into a table. (`insert(table)` with a list of rows runs
one server statement per row on psycopg.)
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from pydantic_core import to_json
from sqlalchemy import (
    ARRAY,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Row,
    Table,
    Text,
    TextClause,
    TypeDecorator,
    bindparam,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from worker.storage.tables import stored

Rows = Sequence[Mapping[str, Any]]
OnConflict = Literal["fail", "do nothing", "update", "keep greatest", "add"]


def among(column: Column[str]) -> ColumnElement[bool]:
    """Whether a column has one of the texts given when the statement is executed, as `values`. They travel as one
    parameter: with one for each, the statement is written and read anew for every batch, which took a tenth of its
    time. So the statement can be made once, too: one that holds values is garbage in a cycle, which stays for long."""
    return _Among(column, bindparam("values", type_=_Texts))


class _Texts(TypeDecorator[Collection[str]]):
    """An array, on SQLite as JSON."""

    impl = ARRAY(Text)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(Text))

    def process_bind_param(self, value: Collection[str] | None, dialect: Dialect) -> str | list[str]:
        texts = sorted(value or ())
        return json.dumps(texts) if dialect.name == "sqlite" else texts


class _Among(FunctionElement[bool]):
    type = Boolean()
    inherit_cache = True


@compiles(_Among)
def _any(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} = ANY ({values})"


@compiles(_Among, "sqlite")
def _in_json(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"


def insert(
    connection: Connection,
    table: Table,
    rows: Rows,
    *,
    on_conflict: OnConflict = "fail",
    returning: tuple[str, ...] = (),
) -> Sequence[Row[Any]]:
    """Insert rows, all of the same columns. `on_conflict` is about the primary key, with "do nothing" about any key;
    "keep greatest" keeps of each column the greater of both values, where there are two, and "add" adds them."""
    if not rows:
        return []
    statement = _insert(connection.dialect, table, tuple(rows[0]), on_conflict, returning)
    result = connection.execute(statement, {"rows": _json(connection.dialect, rows)})
    return result.all() if returning else []


def update(connection: Connection, table: Table, rows: Rows, *, add: bool = False) -> None:
    """Set columns of existing rows, which are named by their primary key, or with `add`, add to them."""
    if rows:
        statement = _update(connection.dialect, table, tuple(rows[0]), add)
        connection.execute(statement, {"rows": _json(connection.dialect, rows)})


def delete(connection: Connection, table: Table, rows: Rows) -> None:
    """Delete rows, which are named by their primary key."""
    if rows:
        statement = _delete(connection.dialect, table, tuple(rows[0]))
        connection.execute(statement, {"rows": _json(connection.dialect, rows)})


@lru_cache
def _insert(
    dialect: Dialect, table: Table, columns: tuple[str, ...], on_conflict: OnConflict, returning: tuple[str, ...]
) -> TextClause:
    names = ", ".join(columns)
    # SQLite needs WHERE before ON CONFLICT, or it reads ON as part of a join.
    sql = f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {_source(dialect, table, columns)} WHERE true"
    if on_conflict == "do nothing":
        sql += " ON CONFLICT DO NOTHING"
    elif on_conflict != "fail":
        key = ", ".join(_key(table))
        assign = {"update": _assignments, "keep greatest": _greatest, "add": _sums}[on_conflict]
        sql += f" ON CONFLICT ({key}) DO UPDATE SET {assign(table, columns, 'excluded')}"
    if returning:
        sql += f" RETURNING {', '.join(returning)}"
    return text(sql)


@lru_cache
def _update(dialect: Dialect, table: Table, columns: tuple[str, ...], add: bool) -> TextClause:
    assignments = (_sums if add else _assignments)(table, columns, "given")
    key = " AND ".join(f"{table.name}.{name} = given.{name}" for name in _key(table))
    source = _source(dialect, table, columns)
    return text(f"UPDATE {table.name} SET {assignments} FROM {source} WHERE {key}")


@lru_cache
def _delete(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> TextClause:
    names = ", ".join(columns)
    return text(f"DELETE FROM {table.name} WHERE ({names}) IN (SELECT {names} FROM {_source(dialect, table, columns)})")


def _key(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _assignments(table: Table, columns: tuple[str, ...], source: str) -> str:
    return ", ".join(f"{name} = {source}.{name}" for name in columns if name not in _key(table))


def _greatest(table: Table, columns: tuple[str, ...], source: str) -> str:
    return ", ".join(
        f"{name} = CASE WHEN {table.name}.{name} >= {source}.{name} THEN {table.name}.{name} "
        f"ELSE coalesce({source}.{name}, {table.name}.{name}) END"
        for name in columns
        if name not in _key(table)
    )


def _sums(table: Table, columns: tuple[str, ...], source: str) -> str:
    added = (name for name in columns if name not in _key(table))
    return ", ".join(f"{name} = {table.name}.{name} + {source}.{name}" for name in added)


def _source(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> str:
    """The JSON parameter as a table named `given`."""
    if dialect.name == "postgresql":
        types = ", ".join(f"{name} {table.columns[name].type.compile(dialect)}" for name in columns)
        return f"json_to_recordset(CAST(:rows AS json)) AS given({types})"
    values = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in columns)
    return f"(SELECT {values} FROM json_each(:rows)) AS given"


def _json(dialect: Dialect, rows: Rows) -> str:
    if dialect.name == "sqlite":  # a time is a text there
        rows = [{name: stored(v) if isinstance(v, datetime) else v for name, v in row.items()} for row in rows]
    return to_json(rows).decode()

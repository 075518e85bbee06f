"""`shortpick breaker`: the limits on what is cancelled, and closing one that was reached."""

from typing import Annotated

import typer

from domain.guardrails import Key, Scope, limits_of
from worker import bootstrap
from worker.cli.context import Failure, Json, StateDir, emit, json_fields, messages, pipeline, say_table
from worker.cli.pauses import user
from worker.cli.wording import when
from worker.storage import breakers
from worker.storage.database import now, reading, transaction

breaker = typer.Typer(help="Limits on what is cancelled within a window.", no_args_is_help=True)

SCOPES: tuple[Scope, ...] = ("everything", "source", "sku")


def register(app: typer.Typer) -> None:
    app.add_typer(breaker, name="breaker")


@breaker.command("list")
def list_breakers(as_json: Json = False, state_dir: StateDir = None) -> None:
    """The breakers that have counted, those that are open first."""
    with pipeline(state_dir) as p, reading(p.engine) as connection:
        limits = bootstrap.policy(p.settings).breaker
        rows = [dict(row._mapping) for row in breakers.listed(connection)]
        keys: list[Key] = [(row["scope"], row["name"]) for row in rows]
        counts = breakers.counts(connection, keys, now(connection), limits.window) if keys else {}
    for row, key in zip(rows, keys, strict=True):
        of = limits_of(key, limits)
        row |= {"orders": counts[key].orders, "units": counts[key].units}
        row |= {"order_limit": of.orders or None, "unit_limit": of.units or None}
    if as_json:
        for row in rows:
            emit(json_fields(row))
        return
    if not rows:
        messages.print("No breaker has counted anything.")
        return
    columns = ("breaker", "state", "orders", "of", "units", "of", "opened by event")
    say_table(
        columns,
        [
            (
                f"{row['scope']} {row['name']}".rstrip(),
                f"OPEN since {when(row['opened_at'])}" if row["opened_at"] else "closed",
                row["orders"],
                row["order_limit"],
                row["units"],
                row["unit_limit"],
                row["cause_id"] if row["opened_at"] else None,
            )
            for row in rows
        ],
    )
    messages.print("Close one with: shortpick breaker close SCOPE [NAME] --reason … What it has held stays held.")


@breaker.command()
def close(
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="everything, source or sku.")],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The source, or the SKU.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why it may be closed.")] = ...,  # type: ignore[assignment]  # Typer's way to require an option after an argument with a default
    by: Annotated[str, typer.Option("--by", help="Who does it; otherwise the user of this machine.")] = "",
    state_dir: StateDir = None,
) -> None:
    """Close a breaker that is open; it counts anew from now on. What it has held stays held: see `shortpick holds`."""
    key: Key = (_scope(scope), name)
    called = " ".join(part for part in key if part)
    with pipeline(state_dir) as p:
        with transaction(p.engine) as connection:
            closed = breakers.close(connection, key, reason, by or user())
    if not closed:
        raise Failure(f"the breaker {called} is not open; shortpick breaker list shows those that are")
    messages.print(f"The breaker {called} is closed, and counts anew.", markup=False)


def _scope(given: str) -> Scope:
    for scope in SCOPES:
        if scope == given:
            return scope
    raise Failure(f"{given!r} is no scope of a breaker; it is one of {', '.join(SCOPES)}")

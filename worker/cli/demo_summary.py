"""What the demo counts, checks and shows. The checks read the tables with SQL of their own."""

import os
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.columns import Columns
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection, text

from worker.cli.context import Pipeline, out
from worker.cli.demo_subscriber import Subscriber
from worker.simulator import Sent
from worker.storage.database import reading

OPERATIONS = ("cancelItem", "cancelItemPartially", "cancelOrder", "cancelUnfulfilled")

Counts = Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the demo tells at its end. `checks` are sentences with whether they hold."""

    seconds: float
    came_in: Counter[str]
    decided: Counts
    cancelled: Counts
    ran_dry: Counts
    losers: Counts
    dead: Counts
    conflicts: int
    waited: int
    waiting: int
    checks: list[tuple[str, bool]]
    milliseconds: list[float]
    example: str | None
    loser: str | None

    @property
    def failures(self) -> list[str]:
        return [f"not true: {sentence}" for sentence, holds in self.checks if not holds]


def find(p: Pipeline, sent: Sequence[Sent], subscriber: Subscriber, seconds: float) -> Findings:
    """Count what happened, and check what is promised."""
    with reading(p.engine) as connection:
        return Findings(
            seconds=seconds,
            came_in=Counter(one.kind for one in sent),
            decided=_rows(connection, _DECIDED),
            cancelled=_rows(connection, _CANCELLED),
            ran_dry=_rows(connection, _RAN_DRY),
            losers=_rows(connection, _LOSERS),
            dead=_rows(connection, "SELECT code, count(*) FROM dead_letters GROUP BY code ORDER BY 2 DESC, 1"),
            conflicts=_number(connection, "SELECT count(*) FROM conflicts"),
            waited=_number(connection, "SELECT count(*) FROM events WHERE decided_at > recorded_at"),
            waiting=_number(connection, "SELECT count(*) FROM waiting_events"),
            checks=[_accounted(connection, sent), *_checks(connection, subscriber)],
            milliseconds=_latencies(connection, subscriber),
            example=connection.execute(text(_EXAMPLE)).scalar(),
            loser=connection.execute(text(_LOSER)).scalar(),
        )


def _accounted(connection: Connection, sent: Sequence[Sent]) -> tuple[str, bool]:
    """What comes again byte for byte leaves no record of its own; everything else does, one for each that was sent."""
    decided = _number(connection, "SELECT count(*) FROM events WHERE outcome <> 'waiting'")
    dead = _number(connection, "SELECT count(*) FROM dead_letters")
    sound = [one.raw for one in sent if one.kind != "broken"]
    repeats = len(sound) - len(set(sound))
    sentence = f"none was lost: sent {len(sent):,} = decided {decided:,} + dead letters {dead:,} + repeats {repeats:,}"
    return sentence, len(sent) == decided + dead + repeats


def _checks(connection: Connection, subscriber: Subscriber) -> list[tuple[str, bool]]:
    ledger = _rows(connection, "SELECT position, payload FROM cancellations ORDER BY position")
    operations = {str(row[0]) for row in _rows(connection, "SELECT DISTINCT operation FROM cancellations")}
    ordered, fulfilled, open_ = _rows(connection, _UNITS)[0]
    cancelled = _number(connection, "SELECT sum(units) FROM cancellations")
    expected = list(range(1, len(ledger) + 1))
    read = list(zip(subscriber.positions, subscriber.events, strict=True))
    balance = f"ordered {ordered:,} = shipped {fulfilled:,} + cancelled {cancelled:,} + open {open_:,}"
    return [
        (
            f"positions 1 to {len(ledger):,} were published without a gap or a duplicate",
            subscriber.positions == expected,
        ),
        ("each published event is its ledger row, byte for byte", read == [(n, str(e).encode()) for n, e in ledger]),
        (f"units balance: {balance}", ordered == int(str(fulfilled)) + cancelled + int(str(open_))),
        ("every item balances by itself", not _rows(connection, _UNBALANCED)),
        ("all four operations occurred", operations == set(OPERATIONS)),
    ]


def _latencies(connection: Connection, subscriber: Subscriber) -> list[float]:
    """Milliseconds from sending to publication, of what did not have to wait for another event."""
    prompt = _rows(connection, "SELECT source, id FROM events WHERE outcome = 'applied' AND decided_at = recorded_at")
    return sorted(
        subscriber.seconds[str(s), str(i)] * 1000 for s, i in prompt if (str(s), str(i)) in subscriber.seconds
    )


def show(findings: Findings, state_dir: Path) -> None:
    """The summary, on standard output."""
    total = sum(findings.came_in.values())
    out.print(f"\n[bold]{total:,} events in {findings.seconds:.1f} seconds[/bold]\n")
    came_in = _table(("what came in", "events"), findings.came_in.most_common())
    dead = _table(("dead letters", "events"), findings.dead)
    out.print(Columns([came_in, dead], padding=(0, 6)))
    out.print()
    out.print(_table(("what was decided", "why", "events"), findings.decided))
    out.print()
    out.print(_table(("what was cancelled", "why", "orders", "units"), findings.cancelled))
    out.print("\n[bold]SKUs that ran dry[/bold]: the units left serve the orders by priority, then the oldest first.\n")
    out.print(_table(_RAN_DRY_COLUMNS, findings.ran_dry))
    out.print("\nWho lost, for example, and why:")
    for place in findings.losers:
        out.print("  {}: number {} of {} that wanted {}; it wanted {} and was given {}".format(*place), markup=False)
    out.print(f"\n{findings.waited} events waited for another one first; {findings.waiting} still wait.")
    out.print(f"{findings.conflicts} conflicts (goods shipped that were cancelled) are for a person to resolve.\n")
    for sentence, holds in findings.checks:
        out.print(f"[green]✓[/green] {sentence}" if holds else f"[red]✗ {sentence}[/red]")
    if len(findings.milliseconds) > 1:
        median = statistics.median(findings.milliseconds)
        slowest = statistics.quantiles(findings.milliseconds, n=100)[98]
        out.print(f"\nFrom event to published cancellation: median {median:.0f} ms, 99th percentile {slowest:.0f} ms;")
        out.print(f"of {len(findings.milliseconds):,} events that did not have to wait for another one.")
    out.print("\nTry next:")
    shortpick = "shortpick" if shutil.which("shortpick") else os.path.relpath(sys.argv[0])
    out.print(f"  {shortpick} why {findings.example} --state-dir {state_dir}", markup=False, soft_wrap=True)
    out.print(f"  {shortpick} why {findings.loser} --state-dir {state_dir}", markup=False, soft_wrap=True)
    out.print(f"  {shortpick} dead-letters list --state-dir {state_dir}", markup=False, soft_wrap=True)


def _table(headers: Sequence[str], rows: Counts) -> Table:
    """Words to the left, numbers to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in headers:
        table.add_column(name, justify="right" if name in _NUMBERS else "left")
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell).replace("_", " ")) for cell in row))
    return table


def _rows(connection: Connection, sql: str) -> Counts:
    return [tuple(row) for row in connection.execute(text(sql))]


def _number(connection: Connection, sql: str) -> int:
    return int(connection.execute(text(sql)).scalar() or 0)


_RAN_DRY_COLUMNS = ("SKU", "available", "outcome", "orders", "units wanted", "units given", "orders cut", "units cut")
_NUMBERS = {"events", "orders", "units", *_RAN_DRY_COLUMNS} - {"SKU", "outcome"}
_RAN_DRY = """
    SELECT a.sku, a.available, e.outcome, a.orders, a.wanted, a.given, a.cut_orders, a.cut_units
    FROM allocations a JOIN events e ON e.source = a.source AND e.id = a.id ORDER BY a.allocation_id
"""
_LOSERS = """
    SELECT t.order_id, t.rank, a.orders, a.sku, t.wanted, t.given
    FROM allotments t JOIN allocations a ON a.allocation_id = t.allocation_id
    WHERE t.given < t.wanted ORDER BY t.allocation_id, t.rank LIMIT 4
"""
_LOSER = """
    SELECT order_id FROM allotments WHERE cut_units > 0 AND given > 0 ORDER BY allocation_id, rank LIMIT 1
"""
_DECIDED = "SELECT outcome, reason, count(*) FROM events GROUP BY outcome, reason ORDER BY outcome, 3 DESC"
_CANCELLED = """
    SELECT operation, reason, count(DISTINCT order_id), sum(units) FROM cancellations
    GROUP BY operation, reason ORDER BY operation, 4 DESC
"""
_UNITS = """
    SELECT sum(CASE WHEN item_id = original_item_id THEN quantity ELSE 0 END), sum(fulfilled), sum(open_quantity)
    FROM order_items
"""
# Per item as first ordered; what an item lost is what its replacement lacks.
_UNBALANCED = """
    SELECT i.order_id, i.original_item_id
    FROM order_items i LEFT JOIN order_items r ON r.order_id = i.order_id AND r.item_id = i.replaced_by
    GROUP BY i.order_id, i.original_item_id
    HAVING sum(CASE WHEN i.item_id = i.original_item_id THEN i.quantity ELSE 0 END) <> sum(
        i.fulfilled + i.open_quantity + CASE WHEN i.cancelled THEN i.quantity - coalesce(r.quantity, 0) ELSE 0 END
    )
"""
_EXAMPLE = """
    SELECT order_id FROM cancellations GROUP BY order_id
    ORDER BY count(*) DESC, count(DISTINCT operation) DESC, order_id LIMIT 1
"""

"""`shortpick report`: what was cancelled, as after an incident; or what would have been, in shadow mode."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import typer
from sqlalchemy import Connection, Row

from domain.outgoing import rfc3339
from worker.cli.context import Failure, Json, Pipeline, StateDir, emit, messages, pipeline, say, say_table
from worker.cli.wording import counted, when
from worker.storage import reports
from worker.storage.database import now, reading
from worker.storage.reports import Chosen

PAGE = 1000
BAR_WIDTH = 30
SHOWN_SKUS = 20
TIMES = "a time with an offset (2026-01-05T09:00:00Z), a date (its beginning in UTC), or a span back from now (2h, 7d)"

_SPAN = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(_DATE.pattern + r"[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")


@dataclass(frozen=True, slots=True)
class Line:
    """Units of an order's line that were cancelled by one operation, or would have been. `why` is the reason code, of
    what would have been the type of the event."""

    order_id: str
    item_id: str
    sku: str
    units: int
    operation: str
    why: str
    partner: str | None
    at: datetime
    cause_source: str
    cause_id: str


@dataclass(slots=True)
class Sum:
    """What came to one operation, one SKU …"""

    units: int = 0
    orders: set[str] = field(default_factory=set)

    def add(self, line: Line) -> None:
        self.units += line.units
        self.orders.add(line.order_id)


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    cause: Annotated[
        str | None, typer.Option("--cause", metavar="EVENT-ID", help="Only what this event has caused.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help=f"From then on: {TIMES}.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then; like --since.")] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="What would have been cancelled while Shortpick ran in shadow mode.")
    ] = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A line of CSV for each cancelled line of an order.")] = False,
    state_dir: StateDir = None,
) -> None:
    """What was cancelled: sums by operation, reason, SKU and partner; with --json or --csv each line, to reorder it."""
    if as_json and as_csv:
        raise Failure("--json and --csv exclude each other")
    with pipeline(state_dir) as p:
        with reading(p.engine) as connection:
            at = now(connection)
        chosen = Chosen(cause, _time("--since", since, at), _time("--until", until, at))
        if chosen.since and chosen.until and chosen.since >= chosen.until:
            raise Failure(f"--since ({when(chosen.since)}) must be before --until ({when(chosen.until)})")
        lines = _would(p, chosen) if shadow else _were(p, chosen)
        if as_json:
            for line in lines:
                emit(_fields(line, shadow))
        elif as_csv:
            _write_csv(lines, shadow)
        else:
            _tell(lines, shadow)


def _time(option: str, written: str | None, at: datetime) -> datetime | None:
    """A time as a person writes it. `at` is now."""
    if written is None:
        return None
    try:
        if found := _SPAN.fullmatch(written):
            return at - timedelta(**{_UNITS[found[2]]: int(found[1])})
        if _DATE.fullmatch(written):
            return datetime.combine(date.fromisoformat(written), datetime.min.time(), UTC)
        if _TIME.fullmatch(written):
            return datetime.fromisoformat(written.upper()).astimezone(UTC)
    except (ValueError, OverflowError):  # no such day or hour, or before the calendar begins
        pass
    raise Failure(f"{option} {written!r} is not a time; give {TIMES}")


def _were(p: Pipeline, chosen: Chosen) -> Iterator[Line]:
    """What was cancelled, in ledger order."""
    for row in _pages(p, lambda connection, after: reports.cancelled(connection, chosen, after, PAGE)):
        data = json.loads(row.payload)["data"]
        for item in data["items"]:
            yield Line(
                order_id=row.order_id,
                item_id=item["originalItemId"],
                sku=item["sku"],
                units=item["cancelledQuantity"],
                operation=row.operation,
                why=row.reason,
                partner=data["partner"],
                at=row.cancelled_at,
                cause_source=row.cause_source,
                cause_id=row.cause_id,
            )


def _would(p: Pipeline, chosen: Chosen) -> Iterable[Line]:
    """What would have been cancelled. Of one line of an order the largest cut counts, since in shadow mode a shortage
    that is reported again finds the line as it was, and would otherwise have cancelled it once."""
    largest: dict[tuple[str, str], Line] = {}
    for row in _pages(p, lambda connection, after: reports.shadowed(connection, chosen, after, PAGE)):
        for operation, item_id, sku, units in row.would:
            known = largest.get((row.order_id, item_id))
            if known is None or known.units < units:
                largest[row.order_id, item_id] = Line(
                    order_id=row.order_id,
                    item_id=item_id,
                    sku=sku,
                    units=units,
                    operation=operation,
                    why=row.type,
                    partner=row.partner,
                    at=row.created_at,
                    cause_source=row.source,
                    cause_id=row.id,
                )
    return largest.values()


def _pages(p: Pipeline, page: Callable[[Connection, int], Sequence[Row[Any]]]) -> Iterator[Row[Any]]:
    """By pages, so that memory stays flat; a transaction each, so that a slow reader of the output holds none open. The
    first column of a row is what the pages go by."""
    last = 0
    while True:
        with reading(p.engine) as connection:
            rows = page(connection, last)
        if not rows:
            return
        yield from rows
        last = rows[-1][0]


def _fields(line: Line, shadow: bool) -> dict[str, Any]:
    return {
        "orderId": line.order_id,
        "itemId": line.item_id,
        "sku": line.sku,
        "units": line.units,
        "operation": line.operation,
        "eventType" if shadow else "reason": line.why,
        "partner": line.partner,
        "decidedAt" if shadow else "cancelledAt": rfc3339(line.at),
        "causeSource": line.cause_source,
        "causeId": line.cause_id,
    }


def _write_csv(lines: Iterable[Line], shadow: bool) -> None:
    nothing = Line("", "", "", 0, "", "", None, datetime.now(UTC), "", "")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_fields(nothing, shadow))
    for line in lines:
        writer.writerow([_cell(value) for value in _fields(line, shadow).values()])


def _cell(value: object) -> object:
    """Ids come from outside: none of them may be run as a formula when the file is opened in a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _tell(lines: Iterable[Line], shadow: bool) -> None:
    everything, first, last = Sum(), datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    groups: dict[str, dict[str | None, Sum]] = {name: {} for name in ("operation", "why", "sku", "partner")}
    for line in lines:
        everything.add(line)
        first, last = min(first, line.at), max(last, line.at)
        for name, group in groups.items():
            group.setdefault(getattr(line, name), Sum()).add(line)
    if not everything.orders:
        messages.print("Nothing would have been cancelled." if shadow else "Nothing was cancelled.")
        return
    verb = "would have been" if shadow else "was" if everything.units == 1 else "were"
    orders = counted(len(everything.orders), "order")
    say(f"{counted(everything.units, 'unit')} of {orders} {verb} cancelled, from {when(first)} to {when(last)}.")
    _say_sums("operation", groups["operation"])
    _say_sums("event" if shadow else "reason", groups["why"])
    _say_sums("SKU", groups["sku"], SHOWN_SKUS)
    _say_sums("partner", groups["partner"])
    messages.print("\n--json or --csv lists the lines one by one.", markup=False)


def _say_sums(title: str, sums: dict[str | None, Sum], limit: int | None = None) -> None:
    """A table of them, the most units first."""
    ordered = sorted(sums.items(), key=lambda one: (-one[1].units, one[0] or ""))
    rows = [(name, len(one.orders), one.units, _bar(one.units, ordered[0][1].units)) for name, one in ordered[:limit]]
    say()
    say_table([title, "orders", "units", ""], rows)
    if len(ordered) > len(rows):
        rest = sum(one.units for _, one in ordered[len(rows) :])
        say(f"… and {counted(len(ordered) - len(rows), f'more {title}')} with {counted(rest, 'unit')}")


def _bar(units: int, largest: int) -> str:
    """As long as its share of the largest; what is there at all is seen."""
    return "▇" * max(1, round(BAR_WIDTH * units / largest)) if units else ""

"""What must hold after every turn of the pipeline, seen in what the turn has added to the ledger and to the outgoing
stream. Like the checker, it shares no code with the worker, and trusts no constraint."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis
from sqlalchemy import Connection, Engine, Row, text

from tests.records import arrival, as_time, entries_of, parsed_event
from worker.settings import Settings

Key = tuple[str, str]
LONG_AGO = datetime.min.replace(tzinfo=UTC)

_ADDED = text(
    """
    SELECT c.*, e.type, e.sku, e.recorded_at, e.time, e.entry_id, o.partner, h.hold_id AS approved,
           a.due_at, a.ship_complete, a.cut_orders AS run_orders, a.cut_units AS run_units
    FROM cancellations c
    JOIN events e ON e.source = c.cause_source AND e.id = c.cause_id
    JOIN orders o ON o.order_id = c.order_id
    LEFT JOIN allocations a ON a.source = c.cause_source AND a.id = c.cause_id
    LEFT JOIN holds h ON h.source = c.cause_source AND h.id = c.cause_id AND h.order_id = c.order_id
                      AND h.state = 'carried_out'
    WHERE c.ledger_id > :seen ORDER BY c.ledger_id
    """
)
_NUMBERS = text("SELECT (SELECT count(*) FROM cancellations), (SELECT max(rowid) FROM events)")
_NEWS = text("SELECT * FROM events WHERE rowid > :seen AND type IN ('inventory.shortage', 'inventory.restocked')")
_STOPPED = text("SELECT count(*) FROM holds WHERE why = 'breaker'")
_OPEN = text("SELECT scope, name FROM breakers WHERE opened_at IS NOT NULL")


@dataclass
class Watch:
    """`found` are the violations, as sentences. Whoever pauses or closes a breaker says so here."""

    engine: Engine
    redis: Redis
    settings: Settings
    sent: Mapping[str, bytes]
    paused: set[str | None] = field(default_factory=set)
    found: list[str] = field(default_factory=list)
    cut: dict[Key, list[tuple[datetime, int]]] = field(default_factory=lambda: defaultdict(list))
    """By what a breaker counts: when and how many units, since it last began to count."""
    newest: dict[str, str] = field(default_factory=dict)
    """By order, the id of the item that was attached last."""
    _written: int = 0
    _published: int = 0
    _recorded: int | None = None
    _newest_figure: dict[tuple[str | None, str], datetime] = field(default_factory=dict)
    _restocked: dict[str | Key, datetime] = field(default_factory=dict)
    """SKUs, and items by order and id."""
    _open: set[Key] = field(default_factory=set)
    _stopped: int = 0

    def look(self, settings: Settings) -> None:
        """After a turn, which had these settings."""
        if _breaker(settings) != _breaker(self.settings):
            self.cut.clear()
        self.settings = settings
        with self.engine.connect() as connection:
            written, recorded = connection.execute(_NUMBERS).one()
            if written != self._written:
                self._look_at_ledger(connection, written)
            if self.redis.xlen("order.cancelled") != self._published:
                self._look_at_stream(connection)
            if recorded != self._recorded:
                self._note_figures(connection)
                self._recorded = recorded
            if self._limited():
                self._look_at_breakers(connection)

    def _look_at_ledger(self, connection: Connection, written: int) -> None:
        added = connection.execute(_ADDED, {"seen": self._written}).all()
        self._written += len(added)
        if written != self._written:
            self.found.append("Rows of the ledger have gone.")
        for row in added:
            self.found += [f"Cancellation {row.ledger_id} of {row.order_id}: {fault}" for fault in self._faults(row)]
            told = parsed_event(row.payload)["data"]["items"]
            self.newest |= [(row.order_id, item["newItemId"]) for item in told if item["newItemId"]]
        self.found += self._overshot(added)

    def _look_at_breakers(self, connection: Connection) -> None:
        self._open = {(row.scope, row.name) for row in connection.execute(_OPEN)}
        stopped = connection.execute(_STOPPED).scalar_one()
        if stopped > self._stopped and not self._open:
            self.found.append("A breaker has stopped a cut, and none is open.")
        self._stopped = stopped

    def _faults(self, row: Row[Any]) -> Iterator[str]:
        if self.paused & {None, row.cause_source}:
            yield "it was made while cuts were paused."
        if self.settings.shadow:
            yield "it was made in shadow mode."
        yield from self._too_early(row)
        yield from self._overtaken(row)
        if row.approved is None:
            yield from self._unguarded(row)

    def _too_early(self, row: Row[Any]) -> Iterator[str]:
        at = as_time(row.cancelled_at)
        if row.due_at is not None and at < as_time(row.due_at):
            yield "the shortage of its SKU was not due."
        if row.type == "inventory.shortage" and row.sku is None and row.approved is None:
            grace = timedelta(seconds=self.settings.order_shortage_grace_seconds)
            if max(timedelta(0), at - as_time(row.recorded_at)) < grace:
                yield "its grace was not over."

    def _overtaken(self, row: Row[Any]) -> Iterator[str]:
        """By what was known of the stock before the turn began."""
        if row.type != "inventory.shortage":
            return
        happened = _happened(row)
        if happened < self._newest_figure.get((row.sku, row.cause_source), LONG_AGO):
            yield "a newer figure of its source was known."
        if happened < self._restocked.get(row.sku, LONG_AGO):
            yield f"{row.sku} was restocked since."
        ship_complete = self.settings.ship_complete if row.sku is None else row.ship_complete
        for item in [] if ship_complete else parsed_event(row.payload)["data"]["items"]:
            of_sku = self._restocked.get(item["sku"], LONG_AGO) if row.sku is None else LONG_AGO
            if happened < max(of_sku, self._restocked.get((row.order_id, item["originalItemId"]), LONG_AGO)):
                yield f"its item {item['originalItemId']} was restocked since."

    def _unguarded(self, row: Row[Any]) -> Iterator[str]:
        settings = self.settings
        if row.order_id in settings.protected_orders.split(",") or row.partner in settings.protected_partners.split(
            ","
        ):
            yield "it was protected, and nobody has approved it."
        if row.sku is not None and not _allow(
            settings.preflight_orders, settings.preflight_units, row.run_orders, row.run_units
        ):
            yield "its run has cut more than the preflight allows."
        for key in _keys(row):
            if key in self._open and self._limits(key) != (0, 0):
                yield f"the breaker {key} was open."

    def _overshot(self, added: Any) -> Iterator[str]:
        """Limits of the breaker: what one event cut of one order counts once."""
        units: dict[Key, Counter[tuple[str, str, str]]] = defaultdict(Counter)
        times = {}
        for row in (row for row in added if row.approved is None):
            cut = (row.cause_source, row.cause_id, row.order_id)
            times[cut] = as_time(row.cancelled_at)
            for key, number in _keys(row).items():
                units[key][cut] += number
        window = timedelta(seconds=self.settings.breaker_window_seconds)
        for key, cuts in units.items():
            self.cut[key] += [(times[cut], number) for cut, number in cuts.items()]
            for end in set(times.values()):
                within = [number for at, number in self.cut[key] if end - window <= at <= end]
                if not _allow(*self._limits(key), len(within), sum(within)):
                    yield f"The breaker {key} has let {len(within)} orders pass, {sum(within)} units, until {end}."

    def _limited(self) -> bool:
        return any(self._limits((scope, "")) != (0, 0) for scope in ("everything", "source", "sku"))

    def _limits(self, key: Key) -> tuple[int, int]:
        scope = {"everything": "breaker", "source": "breaker_source", "sku": "breaker_sku"}[key[0]]
        return getattr(self.settings, f"{scope}_orders"), getattr(self.settings, f"{scope}_units")

    def _look_at_stream(self, connection: Connection) -> None:
        entries = entries_of(self.redis, "order.cancelled")
        self._published = min(self._published, len(entries))  # the stream may have been lost
        for entry_id, payload in list(entries.items())[self._published :]:
            self._published += 1
            row = connection.execute(
                text("SELECT payload FROM cancellations WHERE position = :position"), {"position": self._published}
            ).one_or_none()
            if entry_id != f"{self._published}-0" or row is None or row.payload.encode() != payload:
                self.found.append(f"Entry {entry_id} is not the ledger's position {self._published}.")

    def _note_figures(self, connection: Connection) -> None:
        for row in connection.execute(_NEWS, {"seen": self._recorded or 0}):
            happened, names = _happened(row), [row.sku]
            if row.sku is None:
                items = parsed_event(self.sent[row.entry_id])["data"]["items"] if row.outcome == "recorded" else []
                names = [(row.order_id, item.get("itemId")) for item in items]
            else:
                key = (row.sku, row.source)
                self._newest_figure[key] = max(happened, self._newest_figure.get(key, LONG_AGO))
            for name in names if row.type == "inventory.restocked" else []:
                self._restocked[name] = max(happened, self._restocked.get(name, LONG_AGO))


def _happened(event: Row[Any]) -> datetime:
    came = datetime.fromtimestamp(arrival(event.entry_id)[0] / 1000, UTC)
    return min(as_time(event.time), came)


def _breaker(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in settings if name.startswith("breaker")}


def _keys(row: Row[Any]) -> dict[Key, int]:
    """What a breaker counts a cancellation under, each with its units."""
    units: Counter[Key] = Counter({("everything", ""): row.units, ("source", row.cause_source): row.units})
    for item in parsed_event(row.payload)["data"]["items"]:
        units["sku", item["sku"]] += item["cancelledQuantity"]
    return units


def _allow(most_orders: int, most_units: int, orders: int, units: int) -> bool:
    return (not most_orders or orders <= most_orders) and (not most_units or units <= most_units)

"""Whether what is promised holds, worked out from the database and the streams alone, once all is quiet.

It shares no code with the worker and trusts no constraint. Its SQL is the same for PostgreSQL and SQLite. A violation
is a sentence that names the order, the item, the event or the entry it is about.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from redis import Redis
from sqlalchemy import Connection

from tests.checker_allocations import wrong_allocations, wrong_holds
from tests.model import Model
from tests.records import (
    Chains,
    Entries,
    Rows,
    Tables,
    arrival,
    as_time,
    chains_of,
    entries_of,
    first_difference,
    from_json,
    key_of,
    name_of,
    parsed_event,
    sums,
    table,
    totals_of,
    unequal,
    was_removed,
)

_TABLES = (
    "orders",
    "order_items",
    "holds",
    "fulfillments",
    "shipped_units",
    "conflicts",
    "events",
    "waiting_events",
    "allocations",
    "allotments",
    "dead_letters",
    "pruned_events",
    "publication",
)


def violations(
    connection: Connection,
    redis: Redis,
    *,
    events_stream: str = "order.events",
    cancelled_stream: str = "order.cancelled",
    group: str = "shortpick",
    paused: bool = False,
    now: datetime | None = None,
) -> list[str]:
    """What is wrong, in plain sentences; empty when all is well. The client must not decode responses. `paused`: what
    a pause holds may wait. `now`: the time, if it is not this machine's."""
    tables = {name: table(connection, name) for name in _TABLES}
    ledger, chains = table(connection, "cancellations"), chains_of(tables["order_items"])
    incoming, outgoing = entries_of(redis, events_stream), entries_of(redis, cancelled_stream)
    return [
        *_wrong_items(tables["order_items"], chains),
        *_wrong_places(tables),
        *_wrong_units(ledger, chains),
        *_wrong_sequences(tables["orders"], ledger),
        *_lost_shipments(tables),
        *_wrong_shipped_units(tables),
        *_lost_entries(tables, incoming),
        *_wrong_group(redis, events_stream, group, incoming),
        *_wrong_outcomes(tables, ledger),
        *_needless_waiting(tables),
        *([] if paused else _overdue(tables, now or datetime.now(UTC))),
        *wrong_allocations(tables, ledger),
        *wrong_holds(tables, ledger),
        *_wrong_positions(ledger),
        *_wrong_publication(tables["publication"], ledger, outgoing),
    ]


def agreement(connection: Connection, model: Model) -> list[str]:
    """Where the database differs from the reference model: units of an item as first ordered, conflicts of an order."""
    found = {key: totals_of(chain) for key, chain in chains_of(table(connection, "order_items")).items()}
    expected = {(order, item): totals for order, items in model.totals().items() for item, totals in items.items()}
    conflicts = sums((row.order_id, row.quantity) for row in table(connection, "conflicts"))
    expected_conflicts = sums((conflict["orderId"], conflict["quantity"]) for conflict in model.conflicts)
    return [
        *unequal("Item {}: the database has {}, the model {}.", found, expected),
        *unequal("Conflicts of order {}: the database has {}, the model {}.", conflicts, expected_conflicts),
    ]


def _wrong_items(items: Rows, chains: Chains) -> Iterator[str]:
    chained = {(item.order_id, item.item_id) for chain in chains.values() for item in chain}
    for item in items:
        name, open_ = f"{item.order_id}/{item.item_id}", 0 if item.cancelled else item.quantity - item.fulfilled
        if (item.order_id, item.item_id) not in chained:
            yield f"Item {name} belongs to no item as first ordered."
        if item.open_quantity != open_:
            yield f"Item {name}: its open quantity is {item.open_quantity}, not {open_}."
        if item.cancelled and item.fulfilled:
            yield f"Item {name} is cancelled, and {item.fulfilled} of it are fulfilled."
        if item.replaced_by and not item.cancelled:
            yield f"Item {name} is replaced, but not cancelled."
    for key, chain in chains.items():
        name, totals, cuts = (
            "/".join(key),
            totals_of(chain),
            [old.quantity - new.quantity for old, new in pairwise(chain)],
        )
        if totals["ordered"] != totals["fulfilled"] + totals["cancelled"] + totals["open"]:
            yield f"Item {name} does not add up: {totals}."
        if min(*totals.values(), *cuts) < 0:
            yield f"Item {name} has negative units: {totals}, cut by {cuts}."
        if chain[-1].replaced_by:
            yield f"Item {name} is replaced by {chain[-1].replaced_by}, which is none of its later items."


def _wrong_places(tables: Tables) -> Iterator[str]:
    """An item repeats what gives its order its place among those that want a SKU."""
    orders = {order.order_id: (order.priority, order.placed_at) for order in tables["orders"]}
    for item in tables["order_items"]:
        if (item.priority, item.placed_at) != orders.get(item.order_id):
            yield f"Item {item.order_id}/{item.item_id} has another priority or time of placing than its order."


def _wrong_units(ledger: Rows, chains: Chains) -> Iterator[str]:
    """Items lose what the ledger says: by its rows for an order, by its payloads for an item as first ordered."""
    lost = {key: totals_of(chain)["cancelled"] for key, chain in chains.items()}
    lines = ((row.order_id, item) for row in ledger for item in parsed_event(row.payload)["data"].get("items", []))
    told = sums(
        ((order_id, item.get("originalItemId", "?")), item.get("cancelledQuantity", 0)) for order_id, item in lines
    )
    by_order, by_row = (
        sums((key[0], units) for key, units in lost.items()),
        sums((r.order_id, r.units) for r in ledger),
    )
    yield from unequal("Order {} lost {} units, its ledger has {}.", by_order, by_row)
    yield from unequal("Item {} lost {} units, its payloads tell of {}.", lost, told)


def _wrong_sequences(orders: Rows, ledger: Rows) -> Iterator[str]:
    given: dict[str, list[int]] = {order.order_id: [] for order in orders}
    for row in ledger:
        given.setdefault(row.order_id, []).append(row.sequence)
    for order_id, sequences in given.items():
        if difference := first_difference(sorted(sequences), range(1, len(sequences) + 1)):
            yield f"The sequences of order {order_id} are not 1 to n: {difference}."
    counted = {order.order_id: order.sequence for order in orders}
    ledger_rows = {order_id: len(sequences) for order_id, sequences in given.items()}
    yield from unequal("Order {} counts {} cancellations, its ledger has {}.", counted, ledger_rows)


def _lost_shipments(tables: Tables) -> Iterator[str]:
    shipped = sums((row.order_id, line[2]) for row in tables["fulfillments"] for line in from_json(row.lines))
    found = sums((item.order_id, item.fulfilled) for item in tables["order_items"])
    found.update(sums((conflict.order_id, conflict.quantity) for conflict in tables["conflicts"]))
    yield from unequal("Of order {} {} units shipped, {} are fulfilled or in conflict.", shipped, found)


def _wrong_shipped_units(tables: Tables) -> Iterator[str]:
    """A line that names an item which the order never had counts for no SKU."""
    skus = {(item.order_id, item.item_id): item.sku for item in tables["order_items"]}
    shipped = sums(
        ((row.order_id, row.fulfillment_id, skus.get((row.order_id, item_id), sku)), units)
        for row in tables["fulfillments"]
        for item_id, sku, units in from_json(row.lines)
    )
    found = sums(((row.order_id, row.fulfillment_id, row.sku), row.quantity) for row in tables["shipped_units"])
    known = {key: units for key, units in shipped.items() if key[2] is not None}
    yield from unequal("Of {} {} units shipped, {} are counted.", known, found)


def _lost_entries(tables: Tables, incoming: Entries) -> Iterator[str]:
    """A repeat of an event that became a dead letter later is told of by that one. What came of one that was removed by
    age stays."""
    dead = {letter.entry_id for letter in tables["dead_letters"]}
    dead_bytes = {bytes(letter.bytes) for letter in tables["dead_letters"]}
    known = {key_of(event) for event in tables["events"]}
    for entry_id, event in incoming.items():
        parsed = parsed_event(event)
        told = entry_id in dead or event in dead_bytes
        if told or (str(parsed.get("source")), str(parsed.get("id"))) in known:
            continue
        if not was_removed(tables, parsed.get("source"), parsed.get("time")):
            yield f"Entry {entry_id} is lost: it is neither an event nor a dead letter."
        elif missing := _missing_of(parsed["type"], parsed["data"], tables):
            yield f"Entry {entry_id} is lost: its event was removed, and {missing}."


def _missing_of(type_: str, data: dict[str, Any], tables: Tables) -> str | None:
    """What should have come of an event, and is not there."""
    if type_ == "order.placed":
        placed = {order.order_id for order in tables["orders"] if order.placed_at is not None}
        return None if data["orderId"] in placed else f"its order {data['orderId']} was not placed"
    if type_ == "fulfillment.created":
        shipment = (data["orderId"], data["fulfillmentId"])
        recorded = {(row.order_id, row.fulfillment_id) for row in tables["fulfillments"]}
        return None if shipment in recorded else f"its shipment {'/'.join(shipment)} was not recorded"
    return None


def _wrong_group(redis: Redis, stream: str, name: str, incoming: Entries) -> Iterator[str]:
    groups: Any = redis.xinfo_groups(stream) if redis.exists(stream) else []
    group = next((group for group in groups if group["name"] == name.encode()), None)
    if group is None:
        if incoming:
            yield f"The stream {stream} has no group {name}."
        return
    if group["pending"]:
        yield f"The group {name} has {group['pending']} pending."
    unread = [entry_id for entry_id in incoming if arrival(entry_id) > arrival(group["last-delivered-id"].decode())]
    if unread:
        yield f"The group {name} has {len(unread)} unread, from {unread[0]} on."


def _wrong_outcomes(tables: Tables, ledger: Rows) -> Iterator[str]:
    """A shortage of a SKU waits until its run is over, and may have cut some orders by then. Once it is over, and if it
    cut none and none of it is held, its event may be removed by age."""
    outcomes = {key_of(event): event.outcome for event in tables["events"]}
    runs = {key_of(allocation): allocation.finished_at is None for allocation in tables["allocations"]}
    unfinished = {key for key, lasts in runs.items() if lasts}
    waiting = unfinished | {key_of(event) for event in tables["waiting_events"]}
    causes = {(row.cause_source, row.cause_id) for row in ledger}
    held = {key_of(hold) for hold in tables["holds"]}
    removed = {key_of(one) for one in tables["allocations"] if was_removed(tables, one.source, one.time)}
    removed -= outcomes.keys() | waiting | causes | held
    for key in sorted((outcomes.keys() | waiting | causes | held | runs.keys()) - removed):
        name, outcome = " ".join(key), outcomes.get(key)
        if outcome is None:
            yield f"Event {name} has no outcome."
        if (outcome == "waiting") != (key in waiting):
            yield f"Event {name} ended as {outcome}, and {'waits' if key in waiting else 'does not wait'}."
        if (outcome == "applied") != (key in causes) and key not in unfinished:
            yield f"Event {name} ended as {outcome}, and cancelled {'something' if key in causes else 'nothing'}."


def _needless_waiting(tables: Tables) -> Iterator[str]:
    placed = {order.order_id for order in tables["orders"] if order.placed_at is not None}
    recorded = {(shipment.order_id, shipment.fulfillment_id) for shipment in tables["fulfillments"]}
    for event in tables["waiting_events"]:
        named = {(event.order_id, id_) for id_ in parsed_event(event.event)["data"].get("fulfillmentIds", [])}
        if event.waits_for == "order_not_placed" and event.order_id in placed:
            yield f"Event {name_of(event)} waits for order {event.order_id}, which was placed."
        if event.waits_for == "fulfillments_missing" and named <= recorded:
            yield f"Event {name_of(event)} waits for fulfillments, which are all recorded."


def _overdue(tables: Tables, now: datetime) -> Iterator[str]:
    """What should have been carried out by now, as nothing is paused."""
    for allocation in tables["allocations"]:
        if allocation.finished_at is None and as_time(allocation.due_at) <= now:
            name = name_of(allocation)
            yield f"Event {name} was not carried out: its shortage of SKU {allocation.sku} is due."
    for event in tables["waiting_events"]:
        if event.waits_for == "grace" and as_time(event.until) <= now:
            yield f"Event {name_of(event)} waits for the end of its grace, which is over."
        if event.waits_for in ("order_not_placed", "fulfillments_missing") and as_time(event.until) <= now:
            yield f"Event {name_of(event)} has waited too long, and still waits."
        if event.waits_for == "paused":
            yield f"Event {name_of(event)} waits for the end of a pause, and nothing is paused."


def _wrong_positions(ledger: Rows) -> Iterator[str]:
    positioned = sorted((row for row in ledger if row.position is not None), key=lambda row: row.position)
    if difference := first_difference([row.position for row in positioned], range(1, len(ledger) + 1)):
        yield f"The positions are not 1 to n: {difference}."
    last: dict[str, int] = {}
    for row in positioned:
        if row.sequence <= last.get(row.order_id, 0):
            yield f"Position {row.position} takes order {row.order_id} back to sequence {row.sequence}."
        last[row.order_id] = row.sequence


def _wrong_publication(publication: Rows, ledger: Rows, outgoing: Entries) -> Iterator[str]:
    first = publication[0].first_position if publication else 1
    expected = [f"{position}-0" for position in range(first, len(ledger) + 1)]
    if difference := first_difference(list(outgoing), expected):
        yield f"The published entries are not {first}-0 to n-0: {difference}."
    for row in ledger:
        if outgoing.get(f"{row.position}-0", row.payload.encode()) != row.payload.encode():
            yield f"Entry {row.position}-0 is not its ledger row, byte for byte."
        data = parsed_event(row.payload)["data"]
        told = data.get("cancellationId"), data.get("orderId"), data.get("sequence")
        if told != (row.cancellation_id, row.order_id, row.sequence):
            yield f"The payload of cancellation {row.cancellation_id} tells of {told}."

"""An order's story in plain sentences, told from the records alone. Pure: rows in, sentences out."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from domain.orders import Order
from domain.policy import Paused
from worker.cli.wording import counted, explained, is_are, lasting, listed, when
from worker.storage.waiting import Waiting

Row = Mapping[str, Any]

REASONS = {
    "out_of_stock": "not enough stock",
    "short_shipped": "not shipped, and nothing more will ship",
    "buyer_request": "the buyer asked for it",
    "cancelled_elsewhere": "cancelled in another system",
    "manual": "a person decided it",
}
WAITED_FOR = {
    "order_not_placed": "It came before the order was placed, and waited {} for that.",
    "fulfillments_missing": "It waited {} until every shipment that it names was reported.",
    "grace": "It waited {} of grace before it was decided again.",
    "paused": "It waited {} until cancellations were resumed.",
}
SHIP_COMPLETE = "Orders ship complete or not at all here, so whatever had not shipped is cancelled."
EXTENTS = {"cancelOrder": "the whole order", "cancelUnfulfilled": "whatever has not shipped"}


def opening(order_id: str, order: Order | None, waiting: int) -> list[str]:
    """What was ordered; or that the order is not placed yet, and how many events wait for that."""
    if order is None:
        waits = f"; {counted(waiting, 'event')} {'waits' if waiting == 1 else 'wait'} for it" if waiting else ""
        return [f"Order {order_id!r} was not placed yet: no order.placed event has come{waits}."]
    partner = f" for partner {order.partner!r}" if order.partner else ""
    first = [order.items[item_id] for item_id in order.totals()]
    lines = [f"{item.quantity} of item {item.item_id!r} (SKU {item.sku!r})" for item in first]
    return [f"Order {order_id!r} was placed at {when(order.placed_at)}{partner}.", f"Ordered: {listed(lines)}."]


def heading(event: Row) -> str:
    """Which event it is, when it happened, and when it was recorded here."""
    return (
        f"{event['type']}: event {event['id']!r} of {event['source']!r}, "
        f"of {when(event['time'])}, recorded {when(event['recorded_at'])}"
    )


def incomplete() -> str:
    """Of an order whose placing is not on record."""
    return "Older events that cancelled nothing are no longer on record; shipments and cancellations are."


def shipment_heading(row: Row) -> str:
    """A row of `fulfillments` whose event is not on record."""
    return f"fulfillment.created: event {row['event_id']!r} of {row['source']!r}, of {when(row['time'])}"


def handed_over(fulfillment_id: str, lines: Iterable[Sequence[Any]]) -> str:
    """A shipment, with the `lines` of its row of `fulfillments`."""
    return f"Shipment {fulfillment_id!r} was handed to the carrier: {listed(_lines(lines))}."


def decision(event: Row, shipment: Row | None = None) -> list[str]:
    """What an event (a row of `events`) reported, and what was decided and why. `shipment` is the row of `fulfillments`
    that came of it."""
    facts = event["facts"] or {}
    match event["reason"]:
        case "placed":
            return [f"The order was placed with {counted(facts['items'], 'item')}."]
        case "already_placed":
            return ["The order had been placed before with the same content, so there was nothing to do."]
        case "grace":
            again = "Before it cuts, shortages wait here for a while, and are then decided again."
            return [*_shortage("shortage", facts), again]
        case "paused":
            held = "Cancellations are paused, so it waits until they are resumed, and is decided again then."
            return [*_paused(facts, shipment), held]
        case "protected" | "breaker" | "preflight" | "shadow" | "approved" | "rejected" | "guardrail":
            return _paused(facts, shipment)
        case "shortage" | "no_cut" | "restocked" if "figures" in facts:
            return _shortage(event["reason"], facts)
        case "restocked" | "already_restocked":
            return _restock(event["reason"], facts)
        case "shipped" | "already_recorded" | "closed" | "nothing_open" | "fulfillments_missing":
            return [*_shipment(event["reason"], facts, shipment), *_closing(event["reason"], facts)]
        case "requested":
            return [f"The {facts['by']} asked to cancel {_asked(facts)}; the rules allow it."]
        case "order_not_placed":
            return ["Nothing can be decided before the order is placed."]
        case code if "rule" in facts:
            asked = f"The {facts['by']} asked to cancel {_asked(facts)}."
            refused = f"This was refused, and nothing was changed: {facts['rule']} ({code}; see {explained(code)})."
            return [asked, refused]
        case reason:
            return [f"It was decided as {event['outcome']!r}, for the reason {reason!r}."]


def waited(event: Row) -> list[str]:
    """What a decided event had waited for, one thing after the other, and how long."""
    sentences, since = [], event["recorded_at"]
    for reason, end in (event["facts"] or {}).get("waited", []):
        until = datetime.fromisoformat(end)
        sentences.append(WAITED_FOR[reason].format(_span(since, until)))
        since = until
    return sentences


def still_waits(wait: Waiting, now: datetime) -> str:
    """An event that waits, as it stands at `now`."""
    span = _span(wait.since, now)
    match wait.waits_for:
        case "grace":
            return f"It has waited for {span}, and is decided again at {when(wait.until)}."
        case "paused":
            return f"It has waited for {span}, and is decided again when cancellations are resumed."
        case reason:
            what = "for the order to be placed" if reason == "order_not_placed" else "for these shipments"
            return (
                f"It has waited {what} for {span}. It waits until {when(wait.until)} at most; "
                "then it becomes a dead letter."
            )


def allotment(row: Row) -> list[str]:
    """What a shortage of a SKU left to the order: a row of `allotments` with its shortage."""
    shipped = f" {counted(row['shipped'], 'unit')} of them had shipped with this order since." if row["shipped"] else ""
    served = "the oldest" if row["strategy"] == "oldest_first" else "the newest"
    done = f"of {row['orders']}" if row["finished_at"] else f"(of {row['orders']} so far; it goes on)"
    sentences = [
        f"Of SKU {row['sku']!r}, {counted(row['available'], 'unit')} were available for all open orders placed until "
        f"{when(row['happened_at'])}.{shipped}",
        f"The orders that wanted it were served by priority, then {served} first; "
        f"this one was number {row['rank']} {done}.",
        f"When its turn came {_were(row['left_units'])} left: the rest had shipped since, or is kept by those before.",
        f"It wanted {counted(row['wanted'], 'unit')} and was given {row['given']}.",
    ]
    if row["facts"].get("restocked"):
        sentences.append(
            f"Restocked since, and so not cut: {listed([f'item {i!r}' for i in row['facts']['restocked']])}."
        )
    if row["facts"].get("ship_complete"):
        sentences.append(SHIP_COMPLETE)
    if row["reason"] == "unprocessable":
        sentences.append("The program failed on this order; nothing of it was cancelled. This is a fault to report.")
    if row["due_at"] > row["recorded_at"]:
        sentences.append(f"The shortage had waited {_span(row['recorded_at'], row['due_at'])} of grace first.")
    return sentences


WHY_HELD = {
    "protected": "its order, or its partner, is protected",
    "preflight": "its shortage alone would have cancelled more than the preflight allows",
    "breaker": "a breaker was open, or would have been overshot",
    "shadow": "nothing is cancelled in shadow mode",
}
ENDED = {
    "applied": "it was carried out",
    "nothing": "nothing was left to cancel by then",
    "refused": "the rules refused it by then",
    "void": "there was new stock by then",
    "stale": "a newer figure had come by then",
}


def hold(row: Row) -> list[str]:
    """A row of `holds`: what it would cancel, why it is held, and who decided what about it."""
    would = listed([f"{units} of item {item!r} (SKU {sku!r})" for _, item, sku, units in row["would"]])
    sentences = [
        f"Held since {when(row['created_at'])}, because {WHY_HELD.get(row['why'], row['why'])}.",
        f"It would cancel {would}.",
    ]
    if row["decided_by"] is not None:
        verdict = "rejected" if row["state"] == "rejected" else "approved"
        sentences.append(
            f"{row['decided_by']} {verdict} it at {when(row['decided_at'])}, because: {row['decided_because']}."
        )
    match row["state"]:
        case "open":
            sentences.append("Nobody has decided about it: shortpick holds approve or reject.")
        case "approved":
            sentences.append("It will be decided again within seconds, or when cancellations are resumed.")
        case "rejected":
            sentences.append("So it is never cancelled for this event.")
        case "shadow":
            sentences.append("It is for the report alone, and nobody needs to decide about it.")
        case "carried_out" if row["reason"] == "unprocessable":
            sentences.append(
                f"Decided again at {when(row['ended_at'])}: the program failed on it, and nothing of it was cancelled. "
                "This is a fault to report."
            )
        case "carried_out" | "superseded":
            sentences.append(f"Decided again at {when(row['ended_at'])}: {ENDED.get(row['outcome'], row['outcome'])}.")
    return sentences


def held_cause(row: Row) -> str:
    """Holds of one event: what happened, how much is held, and why."""
    what = f"SKU {row['sku']!r} short" if row["sku"] is not None else f"{row['type']} of single orders"
    cause = f"event {row['id']!r} of {row['source']!r}" if row["id"] is not None else f"events of {row['source']!r}"
    return (
        f"{what}: {counted(row['orders'], 'order')}, {counted(int(row['units']), 'unit')}, {row['state']}, "
        f"by {row['why']}, since {when(row['since'])}; {cause}"
    )


def pending(row: Row, paused: Paused, now: datetime) -> str:
    """A shortage of a SKU that the order wants, which was not carried out for it yet."""
    if paused.holds(row["source"]):
        state = "waits until cancellations are resumed"
    else:
        state = f"waits until {when(row['due_at'])}" if row["due_at"] > now else "is being carried out"
    return (
        f"Not decided yet: a shortage of SKU {row['sku']!r} (event {row['id']!r} of {row['source']!r}, "
        f"{counted(row['available'], 'unit')} available for all open orders placed until {when(row['happened_at'])}) "
        f"{state}; it may cut this order."
    )


def cancellation(row: Row, data: Row, published_to: int) -> list[str]:
    """A row of the ledger, with the data of its event. `published_to` is the last position in the outgoing stream."""
    reason = f"{REASONS.get(row['reason'], row['reason'])} ({row['reason']})"
    note = f", noting {data['reason']['note']!r}" if data["reason"]["note"] else ""
    return [
        f"→ Cancelled at {when(row['cancelled_at'])}: {counted(row['units'], 'unit')}, in the {data['cancelledBy']}'s "
        f"name, because: {reason}{note}.",
        *(f"  {cut(item)}" for item in data["items"]),
        f"  It is the order's cancellation {row['sequence']}, operation {row['operation']}, "
        f"{publication(row['position'], published_to)}.",
    ]


def cut(item: Row) -> str:
    """An item of a cancellation's event."""
    name = f"item {item['itemId']!r} (SKU {item['sku']!r})"
    if item["newItemId"] is None:
        return f"{item['cancelledQuantity']} of {name}: all of it."
    stay = "stays" if item["newQuantity"] == 1 else "stay"
    kept = f"the other {item['newQuantity']} {stay}, as item {item['newItemId']!r} from now on"
    return f"{item['cancelledQuantity']} of the {item['quantity']} of {name}; {kept}."


def publication(position: int | None, published_to: int) -> str:
    if position is None or position > published_to:
        return "not yet published"
    return f"published at position {position}"


def conflict(row: Row) -> str:
    """A row of `conflicts`."""
    name = f"item {row['item_id']!r}" if row["item_id"] is not None else f"SKU {row['sku']!r}"
    end = "A person must resolve this: shortpick conflicts resolve."
    if row["state"] == "resolved":
        done = f": {row['resolution']}" if row["resolution"] else ""
        end = f"{row['resolved_by']} resolved it at {when(row['resolved_at'])}{done}."
    return (
        f"Conflict {row['conflict_id']} ({row['state']}): shipment {row['fulfillment_id']!r} has "
        f"{counted(row['quantity'], 'unit')} of {name} too many: cancelled before, or never ordered. {end}"
    )


def standing(order: Order) -> str:
    """The order as it stands, in one sentence."""
    if order.entirely_cancelled:
        return "The order is entirely cancelled."
    cancelled = "" if order.has_cancellations else "Nothing was cancelled. "
    if order.shipped:
        return f"{cancelled}What was not cancelled has shipped; nothing is open any more."
    return f"{cancelled}{is_are(order.open, 'unit')} open: neither shipped nor cancelled."


def _shortage(reason: str, facts: Row) -> list[str]:
    sentences = [f"Of {name}, {counted(figure, 'unit')} can be fulfilled in all." for name, figure in facts["figures"]]
    for item_id, quantity, fulfilled, keep in facts["keeps"]:
        shipped = f", of which {fulfilled} had shipped" if fulfilled else ""
        short = f"; {quantity - keep} must be cut" if keep < quantity else ""
        sentences.append(f"Item {item_id!r} can keep {keep} of its {counted(quantity, 'unit')}{shipped}{short}.")
    if not facts["keeps"]:
        sentences.append("Every item it names was cancelled already.")
    if facts.get("ship_complete"):
        sentences.append(SHIP_COMPLETE)
    if facts.get("restocked"):
        items = listed([f"item {item_id!r}" for item_id in facts["restocked"]])
        sentences.append(f"But there was new stock since for {items}, so that is not cut.")
    return [*sentences, *(["So there was nothing to cancel."] if reason in ("no_cut", "restocked") else [])]


def _restock(reason: str, facts: Row) -> list[str]:
    items = listed([f"item {item_id!r}" for item_id in facts["items"]])
    if reason == "already_restocked":
        return [f"There is stock again for {items}, which was known already."]
    return [f"There is stock again for {items}: shortages that happened before this and were not acted on are void."]


def _paused(facts: Row, shipment: Row | None) -> list[str]:
    """What would be cut, of a shortage, a request, or a closing."""
    if "figures" in facts:
        return _shortage("shortage", facts)
    if "operations" in facts:
        return [f"The {facts['by']} asked to cancel {_asked(facts)}; the rules allow it."]
    return [*_shipment("closed", facts, shipment), *_closing("closed", facts)]


def _shipment(reason: str, facts: Row, shipment: Row | None) -> list[str]:
    if "fulfillment" not in facts:
        return []
    name = f"Shipment {facts['fulfillment']!r}"
    if reason == "already_recorded":
        return [f"{name} had been reported before with the same content, so it was not counted again."]
    if shipment is None:
        return [f"{name} with {counted(facts['units'], 'unit')} was handed to the carrier."]
    return [handed_over(facts["fulfillment"], shipment["lines"])]


def _lines(lines: Iterable[Sequence[Any]]) -> list[str]:
    named = ((f"item {item_id!r}" if item_id is not None else f"SKU {sku!r}", units) for item_id, sku, units in lines)
    return [f"{units} of {name}" for name, units in named]


def _closing(reason: str, facts: Row) -> list[str]:
    last = "Nothing more will ship"
    match reason:
        case "closed":
            return [
                f"{last}. {counted(facts['fulfilled'], 'unit')} had shipped; the {facts['open']} still open are cut."
            ]
        case "nothing_open":
            return [f"{last}, and nothing was left open to cancel."]
        case "fulfillments_missing":
            missing = listed([repr(one) for one in facts["missing"]])
            return [f"{last}; but before the rest may be cancelled, these shipments must be reported: {missing}."]
        case _:
            return [f"{last}, and nothing was left open to cancel."] if facts.get("closed") else []


def _asked(facts: Row) -> str:
    return listed([_extent(name, item_id) for name, item_id in facts["operations"]])


def _extent(operation: str, item_id: str | None) -> str:
    if item_id is None:
        return EXTENTS.get(operation, operation)
    return f"part of item {item_id!r}" if operation == "cancelItemPartially" else f"item {item_id!r}"


def _were(units: int) -> str:
    return "1 unit was" if units == 1 else f"{units} units were"


def _span(since: datetime, until: datetime) -> str:
    return lasting(until - since)

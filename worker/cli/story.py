"""An order's story in plain sentences, told from the records alone."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

Row = Mapping[str, Any]

REASONS = {
    "out_of_stock": "out of stock",
    "short_shipped": "short shipped",
    "buyer_request": "the buyer's request",
    "cancelled_elsewhere": "cancelled elsewhere",
    "manual": "by hand",
}


def decision(event: Row) -> list[str]:
    """What an event (a row of `events`) reported, and what was decided and why."""
    facts = event["facts"] or {}
    sentences = _told(event["reason"], facts)
    if event["outcome"] == "waiting":
        return sentences
    if waited := _waited(event):
        sentences.insert(0, f"It waited {waited} before it could be decided.")
    return sentences


def cancellation(row: Row) -> str:
    """One row of the ledger."""
    where = f"published at position {row['position']}" if row["position"] else "not published yet"
    reason = REASONS.get(row["reason"], row["reason"])
    return (
        f"{row['operation']}: {units(row['units'])} cancelled ({reason}); "
        f"cancellation {row['sequence']} of the order, {where}."
    )


def conflict(row: Row) -> str:
    """One row of `conflicts`."""
    name = f"item {row['item_id']}" if row["item_id"] else f"SKU {row['sku']}"
    return (
        f"Conflict {row['conflict_id']}: fulfillment {row['fulfillment_id']} reported {units(row['quantity'])} of "
        f"{name} as shipped that no open quantity could take; a person must resolve it."
    )


def dead_letter(row: Row) -> str:
    """One row of `dead_letters`."""
    return f"Dead letter {row['dead_letter_id']} ({row['code']}): {row['sentence']}."


def units(number: int) -> str:
    return "1 unit" if number == 1 else f"{number:,} units"


def _told(reason: str, facts: Row) -> list[str]:
    match reason:
        case "placed":
            return [f"The order was placed with {facts['items']} {'item' if facts['items'] == 1 else 'items'}."]
        case "already_placed":
            return ["The order had been placed with the same content before; nothing to do."]
        case "shortage" | "no_cut":
            return _shortage(reason, facts)
        case "shipped":
            return [*_shipment(facts), *(["Nothing was left open to cancel."] if facts.get("closed") else [])]
        case "already_recorded":
            return [f"Fulfillment {facts['fulfillment']} had been recorded before; nothing to do."]
        case "closed":
            closing = f"Nothing more will ship, so what was still open is cancelled: {units(facts['open'])}."
            return [*(_shipment(facts) if "fulfillment" in facts else []), closing]
        case "nothing_open":
            return ["Nothing more will ship, and nothing was left open to cancel."]
        case "requested":
            return [f"The {facts['by']} asked for {_operations(facts)}; the rules allow it."]
        case "order_not_placed":
            return ["It waits for the order to be placed."]
        case "fulfillments_missing":
            missing = ", ".join(facts["missing"])
            waits = f"Nothing more will ship; before the rest is cancelled, it waits for fulfillment {missing}."
            return [*(_shipment(facts) if "fulfillment" in facts else []), waits]
        case _ if "rule" in facts:
            return [f"The {facts['by']} asked for {_operations(facts)}; refused: {facts['rule']}."]
        case _:
            return [f"Decided for the reason {reason}."]


def _shortage(reason: str, facts: Row) -> list[str]:
    sentences = [f"Of {name}, {units(figure)} can be fulfilled in all." for name, figure in facts["figures"]]
    for item_id, quantity, fulfilled, keep in facts["keeps"]:
        shipped = f", of which {fulfilled} shipped" if fulfilled else ""
        if keep < quantity:
            sentences.append(f"Item {item_id} keeps {keep} of its {units(quantity)}{shipped}.")
        else:
            sentences.append(f"Item {item_id} keeps all of its {units(quantity)}{shipped}.")
    if facts.get("ship_complete"):
        sentences.append("Orders ship complete or not at all, so everything that is open is cancelled.")
    if reason == "no_cut":
        sentences.append("So there was nothing to cut.")
    return sentences


def _shipment(facts: Row) -> list[str]:
    sentences = [f"Fulfillment {facts['fulfillment']} with {units(facts['units'])} was handed to the carrier."]
    for name, quantity in facts.get("conflicts", ()):
        sentences.append(f"{units(quantity)} of {name} found no open quantity: a conflict.")
    return sentences


def _operations(facts: Row) -> str:
    return " and ".join(f"{name} of {item_id}" if item_id else str(name) for name, item_id in facts["operations"])


def _waited(event: Row) -> str | None:
    waited: timedelta = event["decided_at"] - event["recorded_at"]
    if not waited:
        return None
    if waited < timedelta(minutes=1):
        return f"{waited.total_seconds():.1f} seconds"
    return str(waited - timedelta(microseconds=waited.microseconds))

"""`shortpick demo --scenario runaway`: a stock feed reports zeros by mistake, and the guardrails stand in its way."""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from domain.outgoing import rfc3339
from worker import verdicts
from worker.cli import story
from worker.cli.context import Pipeline, messages, out, say
from worker.storage import breakers, holds
from worker.storage.database import reading

BREAKER_ORDERS = 50
GUARDRAILS: dict[str, str | int | float] = {
    "preflight_orders": 20,
    "preflight_share": 0.5,
    "breaker_orders": BREAKER_ORDERS,
    "worker_concurrency": 8,
    "batch_size": 10,  # small, so that all workers have something to do at once
}
BEST_SELLERS = 5
TRICKLE = 200
SOURCE = "/wms/broken"


class Story:
    """A shop with open orders, and what a broken feed reports of it."""

    def __init__(self, seed: int, orders: int) -> None:
        self._rng = random.Random(seed)
        self._numbers = range(1, max(orders, TRICKLE) + 1)
        self._skus = [f"SKU-{number:02}" for number in range(1, 31)]

    def orders(self) -> Iterator[bytes]:
        for number in self._numbers:
            skus = self._rng.choices(self._skus, [1 / rank for rank in range(1, 31)], k=2)
            items = [
                {"itemId": str(line), "sku": sku, "quantity": self._rng.randint(2, 5)}
                for line, sku in enumerate(skus, start=1)
            ]
            yield _event("order.placed", {"orderId": _name(number), "placedAt": _now(), "items": items}, "/shop")

    def zeros(self) -> Iterator[bytes]:
        """ "0 available", for what sells best."""
        for sku in self._skus[:BEST_SELLERS]:
            yield _event("inventory.shortage", {"sku": sku, "availableQuantity": 0})

    def trickle(self) -> Iterator[bytes]:
        """The same mistake item by item, where no single one looks wrong."""
        for number in self._rng.sample(self._numbers, TRICKLE):
            items = [{"itemId": "1", "fulfillableQuantity": 1}]
            yield _event("inventory.shortage", {"orderId": _name(number), "items": items})


def play(p: Pipeline, shop: Story, send: Callable[[list[bytes]], None], state_dir: Path) -> list[str]:
    """Play it act by act, and show what came of each; returns what is not as it must be."""
    checks: list[tuple[str, bool]] = []
    send(list(shop.orders()))
    out.print(f"\n[bold]1. {_number(p, 'SELECT count(*) FROM orders'):,} orders are open[/bold], and all is well.")

    messages.print("The feed reports zeros …")
    send(list(shop.zeros()))
    out.print(
        f"\n[bold]2. The feed reports 0 available for the {BEST_SELLERS} best-selling SKUs.[/bold] Held, by cause:\n"
    )
    held = _show_held(p)
    cut = _number(p, "SELECT count(*) FROM cancellations")
    checks.append((f"nothing was cut, and {held:,} cuts are held", cut == 0 and held > BEST_SELLERS))
    rejected = _reject_all(p)
    out.print(f"\nRejected with one command: shortpick holds reject --all --expect {rejected} --reason …", markup=False)
    checks.append((f"all {rejected:,} holds are rejected", rejected == held and _number(p, _OPEN) == 0))

    messages.print("The feed reports single items short …")
    send(list(shop.trickle()))
    out.print(f"\n[bold]3. The feed goes on with {TRICKLE} shortages of single items.[/bold] The breaker:\n")
    with reading(p.engine) as connection:
        for row in breakers.is_open(connection):
            say(f"  {row.scope} {row.name}".rstrip() + f": open, since event {row.cause_id!r} of {row.cause_source!r}")
    orders = _number(p, "SELECT count(DISTINCT order_id) FROM cancellations")
    held = _number(p, _OPEN)
    checks.append(
        (f"{orders} orders were cut by 8 workers at once: the limit is {BREAKER_ORDERS}", orders == BREAKER_ORDERS)
    )
    checks.append((f"{held} more are held: {orders} + {held} = {TRICKLE}", orders + held == TRICKLE))
    out.print()
    for sentence, holds_true in checks:
        out.print(f"[green]✓[/green] {sentence}" if holds_true else f"[red]✗ {sentence}[/red]")
    out.print("\nTry next (with `shortpick up --state-dir` in another terminal to have approved cuts carried out):")
    for command in ("holds list", "breaker list", "status", "report"):
        out.print(f"  shortpick {command} --state-dir {state_dir}", markup=False, soft_wrap=True)
    return [f"not true: {sentence}" for sentence, holds_true in checks if not holds_true]


def _show_held(p: Pipeline) -> int:
    with reading(p.engine) as connection:
        rows = holds.by_cause(connection, ["open"])
    for row in rows:
        say(f"  {story.held_cause(dict(row._mapping))}")
    return sum(row.orders for row in rows)


def _reject_all(p: Pipeline) -> int:
    with reading(p.engine) as connection:
        chosen = holds.select_ids(connection, [], None, None, everything=True)
    return verdicts.give(p.engine, chosen, "rejected", "the demo", "the feed reports zeros by mistake")


def _number(p: Pipeline, sql: str) -> int:
    with reading(p.engine) as connection:
        return int(connection.execute(text(sql)).scalar() or 0)


def _name(number: int) -> str:
    return f"order-{number:05}"


def _now() -> str:
    return rfc3339(datetime.now(UTC))


def _event(type_: str, data: dict[str, Any], source: str = SOURCE) -> bytes:
    name = data.get("orderId") or data.get("sku")
    event = {
        "specversion": "1.0",
        "id": f"{type_}-{name}",
        "source": source,
        "type": type_,
        "time": _now(),
        "data": data,
    }
    return json.dumps(event).encode()


_OPEN = "SELECT count(*) FROM holds WHERE state = 'open'"

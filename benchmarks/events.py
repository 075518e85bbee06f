"""The load of all contestants: orders of two lines, each placed, partly shipped, then short, which cuts a part of it.

So one event in three leads to a cancellation.
"""

import json
from collections.abc import Iterator

TIME = "2026-01-01T00:00:00Z"
BETWEEN = 2000
"""How many orders come before the first of them ships: about a second at 5,000 events a second; in life more."""
CLOSE = 167
"""So few that a batch of 500 events and the next one concern the same orders, and the second waits for the first."""


def cloud_event(id_: str, type_: str, data: dict[str, object]) -> bytes:
    envelope = {"specversion": "1.0", "id": id_, "source": "/bench", "type": type_, "time": TIME, "data": data}
    return json.dumps(envelope).encode()


def placed(order: str) -> bytes:
    items = [{"itemId": "a", "sku": "SA", "quantity": 10}, {"itemId": "b", "sku": "SB", "quantity": 2}]
    return cloud_event(f"{order}-placed", "order.placed", {"orderId": order, "placedAt": TIME, "items": items})


def shipped(order: str) -> bytes:
    data = {"orderId": order, "fulfillmentId": "f1", "items": [{"itemId": "b", "quantity": 1}]}
    return cloud_event(f"{order}-shipped", "fulfillment.created", data)


def short(order: str) -> bytes:
    lines = [{"itemId": "a", "fulfillableQuantity": 4}]
    return cloud_event(f"{order}-short", "inventory.shortage", {"orderId": order, "items": lines})


class Load:
    """The events of so many orders; `name` makes their ids differ from those of other loads.

    An order's events come in their sequence, with those of others between them, as they do in life.
    """

    def __init__(self, name: str, orders: int, between: int = BETWEEN) -> None:
        self.name, self.orders, self._between = name, orders, between
        self.order_ids = [f"{name}-{number}" for number in range(orders)]
        self.events = list(self._events())

    def _events(self) -> Iterator[bytes]:
        between = self._between
        for first in range(0, self.orders + 2 * between, between):
            for made, back in ((placed, 0), (shipped, 1), (short, 2)):
                begin = first - back * between
                yield from map(made, self.order_ids[max(0, begin) : max(0, begin + between)])

"""Group 7: in whatever order events arrive, and however many workers take those of one order at once, it ends the same."""

import random
from collections.abc import Callable

import pytest

from tests.builders import Json, again, closed, placed, shipped, shortage, to_bytes
from tests.faults.crowds import CROWD, WORKERS, meet
from tests.faults.drawn import drawn
from tests.faults.scene import Scene
from tests.properties.test_any_order import Units, arrivals
from tests.records import chains_of, table, totals_of

HISTORIES = 300
LINES = [f"l{number:02}" for number in range(40)]
ORDERED = 20


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_consistent_histories_arrive_in_any_order(new_scene: Callable[..., Scene], rng: random.Random) -> None:
    """Many at once, each with its events in any order and repeated at will, the placing of its order among them."""
    scene = new_scene(worker_concurrency=4)
    expected: dict[str, Units] = {}
    came: list[bytes] = []
    for number, (history, events) in enumerate(drawn(arrivals(), HISTORIES, rng)):
        name = f"any-{number}"
        expected |= {f"{name}/{item_id}": units for item_id, units in history.expected.items()}
        scene.load.fed += [_of_order(name, one) for one in (history.placed, *history.facts)]
        came += [to_bytes(_of_order(name, one)) for one in events]
    assert len(came) > 3 * HISTORIES
    scene.load.events += came
    rng.shuffle(scene.load.events)
    scene.place()
    scene.feed()
    scene.finish()
    scene.counted["event out of order"] = len(came)
    scene.judge()
    assert {key: units for key, units in units_of(scene).items() if key in expected} == expected
    assert scene.number("SELECT count(*) FROM events WHERE order_id LIKE 'any-%' AND reason = 'order_not_placed'") == 0


def test_one_orders_shipments_and_shortages_are_taken_by_eight_workers_at_once(
    new_scene: Callable[..., Scene], rng: random.Random
) -> None:
    scene = new_scene(**CROWD)
    shipments = _shipments(rng)
    facts = [
        *shipments,
        *_shortages(shipments, rng),
        closed("busy", *(one["data"]["fulfillmentId"] for one in shipments)),
    ]
    facts += [again(one) for one in facts]
    scene.load.add([placed("busy", **{line: (f"S-{line}", ORDERED) for line in LINES})], [])
    scene.load.fed += facts
    came = [to_bytes(one) for one in facts] * 2
    rng.shuffle(came)
    scene.place()
    for _ in range(WORKERS):
        scene.faults.lay("batch: acknowledged", "sleep", seconds=1)
    meet(scene, "batch: after lock", came)
    scene.wait_for(scene.is_quiet, "the order's events to be done")  # a pause would put its cuts in order
    scene.feed()
    scene.finish()
    scene.counted["event out of order"] = len(came)
    scene.judge()
    assert scene.number("SELECT count(*) FROM cancellations WHERE order_id = 'busy'") > len(LINES) // 2
    assert scene.number("SELECT count(*) FROM conflicts") == 0
    assert len(set(scene.faults.met_by())) > 2


def _of_order(name: str, event: Json) -> Json:
    return {**event, "data": {**event["data"], "orderId": name}}


def units_of(scene: Scene) -> Units:
    """Of every item as first ordered, by order and item: fulfilled, cancelled, open."""
    with scene.engine.connect() as connection:
        chains = chains_of(table(connection, "order_items"))
    totals = {"/".join(key): totals_of(chain) for key, chain in chains.items()}
    return {key: (units["fulfilled"], units["cancelled"], units["open"]) for key, units in totals.items()}


def _shipments(rng: random.Random) -> list[Json]:
    """Of each line up to eight units, one or two at a time, three lines in each parcel."""
    parcels = []
    for number in range(4 * len(LINES) // 3):
        lines = [LINES[(number * 3 + n) % len(LINES)] for n in range(3)]
        parcels.append(shipped("busy", f"f{number}", **{line: rng.randint(1, 2) for line in lines}))
    return parcels


def _shortages(shipments: list[Json], rng: random.Random) -> list[Json]:
    """Figures of several lines each, none of them below what ships of the line in all."""
    shipping = dict.fromkeys(LINES, 0)
    for one in shipments:
        for line in one["data"]["items"]:
            shipping[line["itemId"]] += line["quantity"]
    reports = [rng.sample(LINES, 4) for _ in range(60)]
    return [shortage("busy", **{line: rng.randint(shipping[line], ORDERED + 2) for line in lines}) for lines in reports]

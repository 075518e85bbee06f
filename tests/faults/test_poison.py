"""Group 9: whatever is sent, it ends as a decision or as a dead letter that keeps its bytes; its neighbours are done, and
no process ends."""

from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from tests import checker
from tests.builders import Json, placed, requested, shortage_of, to_bytes
from tests.faults.drawn import drawn
from tests.faults.poison import OTHER_FIELDS, POISON, SKU, compact, largest
from tests.faults.scene import Scene
from tests.faults.summary import Record
from tests.properties.strategies import mutated_bytes, mutated_events

RANDOM: dict[st.SearchStrategy[bytes], int] = {
    mutated_events(): 250,
    mutated_bytes(): 150,
    st.binary(max_size=300): 100,
}
UNHURRIED = {"batch_size": 20, "redeliver_after_seconds": 30, "task_limit_seconds": 25, "task_soft_limit_seconds": 24}
"""Nobody is ended for being slow, on a machine that is."""


@pytest.fixture
def scene(new_scene: Callable[..., Scene]) -> Scene:
    return new_scene(**UNHURRIED)


@pytest.mark.parametrize("database_url", [pytest.param("postgresql", marks=pytest.mark.small), "sqlite"], indirect=True)
def test_poison_harms_no_neighbour_and_ends_no_process(scene: Scene) -> None:
    for order, event in _large_orders():
        scene.load.fed += [order, event]
        scene.load.placings.append(compact(order))
        scene.load.events.append(compact(event))
    scene.load.events += [raw for _, raw in POISON.values()]
    scene.rng.shuffle(scene.load.events)
    scene.place()
    alive = processes(scene)
    _send_other_fields(scene)
    scene.feed()
    scene.finish()
    scene.counted["poison"] = len(POISON) + len(OTHER_FIELDS)
    scene.judge()
    assert (processes(scene), scene.ended) == (alive, {})
    letters = {bytes(row.bytes): row.code for row in scene.rows("SELECT bytes, code FROM dead_letters")}
    assert letters == {raw: code for code, raw in [*POISON.values(), *(letter for _, letter in OTHER_FIELDS)]}


def _send_other_fields(scene: Scene) -> None:
    """Entries without an event, or with two; and events with more beside them, which is no fault."""
    for fields, _ in OTHER_FIELDS:
        scene.redis.execute_command("XADD", "order.events", "*", *fields)
    more = [placed("beside", a=("SA", 2)), requested("beside")]
    scene.load.fed += more
    scene.redis.xadd("order.events", {"event": to_bytes(more[0]), "traceparent": "x"})
    scene.redis.xadd("order.events", {"trace": b"\xff" * 100_000, "event": to_bytes(more[1])})


def processes(scene: Scene) -> set[int]:
    return {one.pid for one in scene.family()}


def _large_orders() -> list[tuple[Json, Json]]:
    """Orders with what happens to them: of the one, every line from the middle on is cut by itself."""
    orders = [largest("large-1"), largest("large-2")]
    return [(orders[0], shortage_of("large-1", [("sku", SKU, 1501)])), (orders[1], requested("large-2"))]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_random_bytes_and_mutated_events_end_as_decisions_or_dead_letters(
    scene: Scene, record_property: Record
) -> None:
    """They are about other orders and SKUs than their neighbours. Some of those wait for an order that never comes."""
    values = [value for strategy, number in RANDOM.items() for value in drawn(strategy, number, scene.rng)]
    # Each with an id of its own, unless that was mutated too: otherwise most would only repeat an id.
    poison = [value.replace(b'"id": "e', b'"id": "m%d-' % number) for number, value in enumerate(values)]
    scene.place()
    alive = processes(scene)
    scene.load.events += poison
    scene.rng.shuffle(scene.load.events)
    scene.queue.add(scene.load.events)
    scene.wait_for(lambda: scene.is_quiet() and not still_to_do(scene), "the load to be done")
    scene.approve_all()
    scene.wait_for(lambda: scene.is_published() and not still_to_do(scene), "the load to be published")
    assert (processes(scene), scene.ended) == (alive, {})
    with scene.engine.connect() as connection:
        assert checker.violations(connection, scene.redis) == []
        assert of_the_load(scene, checker.agreement(connection, scene.load.model())) == []
    letters = scene.rows("SELECT entry_id, bytes FROM dead_letters")
    sent = {entry_id.decode(): fields[b"event"] for entry_id, fields in scene.redis.xrange("order.events")}
    assert [row.entry_id for row in letters if bytes(row.bytes) != sent[row.entry_id]] == []
    assert 100 < len(letters) < len(poison)
    record_property("faults", {"poison": len(poison)})
    record_property("entries", len(sent))


def still_to_do(scene: Scene) -> bool:
    """Whether there is something of the neighbours', or of all a shortage or a hold."""
    waiting = {row.order_id for row in scene.rows("SELECT order_id FROM waiting_events")}
    unfinished = "SELECT count(*) FROM allocations WHERE finished_at IS NULL"
    approved = "SELECT count(*) FROM holds WHERE state = 'approved'"
    return bool(waiting & orders_of(scene)) or scene.number(unfinished) + scene.number(approved) > 0


def of_the_load(scene: Scene, sentences: list[str]) -> list[str]:
    return [one for one in sentences if any(f" {name}/" in one or f" {name}:" in one for name in orders_of(scene))]


def orders_of(scene: Scene) -> set[str]:
    return {one["data"]["orderId"] for one in scene.load.fed if "orderId" in one["data"]}

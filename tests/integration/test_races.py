"""Batches that meet over the same order or the same event, on both databases: the second decides on what the first
wrote. Each test makes sure that they really met."""

from itertools import permutations

import pytest

from tests.builders import Json, again, closed, placed, shipped, shortage
from tests.integration.batches import Batches, entries
from tests.integration.races import Race, Racer

ORDER = placed("o1", a=("SA", 9), b=("SB", 9))
HOLD_ORDER = "UPDATE orders SET priority = priority WHERE order_id = '{}'"


@pytest.fixture
def worker(race: Race) -> Batches:
    return Batches(race.watch)


def first_then(race: Race, first: list[Json], *others: list[Json]) -> list[Racer]:
    """One batch is stopped before its commit until the others wait for it; then all go on."""
    leader, *followers = race.racers(1 + len(others))
    leader.stop_before_commit().feed(*first).wait_until_stopped()
    for follower, events in zip(followers, others, strict=True):
        follower.feed(*events)
    race.wait_until_blocked(*followers)
    leader.go()
    for racer in (leader, *followers):
        racer.result()
    return [leader, *followers]


@pytest.mark.parametrize("first", ["a", "b"])
def test_of_two_cuts_that_meet_the_second_sees_what_the_first_left(first: str, race: Race, worker: Batches) -> None:
    second = {"a": "b", "b": "a"}[first]
    worker.feed(ORDER)
    first_then(race, [shortage("o1", **{first: 0})], [shortage("o1", **{second: 0})])
    assert worker.operations() == ["cancelItem", "cancelOrder"]
    assert [one["data"]["items"][0]["itemId"] for one in worker.published()] == [first, second]
    assert [one["data"]["sequence"] for one in worker.published()] == [1, 2]
    assert worker.wrong() == []


def test_of_two_cuts_that_wait_for_the_order_together_either_may_be_the_first(race: Race, worker: Batches) -> None:
    worker.feed(ORDER)
    racers = race.racers(2)
    with race.holding(HOLD_ORDER.format("o1")):
        racers[0].feed(shortage("o1", a=0))
        racers[1].feed(shortage("o1", b=0))
        race.wait_until_blocked(*racers)
    assert [racer.result() for racer in racers] == [1, 1]
    assert worker.operations() == ["cancelItem", "cancelOrder"]
    assert worker.wrong() == []


def test_a_shipment_and_a_cut_that_meet_never_cancel_what_shipped(race: Race, worker: Batches) -> None:
    worker.feed(ORDER, placed("o2", a=("SA", 9)))
    first_then(race, [shipped("o1", "f1", a=6)], [shortage("o1", a=6)])
    first_then(race, [shortage("o2", a=6)], [shipped("o2", "f1", a=6)])
    for order_id in ("o1", "o2"):
        assert worker.totals(order_id)["a"] == {"ordered": 9, "fulfilled": 6, "cancelled": 3, "open": 0}
    assert worker.conflicts() == []
    assert worker.wrong() == []


def test_an_order_and_what_waits_for_it_cannot_miss_each_other(race: Race, worker: Batches) -> None:
    for number, order_first in enumerate((True, False)):
        order_id = f"unknown-{number}"
        order, cut = placed(order_id, a=("SA", 9)), shortage(order_id, a=4)
        first_then(race, *(([order], [cut]) if order_first else ([cut], [order])))
        assert worker.operations(order_id) == ["cancelItemPartially"]
        assert worker.waiting() == {}
    assert worker.wrong() == []


def test_three_events_of_an_unknown_order_that_meet_leave_nothing_waiting(race: Race, worker: Batches) -> None:
    for number in range(6):
        order_id = f"unknown-{number}"
        events = [placed(order_id, a=("SA", 9)), shipped(order_id, "f1", a=4), closed(order_id, "f1")]
        first, second, third = list(permutations(events))[number]
        first_then(race, [first], [second], [third])
        assert worker.operations(order_id) == ["cancelUnfulfilled"]
        assert worker.totals(order_id)["a"] == {"ordered": 9, "fulfilled": 4, "cancelled": 5, "open": 0}
    assert worker.waiting() == {}
    assert worker.wrong() == []


def test_the_same_events_in_opposite_order_are_done_once_and_block_nobody_for_ever(race: Race, worker: Batches) -> None:
    worker.feed(*(placed(f"o{n}", a=("SA", 9)) for n in range(40)))
    cuts = [{**shortage(f"o{n}", a=4), "id": f"cut-{n:02}"} for n in range(40)]
    racers = race.racers(2)
    columns = "source, id, digest, type, order_id, time, entry_id, recorded_at"
    time = "2026-01-01T00:00:00.000000+00:00"
    with race.holding(f"INSERT INTO events ({columns}) VALUES ('/test', 'cut-20', '', '', '', '{time}', '', '{time}')"):
        racers[0].feed(*cuts)
        racers[1].feed(*reversed(cuts))
        race.wait_until_blocked(*racers)
    assert sorted(racer.result() for racer in racers) == [0, 40]
    assert worker.operations() == ["cancelItemPartially"] * 40
    assert worker.wrong() == []


@pytest.mark.parametrize("known", [True, False], ids=["known orders", "unknown orders"])
def test_the_same_orders_in_opposite_order_block_nobody_for_ever(known: bool, race: Race, worker: Batches) -> None:
    orders = [placed(f"o{n:02}", a=("SA", 9), b=("SB", 9)) for n in range(40)]
    if known:
        worker.feed(*orders)
    racers = race.racers(2)
    with race.holding(HOLD_ORDER.format("o20") if known else "INSERT INTO orders (order_id) VALUES ('o20')"):
        racers[0].feed(*(shortage(f"o{n:02}", a=0) for n in range(40)))
        # With more of its own, or a set of the orders would by chance have one order in both.
        more = [shortage(f"more-{n}", b=0) for n in range(200)]
        racers[1].feed(*(shortage(f"o{n:02}", b=0) for n in reversed(range(40))), *more)
        race.wait_until_blocked(*racers)
    for racer in racers:
        racer.result()
    worker.feed(*orders)
    assert sorted(worker.operations()) == ["cancelItem"] * 40 + ["cancelOrder"] * 40
    assert worker.wrong() == []


def test_the_same_cut_under_fifty_ids_from_eight_workers_cuts_once(race: Race, worker: Batches) -> None:
    cut = shortage("o1", a=4)
    cuts = [again(cut) for _ in range(50)]
    worker.feed(ORDER)
    racers = race.racers(8)
    with race.holding(HOLD_ORDER.format("o1")):
        for n, racer in enumerate(racers):
            racer.feed(*cuts[n::8], size=1 + n % 3)
        race.wait_until_blocked(*racers)
    assert sum(racer.result() for racer in racers) == 1
    assert sorted(worker.outcomes().values()) == ["applied"] + ["nothing"] * 49 + ["recorded"]
    assert worker.wrong() == []


def test_one_event_two_hundred_times_from_eight_workers_is_one_event(race: Race, worker: Batches) -> None:
    cut = shortage("o1", a=4)
    worker.feed(ORDER)
    leader, *racers = race.racers(9)
    leader.stop_before_commit().feed(cut).wait_until_stopped()
    for n, racer in enumerate(racers):
        racer.feed(*[cut] * 25, size=1 + n)
    race.wait_until_blocked(*racers)
    leader.go()
    assert [racer.result() for racer in (leader, *racers)] == [1] + [0] * 8
    assert worker.outcomes() == {ORDER["id"]: "recorded", cut["id"]: "applied"}
    assert worker.dead() == []


def test_one_id_with_two_contents_that_meet_is_one_event_and_one_dead_letter(race: Race, worker: Batches) -> None:
    cut = shortage("o1", a=4)
    worker.feed(ORDER)
    first_then(race, [cut], [{**shortage("o1", a=1), "id": cut["id"]}])
    assert worker.dead() == ["id_reused"]
    assert worker.totals("o1")["a"]["open"] == 4


def test_a_mended_event_that_meets_the_bad_one_is_applied(race: Race, worker: Batches) -> None:
    bad = shortage("o1", zz=0)
    worker.feed(ORDER)
    first_then(race, [bad], [{**shortage("o1", a=4), "id": bad["id"]}])
    assert worker.dead() == ["unknown_line"]
    assert worker.totals("o1")["a"]["open"] == 4


def test_an_entry_that_two_workers_bury_at_once_is_one_dead_letter(race: Race, worker: Batches) -> None:
    fed = entries(b"bad", b"worse")
    leader, *others = race.racers(4)
    leader.stop_before_commit().start(lambda engine: Batches(engine).process(fed)).wait_until_stopped()
    for other in others:
        other.start(lambda engine: Batches(engine).process(fed[::-1]))
    race.wait_until_blocked(*others)
    leader.go()
    for racer in (leader, *others):
        racer.result()
    assert worker.dead() == ["not_json", "not_json"]

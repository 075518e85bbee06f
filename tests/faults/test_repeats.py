"""Group 6: whatever comes again, and however many workers it meets at once, takes effect once."""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.builders import again, closed, final, placed, requested, shipped, shortage, sku_shortage, to_bytes
from tests.faults.crowds import CROWD, WORKERS, meet
from tests.faults.scene import Scene
from tests.histories import at

TIMES = 200
IDS = 50


@pytest.fixture
def crowd(new_scene: Callable[..., Scene]) -> Scene:
    return new_scene(**CROWD)


def test_one_event_200_times_on_eight_workers_is_decided_once(crowd: Scene) -> None:
    """Of each kind one: a cut of three operations, a request, a last shipment, a shortage of a SKU, an order."""
    cut = shortage("same", a=3, b=0, c=1)
    events = [
        requested("same", d=2),
        final(shipped("ended", "f1", a=2), "f1"),
        sku_shortage("SAME", 4, time=at(200)),
        placed("new", a=("SD", 3)),
    ]
    placings = [
        placed("same", a=("SA", 9), b=("SB", 9), c=("SC", 9), d=("SD", 9)),
        placed("ended", a=("SA", 5), b=("SB", 5)),
        placed("wants", a=("SAME", 9)),
    ]
    crowd.load.add(placings, events, TIMES // 4)
    crowd.load.fed.append(cut)
    crowd.place()
    for _ in range(WORKERS):
        crowd.faults.lay("batch: acknowledged", "sleep", seconds=1)
    meet(crowd, "batch: after claim", [to_bytes(cut)] * TIMES)
    crowd.feed()
    crowd.finish()
    crowd.counted["repeat"] = TIMES - 1 + len(events) * (TIMES // 4 - 1)
    crowd.judge()
    assert operations(crowd, "same", cut["id"]) == ["cancelItemPartially", "cancelItem", "cancelItemPartially"]
    assert operations(crowd, "same", events[0]["id"]) == ["cancelItemPartially"]
    assert operations(crowd, "ended", events[1]["id"]) == ["cancelUnfulfilled"]
    assert operations(crowd, "wants", events[2]["id"]) == ["cancelItemPartially"]
    assert len(set(crowd.faults.met_by())) > 2


def test_the_same_cut_under_50_ids_and_every_event_twice(crowd: Scene) -> None:
    facts = {
        "short": shortage("short", a=4),
        "wants": sku_shortage("SAME", 4, time=at(200)),
        "closed": closed("closed"),
    }
    requests = {
        "part": requested("part", a=4),
        "item": requested("item", a=0),
        "whole": requested("whole"),
        "rest": requested("rest", {"unfulfilledOnly": True}),
    }
    cuts = facts | requests
    placings = [placed(name, a=("SAME" if name == "wants" else "SA", 9), b=("SB", 9)) for name in cuts]
    renamed = {name: [cut, *(again(cut) for _ in range(IDS - 1))] for name, cut in cuts.items()}
    crowd.load.add(placings, [one for cuts in renamed.values() for one in cuts])
    crowd.place()
    for _ in range(WORKERS):
        crowd.faults.lay("batch: acknowledged", "sleep", seconds=1)
    crowd.feed()
    crowd.finish()
    crowd.counted["repeat"] = len(cuts) * (IDS - 1) + len(crowd.load.events) // 2
    crowd.judge()
    for name in cuts:
        assert crowd.number(f"SELECT count(*) FROM cancellations WHERE order_id = '{name}'") == 1
        repeated = "nothing" if name in facts else "refused"
        assert outcomes(crowd, [one["id"] for one in renamed[name]]) == {"applied": 1, repeated: IDS - 1}
    assert len(set(crowd.faults.met_by())) > 2


def operations(scene: Scene, order_id: str, cause: str) -> list[str]:
    """What the event did to the order, in sequence."""
    sql = "SELECT operation FROM cancellations WHERE order_id = :order_id AND cause_id = :cause ORDER BY sequence"
    return [row.operation for row in scene.rows(sql, order_id=order_id, cause=cause)]


def outcomes(scene: Scene, ids: list[str]) -> Counter[str]:
    found = {row.id: row.outcome for row in scene.rows("SELECT id, outcome FROM events")}
    return Counter(found[id_] for id_ in ids)

"""Group 11: a worker whose clock is an hour off. On PostgreSQL only the database's clock decides: what is due, how long a
grace lasts, what lies in a breaker's window. (On SQLite the machine's clock is the database's, and all share it.)"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from tests.builders import Json, placed, to_bytes
from tests.faults.entry import CLOCK
from tests.faults.scene import Scene

HOUR = timedelta(hours=1)
MOST_AHEAD = timedelta(hours=24)
LIMIT = 20
TIMES = """
    SELECT recorded_at AS at FROM events UNION ALL SELECT decided_at FROM events
    UNION ALL SELECT due_at - interval '1 second' FROM allocations UNION ALL SELECT finished_at FROM allocations
    UNION ALL SELECT cancelled_at FROM cancellations UNION ALL SELECT opened_at FROM breakers
"""
"""What the worker has written of the time; the grace lasts a second."""
HASTY = "SELECT count(*) FROM allotments JOIN allocations USING (allocation_id) WHERE allotments.decided_at < due_at"

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_worker_whose_clock_is_an_hour_off_decides_the_same(new_scene: Callable[..., Scene], off: timedelta) -> None:
    """Only how far ahead an event's time may be is measured by its own clock, and what it refuses it tells of."""
    started = datetime.now(UTC)
    clock = {CLOCK: str(off.total_seconds())}
    scene = new_scene({"worker": clock}, breaker_window_seconds=600, breaker_source_orders=LIMIT)
    scene.place()
    scene.feed()
    scene.settle()
    assert scene.number("SELECT sum(orders) FROM breaker_counts WHERE scope = 'source'") == LIMIT
    assert scene.number("SELECT count(*) FROM breakers WHERE opened_at IS NOT NULL") == 1
    assert scene.number(HASTY) == 0
    refused = off < timedelta(0)
    early = send_early(scene, started + MOST_AHEAD + off / 2, refused)
    scene.finish()
    scene.judge()
    assert_times_lie_between(scene, started, datetime.now(UTC))
    assert abs(logged_last(scene) - datetime.now(UTC) - off) < HOUR / 4
    assert scene.ended == {}
    scene.counted["clock off"] += 1

    scene.give("worker")
    assert scene.stop("worker") == 0
    if refused:
        scene.queue.add([to_bytes(early)])
        scene.load.fed.append(early)
    scene.wait_for(scene.is_published, "the rest to be done by the right clock")
    scene.judge()


def send_early(scene: Scene, time: datetime, refused: bool) -> Json:
    """An event that is too early by one of the two clocks."""
    early = {**placed("early", a=("EXTRA", 1)), "time": time.isoformat()}
    scene.queue.add([to_bytes(early)])
    scene.wait_for(scene.is_quiet, "the early event to be done")
    with scene.engine.connect() as connection:
        told = connection.execute(text("SELECT code, sentence FROM dead_letters")).all()
    if refused:
        (letter,) = told
        assert letter.code == "time_ahead"
        assert letter.sentence.endswith("more than 24 hours ahead of the clock here")
        assert '"code":"time_ahead"' in scene.log("worker")
    else:
        assert told == []
        scene.load.fed.append(early)
    return early


def assert_times_lie_between(scene: Scene, first: datetime, last: datetime) -> None:
    with scene.engine.connect() as connection:
        row = connection.execute(text(f"SELECT min(at) AS earliest, max(at) AS latest FROM ({TIMES}) AS times")).one()
    assert first < row.earliest
    assert row.latest < last


def logged_last(scene: Scene) -> datetime:
    """When the worker's last line was logged, by its clock."""
    lines = [line for line in scene.log("worker").splitlines() if line.startswith("{")]
    return datetime.fromisoformat(json.loads(lines[-1])["timestamp"])

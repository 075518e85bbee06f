"""The whole pipeline, disturbed in every way at once: whatever happens in whatever order, nothing is lost, nothing is done
twice, no guardrail is passed, and a consistent history ends as the reference model says."""

from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Engine, event

from tests.builders import placed, shipped, shortage, sku_shortage, to_bytes
from tests.model import Model
from tests.properties.happenings import INSIDE, POINTS, TURNS
from tests.properties.machine import RULES, SETTINGS, PipelineMachine
from tests.properties.pipeline import Pipeline
from tests.properties.settling import judge, settle
from tests.properties.stage import Clock, Fault, one_clock
from worker import migrations
from worker.points import Point
from worker.storage import database

ROUNDS, ROUNDS_OF_THE_LONG_TEST, MOST_ROUNDS = 5, 40, 200
# Of few examples each, since Hypothesis makes most of the later ones of a round by doubling parts of earlier ones.
ROUND = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    report_multiple_bugs=False,
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=list(HealthCheck),
)

MUST_HAPPEN = {
    *(f"rule {name}" for name in RULES),
    *(f"turn {name}" for name in TURNS),
    *(f"crash of {kind}" for kind in {point.split(":")[0] for point in POINTS}),
    *(f"waited: {reason}" for reason in ("grace", "paused", "order_not_placed", "fulfillments_missing")),
    *(f"held by {why}" for why in ("breaker", "preflight", "protected", "shadow")),
    *("hold carried_out: shortage", "hold superseded: newer_figure"),
    *(f"operation {name}" for name in ("cancelItem", "cancelItemPartially", "cancelOrder", "cancelUnfulfilled")),
    *(f"dead letter: {code}" for code in ("bytes_lost", "id_reused", "not_json")),
    *("stale: newer_figure", "void: restocked", "nothing: enough"),
}
"""What the test must have come to: rules, faults, and what events, holds and letters ended as."""
RARE = {
    *(f"crash at {point}" for point in POINTS),
    *(f"meanwhile at {point}" for point in POINTS if not point.startswith(INSIDE)),
    *(f"database outage at {point}" for point in POINTS),
    *(f"hold carried_out: {reason}" for reason in ("closed", "requested", "no_cut", "nothing_open")),
    *("hold rejected: None", "hold superseded: restocked", "refused: item_fulfilled", "nothing: rejected"),
    *(f"dead letter: {code}" for code in ("too_large", "unknown_line", "waited_too_long", "worker_lost")),
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """SQLite in a file, which need not outlive a power cut."""
    engine = database.create(f"sqlite:///{tmp_path / 'shortpick.db'}")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    migrations.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> Iterator[Clock]:
    with one_clock() as clock:
        yield clock


@pytest.fixture
def machine(engine: Engine, clock: Clock) -> type[PipelineMachine]:
    return type("Machine", (PipelineMachine,), {"engine": engine, "clock": clock, "done": Counter()})


# With a grace of a minute, one order a chunk, and o3 protected.
PLACINGS = [
    placed("o1", a=("S", 4), b=("T", 3)),
    placed("o2", {"placedAt": "2026-01-01T00:01:00Z"}, a=("S", 4)),
    placed("o3", {"placedAt": "2026-01-01T00:02:00Z"}, a=("S", 4)),
]
FOLLOWING = [
    sku_shortage("S", 6, time="2026-01-01T12:00:00Z"),
    shipped("o1", "f1", a=2, b=1) | {"time": "2026-01-01T13:00:00Z"},
    shortage("o1", b=1),
]
WRONG = shortage("o1", unknown=1)


@pytest.mark.parametrize("point", POINTS)
def test_whoever_dies_at_a_point_is_made_up_for(engine: Engine, clock: Clock, point: Point) -> None:
    done: Counter[str] = Counter()
    pipeline = Pipeline(engine, clock, SETTINGS, lambda: None, done)
    pipeline.begin_with(order_shortage_grace_seconds=60, protected_orders="o3", batch_size=1)
    pipeline.send(*map(to_bytes, [*PLACINGS, WRONG]))
    settle(pipeline, approve=False)
    pipeline.stage.laid = Fault(point, "crash")
    pipeline.send(*map(to_bytes, FOLLOWING))
    pipeline.retry()
    pipeline.retry()
    settle(pipeline, approve=True)
    model = Model()
    for one in PLACINGS + FOLLOWING:
        model.feed(one)
    judge(pipeline, [], model)
    assert done[f"crash at {point}"] == 1
    assert len(pipeline.redis.xrange("order.cancelled")) == 3
    assert list(pipeline.sent.values()).count(to_bytes(WRONG)) == 2


@pytest.mark.timeout(900)
def test_whatever_happens(machine: type[PipelineMachine], request: pytest.FixtureRequest) -> None:
    explore(machine, request.config.option.seed, ROUNDS, MUST_HAPPEN)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_happens_for_longer(machine: type[PipelineMachine], request: pytest.FixtureRequest) -> None:
    explore(machine, request.config.option.seed + 1, ROUNDS_OF_THE_LONG_TEST, MUST_HAPPEN | RARE)


def explore(machine: type[PipelineMachine], number: int, rounds: int, must_happen: set[str]) -> None:
    """So many rounds, and then as many more as it takes until everything has happened that must."""
    for done in count():
        missing = sorted(name for name in must_happen if not machine.done[name])
        if done >= rounds and not missing:
            return
        assert done < MOST_ROUNDS, f"never happened: {missing}"
        seed(f"{number} {done}")(machine)
        run_state_machine_as_test(machine, settings=ROUND)

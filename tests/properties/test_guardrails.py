"""Whatever comes, and whatever people decide meanwhile: no limit is exceeded, and nothing that is held is cancelled
without an approval."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from domain.guardrails import Count, Gate, Key, Tally, limited, limits_of
from domain.policy import Breaker, Limits, Policy, Preflight, Protected
from tests.builders import Json
from tests.integration.batches import Batches, processor
from tests.properties.test_stock import SOURCES, emptied, others, placings
from worker import migrations, verdicts
from worker.storage import breakers, database, holds
from worker.storage.database import transaction

SKUS = ("S", "T")
KEYS: list[Key] = [("everything", ""), *(("source", one) for one in SOURCES), *(("sku", one) for one in SKUS)]

limits = st.builds(Limits, st.integers(0, 4), st.integers(0, 12))
breaker_settings = st.builds(Breaker, st.just(timedelta(hours=1)), limits, limits, limits)
tallies = st.builds(
    Tally, st.sampled_from(SOURCES), st.dictionaries(st.sampled_from(SKUS), st.integers(1, 6), min_size=1)
)
counts = st.dictionaries(
    st.sampled_from(KEYS), st.builds(Count, st.integers(0, 3), st.integers(0, 9), st.sampled_from([False] * 4 + [True]))
)


# The gate


@settings(max_examples=300)
@given(breaker=breaker_settings, before=counts, cuts=st.lists(tallies, max_size=12))
def test_a_gate_lets_nothing_pass_that_exceeds_a_limit_or_comes_after_it(
    breaker: Breaker, before: dict[Key, Count], cuts: list[Tally]
) -> None:
    gate = Gate(breaker, before)
    shut = {key for key, count in before.items() if count.open}
    orders, units = Counter[Key](), Counter[Key]()
    for number, cut in enumerate(cuts):
        keys = limited(cut, breaker)
        key = gate.admit(cut, ("/test", f"e{number}"))
        if key is not None:
            event("stopped")
            assert key in keys
            if key not in shut:
                had = before.get(key, Count())
                more = (had.orders + orders[key] + 1, had.units + units[key] + cut.units_of(key))
                assert not limits_of(key, breaker).allow(*more)
                assert gate.tripped[key] == ("/test", f"e{number}")
            shut.add(key)
            continue
        event("passed")
        assert shut.isdisjoint(keys)
        for one in keys:
            orders[one] += 1
            units[one] += cut.units_of(one)
            had = before.get(one, Count())
            assert limits_of(one, breaker).allow(had.orders + orders[one], had.units + units[one])
    assert {one: (count.orders, count.units) for one, count in gate.added.items()} == {
        one: (orders[one], units[one]) for one in orders
    }
    assert gate.tripped.keys() | {key for key, count in before.items() if count.open} == shut


# The worker


@dataclass
class Watched:
    """A worker, and what people do beside it. Its breakers count from when they were closed last."""

    worker: Batches
    paused: set[str | None] = field(default_factory=set)
    closed_at: int = 0
    stopped: int = 0

    def feed(self, *events: Json) -> None:
        self.worker.feed(*events)

    def run(self, chunk: int) -> None:
        self.worker.run(chunk=chunk)

    def release(self) -> None:
        self.worker.let_time_pass()
        self.worker.release()

    def decide(self, verdict: holds.Verdict, which: list[int]) -> None:
        """Of the open holds some, by their places among them."""
        with database.reading(self.worker.engine) as connection:
            found = holds.select_ids(connection, [], None, None, everything=True)
        chosen = {found[place % len(found)] for place in which} if found else set()
        verdicts.give(self.worker.engine, chosen, verdict, "ann", "a test")

    def carry_out(self) -> None:
        verdicts.carry_out_approved(processor(self.worker.engine, policy=self.worker.policy))

    def pause(self, source: str | None) -> None:
        self.paused.add(source)
        self.worker.pause(source)

    def resume(self) -> None:
        for source in self.paused:
            self.worker.resume(source)
        self.paused.clear()

    def close(self) -> None:
        with transaction(self.worker.engine) as connection:
            for row in breakers.is_open(connection):
                assert breakers.close(connection, (row.scope, row.name), "a test", "ann")
                if row.scope == "everything":
                    self.closed_at = len(self._cuts_of_nobody(connection))

    def wrong(self) -> list[str]:
        """What must hold after every step."""
        with database.reading(self.worker.engine) as connection:
            free = self._cuts_of_nobody(connection)[self.closed_at :]
            opened = {(row.scope, row.name) for row in breakers.is_open(connection)}
        held = self.worker.rows("SELECT * FROM holds")
        cancelled = Counter(
            {
                (row.cause_source, row.cause_id, row.order_id): int(row.units)
                for row in self.worker.rows(
                    "SELECT cause_source, cause_id, order_id, sum(units) AS units FROM cancellations "
                    "GROUP BY cause_source, cause_id, order_id"
                )
            }
        )
        found = []
        for row in held:
            units, applied = cancelled[row.source, row.id, row.order_id], row.outcome == "applied"
            if (units > 0) != (row.state == "carried_out" and applied and row.decided_by is not None):
                found.append(f"Hold {row.hold_id} is {row.state} ({row.outcome}), and {units} units were cancelled.")
            if units > row.units:
                found.append(f"Hold {row.hold_id} was of {row.units} units, and {units} were cancelled.")
        policy, keys = self.worker.policy, {(row.source, row.id, row.order_id) for row in held}
        if policy.hold and +cancelled:
            found.append("Something was cancelled in shadow mode.")
        for cut in (+cancelled).keys() - keys:
            if cut[2] in policy.protected.orders:
                found.append(f"{cut} cut a protected order.")
        if not policy.breaker.everything.allow(len(free), sum(units for _, units in free)):
            found.append(f"The breaker let pass {free}.")
        found += self._unopened(opened)
        return found + self.worker.wrong(paused=True)  # some steps leave to a later one what is due

    def _unopened(self, opened: set[Key]) -> list[str]:
        """What a breaker has stopped since the last closing has opened it."""
        before, self.stopped = self.stopped, self._number_stopped()
        return ["A breaker has stopped a cut, and none is open."] if self.stopped > before and not opened else []

    def _number_stopped(self) -> int:
        return int(self.worker.rows("SELECT count(*) AS number FROM holds WHERE why = 'breaker'")[0].number)

    def _cuts_of_nobody(self, connection: Any) -> list[tuple[Any, int]]:
        """What was cancelled without a person's approval, an event's cut of an order each, with its units."""
        rows = connection.exec_driver_sql(
            "SELECT cause_source, cause_id, order_id, sum(units) AS units, min(ledger_id) AS first FROM cancellations "
            "WHERE NOT EXISTS (SELECT 1 FROM holds WHERE holds.source = cause_source AND holds.id = cause_id "
            "AND holds.order_id = cancellations.order_id) GROUP BY cause_source, cause_id, order_id ORDER BY first"
        )
        return [((row.cause_source, row.cause_id, row.order_id), int(row.units)) for row in rows]


@st.composite
def from_anywhere(draw: st.DrawFn) -> Json:
    made: Json = draw(others())
    return {**made, "source": draw(st.sampled_from(SOURCES))}


steps = st.one_of(
    st.tuples(st.just("feed"), st.lists(from_anywhere(), min_size=1, max_size=4)),
    st.tuples(st.just("feed"), st.lists(from_anywhere(), min_size=1, max_size=4)),
    st.tuples(st.just("run"), st.integers(1, 3)),
    st.tuples(st.just("decide"), st.sampled_from(["approved", "rejected"]), st.lists(st.integers(0, 9), min_size=1)),
    st.tuples(st.just("carry_out")),
    st.tuples(st.just("pause"), st.sampled_from([None, *SOURCES])),
    st.tuples(st.just("resume")),
    st.tuples(st.just("close")),
    st.tuples(st.just("release")),
)
policies = st.builds(
    Policy,
    ship_complete=st.booleans(),
    strategy=st.sampled_from(["oldest_first", "newest_first"]),
    order_grace=st.sampled_from([timedelta(0), timedelta(0), timedelta(hours=1)]),
    protected=st.builds(Protected, st.sampled_from([frozenset[str](), frozenset({"o2"})])),
    preflight=st.builds(Preflight, limits, st.sampled_from([0.0, 0.5]), st.just(2)),
    breaker=breaker_settings,
    hold=st.sampled_from([None, None, None, None, "shadow"]),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path: Path = tmp_path_factory.mktemp("guardrails") / "shortpick.db"
    engine = database.create(f"sqlite:///{path}")
    migrations.upgrade(engine)
    yield engine
    engine.dispose()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policy=policies, first=placings(), following=st.lists(steps, min_size=1, max_size=14))
def test_nothing_that_is_held_is_cancelled_without_an_approval(
    engine: Engine, policy: Policy, first: list[Json], following: list[tuple[Any, ...]]
) -> None:
    emptied(engine)
    watched = Watched(Batches(engine, policy))
    watched.feed(*first)
    ending: list[tuple[Any, ...]] = [("resume",), ("release",), ("run", 2), ("carry_out",)]
    for name, *arguments in [*following, *ending]:
        getattr(watched, name)(*(arguments[0] if name == "feed" else arguments))
        assert watched.wrong() == [], name
    assert watched.worker.wrong() == []
    for row in watched.worker.rows("SELECT why, state, outcome FROM holds"):
        event(" ".join(str(one) for one in row))

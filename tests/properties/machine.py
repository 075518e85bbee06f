"""What may be done to the pipeline, as rules: processes and people have their turns, and are disturbed."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from functools import wraps
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqlalchemy import Engine
from structlog.testing import capture_logs

from tests.builders import Json, to_bytes
from tests.properties.consistent import History, histories
from tests.properties.happenings import (
    CHANGES,
    FREE_CHANGES,
    FREE_TURNS,
    NEWEST,
    SOURCES,
    TURNS_OF_A_STORY,
    bad_input,
    changes,
    faults,
    numbers,
    placings,
)
from tests.properties.pipeline import Pipeline
from tests.properties.settling import judge, repeat_everything, settle
from tests.properties.stage import Clock, Fault
from tests.properties.watch import Watch
from worker.settings import Settings
from worker.storage.holds import Verdict
from worker.streams import Batch

SETTINGS = Settings(redis_url="redis://localhost", database_url="sqlite:///unused.db", batch_size=2)
FOREVER = 10 * 365 * 24 * 3600
RULES: list[str] = []
"""The names of those that are counted."""


def counted_rule(**arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule, after which others have turns; how often it was followed is counted."""

    def make(function: Callable[..., None]) -> Any:
        RULES.append(function.__name__)

        @wraps(function)
        def follow(self: "PipelineMachine", **chosen: Any) -> None:
            self.done[f"rule {function.__name__}"] += 1
            self.rules_since_rest += 1
            self.is_broken = True  # until it is over
            function(self, **chosen)
            self.all_have_turns()
            self.is_broken = False

        return rule(**arguments)(follow)

    return make


class PipelineMachine(RuleBasedStateMachine):
    """Either events come that are free of any plan, and then anything may happen to them; or those of a consistent
    history, and then nothing that would change its outcome."""

    engine: ClassVar[Engine]
    clock: ClassVar[Clock]
    done: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.told = self.stack.enter_context(capture_logs())
        self.pipeline = Pipeline(self.engine, self.clock, SETTINGS, self.look, self.done)
        self.watch = Watch(self.engine, self.pipeline.redis, SETTINGS, self.pipeline.sent)
        self.history: History | None = None
        self.later: list[Json] = []
        self.rules_since_rest = 0
        self.is_broken = False
        self.sent: list[Json] = []
        self.holds_seen: list[int] = []

    def teardown(self) -> None:
        with self.stack:
            if not self.is_broken:
                self.put(*self.later)
                self.later.clear()
                self.settle()
                repeat_everything(self.pipeline)

    def look(self) -> None:
        self.watch.look(self.pipeline.settings)
        assert not self.watch.found, "\n".join([*self.watch.found, *self.pipeline.stage.story])

    @property
    def is_free(self) -> bool:
        return self.history is None

    # Events, and the turns of processes: some after each rule, whatever rules an example goes without

    @initialize(
        data=st.data(),
        story=placings() | histories(),
        changed=st.lists(changes(FREE_CHANGES), min_size=2, max_size=6),
        late=st.booleans(),
        starts=st.sampled_from([1, 5]),
    )
    def begin(
        self, data: st.DataObject, story: list[Json] | History, changed: list[tuple[str, Any]], late: bool, starts: int
    ) -> None:
        self.data = data
        if isinstance(story, History):
            self.history, self.later = story, list(story.rest)
            strategy = "newest_first" if story.newest_first else "oldest_first"
            self.pipeline.begin_with(waiting_limit_seconds=FOREVER, max_lone_starts=100, allocation=strategy)
            self.put(*story.placings)
            settle(self.pipeline, approve=False)
        else:
            self.pipeline.begin_with(max_lone_starts=starts)
            for number, one in enumerate(story, 1):
                one["id"] = f"p{number}"
            self.later = story[3:] if late else []
            self.put(*story[: len(story) - len(self.later)])
        for change in changed:
            self.change(*change)

    def put(self, *events: Json) -> None:
        self.sent += events
        self.pipeline.send(*map(to_bytes, events))

    def all_have_turns(self) -> None:
        for name, arguments in self.data.draw(FREE_TURNS if self.is_free else TURNS_OF_A_STORY):
            self.done[f"turn {name}"] += 1
            getattr(self, name)(**arguments)

    def send(self, chosen: list[int]) -> None:
        for number in chosen[: len(self.later)]:
            self.put(self.later.pop(number % len(self.later)))

    def make_up(self, events: list[tuple[Json, int]]) -> None:
        for one, ago in events:
            time = (self.clock.time - timedelta(seconds=ago)).isoformat()
            for line in one["data"].get("items", []):
                if line.get("itemId") == NEWEST:
                    line["itemId"] = self.watch.newest.get(one["data"]["orderId"], "a")
            self.put({**one, "id": f"e{len(self.sent)}", "time": time})

    def read(self, fault: Fault | None, refused: bool) -> None:
        self.pipeline.read(fault, refused=refused and fault is None)

    def work(self, number: int, of_batch: Fault | None, of_run: Fault | None, behind: float, outdated: bool) -> None:
        messages = self.pipeline.messages
        if not messages:
            self.pipeline.read()
        if messages:
            number %= len(messages)
            fault = of_batch if isinstance(messages[number], Batch) else of_run
            with self.pipeline.outdated() if outdated else nullcontext():
                self.pipeline.work(number, fault, timedelta(seconds=behind))

    def beat(self, fault: Fault | None, outdated: bool) -> None:
        with self.pipeline.outdated() if outdated else nullcontext():
            self.pipeline.beat(fault)

    def publish(self, number: int, fault: Fault | None) -> None:
        self.pipeline.publish(number, fault)

    def decide_holds(self, verdict: Verdict, number: int, together: bool, at_once: bool, fault: Fault | None) -> None:
        """One, all, or one that was seen before, and that somebody else may have decided."""
        self.holds_seen = sorted({*self.holds_seen, *self.pipeline.open_holds()})
        if self.holds_seen:
            chosen = self.holds_seen if together else [self.holds_seen[number % len(self.holds_seen)]]
            self.pipeline.give(chosen, verdict if self.is_free else "approved")
            if at_once:
                self.pipeline.beat(fault)

    def close_a_breaker(self, number: int) -> None:
        if found := self.pipeline.open_breakers():
            key = found[number % len(found)]
            self.pipeline.close(key)
            self.watch.cut[key].clear()

    def resume(self, number: int, fault: Fault | None) -> None:
        if paused := sorted(self.watch.paused, key=str):
            source = paused[number % len(paused)]
            self.watch.paused.discard(source)
            self.pipeline.resume(source)
            self.pipeline.beat(fault)

    # What disturbs them

    @counted_rule(chosen=st.lists(numbers, min_size=1, max_size=3))
    def send_again(self, chosen: list[int]) -> None:
        """The newest ones, or those before them."""
        self.pipeline.send(*(to_bytes(self.sent[-1 - number % len(self.sent)]) for number in chosen))

    @precondition(lambda self: self.is_free)
    @counted_rule(bad=bad_input, reused=st.booleans(), number=numbers)
    def send_bad_input(self, bad: bytes | Json, reused: bool, number: int) -> None:
        if reused:
            one = self.sent[-1 - number % len(self.sent)]
            bad = {**one, "data": {**one["data"], "orderId": "o9"}}
        self.pipeline.send(bad if isinstance(bad, bytes) else to_bytes(bad))

    @precondition(lambda self: self.is_free)
    @counted_rule(fault=faults("retry", always=True))
    def retry_dead_letters(self, fault: Fault | None) -> None:
        self.pipeline.retry(fault)

    @precondition(lambda self: self.pipeline.messages)
    @counted_rule(number=numbers, doubled=st.booleans())
    def mishandle_a_message(self, number: int, doubled: bool) -> None:
        messages = self.pipeline.messages
        message = messages.pop(number % len(messages))
        messages += [message, message] if doubled else []

    @counted_rule(seconds=st.sampled_from([1, 16, 40, 61, 301, 601]), fault=faults("release", always=True))
    def pass_time(self, seconds: int, fault: Fault | None) -> None:
        self.pipeline.pass_time(seconds)
        self.pipeline.beat(fault)

    @counted_rule(
        what=st.sampled_from(["prune the queue", "lose the outgoing stream", "delete from the queue"]), number=numbers
    )
    def meddle_with_streams(self, what: str, number: int) -> None:
        match what:
            case "prune the queue":
                self.pipeline.prune(timedelta(minutes=number))
            case "lose the outgoing stream":
                self.pipeline.redis.delete("order.cancelled")
            case _ if self.is_free and self.pipeline.queue.pending():
                self.pipeline.delete(number)

    # People

    @precondition(lambda self: len(self.watch.paused) < 2)
    @counted_rule(source=st.sampled_from([None, *SOURCES]))
    def pause(self, source: str | None) -> None:
        self.pipeline.pause(source)
        self.watch.paused.add(source)

    @counted_rule(change=changes(FREE_CHANGES))
    def change_a_setting(self, change: tuple[str, Any]) -> None:
        self.change(*change)

    def change(self, name: str, value: Any) -> None:
        if self.is_free or name in CHANGES:
            self.pipeline.change(name, value)

    @precondition(lambda self: self.rules_since_rest > 5)
    @counted_rule()
    def come_to_rest(self) -> None:
        self.settle()

    def settle(self) -> None:
        self.rules_since_rest = 0
        self.watch.paused.clear()
        settle(self.pipeline, approve=not self.is_free)
        model = self.history.model() if self.history and not self.later else None
        judge(self.pipeline, self.told, model)

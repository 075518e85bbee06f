"""`shortpick republish` on both databases and a real Redis: the same events at the same positions, or a refusal."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine

from tests.integration.publishing import STREAM, Publisher, positions, run_some, wrong
from worker import bootstrap, republish
from worker.process import Processor
from worker.relay import Relay
from worker.republish import CannotRepublish
from worker.settings import Settings
from worker.streams import Outbox
from worker.upkeep import prune_cancelled

Publish = Callable[[int], list[str]]


@pytest.fixture
def engine(emptied_engine: Engine) -> Engine:
    return emptied_engine


@pytest.fixture
def database_url(emptied_engine: Engine) -> str:
    return emptied_engine.url.render_as_string(hide_password=False)


@pytest.fixture
def relay(settings: Settings, engine: Engine, redis: Redis) -> Relay:
    return bootstrap.relay(settings, engine, redis)


@pytest.fixture
def publish(processor: Processor, relay: Relay) -> Publish:
    return Publisher(processor, relay).publish


def test_a_lost_stream_holds_the_same_events_at_the_same_positions(
    publish: Publish, shortpick: Any, engine: Engine, redis: Redis
) -> None:
    publish(5)
    before = redis.xrange(STREAM)
    redis.delete(STREAM)
    ran = shortpick("republish", "--from", "1")
    assert (ran.code, ran.out, ran.err) == (0, "", f"The stream {STREAM} holds positions 1 to 5.\n")
    assert redis.xrange(STREAM) == before
    assert wrong(engine, redis) == []


def test_it_begins_where_one_says_and_the_relay_goes_on(
    publish: Publish, shortpick: Any, engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(republish, "BATCH", 2)
    publish(6)
    before: Any = redis.xrange(STREAM)
    redis.delete(STREAM)
    assert shortpick("republish", "--from", "3").err == f"The stream {STREAM} holds positions 3 to 6.\n"
    assert redis.xrange(STREAM) == before[2:]
    publish(2)
    assert positions(redis) == [3, 4, 5, 6, 7, 8]
    assert wrong(engine, redis) == []
    redis.delete(STREAM)
    publish(1)
    assert positions(redis) == [3, 4, 5, 6, 7, 8, 9]


def test_a_command_that_was_killed_in_the_middle_says_how_to_go_on(
    publish: Publish, shortpick: Any, engine: Engine, outbox: Outbox, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(republish, "BATCH", 2)
    publish(6)
    before: Any = redis.xrange(STREAM)
    redis.delete(STREAM)
    republish.begin(engine, outbox, 2)
    next(republish.fill(engine, outbox, 2))
    assert (
        "missing after it is appended by `shortpick relay`, or with --from 4"
        in shortpick("republish", "--from", "2").err
    )
    assert shortpick("republish", "--from", "4").code == 0
    assert redis.xrange(STREAM) == before[1:]
    assert wrong(engine, redis) == []


def test_what_was_trimmed_can_be_had_again(
    publish: Publish, shortpick: Any, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(4)
    before: Any = redis.xrange(STREAM)
    prune_cancelled(engine, outbox, timedelta(days=-1))
    redis.delete(STREAM)
    redis.xgroup_create(STREAM, "mail", "1-0", mkstream=True)
    assert shortpick("republish", "--from", "2").code == 0
    assert redis.xrange(STREAM) == before[1:]
    delivered: Any = redis.xreadgroup("mail", "one", {STREAM: ">"}, 10)
    assert delivered[0][1] == before[1:]
    assert wrong(engine, redis) == []


def test_the_next_position_of_all_begins_an_empty_stream(publish: Publish, shortpick: Any, redis: Redis) -> None:
    publish(2)
    redis.delete(STREAM)
    ran = shortpick("republish", "--from", "3")
    assert (ran.code, ran.err) == (0, f"The stream {STREAM} is empty, and goes on with position 3.\n")
    publish(1)
    assert positions(redis) == [3]


def test_what_the_stream_lacks_at_its_end_is_appended(publish: Publish, shortpick: Any, redis: Redis) -> None:
    publish(2)
    old = redis.dump(STREAM)
    publish(2)
    redis.restore(STREAM, 0, old, replace=True)
    assert shortpick("republish", "--from", "3").err == f"The stream {STREAM} holds positions 1 to 4.\n"
    assert shortpick("republish", "--from", "5").err == f"The stream {STREAM} holds positions 1 to 4.\n"
    assert positions(redis) == [1, 2, 3, 4]


def test_before_anything_was_published_there_is_nothing_to_do(shortpick: Any, redis: Redis) -> None:
    ran = shortpick("republish", "--from", "1")
    assert (ran.code, ran.err) == (0, f"The stream {STREAM} is empty, and goes on with position 1.\n")
    assert shortpick("republish", "--from", "2").code == 1
    assert not redis.exists(STREAM)


@pytest.mark.parametrize("stream", ["lost", "there"])
def test_a_position_that_was_not_given_yet_is_refused(
    stream: str, publish: Publish, shortpick: Any, redis: Redis
) -> None:
    publish(3)
    if stream == "lost":
        redis.delete(STREAM)
    before = redis.xrange(STREAM)
    ran = shortpick("republish", "--from", "5")
    assert (ran.code, ran.out) == (1, "")
    assert "position 5 was not given yet: the last one is 3" in ran.err
    assert "Give at most 4" in ran.err
    assert redis.xrange(STREAM) == before


def test_what_is_in_the_stream_is_not_added_again(publish: Publish, shortpick: Any, redis: Redis) -> None:
    publish(3)
    for position in ("1", "3"):
        ran = shortpick("republish", "--from", position)
        assert ran.code == 1
        assert "ends at position 3 already" in ran.err
        assert f"must begin at {position}, stop the relay, delete the stream (DEL {STREAM}" in ran.err
    assert positions(redis) == [1, 2, 3]


def test_no_gap_is_made(publish: Publish, shortpick: Any, redis: Redis) -> None:
    publish(2)
    old = redis.dump(STREAM)
    publish(2)
    redis.restore(STREAM, 0, old, replace=True)
    ran = shortpick("republish", "--from", "4")
    assert ran.code == 1
    assert "ends at position 2, so it would have a gap before 4. Give 3" in ran.err
    assert positions(redis) == [1, 2]


def test_a_stream_that_is_ahead_or_anothers_is_refused(publish: Publish, shortpick: Any, redis: Redis) -> None:
    publish(2)
    redis.xadd(STREAM, {"event": "foreign"}, id="3-0")
    ran = shortpick("republish", "--from", "1")
    assert (ran.code, "only up to 2" in ran.err) == (1, True)
    redis.delete(STREAM)
    redis.xadd(STREAM, {"event": "foreign"}, id="2-0")
    assert "the entry at position 2" in shortpick("republish", "--from", "3").err
    redis.xadd(STREAM, {"event": "foreign"}, id="2-7")
    assert "which Shortpick did not write" in shortpick("republish", "--from", "3").err
    assert redis.xlen(STREAM) == 2


@pytest.mark.parametrize("position", ["0", "-1", "one"])
def test_what_is_no_position_is_refused(position: str, shortpick: Any) -> None:
    assert shortpick("republish", "--from", position).code == 2


def test_a_position_beyond_all_bounds_is_refused(publish: Publish, shortpick: Any) -> None:
    publish(1)
    ran = shortpick("republish", "--from", str(2**80))
    assert (ran.code, "was not given yet" in ran.err) == (1, True)


# While relays run


def test_a_relay_may_append_what_it_would_append_next(
    publish: Publish, relay: Relay, engine: Engine, outbox: Outbox, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(republish, "BATCH", 2)
    publish(6)
    redis.delete(STREAM)
    assert republish.begin(engine, outbox, 2) == 6
    steps = republish.fill(engine, outbox, 2)
    assert next(steps) == 3
    run_some(relay)
    assert list(steps) == [6]
    assert positions(redis) == [2, 3, 4, 5, 6]


def test_a_relay_that_has_begun_the_stream_is_left_to_it(
    publish: Publish, relay: Relay, engine: Engine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the look at the stream and its beginning."""
    publish(3)
    redis.delete(STREAM)

    class Slow(Outbox):
        def begin(self, position: int) -> bool:
            run_some(relay)
            return super().begin(position)

    with pytest.raises(CannotRepublish, match="ends at position 3 already"):
        republish.begin(engine, Slow(redis, STREAM), 2)
    assert positions(redis) == [1, 2, 3]
    assert wrong(engine, redis) == []


def test_a_relay_that_looked_at_the_lost_stream_before_it_was_begun_goes_on_after_it(
    publish: Publish, settings: Settings, engine: Engine, outbox: Outbox, redis: Redis
) -> None:
    publish(3)
    redis.delete(STREAM)

    class Slow(Outbox):
        def append(self, position: int, events: Any) -> bool:
            if position == 1:
                republish.begin(engine, outbox, 3)
            return super().append(position, events)

    run_some(Relay(engine, Slow(redis, STREAM)))
    assert positions(redis) == [3]
    assert wrong(engine, redis) == []


def test_a_stream_that_is_lost_again_meanwhile_is_told(
    publish: Publish, engine: Engine, outbox: Outbox, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(republish, "BATCH", 2)
    publish(6)
    redis.delete(STREAM)
    republish.begin(engine, outbox, 2)
    steps = republish.fill(engine, outbox, 2)
    next(steps)
    redis.delete(STREAM)
    with pytest.raises(CannotRepublish, match="was deleted while it was filled"):
        next(steps)
    assert positions(redis) == []

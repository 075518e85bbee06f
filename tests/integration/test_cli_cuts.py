"""The commands that stop, resume and make cancellations, and what `why` and `drain` tell of shortages of a SKU."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from threading import Event, Thread
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine, text

from domain.policy import Policy
from tests.builders import placed, restocked, shipped, shortage, sku_restocked, sku_shortage
from tests.faults.proxy import Proxy
from tests.servers import PostgresServer
from worker import bootstrap, shortages
from worker.process import Processor, process
from worker.release import release_due
from worker.settings import Settings
from worker.streams import Batch

ORDER = placed("o1", a=("S", 5), b=("T", 2))
LATER = "2026-01-01T10:00:00Z"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def working(processor: Processor) -> Iterator[None]:
    """A worker that decides whatever comes, and logs nothing: the command's output is looked at."""
    stopping = Event()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

    def work() -> None:
        while not stopping.is_set():
            if found := processor.queue.read(10, 20):
                process(processor, Batch([one.entry_id for one in found]))

    thread = Thread(target=work)
    thread.start()
    yield
    stopping.set()
    thread.join()
    structlog.reset_defaults()


def number(engine: Engine, sql: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(sql)).scalar_one())


def cancelled(engine: Engine) -> int:
    return number(engine, "SELECT count(*) FROM cancellations")


# pause and resume


def test_while_it_lasts_a_pause_is_seen_in_every_commands_output(
    shortpick: Any, decide: Callable[..., None], engine: Engine
) -> None:
    decide(ORDER)
    paused = shortpick("pause", "--reason", "the feed reports zeros", "--by", "ann")
    assert paused.code == 0
    assert "Cancellations of every source are paused. Go on with: shortpick resume --reason …" in paused.err
    decide(shortage("o1", a=0))
    assert cancelled(engine) == 0
    for command in (
        ["why", "o1"],
        ["orders", "export"],
        ["dead-letters", "list"],
        ["drain"],
        ["pause", "--reason", "b"],
    ):
        ran = shortpick(*command)
        assert ran.code == 0
        assert "PAUSED since" in ran.err
        assert "cancellations of every source wait. ann paused them: the feed reports zeros" in ran.err


def test_resume_ends_every_pause_of_everything(
    shortpick: Any, decide: Callable[..., None], processor: Processor, engine: Engine
) -> None:
    shortpick("pause", "--reason", "one")
    shortpick("pause", "--reason", "two")
    decide(ORDER, shortage("o1", a=0))
    resumed = shortpick("resume", "--reason", "mended")
    assert resumed.code == 0
    assert "What has waited is decided again, beginning within 5 seconds." in resumed.err
    assert "PAUSED" not in shortpick("drain").err
    assert release_due(processor) == 1
    assert cancelled(engine) == 1
    assert number(engine, "SELECT count(*) FROM pauses WHERE resumed_because = 'mended'") == 2


def test_a_pause_of_a_source_is_told_and_ended_by_its_name(shortpick: Any) -> None:
    shortpick("pause", "--source", "/wms", "--reason", "a count goes on")
    wrong = shortpick("resume", "--reason", "x")
    assert wrong.code == 1
    assert "cancellations of every source are not paused; those of source '/wms' are still paused" in wrong.err
    assert shortpick("resume", "--source", "/wms", "--reason", "counted").code == 0
    assert "are not paused" in shortpick("resume", "--source", "/wms", "--reason", "again").err


def test_a_pause_of_a_source_that_nobody_knows_asks_whether_it_is_spelled_right(
    shortpick: Any, decide: Callable[..., None]
) -> None:
    decide(ORDER)
    assert "is it spelled right?" in shortpick("pause", "--source", "/tset", "--reason", "x").err
    assert "is it spelled right?" not in shortpick("pause", "--source", "/test", "--reason", "x").err


def test_a_pause_is_possible_for_a_user_without_a_name(shortpick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 123456)
    assert shortpick("pause", "--reason", "x").code == 0
    assert "user 123456 paused them" in shortpick("drain").err


def test_where_the_answer_to_its_commit_is_lost_a_pause_does_not_claim_to_know(
    anywhere: Any, redis_url: str, postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(postgres_server.port) as proxy:
        monkeypatch.setenv("SHORTPICK_REDIS_URL", redis_url)
        monkeypatch.setenv("SHORTPICK_DATABASE_URL", postgres_url.replace(str(postgres_server.port), str(proxy.port)))
        proxy.lose_reply(b"COMMIT")
        lost = anywhere("pause", "--reason", "x")
        assert proxy.met == {b"COMMIT": 1}
        assert lost.code == 1
        assert "the connection was lost, so it is not known whether cancellations are paused" in lost.err
        assert "PAUSED since" in anywhere("drain").err


def test_a_pause_needs_a_reason(shortpick: Any) -> None:
    assert shortpick("pause").code == 2
    assert shortpick("resume").code == 2


# cancel


@pytest.mark.usefixtures("working")
def test_cancel_waits_for_the_decision_and_shows_it(shortpick: Any, decide: Callable[..., None]) -> None:
    decide(ORDER)
    ran = shortpick("cancel", "o1", "--item", "a", "--new-quantity", "3", "--note", "damaged")
    assert ran.code == 0, ran.err
    assert "The seller asked to cancel part of item 'a'; the rules allow it." in ran.out
    assert "2 units, in the seller's name, because: a person decided it (manual), noting 'damaged'." in ran.out
    assert "2 of the 5 of item 'a' (SKU 'S'); the other 3 stay" in ran.out


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize(
    ("arguments", "operation", "by"),
    [
        ([], "cancelOrder", "seller"),
        (["--item", "b"], "cancelItem", "seller"),
        (["--unfulfilled-only", "--reason", "buyer_request"], "cancelUnfulfilled", "buyer"),
    ],
)
def test_each_extent_is_asked_for_as_its_operation(
    arguments: list[str], operation: str, by: str, shortpick: Any, decide: Callable[..., None]
) -> None:
    decide(ORDER)
    (row,) = shortpick("cancel", "o1", *arguments, "--json").json
    assert row["outcome"] == "applied"
    assert row["facts"]["by"] == by
    assert row["facts"]["operations"][0][0] == operation


@pytest.mark.usefixtures("working")
def test_a_refused_request_tells_the_rule_and_ends_with_1(shortpick: Any, decide: Callable[..., None]) -> None:
    decide(ORDER, shipped("o1", "f1", a=1))
    ran = shortpick("cancel", "o1")
    assert ran.code == 1
    assert "This was refused, and nothing was changed: something of the order is fulfilled" in ran.out


@pytest.mark.usefixtures("working")
def test_a_key_makes_a_request_idempotent(shortpick: Any, decide: Callable[..., None], engine: Engine) -> None:
    decide(ORDER)
    first, second = (shortpick("cancel", "o1", "--item", "a", "--key", "k1") for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert second.out == first.out
    assert "This key was used before, with the same request" in second.err
    assert cancelled(engine) == 1
    other = shortpick("cancel", "o1", "--item", "b", "--key", "k1")
    assert other.code == 1
    assert "was used before, for another request; give this one a key of its own" in other.err


def test_a_request_that_nobody_decides_says_so(shortpick: Any, decide: Callable[..., None]) -> None:
    decide(ORDER)
    ran = shortpick("cancel", "o1", "--timeout", "0.2")
    assert ran.code == 1
    assert "not decided within 0.2 seconds; it will be when `shortpick ingress` and `shortpick worker` run" in ran.err


@pytest.mark.usefixtures("working")
def test_while_cancellations_are_paused_a_request_waits(shortpick: Any, decide: Callable[..., None]) -> None:
    decide(ORDER)
    shortpick("pause", "--reason", "a test")
    ran = shortpick("cancel", "o1")
    assert ran.code == 0
    assert "Cancellations are paused, so it waits until they are resumed, and is decided again then." in ran.out


def test_a_request_that_would_not_be_accepted_is_not_sent(shortpick: Any, processor: Processor) -> None:
    wrong = shortpick("cancel", "o1", "--note", "\0")
    assert wrong.code == 1
    assert "this request would not be accepted: data.reason.note" in wrong.err
    assert "name the item with --item" in shortpick("cancel", "o1", "--new-quantity", "2").err
    assert (
        "give items or unfulfilledOnly, not both" in shortpick("cancel", "o1", "--item", "a", "--unfulfilled-only").err
    )
    assert not processor.queue.has_unread()


def test_a_dry_run_shows_what_would_be_done_and_changes_nothing(
    shortpick: Any, decide: Callable[..., None], processor: Processor, engine: Engine
) -> None:
    decide(ORDER, shipped("o1", "f1", a=2))
    ran = shortpick("cancel", "o1", "--unfulfilled-only", "--dry-run")
    assert ran.code == 0
    assert "It would cancel by cancelUnfulfilled:" in ran.out
    assert "3 of the 5 of item 'a' (SKU 'S'); the other 2 stay" in ran.out
    assert "2 of item 'b' (SKU 'T'): all of it." in ran.out
    refused = shortpick("cancel", "o1", "--dry-run")
    assert refused.code == 1
    assert "it would be refused (order_fulfilled)" in refused.err
    assert "would wait for that" in shortpick("cancel", "o9", "--dry-run").out
    assert cancelled(engine) == 0
    assert not processor.queue.has_unread()


def test_a_dry_run_knows_of_a_pause(shortpick: Any, decide: Callable[..., None]) -> None:
    decide(ORDER)
    shortpick("pause", "--source", "/shortpick/cli", "--reason", "a test")
    assert "But cancellations are paused, so it would wait" in shortpick("cancel", "o1", "--dry-run").out


# why, of shortages of a SKU


def test_why_tells_the_figure_the_rank_and_what_was_kept_and_lost(
    shortpick: Any, decide: Callable[..., None], processor: Processor
) -> None:
    others = [placed(f"n{n}", {"priority": 1}, a=("S", 2)) for n in range(3)]
    figure = sku_shortage("S", 9, time=LATER)
    decide(ORDER, *others, {**shipped("n0", "f1", a=1), "time": "2026-01-01T11:00:00Z"}, figure)
    shortages.run(processor, ["S"])
    told = shortpick("why", "o1").out
    assert "Of SKU 'S', 9 units were available for all open orders placed until 2026-01-01 10:00:00 UTC." in told
    assert (
        "The orders that wanted it were served by priority, then the oldest first; this one was number 4 of 4." in told
    )
    assert "When its turn came 3 units were left: the rest had shipped since, or is kept by those before." in told
    assert "It wanted 5 units and was given 3." in told
    assert "2 of the 5 of item 'a' (SKU 'S'); the other 3 stay" in told
    assert "1 unit of them had shipped with this order since." in shortpick("why", "n0").out
    (row,) = shortpick("why", "o1", "--json").json
    assert [(one["rank"], one["wanted"], one["given"]) for one in row["allotments"]] == [(4, 5, 3)]


def test_why_tells_of_a_shortage_that_may_still_cut_the_order(
    shortpick: Any, decide: Callable[..., None], processor: Processor, engine: Engine
) -> None:
    patient = replace(processor, policy=Policy(sku_grace=timedelta(minutes=5)))
    decide(ORDER, placed("o2", a=("T", 1)))
    decide(sku_shortage("S", 0, time=LATER), by=patient)
    assert "Not decided yet: a shortage of SKU 'S'" in shortpick("why", "o1").out
    assert "Not decided yet" not in shortpick("why", "o2").out
    drained = shortpick("drain", "--timeout", "0")
    assert drained.code == 0
    assert "1 shortage of a SKU waits for its time, or until cancellations are resumed" in drained.err
    with engine.begin() as connection:
        connection.execute(text("UPDATE allocations SET due_at = '2026-01-01T00:00:00.000000+00:00'"))
    assert "1 shortage is of a SKU not carried out yet" in shortpick("drain", "--timeout", "0").err
    shortages.run(patient, ["S"])
    assert "The shortage had waited" not in shortpick("why", "o1").out
    assert cancelled(engine) == 1


def test_an_order_that_was_served_has_nothing_pending_while_the_run_goes_on(
    shortpick: Any, decide: Callable[..., None], processor: Processor
) -> None:
    decide(ORDER, placed("o2", a=("S", 5)), sku_shortage("S", 6, time=LATER))
    shortages.run_once(replace(processor, orders_a_chunk=1), "S")
    served, next_one = shortpick("why", "o1").out, shortpick("why", "o2").out
    assert "this one was number 1 (of 1 so far; it goes on)." in served
    assert "Not decided yet" not in served
    assert "Not decided yet" in next_one


def test_shortages_list_tells_what_came_of_each(
    shortpick: Any, decide: Callable[..., None], processor: Processor
) -> None:
    assert "No shortages of a SKU." in shortpick("shortages", "list").err
    decide(ORDER, sku_shortage("S", 4, time=LATER), sku_shortage("T", 9, time=LATER))
    shortages.run(processor, ["S"])
    told = {row["sku"]: row for row in shortpick("shortages", "list", "--json").json}
    assert (told["S"]["outcome"], told["S"]["wanted"], told["S"]["given"], told["S"]["cutUnits"]) == (
        "applied",
        5,
        4,
        1,
    )
    assert told["T"]["outcome"] == "waiting"
    assert "applied" in shortpick("shortages", "list").out


def test_why_tells_of_restocks(shortpick: Any, decide: Callable[..., None]) -> None:
    decide(ORDER, restocked("o1", "a", time=LATER), sku_restocked("T", time=LATER), shortage("o1", a=0, b=0))
    told = shortpick("why", "o1").out
    assert "There is stock again for item 'a'" in told
    assert "But there was new stock since for item 'a' and item 'b', so that is not cut." in told


def test_the_settings_reach_the_decisions(settings: Settings, processor: Processor) -> None:
    assert processor.policy == Policy()
    chosen = settings.model_copy(
        update={
            "ship_complete": True,
            "allocation": "newest_first",
            "order_shortage_grace_seconds": 1,
            "sku_shortage_grace_seconds": 2,
        }
    )
    assert bootstrap.policy(chosen) == Policy(True, "newest_first", timedelta(seconds=1), timedelta(seconds=2))

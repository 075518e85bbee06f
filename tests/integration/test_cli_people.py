"""What people do with what came to nothing: `shortpick dead-letters retry|dismiss`, `conflicts resolve`, and what `why`
and `status` tell of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine

from tests.builders import placed, shipped, shortage, to_bytes
from tests.integration.batches import entries
from worker.ingress import Ingress
from worker.process import Processor, process_entries
from worker.release import release_due
from worker.streams import Entry, Queue

WHY = ("--reason", "the order has come", "--by", "ann")


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def work(processor: Processor, queue: Queue) -> Callable[[], list[Entry]]:
    """Decide what is on the queue, and return it."""

    def worked() -> list[Entry]:
        found = queue.read(100, 1)
        process_entries(processor, found)
        return found

    return worked


@pytest.fixture
def three(decide: Callable[..., None]) -> None:
    """Dead letters 1 and 2, of a line that their order did not have, and 3, which is no event."""
    decide(placed("o1", a=("SA", 3)), shortage("o1", x=1), shortage("o1", y=1), b"junk")


@pytest.mark.usefixtures("three")
def test_dead_letters_are_retried_by_id_and_listed_by_state(shortpick: Any, work: Any, redis: Redis) -> None:
    ran = shortpick("dead-letters", "retry", "2", *WHY)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "1 dead letter is on the queue again; dead-letters show ID tells what comes of it.\n"
    assert [one["deadLetterId"] for one in shortpick("dead-letters", "list", "--json").json] == [3, 1]
    (retried,) = shortpick("dead-letters", "list", "--state", "retried", "--json").json
    (entry,) = work()
    assert (retried["retriedAs"], retried["decidedBy"]) == (entry.entry_id, "ann")
    assert retried["decidedBecause"] == "the order has come"
    of_code = shortpick("dead-letters", "list", "--state", "all", "--code", "unknown_line", "--json").json
    assert [(one["deadLetterId"], one["state"]) for one in of_code] == [(4, "open"), (2, "retried"), (1, "open")]
    assert "No dismissed dead letters." in shortpick("dead-letters", "list", "--state", "dismissed").err
    assert redis.xlen("order.events") == 1


@pytest.mark.usefixtures("three")
def test_many_are_retried_only_by_their_number(shortpick: Any, redis: Redis) -> None:
    asked = shortpick("dead-letters", "retry", "--code", "unknown_line", *WHY)
    assert asked.code == 1
    assert "2 dead letters would be put on the queue again; confirm it with --expect 2" in asked.err
    wrong = shortpick("dead-letters", "retry", "--all", "--expect", "2", *WHY)
    assert "there are 3 dead letters, not 2; nothing was decided" in wrong.err
    assert redis.xlen("order.events") == 0
    ran = shortpick("dead-letters", "retry", "--all", "--expect", "3", *WHY)
    assert ran.code == 0
    assert "2 dead letters are on the queue again" in ran.err
    assert "But dead letter 3 stays open, since it would come to nothing again (not_json): " in ran.err
    assert redis.xlen("order.events") == 2


@pytest.mark.usefixtures("three")
def test_which_are_meant_must_be_said_in_one_way_and_why(shortpick: Any) -> None:
    for several in ((), ("1", "--all"), ("--code", "not_json", "--all")):
        assert "say which dead letters are meant" in shortpick("dead-letters", "retry", *several, *WHY).err
    assert shortpick("dead-letters", "retry", "1").code == 2  # without a reason
    assert (
        "no dead letter of code 'nonsense' is open"
        in shortpick("dead-letters", "retry", "--code", "nonsense", *WHY).err
    )


@pytest.mark.usefixtures("three")
def test_what_cannot_be_retried_is_told_in_a_sentence(shortpick: Any, redis: Redis) -> None:
    assert "there is no dead letter 7" in shortpick("dead-letters", "retry", "7", *WHY).err
    junk = shortpick("dead-letters", "retry", "3", *WHY)
    assert junk.code == 1
    assert "nothing was put on the queue; dead letter 3 stays open, since it would come to nothing again" in junk.err
    assert "docs/reasons.md#not_json" in junk.err
    shortpick("dead-letters", "retry", "1", *WHY)
    twice = shortpick("dead-letters", "retry", "1", *WHY)
    assert twice.code == 1
    assert "dead letter 1 is not open: ann put it on the queue again at " in twice.err
    assert "because: the order has come" in twice.err
    others = shortpick("dead-letters", "retry", "1", "2", "7", *WHY)
    assert others.code == 0
    assert "Left out: dead letter 1 is not open: " in others.err
    assert "Left out: there is no dead letter 7" in others.err
    assert redis.xlen("order.events") == 2


def test_many_that_cannot_be_retried_are_told_by_their_codes(shortpick: Any, decide: Any) -> None:
    decide(b"junk", b"more junk", b'{"type": "a thing"}')
    ran = shortpick("dead-letters", "retry", "--all", "--expect", "3", *WHY)
    assert ran.code == 1
    assert "3 dead letters stay open, since they would come to nothing again: 2 not_json and 1 unknown_type." in ran.err


def test_one_whose_bytes_are_lost_is_sent_again_by_its_producer(
    shortpick: Any, queue: Queue, engine: Engine, redis: Redis
) -> None:
    queue.add([to_bytes(shortage("o1", a=1))])
    (entry,) = queue.read(1, 1)
    redis.xdel("order.events", entry.entry_id)
    Ingress(queue, engine, lambda _: None, 10, 10**6, 100, 0).run_once(1)
    ran = shortpick("dead-letters", "retry", "1", *WHY)
    assert ran.code == 1
    assert (
        "(bytes_lost): the entry was deleted from the queue before it was processed, and its bytes are gone" in ran.err
    )
    assert shortpick("dead-letters", "dismiss", "1", "--reason", "it was sent again").code == 0


def test_why_and_show_tell_what_came_of_a_retry(shortpick: Any, decide: Any, work: Any) -> None:
    decide(placed("o1", a=("SA", 3)), shortage("o1", x=1))
    shortpick("dead-letters", "retry", "1", *WHY)
    assert "It was not decided again yet." in shortpick("dead-letters", "show", "1").out
    work()
    told = shortpick("why", "o1").out
    for sentence in (
        "Nobody has dealt with it: shortpick dead-letters retry or dismiss.",
        "ann put it on the queue again at ",
        "It could not be acted on then either: see dead letter 2.",
        "It had come before and was dead letter 1, which ann put on the queue again.",
    ):
        assert told.count(sentence) == 1
    assert "It could not be acted on then either: see dead letter 2." in shortpick("dead-letters", "show", "1").out


def test_why_and_show_tell_that_a_retried_one_was_decided(
    shortpick: Any, decide: Any, work: Any, processor: Processor
) -> None:
    """Its order came late."""
    cut = shortage("o1", a=1)
    process_entries(replace(processor, waiting_limit=timedelta(0)), entries(cut))
    release_due(processor)
    decide(placed("o1", a=("SA", 3)))
    shortpick("dead-letters", "retry", "1", *WHY)
    work()
    told = shortpick("why", "o1").out
    assert "It was decided then: applied (shortage)." in told
    assert told.index("Dead letter 1: ") < told.index("It had come before and was dead letter 1, which ann")
    assert "2 of the 3 of item 'a' (SKU 'SA')" in told
    assert "It was decided then: applied (shortage)." in shortpick("dead-letters", "show", "1").out
    (found,) = shortpick("why", "o1", "--json").json
    assert [one["state"] for one in found["deadLetters"]] == ["retried"]


@pytest.mark.usefixtures("three")
def test_dead_letters_are_dismissed_and_no_longer_open(shortpick: Any, redis: Redis) -> None:
    def still_open() -> int:
        return int(shortpick("status", "--json").json[0]["deadLetters"]["count"])

    assert still_open() == 3
    shortpick("dead-letters", "retry", "1", *WHY)
    assert still_open() == 2
    ran = shortpick("dead-letters", "dismiss", "--all", "--expect", "2", "--reason", "sent anew", "--by", "ben")
    assert (ran.code, ran.err) == (0, "2 dead letters dismissed.\n")
    assert still_open() == 0
    assert "ben dismissed it at " in shortpick("why", "o1").out
    again = shortpick("dead-letters", "dismiss", "2", "--reason", "x")
    assert again.code == 1
    assert "dead letter 2 is not open: ben dismissed it at " in again.err
    assert redis.xlen("order.events") == 1
    assert shortpick("dead-letters", "show", "3", "--raw").raw == b"junk"


def test_a_conflict_is_resolved_once_and_no_longer_open(shortpick: Any, decide: Any) -> None:
    decide(placed("o1", a=("SA", 1)), shipped("o1", "p1", a=3), shipped("o1", "p2", a=1))
    ran = shortpick("conflicts", "resolve", "1", "--note", "the parcel was stopped", "--by", "ann")
    assert (ran.code, ran.out, ran.err) == (0, "", "Conflict 1 of order 'o1' is resolved.\n")
    assert [one["conflictId"] for one in shortpick("conflicts", "list", "--json").json] == [2]
    (resolved,) = shortpick("conflicts", "list", "--state", "resolved", "--json").json
    assert (resolved["resolvedBy"], resolved["resolution"]) == ("ann", "the parcel was stopped")
    assert len(shortpick("conflicts", "list", "--state", "all", "--json").json) == 2
    assert shortpick("status", "--json").json[0]["conflicts"]["count"] == 1
    told = shortpick("why", "o1").out
    assert "Conflict 1 (resolved): shipment 'p1' has 2 units of item 'a' too many" in told
    assert "ann resolved it at " in told
    assert ": the parcel was stopped." in told
    assert "Conflict 2 (open): " in told
    twice = shortpick("conflicts", "resolve", "1", "--by", "ben")
    assert twice.code == 1
    assert "conflict 1 was resolved already, by ann at " in twice.err
    assert "there is no conflict 7" in shortpick("conflicts", "resolve", "7").err
    assert shortpick("conflicts", "resolve", "2").code == 0  # a note is welcome, but not required
    assert shortpick("conflicts", "list").err == "No open conflicts.\n"

"""What is written and read of claims, dead letters, waiting events and the ledger, on both databases."""

from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest
from sqlalchemy import Connection

from domain.events import OrderEvent, digest
from domain.policy import Paused
from tests.builders import NOW, Json, parsed, shortage, to_bytes
from worker.storage import dead_letters, inbox, ledger, waiting
from worker.storage.dead_letters import Code, DeadLetter
from worker.storage.inbox import Arrived, Decided
from worker.storage.ledger import LedgerRow, Positions
from worker.storage.tables import stored
from worker.storage.waiting import Waiting

LATER = NOW + timedelta(microseconds=1)


def test_a_claim_returns_only_what_nobody_had_claimed(connection: Connection) -> None:
    events = [arrived(shortage("o1", a=n)) for n in range(5)]
    assert inbox.claim(connection, events[:3], NOW) == {one.key for one in events[:3]}
    assert inbox.claim(connection, events, NOW) == {one.key for one in events[3:]}
    assert inbox.claim(connection, events, NOW) == set()
    assert inbox.claim(connection, [], NOW) == set()


def test_the_same_id_of_two_sources_is_two_events(connection: Connection) -> None:
    one = shortage("o1", a=1)
    other = {**one, "source": "/other"}
    assert len(inbox.claim(connection, [arrived(one), arrived(other)], NOW)) == 2


def test_of_a_claimed_event_the_digest_is_that_of_the_first(connection: Connection) -> None:
    first = arrived(shortage("o1", a=1))
    inbox.claim(connection, [first], NOW)
    inbox.claim(connection, [replace(first, digest="other")], NOW)
    assert inbox.digests(connection, [first.key, ("/test", "unknown")]) == {first.key: first.digest}


def test_five_hundred_repeats_are_looked_up_at_once(connection: Connection) -> None:
    events = [arrived(shortage("o1", a=n)) for n in range(500)]
    inbox.claim(connection, events, NOW)
    assert inbox.digests(connection, {one.key for one in events}) == {one.key: one.digest for one in events}


def test_of_several_decisions_about_one_event_the_last_one_counts(connection: Connection) -> None:
    one, other = arrived(shortage("o1", a=1)), arrived(shortage("o1", a=2))
    inbox.claim(connection, [one, other], NOW)
    waits = Decided(one.key, "o1", "waiting", "order_not_placed", {}, NOW)
    cut = Decided(one.key, "o1", "applied", "shortage", {"keeps": [["a", 2, 0, 1]], "é": None}, LATER)
    inbox.save(connection, [waits, Decided(other.key, "o1", "nothing", "no_cut", {}, NOW), cut])
    found = {row.id: row for row in inbox.of_order(connection, "o1")}
    assert found[one.key[1]].outcome == "applied"
    assert found[one.key[1]].facts == cut.facts
    assert (found[one.key[1]].recorded_at, found[one.key[1]].decided_at) == (NOW, LATER)
    assert found[other.key[1]].facts == {}


def test_a_released_claim_is_free_again_and_its_neighbours_are_not(connection: Connection) -> None:
    one, other = arrived(shortage("o1", a=1)), arrived(shortage("o1", a=2))
    inbox.claim(connection, [one, other], NOW)
    inbox.release(connection, {one.key})
    assert inbox.claim(connection, [one, other], NOW) == {one.key}


def test_a_dead_letter_is_unique_by_its_entry_and_its_bytes(connection: Connection) -> None:
    letter = DeadLetter("1-0", b"\x00\xff{}'", "not_json", "a sentence: %s :x", ("/s", "1"), "o1")
    dead_letters.add(connection, [letter, letter], NOW)
    dead_letters.add(connection, [letter, replace(letter, raw=b"other"), replace(letter, entry_id="2-0")], LATER)
    dead_letters.add(connection, [replace(letter, code="another_code")], LATER)
    found = dead_letters.of_order(connection, "o1")
    assert [(row.entry_id, bytes(row.bytes), row.code) for row in found] == [
        ("1-0", letter.raw, "not_json"),
        ("1-0", b"other", "not_json"),
        ("2-0", letter.raw, "not_json"),
    ]
    assert (found[0].sentence, found[0].state, found[0].created_at) == ("a sentence: %s :x", "open", NOW)
    assert dead_letters.count(connection) == {"not_json": 3}


@pytest.mark.parametrize("number", [0, 1, 8000])
def test_any_number_of_dead_letters_is_written(number: int, connection: Connection) -> None:
    letters = [DeadLetter(f"{n}-0", b"bad", "not_json", "a sentence") for n in range(number)]
    dead_letters.add(connection, letters, NOW)
    assert dead_letters.count(connection) == ({"not_json": number} if number else {})


def test_dead_letters_are_listed_newest_first_without_their_bytes(connection: Connection) -> None:
    letters = [DeadLetter(f"{n}-0", b"x" * n, "code", "s") for n in range(1, 4)]
    dead_letters.add(connection, letters, NOW)
    newest, second = dead_letters.listed(connection, 2)
    assert ([newest.size, second.size], hasattr(newest, "bytes")) == ([3, 2], False)
    letter = dead_letters.find(connection, newest.dead_letter_id)
    assert (letter is not None, dead_letters.find(connection, -1)) == (True, None)
    assert bytes(letter.bytes) == b"xxx"


@pytest.fixture
def three_letters(connection: Connection) -> list[int]:
    """The ids of dead letters of the codes not_json, unknown_line and not_json."""
    codes: tuple[Code, ...] = ("not_json", "unknown_line", "not_json")
    dead_letters.add(connection, [DeadLetter(f"{n}-0", b"x", code, "s") for n, code in enumerate(codes)], NOW)
    return sorted(row.dead_letter_id for row in dead_letters.listed(connection, 9))


def test_open_dead_letters_are_chosen_by_id_by_code_or_all(connection: Connection, three_letters: list[int]) -> None:
    one, two, three = three_letters
    assert dead_letters.select_ids(connection, [three, one, -1], None, False) == [one, three]
    assert dead_letters.select_ids(connection, [], "not_json", False) == [one, three]
    assert dead_letters.select_ids(connection, [], None, True) == three_letters
    assert dead_letters.select_ids(connection, [], None, False) == []
    dead_letters.dismiss(connection, [one], "ann", "because", LATER)
    assert dead_letters.select_ids(connection, [one], None, False) == []
    assert dead_letters.select_ids(connection, [], "not_json", False) == [three]
    assert [row.dead_letter_id for row in dead_letters.still_open(connection, three_letters)] == [two, three]


def test_a_dead_letter_is_dealt_with_once_with_who_why_and_when(
    connection: Connection, three_letters: list[int]
) -> None:
    one, two, three = three_letters
    assert dead_letters.retried(connection, {one: "7-0", two: "8-0"}, "ann", "it's 'mended'", LATER) == 2
    assert dead_letters.retried(connection, {one: "9-0"}, "ben", "again", NOW) == 0
    assert dead_letters.retried(connection, {}, "ben", "again", NOW) == 0
    assert dead_letters.dismiss(connection, [one, three], "ben", "sent anew", LATER) == 1
    found = {row.dead_letter_id: row for row in dead_letters.listed(connection, 9)}
    assert [(found[id_].state, found[id_].retried_as) for id_ in three_letters] == [
        ("retried", "7-0"),
        ("retried", "8-0"),
        ("dismissed", None),
    ]
    assert [found[one].decided_by, found[one].decided_because, found[one].decided_at] == ["ann", "it's 'mended'", LATER]
    assert [found[three].decided_by, found[three].decided_because] == ["ben", "sent anew"]


def test_one_that_is_dismissed_while_it_is_put_on_the_queue_counts_as_retried(
    connection: Connection, three_letters: list[int]
) -> None:
    dead_letters.dismiss(connection, three_letters[:1], "ben", "-", NOW)
    assert dead_letters.retried(connection, {three_letters[0]: "7-0"}, "ann", "-", LATER) == 1
    assert dead_letters.count(connection, "retried") == {"not_json": 1}


def test_dead_letters_are_listed_and_counted_by_state_and_code(
    connection: Connection, three_letters: list[int]
) -> None:
    dead_letters.dismiss(connection, three_letters[:2], "ann", "-", NOW)
    assert dead_letters.count(connection, "open") == {"not_json": 1}
    assert dead_letters.count(connection, None, "unknown_line") == {"unknown_line": 1}
    assert [row.dead_letter_id for row in dead_letters.listed(connection, 9, "open")] == three_letters[2:]
    of_code = dead_letters.listed(connection, 9, "dismissed", "not_json")
    assert [row.dead_letter_id for row in of_code] == three_letters[:1]
    assert dead_letters.of_entries(connection, ["1-0", "9-0"]).keys() == {"1-0"}


def test_waiting_events_are_read_in_order_of_arrival_and_come_back_as_they_were(connection: Connection) -> None:
    waits = [wait(entry_id) for entry_id in ("10-0", "9-0", "9-10", "9-2")]
    waiting.save(connection, waits)
    found = waiting.of_orders(connection, ["o1", "o2"])
    assert [one.entry_id for one in found] == ["9-0", "9-2", "9-10", "10-0"]
    assert found == sorted(waits, key=lambda one: waiting.arrival(one.entry_id))
    assert waiting.of_orders(connection, ["o2"]) == []


def test_a_waiting_event_that_now_waits_for_something_else_is_still_one(connection: Connection) -> None:
    one = wait("1-0")
    waiting.save(connection, [one])
    waiting.save(connection, [replace(one, waits_for="fulfillments_missing")])
    assert waiting.count(connection) == {"fulfillments_missing": 1}
    waiting.remove(connection, {("/test", "unknown")})
    assert waiting.count(connection) == {"fulfillments_missing": 1}
    waiting.remove(connection, {one.key})
    assert waiting.count(connection) == {}


def test_due_is_what_was_due_by_then_and_the_longest_overdue_first(connection: Connection) -> None:
    due = [replace(wait(f"{n}-0"), until=NOW - timedelta(seconds=n)) for n in range(1, 6)]
    exactly, late = replace(wait("8-0"), until=NOW), replace(wait("9-0"), until=LATER)
    waiting.save(connection, [*due, exactly, late])
    assert {one.entry_id for one in waiting.due(connection, NOW, Paused(), 100)} == {
        f"{n}-0" for n in (1, 2, 3, 4, 5, 8)
    }
    assert [one.entry_id for one in waiting.due(connection, NOW, Paused(), 2)] == ["4-0", "5-0"]


def test_positions_follow_the_ledger_without_gaps(connection: Connection) -> None:
    ledger.add(connection, [entry(n) for n in (3, 1, 2)])
    connection.exec_driver_sql(
        "UPDATE cancellations SET reason = 'x' WHERE sequence = 3"
    )  # PostgreSQL moves it to the end
    assert ledger.positions(connection) == Positions(0, 0)
    assert ledger.assign_positions(connection, 0, 2)[0] == Positions(2, 0)
    assert ledger.assign_positions(connection, 1, 2)[0] == Positions(3, 1)
    ledger.add(connection, [entry(4)])
    assert ledger.assign_positions(connection, 3, 100)[0] == Positions(4, 3)
    assert ledger.assign_positions(connection, 2, 100)[0] == Positions(4, 3)
    assert ledger.published_from(connection, 1, 100) == [(1, "3"), (2, "1"), (3, "2"), (4, "4")]
    assert ledger.published_from(connection, 2, 2) == [(2, "1"), (3, "2")]
    assert ledger.published_from(connection, 5, 100) == []
    assert ledger.positions(connection) == Positions(4, 3)


def test_unpublished_is_what_has_no_position_and_what_the_stream_has_not(connection: Connection) -> None:
    ledger.add(connection, [entry(n) for n in range(1, 6)])
    assert ledger.unpublished(connection, 0) == 5
    ledger.assign_positions(connection, 0, 3)
    assert [ledger.unpublished(connection, last) for last in range(4)] == [5, 4, 3, 2]


def test_a_ledger_row_comes_back_as_it_was_and_in_its_sequence(connection: Connection) -> None:
    rows = [replace(entry(1), sequence=2), replace(entry(2), sequence=1, payload='{"a": "é\\u0041 🦦"}', units=2**40)]
    ledger.add(connection, [*rows, replace(entry(3), order_id="other")])
    found = ledger.of_order(connection, "o1")
    assert [{name: row._mapping[name] for name in LedgerRow.__slots__} for row in found] == [
        {name: getattr(row, name) for name in LedgerRow.__slots__} for row in reversed(rows)
    ]


def test_a_stored_time_is_always_as_wide() -> None:
    assert len({len(stored(time)) for time in (NOW, LATER, NOW.replace(year=1970))}) == 1


def arrived(event: Json) -> Arrived:
    read = cast(OrderEvent, parsed(event))
    return Arrived("1-0", to_bytes(event), read, digest(read))


def wait(entry_id: str) -> Waiting:
    event = {**shortage("o1", a=1), "note": "it's 🦦 \\ :x %s"}
    raw = to_bytes(event) + " é\n".encode()
    return Waiting((event["source"], event["id"]), "o1", entry_id, "order_not_placed", raw, NOW, LATER)


def entry(number: int) -> LedgerRow:
    return LedgerRow(
        cancellation_id=f"c{number}",
        order_id="o1",
        sequence=number,
        operation="cancelItem",
        units=1,
        reason="manual",
        cause_source="/test",
        cause_id=f"e{number}",
        cancelled_at=LATER,
        payload=str(number),
    )

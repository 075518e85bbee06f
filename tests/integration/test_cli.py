"""The command line on a real Redis and SQLite: what it writes where, and with which exit code it ends."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine

from tests.builders import (
    closed,
    final,
    placed,
    requested,
    shipped,
    shortage,
    to_bytes,
)
from tests.servers import RedisServer
from worker.cli import orders as orders_command
from worker.ingress import Ingress
from worker.process import Processor, process
from worker.streams import Outbox, Queue

Json = dict[str, Any]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def lines(*events: Json) -> bytes:
    return b"".join(to_bytes(one) + b"\n" for one in events)


# events send


def test_send_puts_each_line_on_the_queue_as_it_is(shortpick: Any, queue: Queue, tmp_path: Path) -> None:
    sent = [b'{"a": 1} ', b"  not json", b"\xff\x00"]
    (tmp_path / "events").write_bytes(b"\n".join([sent[0], b"", sent[1] + b"\r", b"   ", sent[2]]))
    ran = shortpick("events", "send", str(tmp_path / "events"))
    assert (ran.code, ran.out, ran.err) == (0, "", "Sent 3 events to order.events.\n")
    assert [entry.raw for entry in queue.read(10, 1)] == sent


def test_send_reads_standard_input_and_sends_more_than_a_chunk(shortpick: Any, redis: Redis) -> None:
    ran = shortpick("events", "send", "-", stdin=b"{}\n" * 1201)
    assert ran.err == "Sent 1201 events to order.events.\n"
    assert redis.xlen("order.events") == 1201


def test_send_names_a_file_it_cannot_read(shortpick: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        ran = shortpick("events", "send", str(path))
        assert (ran.code, ran.out) == (1, "")
        assert f"{path} cannot be read" in ran.err


# events validate


def test_validate_tells_line_code_and_sentence_of_each_fault(anywhere: Any) -> None:
    good, bad = placed("o1", a=("SA", 1)), placed("o1", {"color": "red"}, a=("SA", 1))
    ran = anywhere("events", "validate", "-", stdin=lines(good) + b"\nnonsense\n" + lines(bad))
    assert ran.code == 1
    first, second = ran.out.splitlines()
    assert first.startswith("line 3: not_json: ")
    assert second.startswith("line 4: unknown_field: data.color ")
    assert ran.err == "1 good, 2 wrong.\nWhat each code means, and what to do: docs/reasons.md\n"


def test_validate_prints_data_as_it_is(anywhere: Any) -> None:
    bad = {**placed("o1", a=("SA", 1)), "specversion": "[red]:smile:"}
    assert "[red]:smile:" in anywhere("events", "validate", "-", stdin=lines(bad)).out


# drain


def test_nothing_was_ever_sent_so_there_is_nothing_to_do(shortpick: Any) -> None:
    ran = shortpick("drain", "--timeout", "0")
    assert (ran.code, ran.out, ran.err) == (0, "", "Everything is decided and published.\n")


def test_drain_tells_of_what_was_sent_before_anybody_ever_read(shortpick: Any) -> None:
    shortpick("events", "send", "-", stdin=lines(placed("o1", a=("SA", 1))))
    ran = shortpick("drain", "--timeout", "0")
    assert ran.code == 1
    assert "not read yet (is `shortpick ingress` running?)" in ran.err


def test_drain_follows_an_event_through_queue_worker_and_relay(
    shortpick: Any, queue: Queue, processor: Processor, engine: Engine, publish: Callable[[], int]
) -> None:
    def left() -> str:
        ran = shortpick("drain", "--timeout", "0")
        assert ran.out == ""
        return "" if ran.code == 0 else str(ran.err)

    queue.add([to_bytes(placed("o1", a=("SA", 1))), to_bytes(shortage("o1", a=0))])
    assert "events in the queue were not read yet" in left()
    batches: list[Any] = []
    assert Ingress(queue, engine, batches.append, 10, 10**6, 100, 10**6).run_once(1) == 2
    assert "2 events were read and not decided yet (is `shortpick worker` running?)" in left()
    process(processor, batches[0])
    assert "1 cancellation is not published yet (is `shortpick relay` running?)" in left()
    publish()
    assert left() == ""


def test_waiting_events_are_told_but_are_no_reason_to_wait(shortpick: Any, decide: Any) -> None:
    decide(shortage("o1", a=0), placed("o2", a=("SA", 1)), closed("o2", "p1"), closed("o2", "p2"))
    ran = shortpick("drain", "--timeout", "0")
    assert ran.code == 0
    assert "1 event waits for their order to be placed" in ran.err
    assert "2 events wait for fulfillments that they name" in ran.err


def test_drain_waits_until_the_timeout(shortpick: Any, queue: Queue) -> None:
    queue.add([b"{}"])
    start = time.monotonic()
    ran = shortpick("drain", "--timeout", "0.3")
    assert time.monotonic() - start >= 0.3
    assert ran.code == 1
    assert "not drained after 0.3 seconds" in ran.err


# orders export


def test_export_writes_items_with_their_chains_and_totals(shortpick: Any, decide: Any) -> None:
    decide(placed("o2", a=("SA", 1)), placed("o1", a=("SA", 10), b=("SB", 2)), shortage("o1", a=4, b=2))
    first, second = shortpick("orders", "export").json
    assert [first["orderId"], second["orderId"]] == ["o1", "o2"]
    old, new, _ = first.pop("items")
    at = old.pop("cancelledAt")
    assert at.endswith("Z")
    assert first == {
        "orderId": "o1",
        "hasCancellations": True,
        "shipped": False,
        "entirelyCancelled": False,
        "totals": {
            "a": {"ordered": 10, "fulfilled": 0, "cancelled": 6, "open": 4},
            "b": {"ordered": 2, "fulfilled": 0, "cancelled": 0, "open": 2},
        },
    }
    of_a = {"originalItemId": "a", "sku": "SA", "fulfilled": 0}
    cancelled = {"cancelled": True, "cancelledReason": "out_of_stock", "cancelledBy": "seller"}
    assert old == {"itemId": "a", "quantity": 10, **of_a, **cancelled}
    kept = {"cancelled": False, "cancelledReason": None, "cancelledBy": None, "cancelledAt": None}
    assert new == {"itemId": new["itemId"], "quantity": 4, **of_a, **kept}


def test_export_goes_page_by_page_in_byte_order(shortpick: Any, decide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_command, "PAGE", 2)
    names = ["B", "a", "é", "b", "Z"]
    decide(*(placed(name, a=("SA", 1)) for name in names), shortage("a stub", a=1))
    assert [one["orderId"] for one in shortpick("orders", "export").json] == sorted(names, key=str.encode)


def test_export_of_one_order(shortpick: Any, decide: Any) -> None:
    decide(placed("o1", a=("SA", 1)), placed("o2", a=("SA", 1)), shortage("stub", a=1))
    assert [one["orderId"] for one in shortpick("orders", "export", "--order", "o2").json] == ["o2"]
    unknown, stub = (shortpick("orders", "export", "--order", name) for name in ("o3", "stub"))
    assert (unknown.code, unknown.out, stub.code, stub.out) == (1, "", 1, "")
    assert "there is no order 'o3'" in unknown.err
    assert "order 'stub' was not placed yet" in stub.err


# why


def test_why_tells_the_story_in_the_order_of_arrival(shortpick: Any, decide: Any, publish: Any) -> None:
    decide(final(shipped("o1", "p2", b=1), "p1", "p2"))
    decide(placed("o1", a=("SA", 10), b=("SB", 4)), shortage("o1", a=4), shortage("o1", x=1))
    publish()
    decide(shipped("o1", "p1", a=5), requested("o1", None, a=None))
    ran = shortpick("why", "o1")
    assert (ran.code, ran.err) == (0, "")
    told = [
        "Ordered: 10 of item 'a' (SKU 'SA') and 4 of item 'b' (SKU 'SB').",
        "1. fulfillment.created: ",
        "Shipment 'p2' was handed to the carrier: 1 of item 'b'.",
        "It came before the order was placed, and waited ",
        "until every shipment that it names was reported.",
        "operation cancelUnfulfilled, not yet published.",
        "2. order.placed: ",
        "3. inventory.shortage: ",
        "6 of the 10 of item 'a' (SKU 'SA'); the other 4 stay",
        "operation cancelItemPartially, published at position 1.",
        "4. Dead letter 1: ",
        "5. fulfillment.created: ",
        "Conflict 1 (open): shipment 'p1' has 1 unit of item 'a' too many",
        "6. cancellation.requested: ",
        "This was refused, and nothing was changed: item 'a' is already cancelled",
        "The order as it stands",
        "What was not cancelled has shipped; nothing is open any more.",
    ]
    places = [ran.out.find(sentence) for sentence in told]
    assert -1 not in places
    assert places == sorted(places)
    table = [line.split()[:6] for line in ran.out.splitlines() if line.startswith(("a ", "b "))]
    assert table == [["a", "SA", "10", "4", "6", "0"], ["b", "SB", "4", "1", "3", "0"]]


def test_why_as_json_holds_everything(shortpick: Any, decide: Any, publish: Any) -> None:
    decide(placed("o1", a=("SA", 2)), shipped("o1", "p1", a=1, x=1), shortage("o1", a=1), shortage("o1", y=1))
    publish()
    decide(closed("o1", "p9"))
    (found,) = shortpick("why", "o1", "--json").json
    assert (found["orderId"], found["placed"], found["order"]["orderId"]) == ("o1", True, "o1")
    assert [one["outcome"] for one in found["events"]] == ["recorded", "recorded", "applied", "waiting"]
    assert found["events"][3]["waiting"]["waitsFor"] == "fulfillments_missing"
    assert found["events"][0]["waiting"] is None
    (cancellation,) = found["cancellations"]
    assert (cancellation["position"], cancellation["published"]) == (1, True)
    assert cancellation["event"]["data"]["cancellationId"] == cancellation["cancellationId"]
    assert [one["fulfillmentId"] for one in found["fulfillments"]] == ["p1"]
    assert [(one["itemId"], one["quantity"]) for one in found["conflicts"]] == [("x", 1)]
    assert [one["code"] for one in found["deadLetters"]] == ["unknown_line"]
    assert len(found["story"]) == 5


def test_why_of_an_order_that_is_not_placed_tells_what_waits(shortpick: Any, decide: Any) -> None:
    decide(shortage("o1", a=0))
    ran = shortpick("why", "o1")
    assert ran.code == 0
    assert ran.out.startswith("Order 'o1' was not placed yet: no order.placed event has come; 1 event waits for it.\n")
    assert "It has waited for the order to be placed for " in ran.out
    (found,) = shortpick("why", "o1", "--json").json
    assert (found["placed"], found["order"], len(found["events"])) == (False, None, 1)


def test_why_of_an_unknown_order_says_so(shortpick: Any, decide: Any) -> None:
    decide(placed("o1", a=("SA", 1)))
    ran = shortpick("why", "O1")
    assert (ran.code, ran.out) == (1, "")
    assert "nothing is known of an order 'O1'" in ran.err


def test_why_is_told_without_redis_too(shortpick: Any, decide: Any, publish: Any, redis_server: RedisServer) -> None:
    decide(placed("o1", a=("SA", 2)), shortage("o1", a=1))
    publish()
    publish()  # which is when the first one is known to have been taken
    redis_server.stop()
    ran = shortpick("why", "o1")
    assert ran.code == 0
    assert "published at position 1." in ran.out
    assert "since Redis cannot be asked" in ran.err


def test_what_comes_with_events_neither_controls_the_terminal_nor_styles(
    shortpick: Any, decide: Any, publish: Any
) -> None:
    note = "\x1b[31mred \x9b31m [bold]:smile: \u202e"
    reason = {"reason": {"code": "buyer_request", "note": note}}
    decide(placed("[red]o1\u202e", a=(":smile:", 1)), requested("[red]o1\u202e", reason), b"\x1b[2J" + b"\x9b")
    publish()
    commands = [
        ("why", "[red]o1\u202e"),
        ("why", "[red]o1\u202e", "--json"),
        ("tail", "--no-follow"),
        ("tail", "--no-follow", "--json"),
        ("dead-letters", "list"),
        ("dead-letters", "show", "1"),
        ("orders", "export"),
    ]
    for command in commands:
        ran = shortpick(*command)
        assert ran.code == 0
        assert not {"\x1b", "\x9b", "\u202e"} & set(ran.out), command
        assert "😄" not in ran.out
        assert ("[red]o1" in ran.out) or command[0] == "dead-letters"


# tail


@pytest.fixture
def three_published(decide: Any, publish: Any) -> None:
    decide(placed("o1", a=("SA", 2), b=("SB", 1)), shortage("o1", a=1), placed("o2", a=("SA", 1)), shortage("o2", a=0))
    decide(shortage("o1", a=0))
    publish()


@pytest.mark.usefixtures("three_published")
def test_tail_shows_what_is_published_from_the_beginning(shortpick: Any) -> None:
    ran = shortpick("tail", "--no-follow")
    assert ran.code == 0
    rows = [line.split() for line in ran.out.splitlines()]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("1", "o1", "cancelItemPartially"),
        ("2", "o2", "cancelOrder"),
        ("3", "o1", "cancelItem"),
    ]
    assert " ".join(rows[0][4:]) == "1 unit of a out_of_stock"


@pytest.mark.usefixtures("three_published")
def test_tail_from_a_position_and_so_many(shortpick: Any, outbox: Outbox) -> None:
    assert [one["position"] for one in shortpick("tail", "--no-follow", "--json", "--from", "2").json] == [2, 3]
    (one,) = shortpick("tail", "--json", "--from", "2", "--count", "1").json
    raw = outbox.entry(2)
    assert raw is not None
    assert one == {"position": 2, "event": json.loads(raw)}
    assert shortpick("tail", "--no-follow", "--from", "4").out == ""


def test_tail_of_a_stream_that_does_not_exist_yet_is_empty(shortpick: Any) -> None:
    ran = shortpick("tail", "--no-follow")
    assert (ran.code, ran.out) == (0, "")


@pytest.mark.usefixtures("three_published")
def test_tail_follows_what_is_new_until_ctrl_c(state_dir: Path, redis: Redis, decide: Any, publish: Any) -> None:
    environment = {**os.environ, "SHORTPICK_REDIS_TIMEOUT_SECONDS": "2"}  # it waits for longer than that
    command = [sys.executable, "-m", "worker.cli", "tail", "--json", "--state-dir", str(state_dir)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, preexec_fn=heed_ctrl_c
    ) as tail:
        try:
            wait_until_it_reads(redis)
            time.sleep(2.5)
            decide(shortage("o1", b=0))
            publish()
            assert tail.stdout is not None
            assert json.loads(tail.stdout.readline())["position"] == 4
            tail.send_signal(signal.SIGINT)
            out, err = tail.communicate(timeout=20)
        finally:
            tail.kill()
    assert (tail.returncode, out, err) == (0, b"", b"")


def heed_ctrl_c() -> None:
    """What a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until_it_reads(redis: Redis) -> None:
    deadline = time.monotonic() + 30
    while not any(client["cmd"] == "xread" for client in redis.client_list()):
        assert time.monotonic() < deadline, "tail does not read"
        time.sleep(0.02)


@pytest.mark.usefixtures("three_published")
def test_tail_shows_what_somebody_else_wrote_as_such(shortpick: Any, redis: Redis) -> None:
    redis.xadd("order.cancelled", {"event": b"rub\x1bbish"}, id="4-0")
    redis.xadd("order.cancelled", {"event": b'{"data": 1}'}, id="5-0")
    ran = shortpick("tail", "--no-follow", "--from", "4")
    assert [line.strip() for line in ran.out.splitlines()] == [
        r"4  not an order.cancelled event: rub\x1bbish",
        '5  not an order.cancelled event: {"data": 1}',
    ]
    first, _ = shortpick("tail", "--no-follow", "--from", "4", "--json").json
    assert first == {"position": 4, "event": None, "bytes": base64.b64encode(b"rub\x1bbish").decode()}


@pytest.mark.parametrize("command", [("tail",), ("drain", "--timeout", "0")])
def test_a_stream_that_ends_with_a_foreign_id_is_told_of(command: tuple[str], shortpick: Any, redis: Redis) -> None:
    redis.xadd("order.cancelled", {"event": b"{}"}, id="4-7")
    ran = shortpick(*command)
    assert ran.code == 1
    assert "ends with entry 4-7, which Shortpick did not write" in ran.err
    assert len(ran.err.splitlines()) == 1


# dead letters and conflicts


def test_dead_letters_are_listed_the_newest_first(shortpick: Any, decide: Any) -> None:
    assert shortpick("dead-letters", "list").err == "No open dead letters.\n"
    assert shortpick("dead-letters", "list", "--state", "all").err == "No dead letters.\n"
    decide(placed("o1", a=("SA", 1)), shortage("o1", x=1), b"junk")
    ran = shortpick("dead-letters", "list")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["id", "2", "1"]
    assert "2 open dead letters in all" in ran.err
    newest, oldest = shortpick("dead-letters", "list", "--json").json
    assert (newest["code"], newest["orderId"], newest["size"]) == ("not_json", None, 4)
    assert (oldest["code"], oldest["orderId"], oldest["source"]) == ("unknown_line", "o1", "/test")
    assert len(shortpick("dead-letters", "list", "--limit", "1", "--json").json) == 1


def test_a_dead_letter_is_shown_with_its_bytes(shortpick: Any, decide: Any) -> None:
    raw = b"\xff\x1b[31m" + b"x" * 5000
    decide(raw)
    ran = shortpick("dead-letters", "show", "1")
    assert ran.code == 0
    assert r"\xff\x1b[31mxxx" in ran.out
    assert "what to do  docs/reasons.md#not_json" in ran.out
    assert "Nobody has dealt with it: shortpick dead-letters retry or dismiss." in ran.out
    assert f"({len(raw) - 4000} more bytes)" in ran.out
    assert "--raw writes them all" in ran.err
    assert shortpick("dead-letters", "show", "1", "--raw").raw == raw
    (found,) = shortpick("dead-letters", "show", "1", "--json").json
    assert base64.b64decode(found["bytes"]) == raw
    assert {"deadLetterId", "entryId", "digest", "code", "sentence", "createdAt", "state"} <= found.keys()


def test_an_unknown_dead_letter_is_an_error(shortpick: Any) -> None:
    ran = shortpick("dead-letters", "show", "7", "--raw")
    assert (ran.code, ran.raw) == (1, b"")
    assert "there is no dead letter 7" in ran.err
    assert shortpick("dead-letters", "show", "9" * 30).code == 2


def test_conflicts_are_listed(shortpick: Any, decide: Any) -> None:
    assert shortpick("conflicts", "list").err == "No open conflicts.\n"
    assert shortpick("conflicts", "list", "--state", "all").err == "No conflicts.\n"
    decide(placed("o1", a=("SA", 1)), shipped("o1", "p1", a=3))
    (found,) = shortpick("conflicts", "list", "--json").json
    assert (found["orderId"], found["fulfillmentId"], found["itemId"], found["quantity"]) == ("o1", "p1", "a", 2)
    assert "p1" in shortpick("conflicts", "list").out


# errors

EVERY = [
    ("events", "send", "-"),
    ("drain",),
    ("orders", "export"),
    ("why", "o1"),
    ("tail",),
    ("dead-letters", "list"),
    ("dead-letters", "show", "1"),
    ("conflicts", "list"),
    ("dead-letters", "retry", "1", "--reason", "x"),
    ("dead-letters", "dismiss", "1", "--reason", "x"),
    ("conflicts", "resolve", "1"),
]


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_a_folder_without_a_pipeline_is_named(command: tuple[str, ...], anywhere: Any, tmp_path: Path) -> None:
    ran = anywhere(*command, "--state-dir", str(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"shortpick: no pipeline has run in {tmp_path}; start one with: ")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_a_database_without_tables_is_told_of(
    command: tuple[str, ...], anywhere: Any, state_dir: Path, redis_url: str
) -> None:
    addresses = {"redis_url": redis_url, "database_url": f"sqlite:///{state_dir / 'empty.db'}"}
    (state_dir / "shortpick.json").write_text(json.dumps(addresses))
    ran = anywhere(*command, "--state-dir", str(state_dir))
    assert (ran.code, ran.out) == (1, "")
    assert "run: shortpick db upgrade" in ran.err


@pytest.mark.parametrize("command", [("events", "send", "-"), ("drain",), ("tail",)], ids=" ".join)
def test_a_redis_that_is_down_is_one_sentence(
    command: tuple[str, ...], shortpick: Any, redis_server: RedisServer
) -> None:
    redis_server.stop()
    ran = shortpick(*command, stdin=b"{}\n")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("shortpick: Redis does not answer as it should: ")
    assert len(ran.err.splitlines()) == 1


def test_no_settings_at_all_is_one_sentence(anywhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SHORTPICK_")]:
        monkeypatch.delenv(name)
    ran = anywhere("why", "o1")
    assert ran.code == 1
    assert "SHORTPICK_REDIS_URL is not set" in ran.err

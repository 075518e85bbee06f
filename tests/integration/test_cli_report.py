"""`shortpick report`: what was cancelled, or would have been; and `shortpick status`: how it goes, on one screen."""

import csv
import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from tests.builders import Json, placed, requested, shortage, sku_shortage, to_bytes
from worker.cli import report, standing
from worker.storage.tables import stored
from worker.streams import CONSUMER, Queue

KEYS = [
    "orderId",
    "itemId",
    "sku",
    "units",
    "operation",
    "reason",
    "partner",
    "cancelledAt",
    "causeSource",
    "causeId",
]


@pytest.fixture
def three_orders(decide: Callable[..., None]) -> None:
    """Of o1 and o2 something ran short, o3 was cancelled by its buyer: 10 units of S, 2 of T and 1 of =U."""
    short = shortage("o1", a=1, b=0)
    short["id"] = "incident"
    decide(
        placed("o1", {"partner": "acme"}, a=("S", 5), b=("T", 2)),
        placed("o2", {"partner": "acme"}, a=("S", 6)),
        placed("o3", a=("=U", 1)),
        short,
        shortage("o2", a=0),
        requested("o3"),
    )


def execute(engine: Engine, sql: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


def cancelled_at(engine: Engine, order_id: str, time: str) -> None:
    sql = "UPDATE cancellations SET cancelled_at = :at WHERE order_id = :order_id"
    execute(engine, sql, at=stored(datetime.fromisoformat(time)), order_id=order_id)


def shadow(
    engine: Engine,
    order_id: str,
    *would: tuple[str, str, str, int],
    id: str = "s1",
    type: str = "inventory.shortage",
    state: str = "shadow",
    at: str = "2026-01-05T09:00:00Z",
) -> None:
    """A hold of that state, put in as it stands."""
    execute(
        engine,
        "INSERT INTO holds (source, id, type, order_id, event, happened_at, why, would, units, created_at, decided_at,"
        " state) VALUES ('/test', :id, :type, :order_id, '{}', :at, 'shadow', :would, :units, :at, :at, :state)",
        id=id,
        type=type,
        order_id=order_id,
        would=json.dumps(would),
        units=sum(one[3] for one in would),
        at=stored(datetime.fromisoformat(at)),
        state=state,
    )


def orders_of(ran: Any) -> list[str]:
    return [one["orderId"] for one in ran.json]


def table(out: str, title: str) -> list[list[str]]:
    """The cells of the table with that title, row by row; cells are at least two spaces apart."""
    lines = out.splitlines()
    begin = next(place for place, line in enumerate(lines) if line.startswith(title + " "))
    end = next((place for place in range(begin, len(lines)) if not lines[place].strip()), len(lines))
    return [line.split() for line in lines[begin + 1 : end]]


# report


def test_report_sums_up_by_operation_reason_sku_and_partner(shortpick: Any, three_orders: None, engine: Engine) -> None:
    for order_id, at in (
        ("o1", "2026-01-05T09:00:00Z"),
        ("o2", "2026-01-05T10:00:00Z"),
        ("o3", "2026-01-06T00:00:00Z"),
    ):
        cancelled_at(engine, order_id, at)
    ran = shortpick("report")
    assert ran.code == 0
    head = "13 units of 3 orders were cancelled, from 2026-01-05 09:00:00 UTC to 2026-01-06 00:00:00 UTC."
    assert ran.out.splitlines()[0] == head
    assert table(ran.out, "reason") == [
        ["out_of_stock", "2", "12", "▇" * 30],
        ["buyer_request", "1", "1", "▇" * 2],
    ]
    assert table(ran.out, "SKU") == [["S", "2", "10", "▇" * 30], ["T", "1", "2", "▇" * 6], ["=U", "1", "1", "▇" * 3]]
    assert table(ran.out, "partner") == [["acme", "2", "12", "▇" * 30], ["–", "1", "1", "▇" * 2]]
    assert sum(int(row[2]) for row in table(ran.out, "operation")) == 13


def test_an_order_cut_twice_counts_once_and_its_units_twice(shortpick: Any, decide: Callable[..., None]) -> None:
    decide(placed("o1", a=("S", 9)), shortage("o1", a=5), shortage("o1", a=2))
    assert table(shortpick("report").out, "SKU") == [["S", "1", "7", "▇" * 30]]


def test_report_shows_the_twenty_skus_with_the_most_units_and_sums_up_the_others(
    shortpick: Any, decide: Callable[..., None]
) -> None:
    items = {f"i{n}": (f"S{n:02}", n) for n in range(1, 23)}
    decide(placed("o1", **items), requested("o1"))
    out = shortpick("report").out
    assert [row[0] for row in table(out, "SKU")][:20] == [f"S{n:02}" for n in range(22, 2, -1)]
    assert "… and 2 more SKUs with 3 units" in out
    assert len(shortpick("report", "--json").json) == 22


def test_json_has_a_line_for_each_cancelled_line_in_ledger_order(
    shortpick: Any, three_orders: None, engine: Engine
) -> None:
    for order_id in ("o1", "o2", "o3"):
        cancelled_at(engine, order_id, "2026-01-05T09:00:00+02:00")
    found = shortpick("report", "--json").json
    assert all(list(one) == KEYS for one in found)
    assert [(one["orderId"], one["itemId"], one["sku"], one["units"]) for one in found] == [
        ("o1", "a", "S", 4),
        ("o1", "b", "T", 2),
        ("o2", "a", "S", 6),
        ("o3", "a", "=U", 1),
    ]
    assert found[0] == {
        "orderId": "o1",
        "itemId": "a",
        "sku": "S",
        "units": 4,
        "operation": "cancelItemPartially",
        "reason": "out_of_stock",
        "partner": "acme",
        "cancelledAt": "2026-01-05T07:00:00.000000Z",
        "causeSource": "/test",
        "causeId": "incident",
    }


def test_json_names_the_item_as_it_was_first_ordered(shortpick: Any, decide: Callable[..., None]) -> None:
    decide(placed("o1", a=("S", 9)), shortage("o1", a=5), sku_shortage("S", 2))
    assert {one["itemId"] for one in shortpick("report", "--json").json} == {"a"}


def test_csv_tells_the_same_as_json_but_no_cell_is_a_formula(
    shortpick: Any, three_orders: None, decide: Callable[..., None]
) -> None:
    decide(placed("-o", {"partner": "@p"}, **{"+a": ('S,"T"', 1)}), requested("-o"))
    found = list(csv.DictReader(io.StringIO(shortpick("report", "--csv").out)))
    expected = shortpick("report", "--json").json
    assert list(found[0]) == KEYS
    plain = [{name: value[1:] if value.startswith("'") else value for name, value in one.items()} for one in found]
    assert plain == [{name: "" if value is None else str(value) for name, value in one.items()} for one in expected]
    assert found[3]["sku"] == "'=U"
    assert found[4] == found[4] | {"orderId": "'-o", "itemId": "'+a", "partner": "'@p", "sku": 'S,"T"'}


def test_csv_of_nothing_is_its_header(shortpick: Any) -> None:
    assert shortpick("report", "--csv").out == ",".join(KEYS) + "\n"


def test_a_report_of_nothing_says_so(shortpick: Any) -> None:
    ran = shortpick("report")
    assert (ran.code, ran.out, ran.err) == (0, "", "Nothing was cancelled.\n")
    assert shortpick("report", "--shadow").err == "Nothing would have been cancelled.\n"


def test_a_report_can_be_of_one_cause(shortpick: Any, three_orders: None) -> None:
    assert orders_of(shortpick("report", "--cause", "incident", "--json")) == ["o1", "o1"]
    assert "6 units of 1 order were cancelled" in shortpick("report", "--cause", "incident").out
    assert shortpick("report", "--cause", "another").err == "Nothing was cancelled.\n"


@pytest.mark.parametrize(
    ("options", "orders"),
    [
        (["--since", "2026-01-05T09:00:00Z"], ["o2", "o3"]),
        (["--since", "2026-01-05t11:00:00.5+02:00"], ["o3"]),
        (["--until", "2026-01-05T09:00:00Z"], ["o1", "o1"]),
        (["--since", "2026-01-05", "--until", "2026-01-06"], ["o2"]),
        (["--until", "2026-01-05"], ["o1", "o1"]),
        (["--since", "30s"], []),
    ],
)
def test_since_is_included_and_until_is_not(
    shortpick: Any, three_orders: None, engine: Engine, options: list[str], orders: list[str]
) -> None:
    for order_id, at in (
        ("o1", "2026-01-04T23:59:59Z"),
        ("o2", "2026-01-05T09:00:00Z"),
        ("o3", "2026-01-06T00:00:00Z"),
    ):
        cancelled_at(engine, order_id, at)
    assert orders_of(shortpick("report", "--json", *options)) == orders


def test_since_and_until_take_a_span_back_from_now(shortpick: Any, three_orders: None, engine: Engine) -> None:
    for order_id, hours in (("o1", 5 * 24), ("o2", 3), ("o3", 1)):
        cancelled_at(engine, order_id, (datetime.now(UTC) - timedelta(hours=hours)).isoformat())
    assert orders_of(shortpick("report", "--json", "--since", "2h")) == ["o3"]
    assert orders_of(shortpick("report", "--json", "--since", "4d", "--until", "120m")) == ["o2"]
    assert orders_of(shortpick("report", "--json", "--since", "7d")) == ["o1", "o1", "o2", "o3"]


@pytest.mark.parametrize(
    "written", ["yesterday", "", "2026-01-05T09:00:00", "2026-02-30", "2026-01-05T25:00:00Z", "2w", "-2h", "999999999d"]
)
def test_what_is_not_a_time_is_refused_with_those_that_are(shortpick: Any, written: str) -> None:
    for option in ("--since", "--until"):
        ran = shortpick("report", f"{option}={written}")
        assert (ran.code, ran.out) == (1, "")
        assert f"{option} {written!r} is not a time; give a time with an offset (2026-01-05T09:00:00Z)" in ran.err


def test_since_must_be_before_until(shortpick: Any) -> None:
    ran = shortpick("report", "--since", "2026-01-06", "--until", "2026-01-05")
    assert ran.code == 1
    assert "--since (2026-01-06 00:00:00 UTC) must be before --until (2026-01-05 00:00:00 UTC)" in ran.err


def test_json_and_csv_exclude_each_other(shortpick: Any) -> None:
    ran = shortpick("report", "--json", "--csv")
    assert (ran.code, ran.out) == (1, "")
    assert "--json and --csv exclude each other" in ran.err


def test_reports_are_the_same_however_small_the_pages_are(
    shortpick: Any, three_orders: None, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        shadow(engine, f"o{number}", ("cancelOrder", "a", "S", 1), id=f"s{number}")
    commands = (["report"], ["report", "--json"], ["report", "--json", "--shadow"])
    whole = [shortpick(*command).out for command in commands]
    assert len(whole[2].splitlines()) == 5
    monkeypatch.setattr(report, "PAGE", 2)
    assert [shortpick(*command).out for command in commands] == whole


# report --shadow


def test_shadow_tells_what_would_have_been_cancelled_by_event_type(
    shortpick: Any, three_orders: None, engine: Engine
) -> None:
    shadow(engine, "o1", ("cancelItem", "a", "S", 3), ("cancelItemPartially", "b", "T", 1))
    shadow(
        engine, "o3", ("cancelOrder", "a", "=U", 2), id="s2", type="cancellation.requested", at="2026-01-07T00:00:00Z"
    )
    ran = shortpick("report", "--shadow")
    head = "6 units of 2 orders would have been cancelled, from 2026-01-05 09:00:00 UTC to 2026-01-07 00:00:00 UTC."
    assert ran.out.splitlines()[0] == head
    assert table(ran.out, "event") == [
        ["inventory.shortage", "1", "4", "▇" * 30],
        ["cancellation.requested", "1", "2", "▇" * 15],
    ]
    assert table(ran.out, "partner") == [["acme", "1", "4", "▇" * 30], ["–", "1", "2", "▇" * 15]]
    assert shortpick("report", "--shadow", "--json").json[0] == {
        "orderId": "o1",
        "itemId": "a",
        "sku": "S",
        "units": 3,
        "operation": "cancelItem",
        "eventType": "inventory.shortage",
        "partner": "acme",
        "decidedAt": "2026-01-05T09:00:00.000000Z",
        "causeSource": "/test",
        "causeId": "s1",
    }
    assert "eventType" in shortpick("report", "--shadow", "--csv").out.splitlines()[0]


def test_shadow_counts_the_largest_of_repeated_cuts_of_a_line(shortpick: Any, engine: Engine) -> None:
    for id, units in (("s1", 2), ("s2", 5), ("s3", 4)):
        shadow(engine, "o1", ("cancelItemPartially", "a", "S", units), id=id)
    shadow(engine, "o2", ("cancelItemPartially", "a", "S", 1), id="s4")
    found = shortpick("report", "--shadow", "--json").json
    assert [(one["orderId"], one["units"], one["causeId"]) for one in found] == [("o1", 5, "s2"), ("o2", 1, "s4")]
    assert shortpick("report", "--shadow", "--json", "--cause", "s3").json[0]["units"] == 4
    assert shortpick("report", "--shadow", "--json", "--since", "2026-01-06").json == []


def test_shadow_leaves_out_what_waits_for_a_person(shortpick: Any, engine: Engine) -> None:
    shadow(engine, "o1", ("cancelOrder", "a", "S", 2), state="open")
    assert shortpick("report", "--shadow", "--json").json == []


# status


def left(ran: Any) -> dict[str, list[str]]:
    """The table's rows by their first column."""
    lines = ran.out.splitlines()
    begin = next(place for place, line in enumerate(lines) if line.startswith("what "))
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[begin + 1 :]]
    return {row[0]: row[1:] for row in rows if len(row) > 1}


def test_status_of_a_pipeline_that_never_ran_asks_whether_it_runs(shortpick: Any) -> None:
    ran = shortpick("status")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "Nothing was ever read from the queue (is `shortpick ingress` running?)"
    assert {tuple(row) for row in left(ran).values()} == {("0", "–")}
    assert "A second, over the last minute: 0.0 events came, 0.0 cancellations were made." in ran.out
    nothing = {"count": 0, "oldestAt": None}
    found = shortpick("status", "--json").json[0]
    assert datetime.fromisoformat(found.pop("at")).tzinfo
    assert found == {
        "ingress": {"hasGroup": False, "silent": True, "secondsSinceRead": None},
        "pauses": [],
        "breakers": [],
        "unread": {**nothing, "atLeast": False},
        "pending": nothing,
        "waiting": {},
        "shortages": nothing,
        "held": nothing,
        "approved": nothing,
        "unpublished": nothing,
        "deadLetters": nothing,
        "conflicts": nothing,
        "eventsPerSecond": 0,
        "cancellationsPerSecond": 0,
    }


def test_status_of_an_idle_pipeline_says_that_it_runs(shortpick: Any, queue: Queue) -> None:
    queue.add([b"{}"])
    queue.acknowledge([one.entry_id for one in queue.read(10, 1)])
    ran = shortpick("status")
    assert ran.out.splitlines()[0] == "Running: ingress reads the queue."
    assert {tuple(row) for row in left(ran).values()} == {("0", "–")}
    assert shortpick("status", "--json").json[0]["ingress"]["silent"] is False


def test_status_of_a_busy_pipeline_tells_what_is_left_and_since_when(
    shortpick: Any, queue: Queue, redis: Redis, decide: Callable[..., None], engine: Engine
) -> None:
    ago = int(time.time() * 1000) - 200_000
    for number in range(3):
        redis.xadd("order.events", {"event": b"{}"}, id=f"{ago + number * 10_000}-0")
    queue.read(1, 1)
    decide(placed("o1", a=("S", 5)), shortage("o1", a=0), shortage("o9", a=0), b"nonsense")
    execute(
        engine, "UPDATE waiting_events SET since = :at", at=stored(datetime.now(UTC) - timedelta(hours=2, minutes=1))
    )
    shadow(engine, "o1", ("cancelOrder", "a", "S", 1), id="h1", state="open")
    shadow(engine, "o1", ("cancelOrder", "a", "S", 1), id="h2", state="approved")
    ran = shortpick("status")
    found = left(ran)
    assert found["unread in the queue"][0] == "2"
    assert found["unread in the queue"][1].startswith("3 minutes 1")
    assert found["read, and not decided"][0] == "1"
    assert found["read, and not decided"][1].startswith("3 minutes 2")
    assert found["waiting for their order to be placed"] == ["1", "2 hours 1 minute"]
    assert found["held until a person decides"][0] == "1"
    assert found["approved, and not carried out"][0] == "1"
    assert found["cancelled, and not published"][0] == "1"
    assert found["dead letters open"][0] == "1"
    assert found["conflicts open"] == ["0", "–"]
    assert "0.0 events came, 0.02 cancellations were made." in ran.out
    told = shortpick("status", "--json").json[0]
    assert told["unread"]["count"] == 2
    assert told["pending"]["oldestAt"] == datetime.fromtimestamp(ago / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert told["waiting"]["order_not_placed"]["count"] == 1
    assert told["held"] == {"count": 1, "oldestAt": "2026-01-05T09:00:00.000000Z"}
    assert (told["unpublished"]["count"], told["deadLetters"]["count"]) == (1, 1)


def test_what_is_published_is_not_left(shortpick: Any, decide: Callable[..., None], publish: Callable[[], int]) -> None:
    decide(placed("o1", a=("S", 5)), shortage("o1", a=0))
    assert publish() == 1
    assert left(shortpick("status"))["cancelled, and not published"] == ["0", "–"]


def test_a_shortage_of_a_sku_is_left_until_it_is_carried_out(shortpick: Any, decide: Callable[..., None]) -> None:
    decide(placed("o1", a=("S", 5)), sku_shortage("S", 0))
    assert left(shortpick("status"))["shortages of a SKU, not carried out"][0] == "1"


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have Redis tell of the queue's consumer as given; `inactive` is told from version 7.2 on."""

    def told(**more: int) -> None:
        monkeypatch.setattr(Redis, "xinfo_consumers", lambda *_: [{"name": CONSUMER.encode(), "pending": 0, **more}])

    return told


SILENT = "ingress has not read for 3 minutes 20 seconds"


def test_status_says_when_ingress_has_stopped_reading(
    shortpick: Any, queue: Queue, consumer: Callable[..., None]
) -> None:
    queue.add([b"{}"])
    consumer(idle=30_000)
    assert shortpick("status").out.splitlines()[0] == "Running: ingress reads the queue."
    consumer(idle=200_000)
    assert shortpick("status").out.splitlines()[0] == f"{SILENT} (is `shortpick ingress` running?)"
    assert shortpick("status", "--json").json[0]["ingress"] == {
        "hasGroup": True,
        "silent": True,
        "secondsSinceRead": 200,
    }


def test_an_empty_queue_makes_ingress_suspect_only_where_redis_counts_reads_of_nothing(
    shortpick: Any, queue: Queue, consumer: Callable[..., None]
) -> None:
    consumer(idle=200_000)
    quiet = "Ingress last found something in the queue 3 minutes 20 seconds ago; nothing has come since."
    assert shortpick("status").out.splitlines()[0] == quiet
    consumer(idle=200_000, inactive=200_000)
    assert shortpick("status").out.splitlines()[0].startswith(SILENT)


def test_where_too_much_is_pending_the_workers_are_asked_for(
    shortpick: Any, queue: Queue, consumer: Callable[..., None]
) -> None:
    queue.add([b"{}"] * 2001)
    queue.read(2000, 1)
    consumer(idle=200_000)
    because = "it waits while so much is pending; is `shortpick worker` running?"
    assert shortpick("status").out.splitlines()[0] == f"{SILENT} ({because})"


def test_a_group_that_never_read_is_suspect_only_if_there_is_something_to_read(shortpick: Any, queue: Queue) -> None:
    first = "Nothing was ever read from the queue"
    assert shortpick("status").out.splitlines()[0] == f"{first}, and nothing is unread."
    queue.add([b"{}"])
    assert shortpick("status").out.splitlines()[0] == f"{first} (is `shortpick ingress` running?)"


def test_what_came_before_there_was_a_group_is_unread(shortpick: Any, redis: Redis) -> None:
    for _ in range(3):
        redis.xadd("order.events", {"event": b"{}"})
    assert left(shortpick("status"))["unread in the queue"] == ["3", "less than a second"]
    assert shortpick("status", "--json").json[0]["eventsPerSecond"] == 0.05


def test_a_large_queue_is_not_counted_to_its_end(
    shortpick: Any, queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.add([to_bytes({})] * 12)
    assert left(shortpick("status"))["unread in the queue"][0] == "12"  # nothing was read, so Redis knows
    queue.read(1, 1)
    (group,) = redis.xinfo_groups("order.events")
    monkeypatch.setattr(Redis, "xinfo_groups", lambda *_: [{**group, "lag": None}])
    monkeypatch.setattr(standing, "ENTRIES_A_READ", 2)
    assert left(shortpick("status"))["unread in the queue"][0] == "11"
    monkeypatch.setattr(standing, "COUNTED_ENTRIES", 5)
    assert left(shortpick("status"))["unread in the queue"][0] == "5 or more"
    unread = shortpick("status", "--json").json[0]["unread"]
    assert (unread["count"], unread["atLeast"]) == (5, True)
    monkeypatch.setattr(Redis, "xinfo_groups", lambda *_: [{**group, "lag": 11}])
    assert left(shortpick("status"))["unread in the queue"][0] == "11"


def test_status_tells_open_breakers_and_pauses(shortpick: Any, engine: Engine) -> None:
    execute(
        engine,
        "INSERT INTO breakers (scope, name, opened_at, cause_source, cause_id) VALUES "
        "('sku', 'S', :at, '/wms', 'e7'), ('everything', '', NULL, '/wms', 'e8')",
        at=stored(datetime(2026, 1, 5, 9, tzinfo=UTC)),
    )
    shortpick("pause", "--source", "/wms", "--reason", "zeros", "--by", "ann")
    ran = shortpick("status")
    told = [line for line in ran.out.splitlines() if line.startswith("BREAKER")]
    assert told == [
        "BREAKER OPEN since 2026-01-05 09:00:00 UTC: SKU 'S'; the cause was event 'e7' of '/wms'. "
        "What it stops is held: shortpick breaker list"
    ]
    assert "PAUSED since" in ran.err
    found: Json = shortpick("status", "--json").json[0]
    assert found["breakers"] == [
        {
            "scope": "sku",
            "name": "S",
            "openedAt": "2026-01-05T09:00:00.000000Z",
            "causeSource": "/wms",
            "causeId": "e7",
        }
    ]
    (pause,) = found["pauses"]
    assert (pause["source"], pause["reason"], pause["pausedBy"]) == ("/wms", "zeros", "ann")


def test_a_foreign_entry_in_the_outgoing_stream_is_told_and_the_rest_too(
    shortpick: Any, redis: Redis, decide: Callable[..., None]
) -> None:
    decide(placed("o1", a=("S", 5)), shortage("o1", a=0))
    redis.xadd("order.cancelled", {"x": "y"}, id="5-1")
    ran = shortpick("status")
    assert ran.code == 0
    assert "ends with entry 5-1, which Shortpick did not write; nothing is published until a person decides" in ran.err
    assert left(ran)["cancelled, and not published"][0] == "1"


def test_a_rate_is_told_over_the_last_minute_or_as_far_as_the_newest_reach_back() -> None:
    now = datetime(2026, 1, 5, tzinfo=UTC)
    assert standing.per_second([], now) == 0
    assert standing.per_second([now - timedelta(seconds=n) for n in range(1, 100)], now) == 1
    assert standing.per_second([now - timedelta(milliseconds=10 * n) for n in range(1, 1001)], now) == 100
    assert standing.per_second([now] * 1000, now) == 1_000_000

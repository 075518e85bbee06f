"""What `shortpick doctor` calls a fault and what a warning, given what was looked at."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from worker.cli.doctor_database import PostgresqlSettings, of_postgresql, of_tables, of_version
from worker.cli.doctor_pipeline import (
    THIS_MACHINE,
    Clock,
    of_backlog,
    of_clocks,
    of_people,
    of_queue,
    of_stops,
    of_stream,
    read_clock,
)
from worker.cli.doctor_redis import of_redis
from worker.cli.doctor_settings import of_settings
from worker.cli.findings import Finding
from worker.cli.standing import Backlog, QueueStatus, Recorded
from worker.migrations import Version
from worker.publication import StreamEnd
from worker.settings import Settings
from worker.storage.reports import Amount, Due

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
NONE, NOTHING_DUE = Amount(0, None), Due(0, None)


def bad(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """What is not ok: levels and checks. Each of these says what to change."""
    found = [one for one in findings if one.level != "ok"]
    assert all(one.change for one in found)
    return [(one.level, one.check) for one in found]


def of(findings: Iterable[Finding], check: str) -> Finding:
    (found,) = (one for one in findings if one.check == check)
    return found


# settings


def settings(database_url: str = "postgresql://host/db", **more: Any) -> Settings:
    """As production should be set."""
    usual: dict[str, Any] = {"breaker_orders": 100, "sku_shortage_grace_seconds": 300}
    return Settings(redis_url="redis://host/0", database_url=database_url, **usual | more)


@pytest.mark.parametrize("url", ["postgresql://host/db", "postgresql://host/db?sslmode=verify-full"])
def test_settings_that_fit_together_are_fine(url: str) -> None:
    assert of_settings(settings(url)) == [Finding("ok", "settings", "They fit together.")]


def test_an_embedded_pipeline_needs_no_limits_and_no_grace() -> None:
    assert bad(of_settings(Settings(redis_url="redis://host/0", database_url="sqlite:////folder/file.db"))) == []


@pytest.mark.parametrize(
    ("chosen", "level", "named"),
    [
        ({"database_url": "sqlite:///:memory:"}, "fault", "SHORTPICK_DATABASE_URL"),
        ({"database_url": "sqlite:///"}, "fault", "SHORTPICK_DATABASE_URL"),
        ({"database_url": "sqlite:///file.db?timeout=9"}, "warning", "SHORTPICK_DATABASE_URL"),
        ({"shadow": True}, "warning", "SHORTPICK_SHADOW"),
        ({"breaker_orders": 0}, "warning", "SHORTPICK_BREAKER_ORDERS"),
        ({"breaker_orders": 5, "breaker_source_orders": 6}, "warning", "SHORTPICK_BREAKER_SOURCE_ORDERS"),
        ({"breaker_units": 5, "breaker_sku_units": 6}, "warning", "SHORTPICK_BREAKER_SKU_UNITS"),
        ({"sku_shortage_grace_seconds": 0}, "warning", "SHORTPICK_SKU_SHORTAGE_GRACE_SECONDS"),
        ({"release_due_every_seconds": 301}, "warning", "SHORTPICK_RELEASE_DUE_EVERY_SECONDS"),
        (
            {"order_shortage_grace_seconds": 10, "release_due_every_seconds": 11},
            "warning",
            "SHORTPICK_RELEASE_DUE_EVERY_SECONDS",
        ),
        ({"queue_retention_seconds": 24 * 3600 - 1}, "warning", "SHORTPICK_QUEUE_RETENTION_SECONDS"),
        ({"worker_concurrency": 9}, "warning", "SHORTPICK_MAX_PENDING"),
    ],
)
def test_what_is_dangerous_or_contradictory_is_named(chosen: dict[str, Any], level: str, named: str) -> None:
    (found,) = of_settings(settings(**chosen))
    assert found.level == level
    assert named in f"{found.says} {found.change}"


@pytest.mark.parametrize(
    "chosen",
    [
        {"breaker_orders": 0, "breaker_sku_units": 1},
        {"breaker_orders": 0, "preflight_share": 0.5},
        {"breaker_orders": 5, "breaker_source_orders": 5},
        {"queue_retention_seconds": 24 * 3600},
        {"worker_concurrency": 8},
        {"release_due_every_seconds": 300},
    ],
)
def test_what_only_just_fits_is_fine(chosen: dict[str, Any]) -> None:
    assert bad(of_settings(settings(**chosen))) == []


# Redis

INFO: dict[str, Any] = {
    "redis_version": "6.2.5",
    "role": "master",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "maxmemory_policy": "noeviction",
    "used_memory": 79,
    "maxmemory": 100,
    "total_system_memory": 1000,
}


def test_a_redis_as_it_must_be_is_fine() -> None:
    assert bad(of_redis(INFO, "everysec")) == []
    assert bad(of_redis({**INFO, "redis_version": "7.2.0-rc1"}, "always")) == []


@pytest.mark.parametrize(
    ("told", "level", "check"),
    [
        ({"redis_version": "6.0.16"}, "fault", "redis version"),
        ({"redis_version": "unstable"}, "warning", "redis version"),
        ({"role": "slave"}, "fault", "redis role"),
        ({"aof_last_write_status": "err"}, "fault", "redis persistence"),
        ({"aof_last_bgrewrite_status": "err"}, "warning", "redis persistence"),
        ({"rdb_last_bgsave_status": "err"}, "fault", "redis persistence"),
        ({"maxmemory_policy": "allkeys-lru"}, "fault", "redis eviction"),
        ({"maxmemory_policy": "volatile-ttl"}, "warning", "redis eviction"),
        ({"used_memory": 80}, "warning", "redis memory"),
        ({"used_memory": 95}, "fault", "redis memory"),
        ({"maxmemory": 0, "used_memory": 800}, "warning", "redis memory"),
    ],
)
def test_what_endangers_accepted_events_is_told(told: dict[str, Any], level: str, check: str) -> None:
    assert bad(of_redis({**INFO, **told}, "everysec")) == [(level, check)]


def test_without_an_append_only_file_nothing_is_said_of_how_often_it_is_written() -> None:
    found = of_redis({**INFO, "aof_enabled": 0}, "no")
    assert bad(found) == [("fault", "redis persistence")]
    assert "redis appendfsync" not in [one.check for one in found]


def test_an_append_only_file_that_is_seldom_brought_to_the_disk_is_a_warning() -> None:
    assert bad(of_redis(INFO, "no")) == [("warning", "redis appendfsync")]


def test_what_a_managed_redis_does_not_tell_is_a_warning_each() -> None:
    found = of_redis({}, None)
    assert {one.level for one in found} == {"warning"}
    checks = ["redis version", "redis role", "redis persistence", "redis appendfsync", "redis eviction", "redis memory"]
    assert [one.check for one in found] == checks
    assert all("does not tell" in one.says for one in found)


# database


@pytest.mark.parametrize(
    ("dialect", "told", "level"),
    [
        ("sqlite", (3, 34, 1), "fault"),
        ("sqlite", (3, 35, 0), "ok"),
        ("postgresql", (10, 23), "fault"),
        ("postgresql", (14, 9), "warning"),
        ("postgresql", (15, 0), "ok"),
        ("postgresql", (18, 3), "ok"),
    ],
)
def test_old_databases_are_told(dialect: str, told: tuple[int, ...], level: str) -> None:
    found = of_version(dialect, told)
    assert found.level == level
    assert ".".join(map(str, told)) in found.says


@pytest.mark.parametrize("tables", get_args(Version))
def test_tables_of_any_other_version_are_a_fault(tables: Version) -> None:
    assert of_tables(tables).level == ("ok" if tables == "current" else "fault")


def server(standby: bool = False, connections: int = 77, **values: str) -> PostgresqlSettings:
    usual = dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit"), "on")
    usual |= {"max_connections": "100", "superuser_reserved_connections": "3", "default_transaction_read_only": "off"}
    return PostgresqlSettings({**usual, **values}, standby, connections)


def test_a_postgresql_as_it_must_be_is_fine() -> None:
    assert bad(of_postgresql(server())) == []
    assert bad(of_postgresql(server(synchronous_commit="local"))) == []


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_postgresql_that_may_lose_commits_is_a_fault(name: str) -> None:
    assert bad(of_postgresql(server(**{name: "off"}))) == [("fault", "postgresql durability")]


def test_several_settings_that_are_off_are_one_finding() -> None:
    found = of(of_postgresql(server(fsync="off", full_page_writes="off")), "postgresql durability")
    assert found.says.startswith("fsync and full_page_writes are off: ")


def test_a_postgresql_that_takes_no_writes_is_a_fault() -> None:
    assert bad(of_postgresql(server(standby=True))) == [("fault", "postgresql role")]
    assert bad(of_postgresql(server(default_transaction_read_only="on"))) == [("fault", "postgresql role")]


def test_connections_near_their_limit_are_a_warning() -> None:
    assert bad(of_postgresql(server(connections=78))) == [("warning", "postgresql connections")]


# clocks


def seconds(ahead: float, within: float = 0) -> Clock:
    return Clock(timedelta(seconds=ahead), timedelta(seconds=within))


@pytest.mark.parametrize(
    ("redis", "database", "level"),
    [
        (seconds(5), seconds(0), "ok"),
        (seconds(5.1), seconds(0), "warning"),
        (seconds(-3), seconds(3), "warning"),
        (seconds(0), seconds(-60), "warning"),
        (seconds(0), seconds(-61), "fault"),
        (seconds(40), seconds(-40), "fault"),
        (seconds(7, within=2), seconds(0), "ok"),
        (seconds(62, within=2), seconds(1), "warning"),
    ],
)
def test_the_two_clocks_that_are_farthest_apart_count(redis: Clock, database: Clock, level: str) -> None:
    found = of_clocks({"this machine": THIS_MACHINE, "Redis": redis, "the database": database})
    assert found.level == level


def test_the_clocks_that_are_apart_are_named() -> None:
    found = of_clocks({"this machine": THIS_MACHINE, "Redis": seconds(9), "the database": seconds(100)})
    assert found.says.startswith("The clocks of this machine and the database are 1 minute 40 seconds apart")


def test_a_clock_is_read_between_two_looks_at_this_machines() -> None:
    clock = read_clock(lambda: datetime.now(UTC) + timedelta(hours=1))
    assert abs(clock.ahead - timedelta(hours=1)) <= clock.within


# the queue


def queue(**more: Any) -> QueueStatus:
    usual: dict[str, Any] = {
        "at": NOW,
        "has_group": True,
        "idle": timedelta(seconds=1),
        "idle_is_exact": True,
        "unread": NONE,
        "unread_at_least": False,
        "pending": NONE,
        "events_per_second": 0,
    }
    return QueueStatus(**usual | more)


OLD, YOUNG = Amount(3, NOW - timedelta(minutes=6)), Amount(3, NOW - timedelta(minutes=4))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (queue(), []),
        (queue(unread=YOUNG, pending=YOUNG), []),
        (queue(has_group=False), ["consumer group"]),
        (queue(idle=timedelta(minutes=1)), ["ingress"]),
        (queue(unread=OLD), ["unread"]),
        (queue(pending=OLD), ["pending"]),
    ],
)
def test_a_queue_in_which_entries_grow_old_is_a_warning(status: QueueStatus, expected: list[str]) -> None:
    assert bad(of_queue(status, "ingress …")) == [("warning", check) for check in expected]


def test_how_long_and_how_many_is_told() -> None:
    found = of(of_queue(queue(unread=OLD, unread_at_least=True), ""), "unread")
    assert found.says == "3 or more entries of the queue are unread, the oldest for 6 minutes."


# what is recorded


def recorded(**left: Amount) -> Recorded:
    names = ("shortages", "held", "approved", "unpublished", "dead_letters", "conflicts")
    return Recorded(NOW, [], [], {}, {**dict.fromkeys(names, NONE), **left}, 0)


def test_nothing_that_waits_for_a_person_is_fine_and_anything_is_a_warning() -> None:
    assert bad(of_people(recorded())) == []
    assert bad(of_people(recorded(held=YOUNG, dead_letters=YOUNG, conflicts=YOUNG))) == [
        ("warning", "held"),
        ("warning", "dead letters"),
        ("warning", "conflicts"),
    ]


def test_pauses_and_open_breakers_are_warnings() -> None:
    assert bad(of_stops(recorded())) == []
    stops = recorded()
    stops.pauses.append(SimpleNamespace(source="/wms", paused_at=NOW, paused_by="ann", reason="zeros"))
    stops.breakers.append(SimpleNamespace(scope="sku", name="S", opened_at=NOW))
    pause, breaker = of_stops(stops)
    assert (pause.level, breaker.level) == ("warning", "warning")
    assert "of source '/wms' wait since 2026-01-05 09:00:00 UTC: ann paused them: zeros." in pause.says
    assert "SKU 'S' is open" in breaker.says


@pytest.mark.parametrize("check", ["overdue", "shortages", "approved", "unpublished"])
def test_what_could_be_done_and_is_old_is_a_warning(check: str) -> None:
    def backlog(amount: Amount) -> list[Finding]:
        due = Due(amount.number, amount.since)
        waits, shortages, approved = (
            due if check == one else NOTHING_DUE for one in ("overdue", "shortages", "approved")
        )
        unpublished = amount if check == "unpublished" else NONE
        return list(of_backlog(recorded(unpublished=unpublished), Backlog(waits, shortages, approved)))

    assert bad(backlog(YOUNG)) == []
    assert bad(backlog(OLD)) == [("warning", check)]


@pytest.mark.parametrize(
    ("what", "hours", "expected"),
    [
        ("order_not_placed", 2, [("warning", "waiting")]),
        ("fulfillments_missing", 2, [("warning", "waiting")]),
        ("order_not_placed", 1, []),
        ("grace", 20, []),
        ("paused", 20, []),
    ],
)
def test_what_waits_long_for_other_events_is_a_warning(what: str, hours: int, expected: list[tuple[str, str]]) -> None:
    waits = recorded()
    waits.waiting[what] = Amount(1, NOW - timedelta(hours=hours))
    assert bad(of_backlog(waits, Backlog(NOTHING_DUE, NOTHING_DUE, NOTHING_DUE))) == expected


# the outgoing stream


def test_a_stream_that_redis_has_cut_short_is_a_warning_since_the_relay_mends_it() -> None:
    assert of_stream("order.cancelled", StreamEnd(7, 7)).level == "ok"
    assert of_stream("order.cancelled", StreamEnd(7, 6)).level == "ok"
    found = of_stream("order.cancelled", StreamEnd(5, 7))
    assert found.level == "warning"
    assert "ends at 5 and had reached 7" in found.says

"""`shortpick holds` and `shortpick breaker`, and what `why` tells of a held cut."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from domain.policy import Breaker, Limits, Policy, Preflight
from tests.builders import Json, placed, shortage, sku_shortage
from worker import bootstrap, shortages, verdicts
from worker.process import Processor
from worker.settings import Settings

FIGURE = {**sku_shortage("S", 0, time="2026-01-01T10:00:00Z"), "id": "the-figure"}
ORDERS = [placed(f"o{n}", a=("S", 5)) for n in range(3)]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def careful(processor: Processor) -> Processor:
    breaker = Breaker(everything=Limits(orders=1))
    return replace(processor, policy=Policy(preflight=Preflight(Limits(orders=1)), breaker=breaker))


@pytest.fixture
def held(decide: Callable[..., None], careful: Processor) -> None:
    """Three orders, whose shortage is held."""
    decide(*ORDERS, FIGURE, by=careful)
    shortages.run(careful, ["S"], 60)


def number(engine: Engine, sql: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(sql)).scalar_one())


@pytest.mark.usefixtures("held")
def test_what_is_held_is_listed_by_its_cause_and_one_by_one(shortpick: Any) -> None:
    listed = shortpick("holds", "list").out
    assert listed.startswith("SKU 'S' short: 3 orders, 15 units, open, by preflight, since ")
    assert "event 'the-figure' of '/test'" in listed
    each = shortpick("holds", "list", "--each", "--json").json
    assert [(one["orderId"], one["units"], one["state"]) for one in each] == [(f"o{n}", 5, "open") for n in (2, 1, 0)]
    shown = shortpick("holds", "show", str(each[0]["holdId"]))
    assert "It would cancel 5 of item 'a' (SKU 'S')." in shown.out
    assert "Nobody has decided about it" in shown.out


def test_where_nothing_is_held_it_says_so(shortpick: Any) -> None:
    assert shortpick("holds", "list").err == "Nothing is held.\n"
    assert "there is no hold 7" in shortpick("holds", "show", "7").err
    nothing = shortpick("holds", "approve", "--all", "--reason", "x", "--expect", "0")
    assert nothing.code == 1
    assert "none of these is held and undecided" in nothing.err


@pytest.mark.usefixtures("held")
def test_what_is_held_is_no_reason_for_drain_to_wait_and_it_says_so(shortpick: Any) -> None:
    assert "3 cuts are held until a person decides" in shortpick("drain").err


@pytest.mark.usefixtures("held")
def test_nobody_decides_many_by_mistake(shortpick: Any, engine: Engine) -> None:
    assert "confirm it with --expect 3" in shortpick("holds", "approve", "--all", "--reason", "x").err
    wrong = shortpick("holds", "reject", "--cause", "the-figure", "--reason", "x", "--expect", "2")
    assert wrong.code == 1
    assert "there are 3 holds, not 2; nothing was decided" in wrong.err
    assert shortpick("holds", "approve", "--all").code == 2  # without a reason
    assert "say which holds are meant" in shortpick("holds", "approve", "--reason", "x").err
    assert number(engine, "SELECT count(*) FROM holds WHERE state = 'open'") == 3


@pytest.mark.usefixtures("held")
def test_holds_are_decided_by_id_and_by_cause_and_why_tells_by_whom(
    shortpick: Any, careful: Processor, engine: Engine
) -> None:
    first = shortpick("holds", "list", "--each", "--json").json[-1]["holdId"]
    approved = shortpick("holds", "approve", str(first), "--reason", "we counted", "--by", "ann")
    assert (approved.code, approved.err.splitlines()[0]) == (0, "1 hold approved.")
    rejected = shortpick(
        "holds", "reject", "--cause", "the-figure", "--source", "/test", "--reason", "no", "--expect", "2"
    )
    assert rejected.code == 0
    assert "approved cuts are not carried out yet" in shortpick("drain", "--timeout", "0").err
    assert verdicts.carry_out_approved(careful) == 1
    assert number(engine, "SELECT count(*) FROM cancellations") == 1
    cut, kept = shortpick("why", "o0").out, shortpick("why", "o1").out
    assert "because its shortage alone would have cancelled more than the preflight allows." in cut
    assert "ann approved it at" in cut
    assert "because: we counted." in cut
    assert "it was carried out." in cut
    assert "because: no." in kept
    assert "So it is never cancelled for this event." in kept
    (row,) = shortpick("why", "o1", "--json").json
    assert [one["state"] for one in row["holds"]] == ["rejected"]


def test_an_open_breaker_is_listed_and_closed_by_its_name(
    shortpick: Any, decide: Callable[..., None], careful: Processor
) -> None:
    assert shortpick("breaker", "list").err == "No breaker has counted anything.\n"
    decide(*ORDERS, *(shortage(f"o{n}", a=1) for n in range(3)), by=careful)
    listed = shortpick("breaker", "list")
    assert "everything" in listed.out
    assert "OPEN since" in listed.out
    (row,) = shortpick("breaker", "list", "--json").json
    assert (row["scope"], row["orders"], row["units"]) == ("everything", 1, 4)
    assert shortpick("breaker", "close", "everything").code == 2  # without a reason
    wrong = shortpick("breaker", "close", "sku", "S", "--reason", "x")
    assert wrong.code == 1
    assert "the breaker sku S is not open" in wrong.err
    assert "is no scope of a breaker" in shortpick("breaker", "close", "shop", "--reason", "x").err
    closed = shortpick("breaker", "close", "everything", "--reason", "the feed is mended")
    assert "The breaker everything is closed, and counts anew." in closed.err
    assert shortpick("breaker", "list", "--json").json[0]["openedAt"] is None
    listed_by_source = shortpick("holds", "list").out
    assert "inventory.shortage of single orders: 2 orders, 8 units, open, by breaker" in listed_by_source


@pytest.mark.parametrize(
    ("setting", "why"),
    [("SHORTPICK_PROTECTED_ORDERS=o1", "is protected"), ("SHORTPICK_SHADOW=true", "in shadow mode")],
)
def test_a_dry_run_tells_that_a_request_would_be_held(
    setting: str, why: str, shortpick: Any, decide: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(placed("o1", a=("S", 5)))
    monkeypatch.setenv(*setting.split("="))
    ran = shortpick("cancel", "o1", "--dry-run")
    assert ran.code == 0
    assert "5 of item 'a' (SKU 'S'): all of it." in ran.out
    assert "But it would be held, because " in ran.out
    assert why in ran.out


def test_the_settings_reach_the_guardrails(settings: Settings) -> None:
    chosen: Json = {
        "preflight_orders": 1,
        "preflight_units": 2,
        "preflight_share": 0.5,
        "preflight_share_from_orders": 3,
        "breaker_window_seconds": 60,
        "breaker_orders": 4,
        "breaker_source_units": 5,
        "breaker_sku_orders": 6,
        "protected_orders": "o1, o2",
        "protected_partners": "northwind",
        "shadow": True,
    }
    policy = bootstrap.policy(settings.model_copy(update=chosen))
    assert policy.preflight == Preflight(Limits(1, 2), 0.5, 3)
    assert policy.breaker.window.total_seconds() == 60
    assert (policy.breaker.everything, policy.breaker.each_source, policy.breaker.each_sku) == (
        Limits(4, 0),
        Limits(0, 5),
        Limits(6, 0),
    )
    assert (policy.protected.orders, policy.protected.partners) == ({"o1", "o2"}, {"northwind"})
    assert policy.hold == "shadow"

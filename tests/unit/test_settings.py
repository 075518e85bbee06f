"""Settings: every one documented with its default, and wrong values refused with a sentence that names the variable."""

import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined
from redis import Redis

from worker import bootstrap
from worker.settings import PREFIX, Settings, SettingsError, load, variable

REPOSITORY = Path(__file__).resolve().parents[2]
ADDRESSES = {
    "SHORTPICK_REDIS_URL": "redis://127.0.0.1:6379/0",
    "SHORTPICK_DATABASE_URL": "sqlite:////folder/file.db",
}
Set = Callable[..., None]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that knows nothing of Shortpick, and a folder without any file."""
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Set the addresses, and these variables."""

    def set_variables(**variables: str) -> None:
        for name, value in {**ADDRESSES, **variables}.items():
            monkeypatch.setenv(name, value)

    return set_variables


def test_every_setting_stands_in_the_example_and_nothing_else() -> None:
    names = [name for name, _, _ in example()]
    assert sorted(names) == sorted(variable(field) for field in Settings.model_fields)


def test_in_the_example_only_what_has_no_default_is_set() -> None:
    required = {variable(name) for name, field in Settings.model_fields.items() if field.is_required()}
    assert {name for name, _, is_set in example() if is_set} == required


@pytest.mark.parametrize("field", [name for name, field in Settings.model_fields.items() if not field.is_required()])
def test_the_example_shows_the_default(field: str, environment: Set) -> None:
    shown = {name: value for name, value, _ in example()}[variable(field)]
    default = Settings.model_fields[field].default
    assert default is not PydanticUndefined
    if default is None:
        assert shown == ""
        return
    environment(**{variable(field): shown})
    assert getattr(load(), field) == default


def test_the_example_as_a_whole_is_accepted_and_changes_no_default(environment: Set) -> None:
    environment(**{name: value for name, value, _ in example()})
    chosen = load().model_dump(exclude={"redis_url", "database_url", "broker_url"})
    environment(**ADDRESSES)
    assert chosen == {name: Settings.model_fields[name].default for name in chosen}


def test_the_example_explains_every_setting() -> None:
    """A comment stands above each group of variables."""
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    for group in re.split(r"\n\s*\n", "\n".join(lines)):
        if PREFIX in group:
            assert re.match(r"# (?!SHORTPICK_)\w", group), group


@pytest.mark.parametrize("missing", ADDRESSES)
def test_a_missing_address_is_named(missing: str, environment: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    environment()
    monkeypatch.delenv(missing)
    with pytest.raises(SettingsError, match=f"^{missing} is not set$"):
        load()


def test_two_missing_addresses_are_both_named() -> None:
    with pytest.raises(SettingsError) as told:
        load()
    assert all(f"{name} is not set" in str(told.value) for name in ADDRESSES)


WRONG = {
    "SHORTPICK_REDIS_URL": [
        *("", "127.0.0.1:6379", "http://127.0.0.1", "redis://127.0.0.1:port/0", "redis://", "redis://host/database"),
        *("redis://host?ssl_ca_certs=/ca.pem", "rediss://host?socket_timeout=9", "rediss://host?ssl_cert_reqs=maybe"),
        *("redis://host?socket_timeout=9", "redis://host?password=secret", "unix:///run/redis.sock"),
    ],
    "SHORTPICK_DATABASE_URL": ["", "mysql://host/database", "sqlite:file.db", "file.db", "postgresql://host:port/db"],
    "SHORTPICK_BROKER_URL": ["127.0.0.1", "http://127.0.0.1", "redis://host?socket_timeout=9"],
    "SHORTPICK_EVENTS_STREAM": [""],
    "SHORTPICK_CANCELLED_STREAM": [""],
    "SHORTPICK_GROUP": [""],
    "SHORTPICK_BATCH_SIZE": ["0", "5001", "1.5", "many", ""],
    "SHORTPICK_BATCH_BYTES": ["65535", "16777217", "1 MiB"],
    "SHORTPICK_MAX_PENDING": ["0", "-1"],
    "SHORTPICK_WORKER_CONCURRENCY": ["0", "65"],
    "SHORTPICK_WORKER_MAX_TASKS_PER_CHILD": ["0"],
    "SHORTPICK_REDELIVER_AFTER_SECONDS": ["0", "inf", "nan", "1 minute"],
    "SHORTPICK_RETRY_AFTER_SECONDS": ["0", "-1", "nan"],
    "SHORTPICK_TASK_LIMIT_SECONDS": ["0", "nan"],
    "SHORTPICK_TASK_SOFT_LIMIT_SECONDS": ["0", "nan"],
    "SHORTPICK_MAX_LONE_STARTS": ["0", "101"],
    "SHORTPICK_WAITING_LIMIT_SECONDS": ["0", "inf", "nan", "1e300"],
    "SHORTPICK_QUEUE_RETENTION_SECONDS": ["0", "inf", "1e300"],
    "SHORTPICK_EVENTS_RETENTION_SECONDS": ["0", "604799", "inf", "nan", "1e300"],
    "SHORTPICK_DEAD_LETTERS_RETENTION_SECONDS": ["0", "-1", "inf", "nan"],
    "SHORTPICK_CANCELLED_RETENTION_SECONDS": ["0", "-1", "inf", "nan"],
    "SHORTPICK_RELEASE_DUE_EVERY_SECONDS": ["0", "inf"],
    "SHORTPICK_PRUNE_EVERY_SECONDS": ["0", "inf"],
    "SHORTPICK_SHIP_COMPLETE": ["perhaps", ""],
    "SHORTPICK_ALLOCATION": ["youngest_first", ""],
    "SHORTPICK_ORDER_SHORTAGE_GRACE_SECONDS": ["-1", "inf", "nan", "soon"],
    "SHORTPICK_SKU_SHORTAGE_GRACE_SECONDS": ["-1", "inf", "nan", "soon"],
    "SHORTPICK_PREFLIGHT_ORDERS": ["-1", "many"],
    "SHORTPICK_PREFLIGHT_UNITS": ["-1", "1.5"],
    "SHORTPICK_PREFLIGHT_SHARE": ["-0.1", "1.1", "nan", "30%"],
    "SHORTPICK_PREFLIGHT_SHARE_FROM_ORDERS": ["0", "few"],
    "SHORTPICK_BREAKER_WINDOW_SECONDS": ["0", "inf", "an hour"],
    "SHORTPICK_BREAKER_ORDERS": ["-1"],
    "SHORTPICK_BREAKER_UNITS": ["-1"],
    "SHORTPICK_BREAKER_SOURCE_ORDERS": ["-1"],
    "SHORTPICK_BREAKER_SOURCE_UNITS": ["-1"],
    "SHORTPICK_BREAKER_SKU_ORDERS": ["-1"],
    "SHORTPICK_BREAKER_SKU_UNITS": ["-1"],
    "SHORTPICK_PROTECTED_ORDERS": ["a,,b", ","],
    "SHORTPICK_PROTECTED_PARTNERS": [",northwind"],
    "SHORTPICK_SHADOW": ["perhaps", ""],
    "SHORTPICK_REDIS_TIMEOUT_SECONDS": ["0", "inf", "nan"],
    "SHORTPICK_LOG_LEVEL": ["loud", "INFO", ""],
    "SHORTPICK_LOG_FORMAT": ["xml", ""],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_refused_and_its_variable_named(name: str, value: str, environment: Set) -> None:
    environment(**{name: value})
    with pytest.raises(SettingsError, match=rf"^{name} "):
        load()


def test_every_setting_has_a_wrong_value_among_these_tests() -> None:
    assert WRONG.keys() == {variable(field) for field in Settings.model_fields}


def test_all_wrong_values_are_named_at_once(environment: Set) -> None:
    environment(SHORTPICK_BATCH_SIZE="many", SHORTPICK_LOG_LEVEL="loud")
    with pytest.raises(SettingsError, match=r"SHORTPICK_BATCH_SIZE is wrong: .*; SHORTPICK_LOG_LEVEL is wrong: "):
        load()


SPOILT = [f"://me:{spoilt}hunter2@host" for spoilt in ("#", "1#", "/", "1/", "?", "1?", "@", "[")] + ["//:hunter2@host"]
ADDRESS_KINDS = [("REDIS_URL", "redis"), ("REDIS_URL", "rediss"), ("BROKER_URL", "redis"), ("BROKER_URL", "amqp")]
ADDRESS_KINDS += [("DATABASE_URL", "postgresql"), ("DATABASE_URL", "mysql")]


@pytest.mark.parametrize(("name", "scheme"), ADDRESS_KINDS)
@pytest.mark.parametrize("rest", SPOILT)
def test_a_password_that_is_not_escaped_is_refused_and_not_quoted(
    name: str, scheme: str, rest: str, environment: Set
) -> None:
    environment(**{f"SHORTPICK_{name}": scheme + rest})
    with pytest.raises(SettingsError, match="write / as %2F") as told:
        load()
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    ("soft", "limit", "redeliver"), [(40, 40, 60), (41, 40, 60), (30, 60, 60), (30, 61, 60), (61, 62, 60)]
)
def test_a_batch_must_have_ended_before_it_is_dispatched_again(
    soft: int, limit: int, redeliver: int, environment: Set
) -> None:
    environment(
        SHORTPICK_TASK_SOFT_LIMIT_SECONDS=str(soft),
        SHORTPICK_TASK_LIMIT_SECONDS=str(limit),
        SHORTPICK_REDELIVER_AFTER_SECONDS=str(redeliver),
    )
    with pytest.raises(SettingsError) as told:
        load()
    for name in ("TASK_SOFT_LIMIT_SECONDS", "TASK_LIMIT_SECONDS", "REDELIVER_AFTER_SECONDS"):
        assert PREFIX + name in str(told.value)


def test_a_retry_cannot_come_later_than_a_redelivery(environment: Set) -> None:
    environment(SHORTPICK_RETRY_AFTER_SECONDS="61")
    with pytest.raises(SettingsError, match=r"SHORTPICK_RETRY_AFTER_SECONDS .*SHORTPICK_REDELIVER_AFTER_SECONDS"):
        load()
    environment(SHORTPICK_RETRY_AFTER_SECONDS="60")
    assert load().retry_after_seconds == 60


def test_what_has_waited_too_long_must_not_be_too_old_to_be_sent_again(environment: Set) -> None:
    environment(SHORTPICK_EVENTS_RETENTION_SECONDS="864000", SHORTPICK_WAITING_LIMIT_SECONDS="691201")
    with pytest.raises(SettingsError, match=r"SHORTPICK_EVENTS_RETENTION_SECONDS .*SHORTPICK_WAITING_LIMIT_SECONDS"):
        load()
    environment(SHORTPICK_EVENTS_RETENTION_SECONDS="864000", SHORTPICK_WAITING_LIMIT_SECONDS="691200")
    assert load().events_retention_seconds == 864000


def test_no_event_may_be_removed_that_workers_do_not_look_up(environment: Set) -> None:
    """Whatever is set now, or was set when events were removed: a day is left for a batch that has begun before."""
    environment(SHORTPICK_EVENTS_RETENTION_SECONDS="604800")
    settings = load()
    processor = bootstrap.processor(settings, bootstrap.engine(settings), bootstrap.redis(settings))
    assert processor.old_after <= bootstrap.retention(settings).events - timedelta(days=1)


def test_the_queue_and_the_cancellations_cannot_be_one_stream(environment: Set) -> None:
    environment(SHORTPICK_EVENTS_STREAM="orders", SHORTPICK_CANCELLED_STREAM="orders")
    with pytest.raises(SettingsError, match="SHORTPICK_CANCELLED_STREAM"):
        load()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@host:6380/1",
        "redis://me:a%40b%2F@host/",
        "rediss://host",
        "rediss://host/0?ssl_ca_certs=/ca.pem&ssl_certfile=/own.pem&ssl_keyfile=/own.key&ssl_cert_reqs=required",
    ],
)
def test_redis_addresses_of_every_kind_are_taken(url: str, environment: Set) -> None:
    environment(SHORTPICK_REDIS_URL=url)
    assert load().redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:password@host:5433/db?sslmode=require",
        "postgresql:///db?host=/run/postgresql",
        "postgresql+psycopg://host/db",
        "sqlite:///file.db",
    ],
)
def test_database_addresses_of_every_kind_are_taken(url: str, environment: Set) -> None:
    environment(SHORTPICK_DATABASE_URL=url)
    assert load().database_url == url
    bootstrap.engine(load()).dispose()


@pytest.mark.parametrize("url", ["amqp://guest@host//", "redis://host/1", "sentinel://host:26379", ""])
def test_brokers_of_every_kind_are_taken(url: str, environment: Set) -> None:
    environment(SHORTPICK_BROKER_URL=url)
    assert (load().broker_url or "") == url


def test_what_the_caller_gives_goes_before_the_environment(environment: Set) -> None:
    environment(SHORTPICK_BATCH_SIZE="7", SHORTPICK_GROUP="theirs")
    settings = load(batch_size=8)
    assert (settings.batch_size, settings.group) == (8, "theirs")


def test_a_file_named_env_is_not_read(environment: Set, tmp_path: Path) -> None:
    """The process manager reads it: a setting enters in one way only."""
    (tmp_path / ".env").write_text("SHORTPICK_BATCH_SIZE=7\n")
    environment()
    assert load().batch_size == 500


def test_settings_cannot_be_changed_afterwards(environment: Set) -> None:
    environment()
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.batch_size = 7


def test_the_client_never_decodes_never_retries_and_waits_a_limited_time(environment: Set) -> None:
    environment()
    client: Redis = bootstrap.redis(load())
    options = client.connection_pool.connection_kwargs
    assert options["decode_responses"] is False
    assert options["retry"]._retries == 0
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 5
    assert options["socket_keepalive"]
    client.close()


def example() -> list[tuple[str, str, bool]]:
    """The variables of .env.example with their values, and whether they are set or commented out."""
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    found = [re.fullmatch(r"(# )?(SHORTPICK_[A-Z_]+)=(.*)", line) for line in lines]
    return [(match[2], match[3], match[1] is None) for match in found if match]

"""The Celery side without a worker: which tasks there are, how messages look, and what producers' tasks do.

A worker with its processes is what the end-to-end tests start.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from tests.builders import placed, shortage, sku_shortage, to_bytes
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, free_port
from worker import app as app_module
from worker import bootstrap, settle, tasks
from worker.settings import DAY_SECONDS, Settings, variable
from worker.storage.tables import stored
from worker.streams import Queue

NAMES = {
    "shortpick.accept_events",
    "shortpick.decide_cancellations",
    "shortpick.release_due",
    "shortpick.prune",
    "shortpick.cut_sku_shortage",
}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What the tasks do to a database is tested on both elsewhere."""
    return sqlite_url


@pytest.fixture
def configured(settings: Settings) -> dict[str, Any]:
    """The app's configuration, as its processes see it."""
    configuration: dict[str, Any] = app_module.configure(settings).conf
    return configuration


@pytest.fixture
def connected(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of a worker process, with no connections yet."""
    for name in settings.model_fields_set:
        monkeypatch.setenv(variable(name), str(getattr(settings, name)))
    monkeypatch.setattr(app_module, "_connections", None)
    yield
    if app_module._connections is not None:
        app_module._connections.close()


def test_the_tasks_are_those_of_the_design_and_no_others() -> None:
    assert {name for name in app_module.app.tasks if not name.startswith("celery.")} == NAMES


def test_only_the_task_that_holds_the_only_copy_is_acknowledged_late() -> None:
    late = {name for name in NAMES if app_module.app.tasks[name].acks_late}
    again = {name for name in NAMES if app_module.app.tasks[name].reject_on_worker_lost}
    assert late == again == {"shortpick.accept_events"}


SETTINGS = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "result_backend": None,
    "task_acks_late": False,
    "worker_prefetch_multiplier": 1,
    "worker_hijack_root_logger": False,
    "task_publish_retry": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    "task_queue_max_priority": None,
    "task_soft_time_limit": 1,
    "task_time_limit": 1.5,
    "worker_max_tasks_per_child": 5000,
    "enable_utc": True,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_app_is_set_as_documented(name: str) -> None:
    settings = Settings(
        redis_url="redis://127.0.0.1/0",
        database_url="sqlite:////file.db",
        redeliver_after_seconds=2,
        task_limit_seconds=1.5,
        task_soft_limit_seconds=1,
        retry_after_seconds=1,
    )
    assert app_module.configure(settings).conf[name] == SETTINGS[name]


def test_the_broker_does_not_wait_for_ever(configured: dict[str, Any], settings: Settings) -> None:
    options = configured["broker_transport_options"]
    assert options["socket_timeout"] == options["socket_connect_timeout"] == settings.redis_timeout_seconds
    assert options["health_check_interval"] == 25
    assert options["socket_keepalive"]


def test_a_batch_has_ended_before_it_is_dispatched_again(configured: dict[str, Any], settings: Settings) -> None:
    soft, hard = configured["task_soft_time_limit"], configured["task_time_limit"]
    assert 0 < soft < hard < settings.redeliver_after_seconds


def test_redis_is_the_broker_unless_another_is_named(configured: dict[str, Any], settings: Settings) -> None:
    assert configured["broker_url"] == settings.redis_url
    other = settings.model_copy(update={"broker_url": "amqp://host//"})
    assert app_module.configure(other).conf["broker_url"] == "amqp://host//"
    app_module.configure(settings)


def test_what_runs_by_the_clock_runs_as_often_as_set_and_does_not_pile_up(
    configured: dict[str, Any], settings: Settings
) -> None:
    schedule = {entry["task"]: entry for entry in configured["beat_schedule"].values()}
    assert {name: entry["schedule"] for name, entry in schedule.items()} == {
        "shortpick.release_due": settings.release_due_every_seconds,
        "shortpick.prune": settings.prune_every_seconds,
    }
    assert all(0 < entry["options"]["expires"] <= 24 * 3600 for entry in schedule.values())


def test_what_runs_by_the_clock_runs_though_the_worker_is_behind_or_its_clock_an_hour_ahead(
    configured: dict[str, Any],
) -> None:
    """Its message carries a time of beat's clock, and is dropped after it on the worker's."""
    assert all(entry["options"]["expires"] >= 2 * 3600 for entry in configured["beat_schedule"].values())


@pytest.mark.usefixtures("connected")
def test_one_accepted_event_is_put_on_the_queue(queue: Queue) -> None:
    event = placed("o1", a=("SÄ\U0001f600", 2))
    tasks.accept_events(event)
    assert [json.loads(entry.raw) for entry in queue.read(10, 100)] == [event]


@pytest.mark.usefixtures("connected")
def test_a_list_of_accepted_events_is_put_on_the_queue_in_order(queue: Queue) -> None:
    events = [placed("o1", a=("SA", 2)), shortage("o1", a=1), {"not": "an event"}]
    tasks.accept_events(events)
    assert [json.loads(entry.raw) for entry in queue.read(10, 100)] == events


@pytest.mark.usefixtures("connected")
def test_an_empty_list_puts_nothing_on_the_queue(queue: Queue) -> None:
    tasks.accept_events([])
    assert not queue.has_unread()


@pytest.mark.usefixtures("connected")
def test_the_tasks_do_what_their_names_say(queue: Queue, engine: Engine, redis: Redis) -> None:
    tasks.accept_events([placed("o1", a=("SA", 2)), shortage("o1", a=1), shortage("o2", a=1)])
    tasks.decide_cancellations([entry.entry_id for entry in queue.read(10, 100)])
    assert queue.pending() == 0
    with engine.begin() as connection:
        assert connection.execute(text("SELECT operation FROM cancellations")).scalars().all() == [
            "cancelItemPartially"
        ]
        connection.execute(text("UPDATE waiting_events SET until = '2020-01-01T00:00:00.000000+00:00'"))
    tasks.release_due()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT code FROM dead_letters")).scalars().all() == ["waited_too_long"]
    tasks.prune()
    assert redis.xlen(queue.stream) == 3  # they are younger than the retention


@pytest.mark.usefixtures("connected")
def test_what_is_older_than_its_retention_is_pruned(
    settings: Settings, queue: Queue, engine: Engine, redis: Redis
) -> None:
    tasks.accept_events([placed("o1", a=("SA", 2)), shortage("o1", a=1), {"not": "an event"}])
    tasks.decide_cancellations([entry.entry_id for entry in queue.read(10, 100)])
    assert bootstrap.relay(settings, engine, redis).run_once() == 1
    for seconds, left in ((-DAY_SECONDS, (2, 1, 1)), (DAY_SECONDS, (1, 0, 0))):
        now = datetime.now(UTC)
        ages = {
            "events SET decided_at": settings.events_retention_seconds,
            "dead_letters SET created_at": settings.dead_letters_retention_seconds,
            "cancellations SET cancelled_at": settings.cancelled_retention_seconds,
        }
        with engine.begin() as connection:
            for what, retention in ages.items():
                at = stored(now - timedelta(seconds=retention + seconds))
                connection.execute(text(f"UPDATE {what} = :at"), {"at": at})
        tasks.prune()
        with engine.connect() as connection:
            counts = [
                connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
                for name in ("events", "dead_letters")
            ]
        assert (*counts, redis.xlen("order.cancelled")) == left
    assert redis.xlen(queue.stream) == 3  # and so nothing of it may be read again without being recognised


@pytest.mark.usefixtures("connected")
def test_a_task_without_memory_fails_and_does_not_end_the_worker(
    queue: Queue, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery ends the whole worker if a task fails with a MemoryError."""

    def take_all(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(settle, "decide", take_all)
    queue.add([to_bytes(placed("o1", a=("SA", 2)))])
    with pytest.raises(app_module.OutOfMemory):
        tasks.decide_cancellations([entry.entry_id for entry in queue.read(1, 100)])
    assert queue.pending() == 1
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM orders")).scalar_one() == 0


@pytest.mark.usefixtures("connected")
def test_an_entry_that_was_started_too_often_is_given_up(queue: Queue, engine: Engine) -> None:
    queue.add([to_bytes(placed("o1", a=("SA", 2)))])
    tasks.decide_cancellations([entry.entry_id for entry in queue.read(1, 100)], starts=6)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT code FROM dead_letters")).scalars().all() == ["worker_lost"]


def test_a_dispatched_batch_is_one_json_message_with_its_entries(settings: Settings, redis: Redis) -> None:
    done = in_process(settings, "tasks.dispatch(Batch(['1-0', '2-0'], 3))")
    assert done.returncode == 0, done.stderr
    raw: Any = redis.lrange("shortpick", 0, -1)
    (message,) = map(json.loads, raw)
    assert message["headers"]["task"] == "shortpick.decide_cancellations"
    assert message["content-type"] == "application/json"
    assert message["headers"]["ignore_result"]
    assert (message["headers"]["eta"], message["headers"]["expires"]) == (None, None)
    arguments, _, _ = json.loads(decoded(message))
    assert arguments == [["1-0", "2-0"], 3]


def runs(redis: Redis) -> list[Any]:
    """The runs that Celery was asked for, the first one first: the SKUs, and whether it goes on."""
    raw: Any = redis.lrange("shortpick", 0, -1)
    found = [json.loads(one) for one in reversed(raw)]
    assert {one["headers"]["task"] for one in found} <= {"shortpick.cut_sku_shortage"}
    return [json.loads(decoded(one))[0] for one in found]


def seeded(queue: Queue, orders: int) -> None:
    """Orders that want three SKUs, of which there is nothing."""
    skus = ("SA", "SB", "SC")
    wanting = [placed(f"o{n}", a=("SA", 2), b=("SB", 2), c=("SC", 2)) for n in range(orders)]
    queue.add([to_bytes(one) for one in [*wanting, *(sku_shortage(sku, 0) for sku in skus)]])


def test_a_shortage_of_a_sku_is_handed_on_and_carried_out_a_moment_at_a_time(
    settings: Settings, queue: Queue, redis: Redis, engine: Engine
) -> None:
    seeded(queue, 8)
    read = "[entry.entry_id for entry in connections().processor.queue.read(100, 100)]"
    done = in_process(settings, f"tasks.decide_cancellations({read})")
    assert done.returncode == 0, done.stderr
    assert runs(redis) == [[["SA", "SB", "SC"], False]]
    redis.delete("shortpick")
    small = settings.model_copy(update={"batch_size": 3})
    done = in_process(small, "tasks.shortages.run.__defaults__ = (0.0,)\ntasks.cut_sku_shortage(['SA', 'SB', 'SC'])")
    assert done.returncode == 0, done.stderr
    # The one that takes long goes on by itself, and does not hold up the others.
    assert runs(redis) == [[["SA"], True], [["SB", "SC"], False]]
    redis.delete("shortpick")
    # A second message for a run that moves leaves it alone; its own carries it on.
    assert in_process(small, "tasks.cut_sku_shortage(['SA'])").returncode == 0
    assert open_units(engine, "SA") == 10
    calls = ("tasks.shortages.run.__defaults__ = (60.0,)", "tasks.cut_sku_shortage(['SA'], True)")
    done = in_process(settings, "\n".join([*calls, "tasks.cut_sku_shortage(['SB', 'SC'])"]))
    assert done.returncode == 0, done.stderr
    assert runs(redis) == []
    assert open_units(engine, "SA") == open_units(engine, "SB") == open_units(engine, "SC") == 0


def open_units(engine: Engine, sku: str) -> int:
    with engine.connect() as connection:
        statement = text("SELECT sum(open_quantity) FROM order_items WHERE sku = :sku")
        return int(connection.execute(statement, {"sku": sku}).scalar_one())


def test_a_shortage_whose_message_was_lost_is_started_by_the_clock(
    settings: Settings, queue: Queue, redis: Redis
) -> None:
    seeded(queue, 2)
    read = "[entry.entry_id for entry in connections().processor.queue.read(100, 100)]"
    assert in_process(settings, f"tasks.decide_cancellations({read})").returncode == 0
    redis.delete("shortpick")
    done = in_process(settings, "tasks.SKUS_A_MESSAGE = 2\ntasks.release_due()")
    assert done.returncode == 0, done.stderr
    assert runs(redis) == [[["SA", "SB"], False], [["SC"], False]]


def test_a_shortage_is_recorded_also_while_the_broker_is_away(settings: Settings, queue: Queue, engine: Engine) -> None:
    seeded(queue, 2)
    away = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    read = "[entry.entry_id for entry in connections().processor.queue.read(100, 100)]"
    done = in_process(away, f"tasks.decide_cancellations({read})")
    assert done.returncode == 0, done.stderr
    assert "shortage.not_started" in done.stdout
    assert queue.pending() == 0
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM allocations")).scalar_one() == 3


def test_a_broker_that_is_away_is_a_failed_dispatch(settings: Settings) -> None:
    away = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    done = in_process(away, "tasks.dispatch(Batch(['1-0']))")
    assert done.returncode == 1
    assert "worker.ingress.DispatchFailed" in done.stderr


def test_a_dispatch_whose_answer_was_lost_has_failed_and_the_next_one_succeeds(
    settings: Settings, redis_url: str, redis: Redis
) -> None:
    with Proxy(urlsplit(redis_url).port or 0) as proxy:
        proxied = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{proxy.port}/0"})
        proxy.lose_reply(b"SADD")  # the queue is declared by the first message
        twice = """
from worker.ingress import DispatchFailed
try:
    tasks.dispatch(Batch(['1-0']))
except DispatchFailed:
    tasks.dispatch(Batch(['1-0']))
"""
        done = in_process(proxied, twice)
        assert done.returncode == 0, done.stderr
        assert proxy.met == {b"SADD": 1}
    assert redis.llen("shortpick") == 1


def test_what_is_handed_to_celery_while_the_queue_is_away_arrives_when_it_is_back(
    settings: Settings, redis_url: str, tmp_path: Path
) -> None:
    """Its message is the only copy: broker and queue may be two servers, and a failed task must not drop it. Nor is
    what the task refuses lost."""
    with RedisServer(tmp_path) as server:
        apart = settings.model_copy(update={"redis_url": server.url, "broker_url": redis_url})
        server.stop()
        log = tmp_path / "worker.log"
        with running("worker", apart, log):
            send = "tasks.accept_events.apply_async(({'id': 'the only copy'},))"
            send_too_many = "tasks.accept_events.apply_async(([{'id': 'one of too many'}] * 1001,))"
            done = in_process(apart, f"{send}\n{send_too_many}")
            assert done.returncode == 0, done.stderr
            wait_for(lambda: "ConnectionError" in log.read_text() and "message.not_kept" in log.read_text(), 30)
            server.start()
            with Redis.from_url(server.url) as client:
                assert wait_for(lambda: client.xlen("order.events") == 2, 30), log.read_text()[-2000:]


def test_an_outage_ends_each_task_with_a_line(settings: Settings) -> None:
    """And not with an exception: its long trace could stop the worker's parent, which has lost Redis too."""
    nowhere = f"127.0.0.1:{free_port()}"
    away = settings.model_copy(
        update={"redis_url": f"redis://{nowhere}/0", "database_url": f"postgresql://a:b@{nowhere}/c"}
    )
    calls = ["decide_cancellations(['1-0'])", "cut_sku_shortage(['A', 'B'])", "release_due()", "prune()"]
    done = in_process(away, "\n".join(f"tasks.{call}" for call in calls))
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if "task.unavailable" in line]
    assert [name for name in ("decide_cancellations", "release_due", "prune") if name in "".join(told)] == [
        "decide_cancellations",
        "release_due",
        "prune",
    ]
    assert "shortage.failed" in done.stdout


def test_a_worker_whose_acknowledgements_failed_goes_on(
    settings: Settings, redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    with Proxy(urlsplit(redis_url).port or 0) as proxy:
        proxied = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{proxy.port}/0"})
        proxy.lose_reply(b"ZREM", times=2)  # as many as the worker has children
        log = tmp_path / "worker.log"
        with running("worker", proxied, log):
            done = in_process(settings, "for n in range(3): tasks.accept_events.apply_async(({'id': n},))")
            assert done.returncode == 0, done.stderr
            assert wait_for(lambda: redis.xlen("order.events") >= 3, 30), log.read_text()[-2000:]
        assert proxy.met[b"ZREM"] == 2


def test_a_worker_that_failed_ends_as_failed(settings: Settings) -> None:
    """So that a supervisor starts it again."""
    script = """if True:
        import sys
        from celery.signals import worker_ready
        from worker.cli.main import run

        @worker_ready.connect
        def fail(sender, **_):
            sender.hub.call_soon(lambda: 1 / 0)

        sys.argv = ["shortpick", "worker"]
        run()
    """
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(settings), capture_output=True, text=True, timeout=60, check=False)
    assert "ZeroDivisionError" in done.stderr
    assert done.returncode == 1


def test_beat_can_be_stopped_while_it_waits_for_the_broker(settings: Settings, tmp_path: Path) -> None:
    away = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    log = tmp_path / "beat.log"
    with running("beat", away, log) as beat:
        assert wait_for(lambda: "beat.unavailable" in log.read_text(), 30)
        beat.terminate()
        assert beat.wait(10) == 0


def test_beat_can_be_stopped_while_it_starts(settings: Settings) -> None:
    """SIGTERM comes while its scheduler is being made, in the midst of a module that the scheduler needs."""
    script = """if True:
        import os, signal, sys
        from worker.cli.main import run

        def interrupt(frame, *_):
            if frame.f_globals.get("__name__") == "celery.backends.base":
                sys.settrace(None)
                os.kill(os.getpid(), signal.SIGTERM)

        sys.settrace(interrupt)
        sys.argv = ["shortpick", "beat"]
        run()
    """
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(settings), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "beat: Shutting down..." in done.stderr


def test_nothing_connects_when_the_tasks_are_imported() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHORTPICK_")}
    command = [sys.executable, "-c", "import worker.tasks, worker.app; assert worker.app._connections is None"]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def decoded(message: dict[str, Any]) -> bytes:
    """A message's body, from how Celery's Redis transport wraps it."""
    return base64.b64decode(message["body"])


def environment(settings: Settings) -> dict[str, str]:
    chosen = {name: getattr(settings, name) for name in (*settings.model_fields_set, "broker_url")}
    return {**os.environ, **{variable(name): str(value) for name, value in chosen.items() if value is not None}}


def in_process(settings: Settings, statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement in a process of its own, since an app keeps its connections to the broker."""
    script = f"""
from worker import tasks
from worker.app import configure, connections
from worker.settings import load
from worker.streams import Batch
configure(load())
{statement}
"""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment(settings), capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def running(name: str, settings: Settings, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of the pipeline, which is stopped in the end."""
    with log.open("wb") as output:
        command = [sys.executable, "-m", "worker.cli", name]
        process = subprocess.Popen(command, env=environment(settings), stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()

"""The Celery app, and what happens when its processes start. Celery spreads the work; what is still to do, the stream
says: a message that is lost, repeated or late does no harm, so it is acknowledged early and has no result."""

import gc
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog
from billiard import pool
from celery import Celery, Task
from celery.beat import Scheduler, Service
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown, worker_ready
from celery.worker import state
from kombu.exceptions import OperationalError
from kombu.transport import virtual
from redis import Redis
from sqlalchemy import Engine

from worker import bootstrap, logs
from worker.process import Processor
from worker.settings import Settings, load

log = structlog.get_logger(__name__)

RETRY_SECONDS = 0.2
"""After which a message goes back that could not be put on the queue of events."""
EXPIRES_SECONDS = 2 * 3600.0

MOST_LOOKS_AT_PARENT = 30
"""How often a child that ends looks, ten times a second, whether its parent has heard of all that it did. A parent that
stops may never hear of what the child had just begun, and the child then waited for half a minute (seen). What it did
is told by the stream and the database, so nothing is lost on the way."""


class OutOfMemory(Exception):
    """There was not enough memory for a task; nothing of it was applied."""


class ContainedTask(Task):
    """A task that runs out of memory fails alone: on a MemoryError Celery would end the whole worker (seen), and every
    task that its other processes are at."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        try:
            return self.run(*arguments, **named)
        except MemoryError:
            log.error("task.out_of_memory", task=self.name)
        # Raised out here, where what the task had taken is free again.
        raise OutOfMemory(f"there was not enough memory for {self.name}")


app = Celery("shortpick", include=["worker.tasks"], task_cls=ContainedTask)


class Connections:
    """The engine and clients of one worker process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine: Engine = bootstrap.engine(settings)
        self.redis: Redis = bootstrap.redis(settings)
        self.processor: Processor = replace(
            bootstrap.processor(settings, self.engine, self.redis), start_runs=start_runs
        )

    def close(self) -> None:
        self.engine.dispose()
        self.redis.close()


_connections: Connections | None = None


def connections() -> Connections:
    """This process's connections, made when they are first needed."""
    global _connections
    if _connections is None:
        _connections = Connections(load())
    return _connections


def start_runs(skus: Sequence[str], *, going_on: bool = False) -> None:
    """Ask that the shortages of SKUs be carried out. If it cannot be asked for now, the clock will do it."""
    if not skus:
        return
    try:
        app.send_task("shortpick.cut_sku_shortage", (list(skus), going_on), ignore_result=True)
    except OperationalError as error:
        log.warning("shortage.not_started", skus=len(skus), detail=str(error))


def configure(settings: Settings) -> Celery:
    """Give the app its settings; docs/operators.md tells the reasons."""
    timeout = settings.redis_timeout_seconds
    app.conf.update(
        broker_url=_broker(settings),
        broker_use_ssl=_checks(_broker(settings)),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_default_queue="shortpick",
        worker_prefetch_multiplier=1,  # a message is a batch
        worker_max_tasks_per_child=settings.worker_max_tasks_per_child,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        task_soft_time_limit=settings.task_soft_limit_seconds,
        task_time_limit=settings.task_limit_seconds,
        # A message that could not be sent is sent again by who waits for it. To retry by itself, Celery closes the
        # channel, and may then go on with the closed one (seen: an AttributeError).
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # Redis that takes no writes, since its disk is full, say
        broker_transport_options={
            "max_retries": 0,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        beat_schedule={
            "release-due": _every(settings.release_due_every_seconds, "shortpick.release_due"),
            "prune": _every(settings.prune_every_seconds, "shortpick.prune"),
        },
    )
    return app


def _broker(settings: Settings) -> str:
    return settings.broker_url or settings.redis_url


def _checks(url: str) -> dict[str, Any] | None:
    """What Celery must be told so that it checks who answers: of itself it takes any certificate from Redis, and from
    RabbitMQ that of any host."""
    match url.partition("://")[0]:
        case "rediss":
            return {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        case "amqps":
            return {"server_hostname": None}  # that of the address
        case _:
            return None


def broker_trouble(settings: Settings) -> str | None:
    """Why the broker cannot be connected to; None if it can."""
    seconds = settings.redis_timeout_seconds
    options = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    url = _broker(settings)
    try:
        with app.connection(url, ssl=_checks(url), connect_timeout=seconds, transport_options=options) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=seconds)
    except (OperationalError, ValueError) as error:  # a ValueError: the address lacks something
        return str(error)
    return None


def _every(seconds: float, task: str) -> dict[str, Any]:
    """A beat entry; its message expires, so that not too many pile up while no worker runs. Not soon: the worker may be
    behind with its work, and its clock ahead of beat's (seen: nothing that runs by the clock ran any more)."""
    return {"task": task, "schedule": seconds, "options": {"expires": max(seconds, EXPIRES_SECONDS)}}


@setup_logging.connect
def _log_as_we_do(**_: Any) -> None:
    """Celery leaves its loggers to us; `shortpick worker` and `shortpick beat` have set them up already."""


@worker_ready.connect
def _watch(sender: Any, **_: Any) -> None:
    """Once a second, look for two ways in which a worker may seem alive and do nothing (both seen)."""
    sender.timer.call_repeatedly(1.0, _keep_working, (sender,))


def _keep_working(consumer: Any) -> None:
    """Replace children that died before Celery's event loop had begun to watch them. Connect again where messages could
    not be acknowledged: they count as being worked on for ever, and with as many of them as there are children, Celery
    asks for no more messages, and so never notices that it has lost the broker."""
    consumer.pool._pool.maintain_pool()
    channel = consumer.task_consumer.channel if consumer.task_consumer else None
    # Then Celery gives back what it has not begun. (An exit code of 0 equals False, but is not it.)
    is_stopping = state.should_stop is not None and state.should_stop is not False
    if is_stopping or not isinstance(channel, virtual.Channel) or state.reserved_requests:
        return
    if channel.qos.can_consume_max_estimate() < channel.qos.prefetch_count:
        raise ConnectionError("messages could not be acknowledged")  # it is caught, and Celery connects again


@worker_process_init.connect
def _start_process(**_: Any) -> None:
    global _connections
    _connections = Connections(load())
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = MOST_LOOKS_AT_PARENT
    # A batch makes tens of thousands of objects, and no cycles: to look for those so often took an eighth of its time.
    gc.freeze()
    gc.set_threshold(100_000)


@worker_process_shutdown.connect
def _end_process(**_: Any) -> None:
    if _connections is not None:
        _connections.close()


class Beat(Service):
    """Celery beat, to be started and stopped. It looks up once a second at least, so that `stop` takes no longer; the
    command's own way to end raises from a signal handler, and may be swallowed while a message is sent (seen)."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app, max_interval=1.0, scheduler_cls=_Scheduler)

    def stop(self, wait: bool = False) -> None:
        # Told to the class: a signal may come while the scheduler is being made, and to ask for it here made another in
        # the midst of the first one's imports (seen: an AttributeError).
        _Scheduler.stopping = True
        super().stop(wait)


class _Scheduler(Scheduler):
    """Can be stopped also while it waits for the broker when it starts."""

    stopping = False

    def _ensure_connected(self) -> Any:
        return self.connection.ensure_connection(self._complain, callback=self._stop_if_asked)  # once a second

    def _complain(self, error: Exception, seconds: float) -> None:
        log.warning("beat.unavailable", error=type(error).__name__, detail=str(error), next_try_in_seconds=seconds)

    def _stop_if_asked(self) -> None:
        if self.stopping:
            raise SystemExit


def log_to_stderr(settings: Settings, process: str) -> None:
    logs.setup(settings.log_level, settings.log_format, process)

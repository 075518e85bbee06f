"""What comes by Celery, looked at before Celery acts on it.

A message that Celery's own consumer cannot handle ends the worker, which puts it back, so that the next one ends too;
and what it refuses it logs in full (both seen, with Celery 5.7). Here it is refused with a line that tells none of it.
If it was to bring events, it is put on the queue of events as it is: there it becomes a dead letter, and nothing is
lost.
"""

import time
from typing import Any

import structlog
from celery.apps.worker import Worker
from celery.exceptions import CeleryError
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import compression
from kombu.exceptions import KombuError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as broker
from redis.exceptions import RedisError

from worker import bootstrap
from worker.app import RETRY_SECONDS, configure, connections
from worker.effects import FAULTS
from worker.settings import Settings

log = structlog.get_logger(__name__)

ACCEPT_EVENTS = "shortpick.accept_events"
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_EVENTS = 1000
MAX_DEPTH = 64
HEADERS = ("task", "id", "eta", "expires")
"""What is kept of a message's headers: others could set aside the limits of time, or tell of its content in a log."""

UNREADABLE = (KombuError, CeleryError, *FAULTS)


def worker_service(settings: Settings) -> Worker:
    """Celery's worker, to be started; afterwards it tells its `exitcode`."""
    for kind in compression.encoders():
        compression.register(_no_compression, _no_compression, kind)
    TRANSPORT_ALIASES.update(
        redis=f"{__name__}:Transport", rediss=f"{__name__}:Transport", sentinel=f"{__name__}:SentinelTransport"
    )
    return configure(settings).Worker(
        consumer_cls=Consumer,
        concurrency=settings.worker_concurrency,
        loglevel=settings.log_level,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )


class Refused(Exception):
    """No task of ours can take a message; says why, and nothing of what it holds."""


class Consumer(CeleryConsumer):
    """Celery's, but no message ends it, and none is logged."""

    def create_task_handler(self, *arguments: Any) -> Any:
        handle = super().create_task_handler(*arguments)

        def handle_checked(message: Any) -> None:
            try:
                self._check(message)
                handle(message)
            except (Refused, *UNREADABLE) as error:
                self._refuse(message, error)

        return handle_checked

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._refuse(message, Refused("it is no message of a Celery task"))

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._refuse(message, Refused("there is no such task"))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._refuse(message, exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._refuse(message, exc)

    def _check(self, message: Any) -> None:
        """Raises `Refused` or one of `UNREADABLE`. The size is looked at before the content is parsed; what is nested
        too deeply for the parser fails there."""
        name = message.headers["task"]
        if name not in self.app.tasks or name.startswith("celery."):
            raise Refused("there is no such task")
        if len(message.body) > MAX_MESSAGE_BYTES:
            raise Refused(f"it is larger than {MAX_MESSAGE_BYTES} bytes")
        arguments, named, more = message.payload
        if any(more.values()):
            raise Refused("it asks for more than its task: a callback, a chain or a chord")
        if _deep([message.payload, message.properties]):
            raise Refused(f"it is nested deeper than {MAX_DEPTH}")
        self.app.tasks[name].__header__(*arguments, **named)
        if name == ACCEPT_EVENTS:
            _check_events(message.body, *arguments, **named)
        message.headers = {header: message.headers.get(header) for header in HEADERS}

    def _refuse(self, message: Any, error: Exception) -> None:
        name = message.headers.get("task")
        if name == ACCEPT_EVENTS and not self._kept(message):
            return
        if not message.acknowledged:
            message.ack()
        why = str(error) if isinstance(error, Refused) else f"it cannot be read ({type(error).__name__})"
        task = name if isinstance(name, str) else None
        log.error("message.refused", task=task, bytes=len(message.body or ""), why=why)

    def _kept(self, message: Any) -> bool:
        """Whether what was to be accepted is on the queue of events; else the message goes back, to be tried again."""
        raw = message.body if isinstance(message.body, bytes) else str(message.body).encode(errors="backslashreplace")
        own = connections()
        try:
            bootstrap.queue(own.settings, own.redis).add([raw])
        except RedisError as error:
            log.warning("message.not_kept", error=type(error).__name__, detail=str(error))
            time.sleep(RETRY_SECONDS)
            message.requeue()
            return False
        return True


def _check_events(body: bytes | str, events: Any) -> None:
    if isinstance(events, list) and len(events) > MAX_EVENTS:
        raise Refused(f"it brings more than {MAX_EVENTS} events")
    if "__type__" in (body if isinstance(body, str) else body.decode()):
        raise Refused("it holds what is not JSON: __type__ stands for a value of another kind")


def _deep(value: Any) -> bool:
    """Whether lists and dictionaries are nested deeper than allowed. (To walk them by recursion might not survive.)"""
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = (one.values() if isinstance(one, dict) else one for one in level)
        level = [part for parts in inside for part in parts if isinstance(part, list | tuple | dict)]
        if not level:
            return False
    return True


class _Careful:
    """A channel that drops what is on the list and is no message at all, and goes on."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # the other base has it
        except FAULTS as error:
            log.error("message.refused", task=None, why=f"it is no message ({type(error).__name__})")
            return True


class Channel(_Careful, broker.Channel):
    pass


class Transport(broker.Transport):
    Channel = Channel


class SentinelChannel(_Careful, broker.SentinelChannel):
    pass


class SentinelTransport(broker.SentinelTransport):
    Channel = SentinelChannel


def _no_compression(_: bytes) -> bytes:
    raise Refused("it is compressed")  # a few bytes may stand for gigabytes

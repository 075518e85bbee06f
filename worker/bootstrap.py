"""The one place where settings become engines and clients. Call it after a fork: connections must not be shared."""

from datetime import timedelta

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine

from domain.policy import Breaker, Limits, Policy, Preflight, Protected
from worker.process import Processor
from worker.relay import Relay
from worker.settings import DAY_SECONDS, SHORTEST_EVENTS_RETENTION_SECONDS, Settings
from worker.storage import database
from worker.streams import Outbox, Queue
from worker.upkeep import Retention

MAX_ORDERS_A_CHUNK = 250
"""They are locked while they are decided; so many take about a tenth of a second."""


def engine(settings: Settings, connect_seconds: int | None = None) -> Engine:
    return database.create(settings.database_url, connect_seconds=connect_seconds or database.CONNECT_SECONDS)


def redis(settings: Settings) -> Redis:
    """A client that never decodes (one bad byte would fail a whole read) and never retries (an append is not
    idempotent); its timeout is longer than any blocking read."""
    return Redis.from_url(
        settings.redis_url,
        decode_responses=False,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
        socket_keepalive=True,
        health_check_interval=25,
    )


def queue(settings: Settings, client: Redis) -> Queue:
    return Queue(client, settings.events_stream, settings.group)


def outbox(settings: Settings, client: Redis) -> Outbox:
    return Outbox(client, settings.cancelled_stream)


def policy(settings: Settings) -> Policy:
    return Policy(
        ship_complete=settings.ship_complete,
        strategy=settings.allocation,
        order_grace=timedelta(seconds=settings.order_shortage_grace_seconds),
        sku_grace=timedelta(seconds=settings.sku_shortage_grace_seconds),
        protected=Protected(_names(settings.protected_orders), _names(settings.protected_partners)),
        preflight=Preflight(
            limits=Limits(settings.preflight_orders, settings.preflight_units),
            share=settings.preflight_share,
            share_from_orders=settings.preflight_share_from_orders,
        ),
        breaker=Breaker(
            window=timedelta(seconds=settings.breaker_window_seconds),
            everything=Limits(settings.breaker_orders, settings.breaker_units),
            each_source=Limits(settings.breaker_source_orders, settings.breaker_source_units),
            each_sku=Limits(settings.breaker_sku_orders, settings.breaker_sku_units),
        ),
        hold="shadow" if settings.shadow else None,
    )


def _names(listed: str) -> frozenset[str]:
    """Names that are separated by commas."""
    return frozenset(name.strip() for name in listed.split(",")) if listed else frozenset()


def processor(settings: Settings, engine: Engine, client: Redis) -> Processor:
    return Processor(
        engine=engine,
        queue=queue(settings, client),
        outbox=outbox(settings, client),
        policy=policy(settings),
        waiting_limit=timedelta(seconds=settings.waiting_limit_seconds),
        max_lone_starts=settings.max_lone_starts,
        orders_a_chunk=min(settings.batch_size, MAX_ORDERS_A_CHUNK),
        # A day less: a batch may have begun before the removal of what it looks up.
        old_after=timedelta(seconds=SHORTEST_EVENTS_RETENTION_SECONDS - DAY_SECONDS),
        retry_idle_milliseconds=milliseconds(settings.redeliver_after_seconds - settings.retry_after_seconds),
    )


def relay(settings: Settings, engine: Engine, client: Redis) -> Relay:
    return Relay(engine, outbox(settings, client))


def retention(settings: Settings) -> Retention:
    return Retention(
        queue=timedelta(seconds=settings.queue_retention_seconds),
        events=timedelta(seconds=settings.events_retention_seconds),
        dead_letters=timedelta(seconds=settings.dead_letters_retention_seconds),
        cancelled=timedelta(seconds=settings.cancelled_retention_seconds),
        counts=2 * timedelta(seconds=settings.breaker_window_seconds),
    )


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)

"""Settings: read from the environment once, typed, with units in their names."""

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SHORTPICK_"

DAY_SECONDS = 24 * 3600
SHORTEST_EVENTS_RETENTION_SECONDS = 7 * DAY_SECONDS
"""Workers rely on it, whatever is set: no event is ever removed whose time does not lie so far back."""
LONGEST_SECONDS = 10 * 365 * DAY_SECONDS


class SettingsError(Exception):
    """A setting is missing or wrong; the message names its variable."""


REDIS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
"""What our own client and Celery's both understand."""
_ESCAPES = "; in a user name or password write / as %2F, # as %23, ? as %3F, @ as %40"


def _redis(url: str) -> str:
    if not _redis_address(url):
        raise ValueError(
            f"must be a Redis address, as in redis://127.0.0.1:6379/0; rediss:// may have {', '.join(REDIS_OPTIONS)}"
            + _ESCAPES
        )
    return url


def _redis_address(url: str) -> bool:
    parts = _address(url, "redis", "rediss")
    if parts is None or not parts.hostname or not re.fullmatch(r"/?\d*", parts.path):
        return False
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    return options.keys() <= set(REDIS_OPTIONS if parts.scheme == "rediss" else ()) and (
        options.get("ssl_cert_reqs", "required") in ("required", "none")
    )


def _broker(url: str) -> str | None:
    if url and not (_redis_address(url) or _address(url, "sentinel", "amqp", "amqps")):
        raise ValueError("must be a Redis or RabbitMQ address, as in amqp://user:password@host/virtualhost" + _ESCAPES)
    return url or None


def _names(listed: str) -> str:
    if listed and not all(name.strip() for name in listed.split(",")):
        raise ValueError("must be names separated by single commas, as in northwind,contoso")
    return listed


def _database(url: str) -> str:
    if not (_address(url, "postgresql", "postgresql+psycopg") or url.startswith("sqlite:///")):
        raise ValueError("must be postgresql://user:password@host/database, or sqlite:////folder/file.db" + _ESCAPES)
    return url


def _address(url: str, *schemes: str) -> SplitResult | None:
    """The parts of `url`, if it is well formed and of one of the schemes. What a password spoils that is not escaped
    would go on as a host or a database, and be told in errors."""
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:  # a port that is none
        return None
    misplaced = parts.netloc.count("@") > 1 or "@" in parts.path + parts.query or parts.fragment
    return parts if parts.scheme in schemes and port_is_one and not misplaced else None


Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]
EventsRetentionSeconds = Annotated[
    float, Field(ge=SHORTEST_EVENTS_RETENTION_SECONDS, le=LONGEST_SECONDS, allow_inf_nan=False)
]
GraceSeconds = Annotated[float, Field(ge=0, le=30 * DAY_SECONDS, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Every setting of every process. `.env.example` explains them one by one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    redis_url: Annotated[str, AfterValidator(_redis)]
    database_url: Annotated[str, AfterValidator(_database)]
    broker_url: Annotated[str, AfterValidator(_broker)] | None = None

    events_stream: str = Field(default="order.events", min_length=1)
    cancelled_stream: str = Field(default="order.cancelled", min_length=1)
    group: str = Field(default="shortpick", min_length=1)

    batch_size: int = Field(default=500, ge=1, le=5000)
    batch_bytes: int = Field(default=1024 * 1024, ge=64 * 1024, le=16 * 1024 * 1024)
    max_pending: int = Field(default=4000, ge=1)
    worker_concurrency: int = Field(default=2, ge=1, le=64)
    worker_max_tasks_per_child: int = Field(default=5000, ge=1)

    redeliver_after_seconds: Seconds = Field(default=60)
    retry_after_seconds: Seconds = Field(default=5)
    task_limit_seconds: Seconds = Field(default=40)
    task_soft_limit_seconds: Seconds = Field(default=30)
    max_lone_starts: int = Field(default=5, ge=1, le=100)

    waiting_limit_seconds: Seconds = Field(default=DAY_SECONDS)
    queue_retention_seconds: Seconds = Field(default=7 * DAY_SECONDS)
    events_retention_seconds: EventsRetentionSeconds = Field(default=90 * DAY_SECONDS)
    dead_letters_retention_seconds: Seconds = Field(default=90 * DAY_SECONDS)
    cancelled_retention_seconds: Seconds = Field(default=30 * DAY_SECONDS)
    release_due_every_seconds: Seconds = Field(default=5)
    prune_every_seconds: Seconds = Field(default=300)

    ship_complete: bool = False
    allocation: Literal["oldest_first", "newest_first"] = "oldest_first"
    order_shortage_grace_seconds: GraceSeconds = Field(default=0)
    sku_shortage_grace_seconds: GraceSeconds = Field(default=0)

    preflight_orders: int = Field(default=0, ge=0)
    preflight_units: int = Field(default=0, ge=0)
    preflight_share: float = Field(default=0, ge=0, le=1, allow_inf_nan=False)
    preflight_share_from_orders: int = Field(default=10, ge=1)
    breaker_window_seconds: Seconds = Field(default=3600)
    breaker_orders: int = Field(default=0, ge=0)
    breaker_units: int = Field(default=0, ge=0)
    breaker_source_orders: int = Field(default=0, ge=0)
    breaker_source_units: int = Field(default=0, ge=0)
    breaker_sku_orders: int = Field(default=0, ge=0)
    breaker_sku_units: int = Field(default=0, ge=0)
    protected_orders: Annotated[str, AfterValidator(_names)] = ""
    protected_partners: Annotated[str, AfterValidator(_names)] = ""
    shadow: bool = False

    redis_timeout_seconds: Seconds = Field(default=5, ge=2)  # longer than any blocking read
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.task_soft_limit_seconds < self.task_limit_seconds < self.redeliver_after_seconds:
            raise ValueError(
                f"{PREFIX}TASK_SOFT_LIMIT_SECONDS must be below {PREFIX}TASK_LIMIT_SECONDS, and that below "
                f"{PREFIX}REDELIVER_AFTER_SECONDS: a batch must have ended before it is dispatched again"
            )
        if self.retry_after_seconds > self.redeliver_after_seconds:
            raise ValueError(f"{PREFIX}RETRY_AFTER_SECONDS must not be above {PREFIX}REDELIVER_AFTER_SECONDS")
        if self.events_retention_seconds < self.waiting_limit_seconds + 2 * DAY_SECONDS:
            raise ValueError(
                f"{PREFIX}EVENTS_RETENTION_SECONDS must be two days longer than {PREFIX}WAITING_LIMIT_SECONDS, or "
                "more: what has waited too long must not be too old to be sent again"
            )
        if self.events_stream == self.cancelled_stream:
            raise ValueError(f"{PREFIX}EVENTS_STREAM and {PREFIX}CANCELLED_STREAM must be two streams")
        return self


def load(**overrides: Any) -> Settings:
    """The settings of the environment, `overrides` first. Raises `SettingsError` with a sentence for each fault."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(fault) for fault in error.errors(include_url=False))) from None


def variable(field: str) -> str:
    """The name of a setting's environment variable."""
    return PREFIX + field.upper()


def _sentence(fault: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return str(message)
    name = variable(str(fault["loc"][0]))
    if fault["type"] == "missing":
        return f"{name} is not set"
    return f"{name} is wrong: {message[:1].lower() + message[1:]}"

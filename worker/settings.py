"""Settings: read from the environment once, typed, with units in their names."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SHORTPICK_"


class SettingsError(Exception):
    """A setting is missing or wrong; the message names its variable."""


def _redis(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must be a Redis address, as in redis://127.0.0.1:6379/0")
    return url


def _database(url: str) -> str:
    if not url.startswith(("postgresql://", "postgresql+psycopg://", "sqlite:///")):
        raise ValueError("must be postgresql://user:password@host/database, or sqlite:////folder/file.db")
    return url


class Settings(BaseSettings):
    """Every setting of every process. `.env.example` explains them one by one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    redis_url: Annotated[str, AfterValidator(_redis)]
    database_url: Annotated[str, AfterValidator(_database)]
    broker_url: str | None = None

    events_stream: str = Field(default="order.events", min_length=1)
    cancelled_stream: str = Field(default="order.cancelled", min_length=1)
    group: str = Field(default="shortpick", min_length=1)

    batch_size: int = Field(default=500, ge=1, le=5000)
    batch_bytes: int = Field(default=1024 * 1024, ge=64 * 1024, le=16 * 1024 * 1024)
    max_pending: int = Field(default=4000, ge=1)
    worker_concurrency: int = Field(default=2, ge=1, le=64)
    worker_max_tasks_per_child: int = Field(default=5000, ge=1)

    redeliver_after_seconds: float = Field(default=60, gt=0)
    retry_after_seconds: float = Field(default=5, gt=0)
    task_limit_seconds: float = Field(default=40, gt=0)
    task_soft_limit_seconds: float = Field(default=30, gt=0)
    max_lone_starts: int = Field(default=5, ge=1, le=100)

    waiting_limit_seconds: float = Field(default=24 * 3600, gt=0)
    queue_retention_seconds: float = Field(default=7 * 24 * 3600, gt=0)
    release_due_every_seconds: float = Field(default=5, gt=0)
    prune_every_seconds: float = Field(default=300, gt=0)

    ship_complete: bool = False

    redis_timeout_seconds: float = Field(default=5, gt=0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if not self.task_soft_limit_seconds < self.task_limit_seconds < self.redeliver_after_seconds:
            raise ValueError(
                f"{PREFIX}TASK_SOFT_LIMIT_SECONDS must be below {PREFIX}TASK_LIMIT_SECONDS, and that below "
                f"{PREFIX}REDELIVER_AFTER_SECONDS: a batch must have ended before it is dispatched again"
            )
        if self.retry_after_seconds > self.redeliver_after_seconds:
            raise ValueError(f"{PREFIX}RETRY_AFTER_SECONDS must not be above {PREFIX}REDELIVER_AFTER_SECONDS")
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

"""Logging: one fact a line with its fields beside it; JSON where a program reads it, readable on a terminal.

Never an event's body: what other libraries print is escaped and bounded too, since some of them log whole messages.
"""

import logging
import sys
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor

MAX_FIELD_CHARACTERS = 500


def setup(level: str, format_: Literal["auto", "json", "console"], process: str) -> None:
    """Send structlog's and the standard library's records to standard error; `process` stands on every line."""
    as_json = format_ == "json" or (format_ == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _bound,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(process=process)


def _bound(_logger: object, _method: str, fields: EventDict) -> EventDict:
    return {name: _bounded(value) for name, value in fields.items()}


def _bounded(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        if len(value) > MAX_FIELD_CHARACTERS:
            value = value[:MAX_FIELD_CHARACTERS] + f"… ({len(value)} characters)"
        return value if value.isprintable() else value.encode("unicode_escape").decode()
    return value

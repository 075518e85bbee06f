"""Logging: one fact a line with its fields beside it; JSON where a program reads it, readable on a terminal.

Never an event's body: what other libraries print is escaped and bounded too, since some of them log whole messages.
"""

import logging
import sys
from typing import Any, Literal

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, Processor

MAX_FIELD_CHARACTERS = 500
MAX_TRACE_LINES = 25


def setup(level: str, format_: Literal["auto", "json", "console"], process: str) -> None:
    """Send structlog's and the standard library's records to standard error; `process` stands on every line.

    Our own do not take the way through the standard library, which doubles what a line costs.
    """
    as_json = format_ == "json" or (format_ == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        _named(process),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _bound,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(_json)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("celery.pool").setLevel(max(logging.INFO, root.level))  # at debug, it tells tasks' arguments
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _json(fields: EventDict, **_: Any) -> str:
    return to_json(fields).decode()


def _named(process: str) -> Processor:
    """Put the process's name on every line, whichever thread writes it."""

    def name(_logger: object, _method: str, fields: EventDict) -> EventDict:
        return {"process": process, **fields}

    return name


def _bound(_logger: object, _method: str, fields: EventDict) -> EventDict:
    bounded = {name: value if name.startswith("_") else _bounded(value) for name, value in fields.items()}
    if isinstance(trace := fields.get("exception"), str):  # its end tells most: what was raised, and where
        bounded["exception"] = "\n".join(_text(line) for line in trace.splitlines()[-MAX_TRACE_LINES:])
    return bounded


def _bounded(value: Any) -> Any:
    """A value as it may be printed: short, without control characters, and never bytes."""
    value = _without_bytes(value)
    if isinstance(value, list | dict):
        return value if len(repr(value)) <= MAX_FIELD_CHARACTERS else _text(repr(value))
    return value


def _without_bytes(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return _text(value)
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case dict():
            return {_text(str(name)): _without_bytes(part) for name, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_without_bytes(part) for part in value]
        case _:
            return _text(f"{type(value).__name__}: {value}" if isinstance(value, Exception) else repr(value))


def _text(text: str) -> str:
    if len(text) > MAX_FIELD_CHARACTERS:
        text = text[:MAX_FIELD_CHARACTERS] + f"… ({len(text)} characters)"
    return text if text.isprintable() else text.encode("unicode_escape").decode()

"""How times, amounts and foreign strings are put into words for people. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta


def shown(text: str) -> str:
    """A string that came with an event as it may be printed: nothing in it can control a terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shown_bytes(raw: bytes, limit: int) -> str:
    """At most `limit` bytes as printable text; what is not plain ASCII is escaped."""
    text = shown(raw[:limit].decode("ascii", errors="backslashreplace"))
    return text if len(raw) <= limit else f"{text} … ({len(raw) - limit} more bytes)"


def when(time: datetime) -> str:
    """`2026-01-05 09:10:00 UTC`"""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def counted(number: int, noun: str) -> str:
    """`1 unit`, `2 units`"""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_are(number: int, noun: str) -> str:
    """`1 unit is`, `2 units are`"""
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def lasting(span: timedelta) -> str:
    """A span in its two largest units: `3 minutes 20 seconds`."""
    seconds = int(span.total_seconds())
    if seconds < 1:
        return "less than a second"
    parts = []
    for size, noun in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            parts.append(counted(seconds // size, noun))
            seconds %= size
    return " ".join(parts[:2])


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`"""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def explained(code: str) -> str:
    """Where the docs tell what a code means, and what to do."""
    return f"docs/reasons.md#{code}"


def of_source(source: str | None) -> str:
    """`of source '/wms'`, or `of every source`"""
    return "of every source" if source is None else f"of source {source!r}"

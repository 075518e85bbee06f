"""Trimming a stream: never what one of its consumer groups has not read and acknowledged."""

from typing import Any


def trim(redis: Any, stream: str, before: bytes) -> int:
    """Remove entries before an id that no group needs any more; returns how many."""
    keep_from = min([before, *needed_from(redis, stream).values()], key=order)
    trimmed: int = redis.xtrim(stream, minid=keep_from, approximate=False)
    return trimmed


def needed_from(redis: Any, stream: str) -> dict[bytes, bytes]:
    """By group, the first entry id that it has not read and acknowledged.

    Not one moment for all, and need not be: a group goes only forward, and needs no entry that it did not need before.
    """
    groups = redis.xinfo_groups(stream) if redis.exists(stream) else []
    return {
        group["name"]: redis.xpending(stream, group["name"])["min"] or _successor(group["last-delivered-id"])
        for group in groups
    }


def order(entry_id: bytes) -> tuple[int, int]:
    """An entry id as a pair that sorts as Redis sorts ids."""
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def _successor(entry_id: bytes) -> bytes:
    milliseconds, number = order(entry_id)
    return f"{milliseconds}-{number + 1}".encode()

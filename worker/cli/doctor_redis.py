"""What `shortpick doctor` says of Redis: whether it keeps what it has accepted, and has room for more. The rules are
pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from worker.cli.findings import Finding, fault, ok, warning

OLDEST = (6, 2)
NEARLY_FULL, FULL = 0.8, 0.95
_FULL_DISK = "Look at its log; usually its disk is full."


def look_at_redis(client: Redis) -> list[Finding]:
    redis: Any = client  # its stubs allow for an asynchronous client in every reply
    info = redis.info()
    try:
        appendfsync = redis.config_get("appendfsync").get("appendfsync")
    except ResponseError:  # managed services forbid it
        appendfsync = None
    return of_redis(info, appendfsync)


def of_redis(info: Mapping[str, Any], appendfsync: str | None) -> list[Finding]:
    """`info` is what INFO tells; a managed service may leave out a part of it. `appendfsync` is None if Redis does not
    tell it."""
    rules = (_version(info), _role(info), _persistence(info), _fsync(info, appendfsync), _policy(info), _memory(info))
    return [finding for rule in rules for finding in rule]


def _version(info: Mapping[str, Any]) -> Iterator[Finding]:
    check, told = "redis version", str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in told.split(".")[:2] if part.isdecimal())
    if len(numbers) < 2:
        yield _untold(check, "its version")
    elif numbers < OLDEST:
        yield fault(check, f"Redis is {told}: its streams lack commands that are used.", "Upgrade it to 6.2 or newer.")
    else:
        yield ok(check, f"{told}.")


def _role(info: Mapping[str, Any]) -> Iterator[Finding]:
    check = "redis role"
    if info.get("role") == "master":
        yield ok(check, "It is a master.")
    elif "role" in info:
        yield fault(
            check,
            "It is a replica: what is written to it is refused, or lost.",
            "Name the master in SHORTPICK_REDIS_URL.",
        )
    else:
        yield _untold(check, "whether it is a master")


def _persistence(info: Mapping[str, Any]) -> Iterator[Finding]:
    found = [one for one in (_append_only(info), _snapshot(info)) if one]
    yield from found or [ok("redis persistence", "It keeps an append-only file, and could write it.")]


def _append_only(info: Mapping[str, Any]) -> Finding | None:
    check = "redis persistence"
    if "aof_enabled" not in info:
        return _untold(check, "whether it keeps an append-only file")
    if not info["aof_enabled"]:
        return fault(
            check,
            "appendonly is no: when Redis ends, events that were accepted are lost.",
            "Set appendonly yes, in its configuration file too.",
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        return fault(check, "Redis could not write its append-only file, and refuses every write.", _FULL_DISK)
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        return warning(check, "Redis could not rewrite its append-only file, which grows without end.", _FULL_DISK)
    return None


def _snapshot(info: Mapping[str, Any]) -> Finding | None:
    if info.get("rdb_last_bgsave_status", "ok") == "ok":
        return None
    return fault(
        "redis persistence",
        "Redis could not save its snapshot; by default it then refuses every write.",
        f'{_FULL_DISK} With an append-only file no snapshots are needed: save "".',
    )


def _fsync(info: Mapping[str, Any], appendfsync: str | None) -> Iterator[Finding]:
    check = "redis appendfsync"
    if appendfsync is None:
        yield _untold(check, "how often the append-only file is brought to the disk (CONFIG GET is forbidden)")
    elif not info.get("aof_enabled"):
        return
    elif appendfsync == "no":
        yield warning(
            check,
            "appendfsync is no: with its machine, Redis may lose what it accepted in the last half minute.",
            "Set it to everysec, or to always.",
        )
    else:
        yield ok(check, f"{appendfsync}.")


def _policy(info: Mapping[str, Any]) -> Iterator[Finding]:
    check, policy, change = "redis eviction", info.get("maxmemory_policy"), "Set maxmemory-policy to noeviction."
    if policy is None:
        yield _untold(check, "its maxmemory-policy")
    elif policy == "noeviction":
        yield ok(check, "It never throws anything away.")
    elif str(policy).startswith("allkeys"):
        yield fault(check, f"maxmemory-policy is {policy}: Redis may throw away the queue when it is full.", change)
    else:
        yield warning(check, f"maxmemory-policy is {policy}: Redis may throw away keys that are to expire.", change)


def _memory(info: Mapping[str, Any]) -> Iterator[Finding]:
    check, used, limit = "redis memory", info.get("used_memory"), info.get("maxmemory")
    of = "its maxmemory"
    if limit == 0:
        limit, of = info.get("total_system_memory"), "its machine's memory"
    if used is None or not limit:
        yield _untold(check, "how much memory is left")
        return
    says = f"{_mebibytes(used)} of {of}, {_mebibytes(limit)}, are used"
    change = "Give it more, or find out what grows: `shortpick status` tells of a backlog."
    if used >= FULL * limit:
        yield fault(check, f"{says}: soon Redis refuses every write.", change)
    elif used >= NEARLY_FULL * limit:
        yield warning(check, f"{says}.", change)
    else:
        yield ok(check, f"{says}.")


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"


def _untold(check: str, what: str) -> Finding:
    return warning(check, f"Redis does not tell {what}.", "Look it up where it is managed (docs/operators.md).")

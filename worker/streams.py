"""The few Redis Stream commands of Shortpick: the queue of events, and the stream of cancellations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from worker import trimming
from worker.trimming import order

FIELD = b"event"
CONSUMER = "shortpick"
"""One fixed consumer: deleting a consumer drops what is pending for it, so there is never a second one to delete."""


REMEMBERED_SECONDS = 600
"""How long at least it is remembered what was added under a name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A queue entry: its id in the stream, and the bytes of its event."""

    entry_id: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Overdue:
    """An entry that stayed pending too long. `starts` counts how often its processing was begun; `size` is in bytes,
    None if they are gone: somebody deleted the entry from the stream."""

    entry_id: str
    starts: int
    size: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Ids of queue entries to process, all of them started `starts` times before."""

    entry_ids: Sequence[str]
    starts: int = 0


class Queue:
    """The incoming stream, read as a consumer group. What is pending in the group is what is still to do."""

    def __init__(self, redis: Redis, stream: str, group: str) -> None:
        self._redis: Any = redis  # its stubs allow for an asynchronous client in every reply
        self.stream = stream
        self.group = group

    def ensure_group(self) -> None:
        """Create the group at the stream's beginning, so that nothing sent before it is missed."""
        try:
            self._redis.xgroup_create(self.stream, self.group, "0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def add(self, events: Sequence[bytes]) -> list[str]:
        """Append events, and return the ids of their entries. A repeat is harmless, since `(source, id)` names an event
        for ever."""
        pipeline = self._redis.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(self.stream, {FIELD: event})
        return [entry_id.decode() for entry_id in pipeline.execute()]

    def add_once(self, events: Mapping[str, bytes]) -> dict[str, str]:
        """Append events, each under a name of its own, unless one was appended under its name within the last minutes;
        returns by name the ids of their entries. So neither a lost reply, nor a repeat after a crash, nor another
        process that does the same adds one twice."""
        if not events:
            return {}
        arguments = [part for named in events.items() for part in named]
        remembered = f"{self.stream}.added"
        entry_ids = self._redis.eval(_ADD_ONCE, 2, self.stream, remembered, REMEMBERED_SECONDS, *arguments)
        return dict(zip(events, (entry_id.decode() for entry_id in entry_ids), strict=True))

    def read(self, count: int, block_milliseconds: int) -> list[Entry]:
        """The next entries that nobody has read, at most `count`; waits up to `block_milliseconds` for one."""
        reply = self._redis.xreadgroup(self.group, CONSUMER, {self.stream: ">"}, count, block_milliseconds)
        return _entries(reply[0][1]) if reply else []

    def pending(self) -> int:
        """How many entries were read and are not acknowledged."""
        pending: int = self._redis.xpending(self.stream, self.group)["pending"]
        return pending

    def has_unread(self) -> bool:
        """Whether there are entries that the group was never given."""
        groups = self._redis.xinfo_groups(self.stream)
        delivered = next((g["last-delivered-id"] for g in groups if g["name"] == self.group.encode()), b"0-0")
        return bool(self._redis.xrange(self.stream, b"(" + delivered, "+", 1))

    def take_overdue(self, idle_milliseconds: int, count: int) -> list[Overdue]:
        """Entries pending for longer than that, whose idle time starts anew: no other process takes them too.

        With JUSTID the delivery counter stays as it is: it counts starts, not dispatches.
        """
        found = self._redis.xpending_range(self.stream, self.group, "-", "+", count, idle=idle_milliseconds)
        starts = {entry["message_id"]: entry["times_delivered"] - 1 for entry in found}
        if not starts:
            return []
        sizes = dict(zip(starts, self._redis.eval(_SIZES, 1, self.stream, *starts), strict=True))
        lost = [Overdue(entry_id.decode(), starts[entry_id], None) for entry_id, size in sizes.items() if size < 0]
        taken = self._claim(idle_milliseconds, list(starts), "JUSTID")
        return lost + [Overdue(entry_id.decode(), starts[entry_id], sizes[entry_id]) for entry_id in taken]

    def start(self, entry_ids: Sequence[str]) -> list[Entry]:
        """Begin to process entries: skips what is acknowledged already, and counts a start for each of the others."""
        claimed = self._claim(0, entry_ids)
        return [Entry(entry_id.decode(), _event_of(flat)) for entry_id, flat in claimed]

    def give_back(self, entry_ids: Sequence[str], starts: int, idle_milliseconds: int) -> None:
        """Take back a start that failed for no fault of the entries, so that they had `starts` of them. They count as
        idle for that long already, which is how soon they are dispatched again."""
        self._claim(0, entry_ids, "IDLE", idle_milliseconds, "RETRYCOUNT", starts + 1, "JUSTID")

    def _claim(self, idle_milliseconds: int, entry_ids: Sequence[str | bytes], *options: str | int) -> Any:
        """XCLAIM of those entries whose bytes are still there. Redis 7 would drop the others from the pending list,
        untold; like this they stay, and become dead letters."""
        arguments = (self.group, CONSUMER, idle_milliseconds, len(options), *options, *entry_ids)
        return self._redis.eval(_CLAIM, 1, self.stream, *arguments)

    def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """These entries are done."""
        if entry_ids:
            self._redis.xack(self.stream, self.group, *entry_ids)

    def trim(self, older_than_milliseconds: int) -> int:
        """Remove entries older than a time (milliseconds since 1970) that no group still needs; returns how many."""
        if self.group.encode() not in trimming.needed_from(self._redis, self.stream):
            return 0  # nobody has read for us yet
        return trimming.trim(self._redis, self.stream, f"{older_than_milliseconds}-0".encode())

    def oldest(self) -> int | None:
        """When its first entry came (milliseconds since 1970); None: there is none."""
        found = self._redis.xrange(self.stream, "-", "+", 1)
        return order(found[0][0])[0] if found else None


class Outbox:
    """The outgoing stream. An entry's id is its publication position, `1-0, 2-0, 3-0 …`."""

    def __init__(self, redis: Redis, stream: str) -> None:
        self._redis: Any = redis  # its stubs allow for an asynchronous client in every reply
        self.stream = stream
        self._wake_list = f"{stream}.wake"

    def last_position(self) -> int:
        """The position of the last entry that was ever appended; trimming does not lower it. 0: none."""
        try:
            info = self._redis.xinfo_stream(self.stream)
        except ResponseError as error:
            if "no such key" in str(error):
                return 0
            raise
        return self._position(info["last-generated-id"])

    def entry(self, position: int) -> bytes | None:
        """The event at a position; None if it was trimmed away."""
        found = self._redis.xrange(self.stream, f"{position}-0", f"{position}-0")
        return found[0][1].get(FIELD, b"") if found else None

    def append(self, position: int, events: Sequence[str]) -> bool:
        """Append events at `position` and the following ones, and return True, if the stream ends just before it;
        otherwise change nothing. So neither a lost reply nor another relay can do harm. Raises `ForeignEntry`."""
        other_end = self._redis.eval(_APPEND, 1, self.stream, position, *events)
        if other_end is None:
            return True
        self._position(other_end)
        return False

    def begin(self, position: int) -> bool:
        """Have the stream begin with `position`, and return True, if it never had an entry; or change nothing."""
        return self._redis.eval(_BEGIN, 1, self.stream, position) is None

    def first_position(self) -> int | None:
        """The position of the first entry that is still there; None: there is none."""
        found = self._redis.xrange(self.stream, "-", "+", 1)
        return self._position(found[0][0]) if found else None

    def trim(self, before: int) -> int:
        """Remove entries before a position that no group needs any more; returns how many."""
        return trimming.trim(self._redis, self.stream, f"{before}-0".encode())

    def lagging(self, before: int) -> list[str]:
        """The groups that have not read and acknowledged all entries before a position, by name."""
        needed = trimming.needed_from(self._redis, self.stream).items()
        return sorted(name.decode(errors="replace") for name, entry_id in needed if order(entry_id) <= (before - 1, 0))

    def _position(self, entry_id: bytes) -> int:
        """The position that the stream's last entry id stands for; raises `ForeignEntry` if it stands for none."""
        milliseconds, number = order(entry_id)
        if number:
            raise ForeignEntry(f"{self.stream} ends with entry {entry_id.decode()}, which Shortpick did not write")
        return milliseconds

    def read(self, after: int, count: int, block_milliseconds: int | None) -> list[tuple[int, bytes]]:
        """Positions and events after a position; waits for one only if `block_milliseconds` is given."""
        reply = self._redis.xread({self.stream: f"{after}-0"}, count, block_milliseconds)
        entries = _entries(reply[0][1]) if reply else []
        return [(int(entry.entry_id.partition("-")[0]), entry.raw) for entry in entries]

    def wake_relay(self) -> None:
        """Tell the relay that there is something to publish. The list holds one element, however often it is told."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.lpush(self._wake_list, "1")
        pipeline.ltrim(self._wake_list, 0, 0)
        pipeline.execute()

    def wait_for_wake(self, seconds: float) -> None:
        """Sleep until `wake_relay`, at most that long."""
        self._redis.blpop([self._wake_list], seconds)


class ForeignEntry(Exception):
    """Somebody else wrote to the outgoing stream."""


def _entries(raw: Any) -> list[Entry]:
    return [
        Entry(entry_id.decode(), _event_of([part for field in (fields or {}).items() for part in field]))
        for entry_id, fields in raw
    ]


def _event_of(flat: Sequence[bytes]) -> bytes:
    """The event among an entry's fields, given as a name, its value, the next name … Where there is none, or more than
    one, all that was sent: that is no event, and its dead letter keeps it."""
    names, values = flat[::2], flat[1::2]
    if names.count(FIELD) == 1:
        return values[names.index(FIELD)]
    return b"\n".join(name + b": " + value for name, value in zip(names, values, strict=True))


_SIZES = """
local sizes = {}
for n, id in ipairs(ARGV) do
    local found = redis.call('XRANGE', KEYS[1], id, id)
    sizes[n] = -1
    if #found > 0 then
        sizes[n] = 0
        for _, part in ipairs(found[1][2]) do sizes[n] = sizes[n] + #part end
    end
end
return sizes
"""

_ADD_ONCE = """
local ids = {}
for n = 2, #ARGV, 2 do
    local id = redis.call('HGET', KEYS[2], ARGV[n])
    if not id then
        id = redis.call('XADD', KEYS[1], '*', 'event', ARGV[n + 1])
        redis.call('HSET', KEYS[2], ARGV[n], id)
    end
    ids[#ids + 1] = id
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return ids
"""

_CLAIM = """
local claim = {KEYS[1], ARGV[1], ARGV[2], ARGV[3]}
local options = tonumber(ARGV[4])
for n = 5 + options, #ARGV do
    if #redis.call('XRANGE', KEYS[1], ARGV[n], ARGV[n]) > 0 then claim[#claim + 1] = ARGV[n] end
end
if #claim == 4 then return {} end
for n = 5, 4 + options do claim[#claim + 1] = ARGV[n] end
return redis.call('XCLAIM', unpack(claim))
"""

# XINFO's last-generated-id, and not the last entry's: trimming removes entries but leaves it.
_LAST = """
local last = '0-0'
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info.err then
    for n = 1, #info, 2 do
        if info[n] == 'last-generated-id' then last = info[n + 1] end
    end
end
"""

_APPEND = f"""
{_LAST}
local position = tonumber(ARGV[1])
if last ~= string.format('%d-0', position - 1) then return last end
for n = 2, #ARGV do
    redis.call('XADD', KEYS[1], string.format('%d-0', position + n - 2), 'event', ARGV[n])
end
return false
"""

# An entry that is trimmed at once leaves its id as the last one, on every version of Redis.
_BEGIN = f"""
{_LAST}
if last ~= '0-0' then return last end
local position = tonumber(ARGV[1])
if position > 1 then
    redis.call('XADD', KEYS[1], string.format('%d-0', position - 1), 'event', '')
    redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
end
return false
"""

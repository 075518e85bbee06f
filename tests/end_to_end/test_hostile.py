"""What nobody should send, on Celery's queue and on the queue of events: real processes take it and go on, lose nothing
that came beside it, and log none of it."""

import base64
import json
import pickle
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import text

from tests.builders import placed, to_bytes
from tests.end_to_end.processes import Processes
from tests.servers import RedisServer
from worker import bootstrap
from worker.settings import Settings
from worker.storage import database

MARK = "zebra"
"""Stands in everything that is sent here, and in no log."""
DEEP = "[" * 200_000 + "]" * 200_000
BELOW_RECURSION = "[" * 900 + "]" * 900


def envelope(body: bytes | str, content_type: str = "application/json", **headers: Any) -> str:
    """A message as it lies on Celery's list; `headers` beside those of a good one, or in their place."""
    number = str(uuid4())
    place = {"exchange": "", "routing_key": "shortpick"}
    raw = body if isinstance(body, bytes) else body.encode()
    return json.dumps(
        {
            "body": base64.b64encode(raw).decode(),
            "content-type": content_type,
            "content-encoding": "utf-8",
            "headers": {"task": "shortpick.accept_events", "id": number, "argsrepr": MARK, **headers},
            "properties": {
                "correlation_id": number,
                "delivery_info": place,
                "delivery_tag": number,
                "body_encoding": "base64",
            },
        }
    )


def accept(events: Any, **headers: Any) -> str:
    return envelope(json.dumps([[events], {}, {}]), **headers)


def changed(message: str, **parts: Any) -> str:
    return json.dumps({**json.loads(message), **parts})


GOOD = accept({"id": MARK})
PROPERTIES = json.loads(GOOD)["properties"]
NO_MESSAGES = {
    "garbage": MARK,
    "bytes that are not UTF-8": b"\xff\xfe" + MARK.encode(),
    "nothing": "",
    "null": "null",
    "a number": "5",
    "a list": f'["{MARK}"]',
    "a string": f'"{MARK}"',
    "an object": f'{{"{MARK}": "{MARK}"}}',
    "a nesting bomb": "[" * 200_000,
    "a nesting bomb that is closed": DEEP,
    "no properties": changed(GOOD, properties=None),
    "a body that is not base64": changed(GOOD, body="!!", headers={"task": "shortpick.prune", "id": MARK}),
    "an unknown encoding of the body": changed(GOOD, properties={**PROPERTIES, "body_encoding": MARK}),
    "an unknown task": envelope(json.dumps([[MARK], {}, {}]), task=MARK),
    "a task of Celery's own": envelope(json.dumps([[], {}, {}]), task="celery.backend_cleanup"),
    "a task that is no name": accept(MARK, task={MARK: MARK}),
    "no task": accept(MARK, task=None),
    "a batch of too many bytes": envelope(
        json.dumps([[[MARK] * 200_000], {}, {}]), task="shortpick.decide_cancellations"
    ),
    "no arguments for a task that takes some": envelope("[[], {}, {}]", task="shortpick.decide_cancellations"),
}
"""They are dropped."""

NOT_ACCEPTED = {
    "pickle": envelope(pickle.dumps([[MARK], {}, {}]), "application/x-python-serialize"),
    "YAML": envelope(f"- {MARK}", "application/x-yaml"),
    "an unknown content type": envelope(f"{MARK} 1", MARK),
    "a body that is not JSON": envelope(f"{MARK} 2"),
    "a nesting bomb": envelope(DEEP),
    "a nesting bomb in an event": envelope(f'[[{{"{MARK}": {DEEP}}}], {{}}, {{}}]'),
    "an event as deep as the parser goes": envelope(f'[[{{"{MARK}": {BELOW_RECURSION}}}], {{}}, {{}}]'),
    "null": envelope(" null"),
    "an object": envelope(f'{{"{MARK}": 1}}'),
    "a number of 5,000 digits": envelope(f'[[{{"{MARK}": {"1" * 5000}}}], {{}}, {{}}]'),
    "10 MB": accept({"id": MARK * 2_000_000}),
    "100,000 events": accept([{"id": MARK}] * 100_000),
    "1,001 events": accept([{"id": MARK}] * 1001),
    "no argument": envelope("[[], {}, {}]"),
    "two arguments": envelope(json.dumps([[{}, {"id": MARK}], {}, {}])),
    "an unknown argument": envelope(json.dumps([[], {MARK: MARK}, {}])),
    "what is not JSON in JSON": accept({"id": {"__type__": "uuid", "__value__": str(uuid4())}}),
    "a callback": envelope(json.dumps([[{"id": MARK}], {}, {"callbacks": [{"task": MARK}]}])),
    "an ETA that is no time": accept({"id": f"{MARK} 3"}, eta=MARK),
    "an end that is no time": accept({"id": f"{MARK} 4"}, expires=MARK),
    "a compression bomb": envelope(zlib.compress(b"[" * 50_000_000), compression="application/x-gzip"),
}
"""They are for `accept_events`, which cannot take them: each is a dead letter as a whole."""

NO_EVENTS = {
    "NaN": f'{{"id": NaN, "{MARK}": 1}}',
    "a string": f'"{MARK}"',
    "a number": "5",
    "null": "null",
    "a lone surrogate": f'{{"{MARK}": "\\ud800"}}',
    "five thousand characters": f'"{MARK * 1000}"',
}
"""Events as the task takes them. Each is a dead letter as any other event of this kind would be."""

ENTRIES: dict[str, tuple[list[str | bytes], str | None]] = {
    "an event beside other fields": (["event", to_bytes(placed("beside", a=("SA", 1))), "trace", MARK], None),
    "an event beside 20 MB": (["event", to_bytes(placed("large", a=("SA", 1))), MARK, "x" * 20_000_000], None),
    "no field `event`": (["data", to_bytes(placed(MARK, a=("SA", 1)))], "not_json"),
    "the field twice": (["event", to_bytes(placed(MARK, a=("SA", 1))), "event", "{}"], "not_json"),
    "nothing": (["event", b""], "not_json"),
    "50 MB": (["event", MARK * 10_000_000], "too_large"),
    "20 MB beside the event's name": (["Event", MARK * 4_000_000], "too_large"),
    "a nesting bomb": (["event", b"[" * 65_000], "not_json"),
}
"""Fields of entries of the queue, with the code of the dead letter (None: it is recorded)."""


@dataclass(frozen=True)
class Seen:
    """What became of all of it."""

    letters: Counter[tuple[str, bytes]]
    """Codes and bytes of the dead letters."""
    outcomes: dict[str, str]
    """By order."""
    left: int
    """Messages on Celery's list, or with the worker."""
    before: set[int]
    after: set[int]
    """The processes."""
    logs: dict[str, str]

    def kept(self, raw: bytes) -> int:
        """How many dead letters have these bytes."""
        return sum(number for (_, bytes_), number in self.letters.items() if bytes_ == raw)


@pytest.fixture(scope="module")
def seen(redis_server: RedisServer, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Everything is sent, a good event after each."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copy(sqlite_template, folder / "shortpick.db")
    redis_server.start()
    settings = Settings(redis_url=redis_server.url, database_url=f"sqlite:///{folder / 'shortpick.db'}")
    redis = bootstrap.redis(settings)
    redis.flushall()
    queue = bootstrap.queue(settings, redis)
    queue.ensure_group()
    with Processes(settings, folder) as processes:
        wait_for(processes.worker_is_ready)
        before = family(processes)
        no_events = [envelope(f"[[{raw}], {{}}, {{}}]") for raw in NO_EVENTS.values()]
        for number, message in enumerate([*NO_MESSAGES.values(), *NOT_ACCEPTED.values(), *no_events]):
            redis.lpush("shortpick", message, accept(placed(f"message {number}", a=("SA", 1)), timelimit=MARK))
        for number, (fields, _) in enumerate(ENTRIES.values()):
            redis.execute_command("XADD", "order.events", "*", *fields)
            queue.add([to_bytes(placed(f"entry {number}", a=("SA", 1)))])
        arrive = 2 * len(ENTRIES) + len(NO_MESSAGES) + 2 * len(NOT_ACCEPTED) + 2 * len(NO_EVENTS)
        wait_for(lambda: redis.xlen("order.events") >= arrive)
        wait_for(lambda: not queue.has_unread() and queue.pending() == 0)
        left = int(redis.llen("shortpick")) + int(redis.hlen("unacked"))
        after, logs = family(processes), {name: processes.log(name) for name in ("worker", "ingress")}
    redis.close()
    engine = database.create(settings.database_url)
    with engine.connect() as connection:
        letters = Counter((row.code, row.bytes) for row in connection.execute(text("SELECT * FROM dead_letters")))
        outcomes = {row.order_id: row.outcome for row in connection.execute(text("SELECT * FROM events"))}
    engine.dispose()
    return Seen(letters, outcomes, left, before, after, logs)


def test_no_process_has_ended_and_none_was_replaced(seen: Seen) -> None:
    assert seen.after == seen.before


def test_every_good_event_is_done(seen: Seen) -> None:
    messages = range(len(NO_MESSAGES) + len(NOT_ACCEPTED) + len(NO_EVENTS))
    orders = [f"message {number}" for number in messages] + [f"entry {number}" for number in range(len(ENTRIES))]
    assert seen.outcomes == dict.fromkeys([*orders, "beside", "large"], "recorded")
    assert seen.left == 0


@pytest.mark.parametrize("name", NOT_ACCEPTED)
def test_what_was_not_accepted_is_kept_byte_for_byte(name: str, seen: Seen) -> None:
    body = base64.b64decode(json.loads(NOT_ACCEPTED[name])["body"])
    assert seen.kept(body) == 1


@pytest.mark.parametrize("name", NO_EVENTS)
def test_what_is_no_event_is_kept(name: str, seen: Seen) -> None:
    assert seen.kept(NO_EVENTS[name].encode()) == 1


@pytest.mark.parametrize("name", [name for name, (_, code) in ENTRIES.items() if code is not None])
def test_an_entry_that_is_no_event_is_kept(name: str, seen: Seen) -> None:
    fields, code = ENTRIES[name]
    found = [raw for code_, raw in seen.letters if code_ == code and all(as_bytes(one) in raw for one in fields[1::2])]
    assert found


def test_there_are_no_other_dead_letters(seen: Seen) -> None:
    entries = sum(code is not None for _, code in ENTRIES.values())
    assert seen.letters.total() == len(NOT_ACCEPTED) + len(NO_EVENTS) + entries


def test_each_refusal_is_told_and_nothing_of_what_was_sent(seen: Seen) -> None:
    assert seen.logs["worker"].count("message.refused") == len(NO_MESSAGES) + len(NOT_ACCEPTED)
    assert MARK not in seen.logs["worker"].replace(f'"task":"{MARK}"', "")  # the name of an unknown task is told
    assert MARK not in seen.logs["ingress"]
    assert "Traceback" not in seen.logs["worker"] + seen.logs["ingress"]


def test_redis_refuses_what_is_large_if_it_is_set_as_documented(redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        before = redis.config_get("proto-max-bulk-len")
        redis.config_set("proto-max-bulk-len", "4mb")
        try:
            with pytest.raises(RedisError):
                redis.xadd("order.events", {"event": b"x" * 5_000_000})
            assert redis.xlen("order.events") == 0
        finally:
            redis.config_set("proto-max-bulk-len", before["proto-max-bulk-len"])


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def family(processes: Processes) -> set[int]:
    return {one.pid for one in processes.family()}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

"""The queue's reader on a real Redis: what becomes a batch, what is held back, and what is dispatched again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue as Mailbox

import pytest
from redis import Redis
from sqlalchemy import Engine, Row, text

from domain.contract import MAX_EVENT_BYTES
from worker import bootstrap
from worker.ingress import BLOCK_MILLISECONDS, DispatchFailed, Ingress
from worker.settings import Settings, SettingsError, load
from worker.streams import Batch, Queue

PATIENCE_SECONDS = 15
LONG = 10**6
"""Milliseconds that no entry of these tests has been idle, unless it was made so."""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What ingress writes is a dead letter at most; the storage tests run on both databases."""
    return sqlite_url


@pytest.fixture
def ingress(queue: Queue, engine: Engine) -> Callable[..., Ingress]:
    """Make an ingress with generous limits."""

    def make(dispatch: Callable[[Batch], None], **limits: int) -> Ingress:
        chosen = {"batch_size": 100, "batch_bytes": 10**6, "max_pending": 1000, "redeliver_after_milliseconds": LONG}
        return Ingress(queue, engine, dispatch, **{**chosen, **limits})

    return make


def test_what_is_new_is_dispatched_in_order_and_counted(ingress: Callable[..., Ingress], queue: Queue) -> None:
    batches: list[Batch] = []
    queue.add([b"one", b"two"])
    assert ingress(batches.append).run_once(1) == 2
    assert bodies(queue, batches) == [[b"one", b"two"]]
    assert [batch.starts for batch in batches] == [0]


def test_nothing_new_is_no_batch(ingress: Callable[..., Ingress]) -> None:
    batches: list[Batch] = []
    assert ingress(batches.append).run_once(1) == 0
    assert batches == []


class Stop:
    """Tells a process to stop after so many turns, and notes how long it waited after each."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.waited: list[float] = []

    def is_set(self) -> bool:
        self.turns -= 1
        return self.turns < 0

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)


@pytest.mark.parametrize(
    ("pending", "sent", "waited"),
    [(0, 1, []), (1, 1, [0.02]), (1, 0, []), (1, 100, []), (400, 1, [0.05]), (900, 1, [0.1])],
)
def test_the_next_batch_gathers_while_the_workers_are_busy(
    pending: int, sent: int, waited: list[float], ingress: Callable[..., Ingress], queue: Queue
) -> None:
    """Not if nobody is busy, if nothing came, or if a whole batch was there."""
    queue.add([b"before"] * pending)
    while queue.pending() < pending:
        queue.read(100, 1)
    queue.add([b"new"] * sent)
    stop = Stop(turns=1)
    ingress([].append).run(stop)
    assert stop.waited == waited


def test_what_is_dispatched_stays_pending_and_is_not_dispatched_twice(
    ingress: Callable[..., Ingress], queue: Queue
) -> None:
    batches: list[Batch] = []
    queue.add([b"one", b"two"])
    reader = ingress(batches.append)
    assert [reader.run_once(1), reader.run_once(1)] == [2, 0]
    assert queue.pending() == 2


def test_a_batch_holds_no_more_events_than_its_size(ingress: Callable[..., Ingress], queue: Queue) -> None:
    batches: list[Batch] = []
    queue.add([b"%d" % number for number in range(7)])
    reader = ingress(batches.append, batch_size=3)
    assert [reader.run_once(1) for _ in range(4)] == [3, 3, 1, 0]
    assert bodies(queue, batches) == [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6"]]


def test_a_batch_holds_no_more_bytes_than_its_limit_unless_one_event_does(
    ingress: Callable[..., Ingress], queue: Queue
) -> None:
    batches: list[Batch] = []
    sizes = [40, 60, 1, 200, 99, 1, 1]
    queue.add([b"x" * size for size in sizes])
    assert ingress(batches.append, batch_bytes=100).run_once(1) == len(sizes)
    assert [[len(body) for body in batch] for batch in bodies(queue, batches)] == [[40, 60], [1], [200], [99, 1], [1]]


def test_an_oversize_entry_is_a_dead_letter_and_its_neighbours_are_dispatched(
    ingress: Callable[..., Ingress], queue: Queue, engine: Engine
) -> None:
    batches: list[Batch] = []
    largest, oversize = b"x" * MAX_EVENT_BYTES, b"\xff" * (MAX_EVENT_BYTES + 1)
    queue.add([b"before", oversize, largest, b"after"])
    ingress(batches.append).run_once(1)
    assert bodies(queue, batches) == [[b"before", largest, b"after"]]
    (letter,) = dead_letters(engine)
    assert (letter.code, letter.bytes) == ("too_large", oversize)
    assert f"{MAX_EVENT_BYTES + 1} bytes" in letter.sentence
    assert queue.pending() == 3
    assert letter.entry_id not in {entry_id for batch in batches for entry_id in batch.entry_ids}


def test_when_all_is_oversize_no_empty_batch_is_dispatched(
    ingress: Callable[..., Ingress], queue: Queue, engine: Engine
) -> None:
    batches: list[Batch] = []
    queue.add([b"x" * (MAX_EVENT_BYTES + 1)] * 2)
    ingress(batches.append).run_once(1)
    assert batches == []
    assert (len(dead_letters(engine)), queue.pending()) == (2, 0)


def test_an_oversize_entry_whose_dead_letter_cannot_be_written_stays_pending(
    ingress: Callable[..., Ingress], queue: Queue, engine: Engine
) -> None:
    queue.add([b"x" * (MAX_EVENT_BYTES + 1)])
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE dead_letters RENAME TO gone"))
    with pytest.raises(Exception, match="dead_letters"):
        ingress([].append).run_once(1)
    assert queue.pending() == 1


def test_with_too_much_pending_no_more_is_read_until_half_of_it_is_done(
    ingress: Callable[..., Ingress], queue: Queue
) -> None:
    batches: list[Batch] = []
    queue.add([b"%d" % number for number in range(8)])
    reader = ingress(batches.append, batch_size=2, max_pending=4)
    assert [reader.run_once(1) for _ in range(4)] == [2, 2, 0, 0]
    done = [entry_id for batch in batches for entry_id in batch.entry_ids]
    for entry_id, dispatched in zip(done[:3], [0, 0, 2], strict=True):  # 3, 2 and 1 are left pending
        queue.acknowledge([entry_id])
        assert reader.run_once(1) == dispatched


@pytest.mark.parametrize("max_pending", [1, 2, 3])
def test_however_low_the_limit_reading_goes_on_once_nothing_is_pending(
    max_pending: int, ingress: Callable[..., Ingress], queue: Queue
) -> None:
    batches: list[Batch] = []
    queue.add([b"%d" % number for number in range(max_pending + 1)])
    reader = ingress(batches.append, batch_size=max_pending, max_pending=max_pending)
    assert [reader.run_once(1), reader.run_once(1)] == [max_pending, 0]
    queue.acknowledge(batches[0].entry_ids)
    assert reader.run_once(1) == 1


def test_dispatching_again_is_never_held_back(ingress: Callable[..., Ingress], queue: Queue) -> None:
    batches: list[Batch] = []
    queue.add([b"one", b"two", b"three"])
    read = [entry.entry_id for entry in queue.read(2, 1)]
    age(queue, read)
    assert ingress(batches.append, max_pending=1).run_once(1) == 2
    assert bodies(queue, batches) == [[b"one", b"two"]]
    assert queue.has_unread()


def test_what_is_not_overdue_is_not_dispatched_again(ingress: Callable[..., Ingress], queue: Queue) -> None:
    batches: list[Batch] = []
    queue.add([b"one", b"two"])
    one, _ = queue.read(2, 1)
    age(queue, [one.entry_id])
    assert ingress(batches.append).run_once(1) == 1
    assert bodies(queue, batches) == [[b"one"]]


def test_what_was_never_started_travels_together_and_what_was_started_alone(
    ingress: Callable[..., Ingress], queue: Queue
) -> None:
    batches: list[Batch] = []
    queue.add([b"new 1", b"once", b"new 2", b"twice", b"new 3"])
    ids = [entry.entry_id for entry in queue.read(5, 1)]
    queue.start([ids[1], ids[3]])
    queue.start([ids[3]])
    age(queue, [ids[0], ids[2], ids[4]])
    age(queue, [ids[1]], starts=1)
    age(queue, [ids[3]], starts=2)
    assert ingress(batches.append).run_once(1) == 5
    assert sorted((list(batch.entry_ids), batch.starts) for batch in batches) == sorted(
        [([ids[0], ids[2], ids[4]], 0), ([ids[1]], 1), ([ids[3]], 2)]
    )


def test_to_dispatch_again_is_no_start(ingress: Callable[..., Ingress], queue: Queue) -> None:
    batches: list[Batch] = []
    queue.add([b"one"])
    ids = [entry.entry_id for entry in queue.read(1, 1)]
    queue.start(ids)
    for _ in range(3):
        age(queue, ids, starts=1)
        ingress(batches.append).run_once(1)
    assert batches == [Batch(ids, 1)] * 3


def test_what_is_dispatched_again_keeps_to_the_size_of_a_batch(ingress: Callable[..., Ingress], queue: Queue) -> None:
    batches: list[Batch] = []
    queue.add([b"%d" % number for number in range(5)])
    age(queue, [entry.entry_id for entry in queue.read(5, 1)])
    for _ in range(3):
        ingress(batches.append, batch_size=2).run_once(1)
    assert bodies(queue, batches) == [[b"0", b"1"], [b"2", b"3"], [b"4"]]


def test_what_is_dispatched_again_keeps_to_the_bytes_of_a_batch(ingress: Callable[..., Ingress], queue: Queue) -> None:
    batches: list[Batch] = []
    queue.add([b"x" * 60_000] * 4)
    age(queue, [entry.entry_id for entry in queue.read(4, 1)])
    assert ingress(batches.append, batch_bytes=130_000).run_once(1) == 4
    assert [len(batch.entry_ids) for batch in batches] == [2, 2]


def test_a_pending_entry_whose_bytes_are_gone_is_a_dead_letter(
    ingress: Callable[..., Ingress], queue: Queue, engine: Engine, redis: Redis
) -> None:
    batches: list[Batch] = []
    queue.add([b"one", b"two", b"three"])
    one, two, three = (entry.entry_id for entry in queue.read(3, 1))
    queue.start([one])
    age(queue, [one], starts=1)
    age(queue, [two, three])
    redis.xdel(queue.stream, one, two)
    assert ingress(batches.append).run_once(1) == 1
    assert batches == [Batch([three])]
    assert [(letter.entry_id, letter.code, letter.bytes) for letter in dead_letters(engine)] == [
        (one, "bytes_lost", b""),
        (two, "bytes_lost", b""),
    ]
    assert queue.pending() == 1


def test_what_could_not_be_dispatched_stays_pending(ingress: Callable[..., Ingress], queue: Queue) -> None:
    queue.add([b"one", b"two"])
    with pytest.raises(DispatchFailed):
        ingress(fail).run_once(1)
    assert queue.pending() == 2
    assert {overdue.starts for overdue in queue.take_overdue(0, 10)} == {0}


def test_what_could_not_be_dispatched_again_stays_pending_too(ingress: Callable[..., Ingress], queue: Queue) -> None:
    batches: list[Batch] = []
    queue.add([b"one"])
    ids = [entry.entry_id for entry in queue.read(1, 1)]
    age(queue, ids)
    with pytest.raises(DispatchFailed):
        ingress(fail).run_once(1)
    age(queue, ids)
    ingress(batches.append).run_once(1)
    assert batches == [Batch(ids)]


def test_it_runs_on_after_a_failed_dispatch_and_stops_when_told(ingress: Callable[..., Ingress], queue: Queue) -> None:
    dispatched: Mailbox[Batch] = Mailbox()
    failures = [1]

    def fail_once(batch: Batch) -> None:
        if failures:
            failures.pop()
            raise DispatchFailed("the broker is away")
        dispatched.put(batch)

    with running(ingress(fail_once, redeliver_after_milliseconds=100)):
        queue.add([b"one"])
        assert bodies(queue, [dispatched.get(timeout=PATIENCE_SECONDS)]) == [[b"one"]]
    assert failures == []


def test_a_group_that_was_lost_is_made_again(ingress: Callable[..., Ingress], queue: Queue, redis: Redis) -> None:
    dispatched: Mailbox[Batch] = Mailbox()
    with running(ingress(dispatched.put)):
        queue.add([b"before"])
        dispatched.get(timeout=PATIENCE_SECONDS)
        redis.flushall()
        queue.add([b"after"])
        assert bodies(queue, [dispatched.get(timeout=PATIENCE_SECONDS)]) == [[b"after"]]


def test_it_makes_its_group_itself_and_reads_what_was_sent_before(
    engine: Engine, settings: Settings, redis: Redis
) -> None:
    dispatched: Mailbox[Batch] = Mailbox()
    queue = bootstrap.queue(settings, redis)
    queue.add([b"early"])
    with running(Ingress(queue, engine, dispatched.put, 10, 10**6, 100, LONG)):
        assert bodies(queue, [dispatched.get(timeout=PATIENCE_SECONDS)]) == [[b"early"]]


def test_an_outage_of_the_database_holds_only_what_needs_it(
    ingress: Callable[..., Ingress], queue: Queue, engine: Engine
) -> None:
    dispatched: Mailbox[Batch] = Mailbox()
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE dead_letters RENAME TO gone"))
    with running(ingress(dispatched.put, redeliver_after_milliseconds=100)):
        queue.add([b"x" * (MAX_EVENT_BYTES + 1)])
        queue.add([b"after"])
        found: list[bytes] = []
        while b"after" not in found:
            found += bodies(queue, [dispatched.get(timeout=PATIENCE_SECONDS)])[0]


@pytest.mark.parametrize("timeout", [0.2, 1])
def test_a_short_timeout_for_redis_is_refused_or_bears_a_quiet_queue(
    timeout: float, settings: Settings, engine: Engine, queue: Queue
) -> None:
    """A blocking read that outlasts its client's timeout fails each time that nothing comes."""
    try:
        chosen = load(**{**settings.model_dump(), "redis_timeout_seconds": timeout})
    except SettingsError:
        return
    with bootstrap.redis(chosen) as client:
        reader = Ingress(bootstrap.queue(chosen, client), engine, fail, 10, 10**6, 100, LONG)
        assert reader.run_once(BLOCK_MILLISECONDS) == 0


@contextmanager
def running(ingress: Ingress) -> Iterator[None]:
    """Run it in a thread; at the end it must stop within two seconds of its flag."""
    stopping, failed = threading.Event(), []

    def run() -> None:
        try:
            ingress.run(stopping)
        except BaseException as error:  # noqa: BLE001 (told by the assertion below)
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
        assert thread.is_alive(), failed
    finally:
        stopping.set()
        thread.join(2)
    assert not thread.is_alive()


def fail(_: Batch) -> None:
    raise DispatchFailed("the broker is away")


def age(queue: Queue, entry_ids: list[str], starts: int = 0) -> None:
    """Make entries look as if they had been pending for long, having been started so often."""
    queue.give_back(entry_ids, starts, LONG)


def bodies(queue: Queue, batches: list[Batch]) -> list[list[bytes]]:
    return [[entry.raw for entry in queue.start(batch.entry_ids)] for batch in batches]


def dead_letters(engine: Engine) -> list[Row[tuple[str, str, str, bytes]]]:
    with engine.connect() as connection:
        statement = "SELECT entry_id, code, sentence, bytes FROM dead_letters ORDER BY entry_id"
        return list(connection.execute(text(statement)))

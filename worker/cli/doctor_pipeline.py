"""What `shortpick doctor` says of the pipeline itself: clocks, the queue, what is left to do, the outgoing stream. The
rules are pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations

from worker.cli.findings import Finding, fault, ok, warning
from worker.cli.standing import OLD, Backlog, QueueStatus, Recorded
from worker.cli.status import of_breaker
from worker.cli.wording import is_are, lasting, listed, of_source, when
from worker.publication import StreamEnd
from worker.storage.reports import Amount, Due

MISSING_LONG = timedelta(hours=1)
APART, FAR_APART = timedelta(seconds=5), timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Clock:
    """How far a clock is ahead of this machine's, and how far that may be wrong, since the answer took its time."""

    ahead: timedelta
    within: timedelta


THIS_MACHINE = Clock(timedelta(0), timedelta(0))


def read_clock(ask: Callable[[], datetime]) -> Clock:
    before = datetime.now(UTC)
    told = ask()
    within = (datetime.now(UTC) - before) / 2
    return Clock(told - before - within, within)


def of_clocks(clocks: Mapping[str, Clock]) -> Finding:
    """Of clocks by whose they are, the two that are farthest apart count."""
    apart, one, other = max(
        (abs(clocks[one].ahead - clocks[other].ahead) - clocks[one].within - clocks[other].within, one, other)
        for one, other in combinations(clocks, 2)
    )
    says = f"The clocks of {one} and {other} are {lasting(abs(apart))} apart"
    change = "Have every machine follow one time server (NTP)."
    if apart > FAR_APART:
        return fault("clocks", f"{says}: graces and waiting limits end at the wrong time.", change)
    if apart > APART:
        return warning("clocks", f"{says}.", change)
    return ok("clocks", f"Those of {listed(list(clocks))} agree.")


def of_queue(queue: QueueStatus, running: str) -> Iterator[Finding]:
    """`running` says whether ingress reads."""
    if not queue.has_group:
        yield warning(
            "consumer group",
            "It does not exist, so nothing is read from the queue.",
            "Start `shortpick ingress`, which makes it; it will read what is there from the first entry on.",
        )
    else:
        yield ok("consumer group", "It exists.")
        yield warning("ingress", f"{running}.", "Look at its log.") if queue.silent else ok("ingress", running)
    more = " or more" if queue.unread_at_least else ""
    yield _old(
        "unread",
        queue.unread,
        queue.at,
        f"{queue.unread.number:,}{more} entries of the queue are unread",
        "Is `shortpick ingress` running, or held back by slow workers? `shortpick health` tells whether it goes on.",
    )
    yield _old(
        "pending",
        queue.pending,
        queue.at,
        f"{queue.pending.number:,} entries were read and not decided",
        "Is `shortpick worker` running? `shortpick health` tells whether it goes on.",
    )


def of_stops(recorded: Recorded) -> Iterator[Finding]:
    """Pauses and breakers."""
    for row in recorded.pauses:
        yield warning(
            "pause",
            f"Cancellations {of_source(row.source)} wait since {when(row.paused_at)}: {row.paused_by} paused them: "
            f"{row.reason}.",
            "When that is over: shortpick resume --reason …",
        )
    if not recorded.pauses:
        yield ok("pause", "None is in force.")
    for row in recorded.breakers:
        yield warning(
            "breaker",
            f"That of {of_breaker(row)} is open since {when(row.opened_at)}; what it stops is held.",
            "Look at: shortpick breaker list",
        )
    if not recorded.breakers:
        yield ok("breaker", "None is open.")


def of_people(recorded: Recorded) -> Iterator[Finding]:
    """What waits for a person."""
    for check, noun, what, change in (
        ("held", "cut", "held until a person decides", "shortpick holds list"),
        ("dead_letters", "dead letter", "open", "shortpick dead-letters list"),
        ("conflicts", "conflict", "open", "shortpick conflicts list"),
    ):
        found = recorded.left[check]
        name = check.replace("_", " ")
        if found.number and found.since:
            says = f"{is_are(found.number, noun)} {what}, the oldest since {when(found.since)}."
            yield warning(name, says, f"Look at: {change}")
        else:
            yield ok(name, "None.")


def of_backlog(recorded: Recorded, backlog: Backlog) -> Iterator[Finding]:
    """What the processes have to do, and what waits for events that may never come."""
    yield from _missing(recorded)
    at, both = recorded.at, "Are `shortpick beat` and `shortpick worker` running?"
    late, shortages, approved = backlog.waiting, backlog.shortages, backlog.approved
    yield _old("overdue", late, at, f"{is_are(late.number, 'waiting event')} overdue", both)
    yield _old("shortages", shortages, at, f"{is_are(shortages.number, 'SKU shortage')} due", both)
    yield _old("approved", approved, at, f"{is_are(approved.number, 'approved cut')} not carried out", both)
    found = recorded.left["unpublished"]
    says = f"{is_are(found.number, 'cancellation')} not published"
    yield _old("unpublished", found, at, says, "Is `shortpick relay` running? Its log says why it does not go on.")


def _missing(recorded: Recorded) -> Iterator[Finding]:
    """What waits for other events."""
    long = False
    for what, of in _MISSING.items():
        found = recorded.waiting.get(what, Amount(0, None))
        if found.since and recorded.at - found.since > MISSING_LONG:
            long = True
            age = lasting(recorded.at - found.since)
            says = f"{is_are(found.number, 'event')} waiting {of}, the oldest for {age}."
            yield warning("waiting", says, "Find out why these do not come: what waits too long is a dead letter.")
    if not long:
        yield ok("waiting", "Nothing waits long for other events.")


def of_stream(stream: str, end: StreamEnd) -> Finding:
    """Of a stream that is the ledger's own."""
    if end.lost:
        return warning(
            "outgoing stream",
            f"Redis has lost entries of {stream}, which ends at {end.position} and had reached {end.published_before}.",
            "Look at its persistence; `shortpick relay` appends them again.",
        )
    return ok("outgoing stream", f"{stream} is the ledger's own, and ends at position {end.position}.")


def _old(check: str, found: Amount | Due, at: datetime, says: str, change: str) -> Finding:
    if not found.number or not found.since:
        return ok(check, "None.")
    age = lasting(at - found.since)
    if at - found.since > OLD:
        return warning(check, f"{says}, the oldest for {age}.", change)
    return ok(check, f"{says}, the oldest for {age}.")


_MISSING = {
    "order_not_placed": "for their order to be placed",
    "fulfillments_missing": "for fulfillments that they name",
}

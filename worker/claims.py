"""The first steps of a batch: bytes to events, and each event claimed once by its id."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from domain.errors import InvalidEvent
from domain.events import digest
from domain.outgoing import rfc3339
from domain.parsing import identify, parse
from worker.storage import database, inbox, retention
from worker.storage.dead_letters import DeadLetter
from worker.storage.inbox import Arrived, Key
from worker.streams import Entry


def parse_all(entries: Iterable[Entry]) -> tuple[list[Arrived], list[DeadLetter]]:
    """Entries as events; what does not keep the contract as dead letters."""
    arrived, dead = [], []
    now = database.clock()
    for entry in entries:
        try:
            event = parse(entry.raw, now)
            arrived.append(Arrived(entry.entry_id, entry.raw, event, digest(event)))
        except InvalidEvent as error:
            dead.append(DeadLetter(entry.entry_id, entry.raw, error.code, str(error), *identify(entry.raw)))
    return arrived, dead


@dataclass(frozen=True, slots=True)
class Claimed:
    """Events to decide; those that are too old for it, whose claims are given up again; those that repeat the id of
    one of both; and those whose id was taken before, each with the digest of the content that took it (None: that was
    given up meanwhile)."""

    fresh: list[Arrived]
    too_old: list[DeadLetter]
    repeats: list[Arrived]
    taken: list[tuple[Arrived, str | None]]


def claim(connection: Connection, arrived: Sequence[Arrived], at: datetime, old_after: timedelta) -> Claimed:
    """Claim events for this transaction, each id once. No event was ever removed whose time lies less than `old_after`
    back; only if one lies further back, it is looked up what was."""
    first = {one.key: one for one in reversed(arrived)}
    new = inbox.claim(connection, list(first.values()), at)
    digests = inbox.digests(connection, first.keys() - new)
    fresh = [one for one in arrived if one.key in new and one is first[one.key]]
    too_old = {one.key: one for one in _too_old(connection, [one for one in fresh if one.event.time < at - old_after])}
    inbox.release(connection, too_old)
    return Claimed(
        fresh=[one for one in fresh if one.key not in too_old],
        too_old=[_buried(one) for one in too_old.values()],
        repeats=[one for one in arrived if one.key in new and one is not first[one.key]],
        taken=[(one, digests.get(one.key)) for one in arrived if one.key not in new],
    )


def _too_old(connection: Connection, claimed: Sequence[Arrived]) -> list[Arrived]:
    """Those of these events that are not newer than what was removed of their source. In a statement after the claim,
    which waits for the end of a removal of the same event: so it sees what that has noted."""
    if not claimed:
        return []
    newest = retention.newest_removed(connection, {one.event.source for one in claimed})
    return [one for one in claimed if one.event.source in newest and one.event.time <= newest[one.event.source]]


def _buried(one: Arrived) -> DeadLetter:
    sentence = (
        f"it is of {rfc3339(one.event.time)}, and records of its source, {one.event.source!r}, that are as new as that "
        "were removed at the end of their retention: nobody can tell any more whether it was acted on, and nothing was "
        "done now. Look how its order stands (`shortpick why`), and if need be send it with an id and time of its own"
    )
    return DeadLetter(one.entry_id, one.raw, "too_old", sentence, one.key, one.order_id)


def compare(claimed: Claimed, released: Collection[Key]) -> tuple[list[Arrived], list[DeadLetter]]:
    """Of events whose id was taken: those whose id is free by now, since what held it became a dead letter (here, or
    in another transaction meanwhile), and those with other content. True repeats need nothing more."""
    freed, reused = [], []
    for one, digest_before in claimed.taken:
        if digest_before is None or one.key in released:
            freed.append(one)
        elif digest_before != one.digest:
            reused.append(_reused(one))
    return freed, reused


def _reused(one: Arrived) -> DeadLetter:
    sentence = (
        f"event {one.event.id!r} of source {one.event.source!r} came before with other content; "
        "an id names one event for ever. Send this one under an id of its own"
    )
    return DeadLetter(one.entry_id, one.raw, "id_reused", sentence, one.key, one.order_id)

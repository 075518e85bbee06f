"""Dead letters put on the queue again, with the bytes as they came."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, Row

from domain.errors import InvalidEvent
from domain.parsing import parse
from worker import points
from worker.effects import FAULTS, unprocessable
from worker.storage import dead_letters
from worker.storage.database import now, reading, transaction
from worker.storage.dead_letters import Code
from worker.streams import Queue


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the bytes of a dead letter would come to nothing again."""

    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class Retried:
    """How many dead letters are on the queue again; and by id those that are not, since it would be in vain."""

    done: int
    in_vain: Mapping[int, Fault]


def retry(engine: Engine, queue: Queue, dead_letter_ids: Collection[int], by: str, because: str) -> Retried:
    """Put those of these dead letters that are open on the queue again, and note who did so, when and why.

    They are added first and noted then: killed in between, they are still open, and are noted when it is run again. Nor
    does a second one at the same time add any twice.
    """
    with reading(engine) as connection:
        letters = dead_letters.still_open(connection, dead_letter_ids)
    clock = datetime.now(UTC)
    in_vain = {row.dead_letter_id: fault for row in letters if (fault := _fault(row, clock))}
    sound = {_name(row): row for row in letters if row.dead_letter_id not in in_vain}
    entry_ids = queue.add_once({name: bytes(row.bytes) for name, row in sound.items()})
    points.passed("retry: on the queue")
    with transaction(engine) as connection:
        noted = {sound[name].dead_letter_id: entry_id for name, entry_id in entry_ids.items()}
        done = dead_letters.retried(connection, noted, by, because, now(connection))
    return Retried(done, in_vain)


def _name(row: Row[Any]) -> str:
    """What names a dead letter beyond its database."""
    return f"{row.entry_id} {row.digest}"


def _fault(row: Row[Any], clock: datetime) -> Fault | None:
    """What this version of the program would say to the bytes by themselves."""
    if row.code == "bytes_lost":
        return Fault(row.code, row.sentence)
    try:
        parse(bytes(row.bytes), clock)
    except InvalidEvent as error:
        return Fault(error.code, str(error))
    except FAULTS as error:
        return Fault("unprocessable", unprocessable(error))
    return None

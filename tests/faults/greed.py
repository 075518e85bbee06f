"""An order on which deciding takes all the memory that there is, every time, as a fault of the program might."""

import os
import resource
import signal
from typing import Any

from domain.decisions import decide
from worker import settle

VARIABLE = "SHORTPICK_TEST_GREED"
ORDER = "greedy"
LIMIT_BYTES = 1 << 28
PIECE_BYTES = 1 << 24


def begin(how: str) -> None:
    """Be greedy in this process and its children. `memory error`: they may not have more than LIMIT_BYTES beside what
    they have; `kill`: they are killed when they have so much, as by a kernel that runs out of it."""

    def decide_greedily(order: Any, event: Any, *rest: Any) -> Any:
        if event.data.order_id == ORDER and event.type == "inventory.shortage":
            _take(how)
        return decide(order, event, *rest)

    settle.decide = decide_greedily  # type: ignore[assignment]  # it takes what the other takes


def _take(how: str) -> None:
    if how == "memory error":
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_size() + LIMIT_BYTES, most))
    taken: list[bytes] = []
    while how == "memory error" or len(taken) * PIECE_BYTES < LIMIT_BYTES:
        taken.append(os.urandom(1) * PIECE_BYTES)
    os.kill(os.getpid(), signal.SIGKILL)


def _size() -> int:
    """The address space of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

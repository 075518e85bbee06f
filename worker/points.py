"""Named points that the work passes, so that a test can end, stop or delay a process exactly there."""

from collections.abc import Callable
from typing import Literal

Point = Literal[
    "ingress: read",
    "ingress: dispatched",
    "batch: before claim",
    "batch: after claim",
    "batch: after lock",
    "batch: before commit",
    "batch: after commit",
    "batch: acknowledged",
    "run: before commit",
    "run: after commit",
    "release: before commit",
    "release: after commit",
    "verdicts: before commit",
    "verdicts: after commit",
    "retry: on the queue",
    "relay: before commit",
    "relay: positions given",
    "relay: before append",
    "relay: appended",
]

hook: Callable[[Point], None] | None = None
"""Set by tests alone; nothing in the program sets it."""


def passed(point: Point) -> None:
    """The work has come to this point."""
    if hook is not None:
        hook(point)

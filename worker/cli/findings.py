"""What the checks of `shortpick doctor` find: how grave it is, a sentence, and what to change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of `check`. `change` says what to do about it, or how to tell; None where all is well."""

    level: Level
    check: str
    says: str
    change: str | None = None

    def as_json(self) -> Mapping[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def ok(check: str, says: str) -> Finding:
    return Finding("ok", check, says)


def warning(check: str, says: str, change: str) -> Finding:
    return Finding("warning", check, says, change)


def fault(check: str, says: str, change: str) -> Finding:
    return Finding("fault", check, says, change)

"""What a soak has found, on one page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """`counts` and `faults` by what was counted; `problems` are the sentences of the checker and of the comparison with the
    reference model: without any, all is well."""

    seed: int
    minutes: float
    counts: dict[str, int]
    people: Counter[str]
    faults: Counter[str]
    restarts: Counter[str]
    ended: Counter[str]
    done: Sequence[int]
    memory: Sequence[str]
    rest_seconds: float
    longest_wait_seconds: float
    check_seconds: float
    problems: Sequence[str]

    @property
    def exit_code(self) -> int:
        return 1 if self.problems else 0

    def text(self) -> str:
        return "\n".join(
            [
                f"Soak of {self.minutes:g} minutes, seed {self.seed}",
                "",
                *_listed(self.counts),
                *_listed(self.people),
                "",
                f"{self.faults.total()} faults",
                *_listed(dict(sorted(self.faults.items()))),
                "",
                "Restarts: " + _inline(self.restarts),
                "Ended by themselves, by exit code: " + _inline(self.ended),
                "",
                f"Entries done in each quarter: {', '.join(f'{number:,}' for number in self.done)}",
                f"An entry waited for {self.longest_wait_seconds:.0f} s at the longest.",
                f"At rest {self.rest_seconds:.0f} s after the last event; checked in {self.check_seconds:.0f} s.",
                "",
                "Memory in MiB (minimum/median/maximum of each quarter)",
                *self.memory,
                "",
                *self._verdict(),
            ]
        )

    def _verdict(self) -> list[str]:
        if not self.problems:
            return ["Verdict: good. The checker finds nothing, and the reference model agrees."]
        return [f"Verdict: BAD, {len(self.problems)} problems:", *self.problems[:SHOWN]]


SHOWN = 30


def _listed(counts: dict[str, int]) -> list[str]:
    return [f"{number:>9,}  {name}" for name, number in counts.items()]


def _inline(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"

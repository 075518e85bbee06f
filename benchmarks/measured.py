"""How a contestant is measured: rounds of one load, each with the CPU time that its processes took."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import psutil


@dataclass(slots=True)
class Measured:
    """The rounds of one contestant: events a second, and microseconds of CPU time an event, by process."""

    name: str
    rates: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def spread(self) -> float:
        """Between the slowest and the fastest round, as a share of the median."""
        return (max(self.rates) - min(self.rates)) / self.rate

    def microseconds(self) -> dict[str, float]:
        return {name: statistics.median(one[name] for one in self.cpu) for name in self.cpu[0]}

    def round(self, events: int, processes: Mapping[str, psutil.Process], run: Callable[[], None]) -> None:
        """Time a load of so many events."""
        before, start = {name: cpu_seconds(one) for name, one in processes.items()}, time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        self.rates.append(events / seconds)
        self.cpu.append({name: 1e6 * (cpu_seconds(one) - before[name]) / events for name, one in processes.items()})


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and its children, those that have ended among them; of this process itself without them."""
    if process.pid == os.getpid():
        own = process.cpu_times()
        return own.user + own.system
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total

"""Faults that wait at named points of the program (worker/points.py): each is a file, and is met once, by the process
that moves it away first. So a test can tell which have happened, and a process that was started again meets no more."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Literal, get_args

from worker.points import Point

Act = Literal["kill", "kill parent", "kill both", "stop", "sleep"]
"""SIGKILL to itself, to its parent, or to both; SIGSTOP to itself; to do nothing for some seconds."""
VARIABLE = "SHORTPICK_TEST_FAULTS"


class Faults:
    """The faults of a test, in a folder that its processes know too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parent = os.getpid()  # of those that are forked later
        for name in ("laid", "met"):
            (folder / name).mkdir(exist_ok=True)

    def lay(self, point: Point, act: Act = "kill", *, seconds: float = 0, chance: float = 1) -> None:
        """Whoever passes the point next does this; with a `chance` below 1, somebody who passes it later may."""
        assert point in get_args(Point)
        number = len(list(self.folder.glob("*/*")))
        # Renamed into its place, so that nobody meets half of it.
        (self.folder / "new").write_text(f"{point}\n{act}\n{seconds}\n{chance}")
        (self.folder / "new").rename(self.folder / "laid" / f"{number:04}")

    def laid(self) -> int:
        """How many wait to be met."""
        return len(list((self.folder / "laid").iterdir()))

    def met(self) -> list[tuple[str, str]]:
        """Points and acts, in the order in which they were met, as far as can be told."""
        files = sorted((self.folder / "met").iterdir(), key=lambda path: path.stat().st_ctime_ns)
        return [(lines[0], lines[1]) for lines in (path.read_text().splitlines() for path in files)]

    def met_by(self) -> list[int]:
        """The process that met each, in no order."""
        return [int(path.read_text().splitlines()[-1]) for path in (self.folder / "met").iterdir()]

    def take_away(self) -> None:
        """No more of those that were not met."""
        for path in (self.folder / "laid").iterdir():
            path.unlink(missing_ok=True)

    def meet(self, point: Point) -> None:
        """Called by a process that passes the point; it meets one fault at most."""
        for path in sorted((self.folder / "laid").iterdir()):
            try:
                where, act, seconds, chance = path.read_text().splitlines()[:4]  # whoever met it adds a line
                if where != point or random.random() >= float(chance):
                    continue
                if "kill" in act and act != "kill" and os.getppid() != self._parent:
                    continue  # its parent was killed already, and somebody else is in its place
                met = path.rename(self.folder / "met" / path.name)
            except FileNotFoundError:
                continue  # another process met it
            with met.open("a") as file:
                file.write(f"\n{os.getpid()}")
            _suffer(act, float(seconds))
            return


def _suffer(act: str, seconds: float) -> None:
    match act:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill parent":
            os.kill(os.getppid(), signal.SIGKILL)
        case "kill both":
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            time.sleep(seconds)

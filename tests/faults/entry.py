"""`shortpick` with faults at its points: `python -m tests.faults.entry COMMAND…`."""

import os
from pathlib import Path

from tests.faults.faults import VARIABLE, Faults
from worker import points
from worker.cli.main import run

if __name__ == "__main__":
    points.hook = Faults(Path(os.environ[VARIABLE])).meet
    run()

"""`shortpick` with faults at its points, a clock that is off, and greed: `python -m tests.faults.entry COMMAND…`."""

import json
import os
from datetime import timedelta
from pathlib import Path

import time_machine

from tests.faults import greed
from tests.faults.faults import VARIABLE, Faults
from worker import points, shortages
from worker.cli.main import run
from worker.storage import database

POSTGRESQL_OPTIONS = "SHORTPICK_TEST_POSTGRESQL_OPTIONS"
"""Other options of a connection to PostgreSQL, as JSON: shorter timeouts, say."""

CLOCK = "SHORTPICK_TEST_CLOCK_AHEAD_SECONDS"
IDLE = timedelta(seconds=2)
"""How soon a run whose message was lost is carried on; 15 seconds would be long for a test."""


def main() -> None:
    points.hook = Faults(Path(os.environ[VARIABLE])).meet
    shortages.IDLE, shortages.due.__defaults__ = IDLE, (IDLE,)
    if how := os.environ.get(greed.VARIABLE):
        greed.begin(how)
    if ahead := os.environ.get(CLOCK):
        time_machine.travel(timedelta(seconds=float(ahead))).start()
    database.POSTGRESQL_OPTIONS |= json.loads(os.environ.get(POSTGRESQL_OPTIONS, "{}"))
    run()


if __name__ == "__main__":
    main()

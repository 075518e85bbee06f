"""`python -m worker.cli` is `shortpick`."""

from worker.cli.main import run

run()

"""A worker process that carries out the shortages of a SKU: `python -m tests.integration.running DATABASE SKU`. It tells
its resident memory along it, in bytes."""

import sys

import psutil

from tests.integration.batches import processor
from worker import logs, shortages
from worker.storage import database


def main(database_url: str, sku: str) -> None:
    logs.setup("warning", "json", "test")
    engine = database.create(database_url)
    while shortages.run(processor(engine), [sku]) != ([], []):
        sys.stdout.write(f"{psutil.Process().memory_info().rss}\n")
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])

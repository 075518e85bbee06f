"""The limit: what Shortpick writes to the database for a load, written again with nothing around it.

The statements that write, with their parameters, are recorded while batches of 500 events are processed; then they are
sent again to an empty database, a transaction a batch. Nothing is read, parsed, decided, locked or published.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
from sqlalchemy import event, text

from benchmarks.batches import processor_without_streams
from benchmarks.events import Load
from worker import migrations
from worker.process import process_entries
from worker.storage import database
from worker.streams import Entry

BATCH = 500
WRITES = ("INSERT", "UPDATE", "DELETE")

Transactions = list[list[tuple[str, Any]]]


class BulkSql:
    def __init__(self, recording_url: str, database_url: str, writers: int) -> None:
        self.name = f"the limit: the same writes as bulk SQL, connections: {writers}"
        self._recording_url, self._writers = recording_url, writers
        self._engine = database.create(database_url, pool_size=writers)
        self._recorded: list[Transactions] = []

    def __enter__(self) -> "BulkSql":
        migrations.upgrade(self._engine)
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    def processes(self) -> dict[str, psutil.Process]:
        return {"sender": psutil.Process()}

    def prepare(self, load: Load) -> None:
        """Record what is written for this load, for each writer a part of it."""
        parts = [Load(f"{load.name}-{writer}", load.orders // self._writers) for writer in range(self._writers)]
        self._recorded = [record(self._recording_url, part) for part in parts]
        with self._engine.begin() as connection:
            names = "orders, order_items, fulfillments, shipped_units, events, cancellations"
            connection.execute(text(f"TRUNCATE {names}"))

    def run(self, load: Load) -> None:
        with ThreadPoolExecutor(self._writers) as pool:
            list(pool.map(self._write, self._recorded))

    def _write(self, transactions: Transactions) -> None:
        for statements in transactions:
            with self._engine.begin() as connection:
                for statement, parameters in statements:
                    connection.exec_driver_sql(statement, parameters)


def record(url: str, load: Load) -> Transactions:
    """Process a load in this process, and return what each of its transactions wrote."""
    engine = database.create(url)
    migrations.upgrade(engine)
    transactions: Transactions = []

    def begun(*_: object) -> None:
        transactions.append([])

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        if statement.lstrip().startswith(WRITES):
            transactions[-1].append((statement, parameters))

    event.listen(engine, "begin", begun)
    event.listen(engine, "before_cursor_execute", note)
    processor = processor_without_streams(engine)
    entries = [Entry(f"1-{number}", raw) for number, raw in enumerate(load.events)]
    for first in range(0, len(entries), BATCH):
        process_entries(processor, entries[first : first + BATCH])
    engine.dispose()
    return [one for one in transactions if one]

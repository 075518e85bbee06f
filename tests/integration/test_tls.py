"""TLS to Redis, for our own client and for Celery's, and to PostgreSQL: the certificate is checked, and its name."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.servers import PostgresServer, RedisServer
from tests.tls import Certificates, TlsProxy, speak_tls
from worker import bootstrap
from worker.app import broker_trouble
from worker.settings import Settings
from worker.storage import database


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of another authority, and for another host."""
    return Certificates.made(tmp_path_factory.mktemp("other"), host="elsewhere.example")


def our_client(url: str) -> bool:
    """Whether it is let in, and content."""
    client = bootstrap.redis(settings(url))
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()


def celery_client(url: str) -> bool:
    return broker_trouble(settings(url)) is None


def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, database_url="sqlite:////nowhere.db", redis_timeout_seconds=2)


CLIENTS = pytest.mark.parametrize("client", [our_client, celery_client])
Client = Callable[[str], bool]


@CLIENTS
def test_redis_is_trusted_by_its_authority_alone(
    client: Client, redis_server: RedisServer, certificates: Certificates, other: Certificates
) -> None:
    redis_server.start()
    with TlsProxy(redis_server.port, certificates) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        assert client(f"{url}?ssl_ca_certs={certificates.authority}")
        assert not client(f"{url}?ssl_ca_certs={other.authority}")
        assert not client(url)  # the system's authorities do not know it
        assert not client(f"redis://127.0.0.1:{proxy.port}/0")
        assert client(f"{url}?ssl_cert_reqs=none")  # as was asked for


@CLIENTS
def test_redis_must_be_the_host_that_was_named(client: Client, redis_server: RedisServer, other: Certificates) -> None:
    redis_server.start()
    with TlsProxy(redis_server.port, other) as proxy:
        assert not client(f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={other.authority}")


@CLIENTS
def test_a_certificate_can_be_shown_to_redis(
    client: Client, redis_server: RedisServer, certificates: Certificates
) -> None:
    redis_server.start()
    with TlsProxy(redis_server.port, certificates, ask_client=True) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificates.authority}"
        assert not client(url)
        assert client(f"{url}&ssl_certfile={certificates.client}&ssl_keyfile={certificates.client_key}")


@pytest.mark.parametrize("host", ["127.0.0.1", "elsewhere.example"])
def test_rabbitmq_is_checked_alike(
    host: str, tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No RabbitMQ answers here: one that is trusted is spoken to, in vain."""
    redis_server.start()
    shown = Certificates.made(tmp_path, host=host)
    monkeypatch.setenv("SSL_CERT_FILE", str(shown.authority))
    with TlsProxy(redis_server.port, shown) as proxy:
        broker = {"broker_url": f"amqps://127.0.0.1:{proxy.port}//"}
        trouble = broker_trouble(settings(redis_server.url).model_copy(update=broker))
    assert trouble
    assert ("certificate verify failed" in trouble) == (host != "127.0.0.1"), trouble


@pytest.fixture(scope="module")
def tls_postgres(certificates: Certificates) -> Iterator[PostgresServer]:
    with PostgresServer(fsync=False) as server:
        if not speak_tls(server, certificates):
            pytest.skip("this PostgreSQL was built without TLS")
        with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
            admin.execute("CREATE ROLE robot LOGIN")
            admin.execute("CREATE ROLE somebody LOGIN PASSWORD 'sesame'")
        yield server


def is_let_in(server: PostgresServer, user: str, host: str = "127.0.0.1", **options: object) -> str | None:
    """None if it is, else why not."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    engine = database.create(f"postgresql://{user}@{host}:{server.port}/postgres?{query}")
    try:
        with engine.connect() as connection:
            assert connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar_one()
    except OperationalError as error:
        return database.describe(error)
    finally:
        engine.dispose()
    return None


def test_postgresql_is_trusted_by_its_authority_alone(
    tls_postgres: PostgresServer, certificates: Certificates, other: Certificates
) -> None:
    user = "somebody:sesame"
    assert is_let_in(tls_postgres, user, sslmode="verify-full", sslrootcert=certificates.authority) is None
    refused = is_let_in(tls_postgres, user, sslmode="verify-full", sslrootcert=other.authority)
    assert "certificate verify failed" in str(refused)
    assert "no encryption" in str(is_let_in(tls_postgres, user, sslmode="disable"))
    refused = is_let_in(tls_postgres, "somebody:wrong", sslmode="verify-full", sslrootcert=certificates.authority)
    assert "password authentication failed" in str(refused)


def test_postgresql_must_be_the_host_that_was_named(tls_postgres: PostgresServer, certificates: Certificates) -> None:
    options = {"sslmode": "verify-full", "sslrootcert": certificates.authority, "hostaddr": "127.0.0.1"}
    refused = is_let_in(tls_postgres, "somebody:sesame", "elsewhere.example", **options)
    assert "does not match host name" in str(refused)


def test_a_certificate_can_stand_for_a_password(tls_postgres: PostgresServer, certificates: Certificates) -> None:
    trusted = {"sslmode": "verify-full", "sslrootcert": certificates.authority}
    shown = {"sslcert": certificates.client, "sslkey": certificates.client_key}
    assert is_let_in(tls_postgres, "robot", **trusted, **shown) is None
    assert "certificate" in str(is_let_in(tls_postgres, "robot", **trusted))

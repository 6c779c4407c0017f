"""The embedded servers let in whoever has this start's password, and no other process of the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil
import pytest
import redis

from engine.dev.embedded import Embedded
from tests.support.stack import ask, open_folder


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """As the user that the servers run as when root starts them; as ourselves where we are not root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def log_in(servers: Embedded, password: str | None) -> int:
    """What `SELECT 1` answers to the superuser."""
    (folder,) = parse_qs(urlsplit(str(servers.urls.database)).query)["host"]

    async def run() -> int:
        connection = await asyncpg.connect(host=folder, user="postgres", database="postgres", password=password)
        try:
            return int(await connection.fetchval("SELECT 1"))
        finally:
            await connection.close()

    return asyncio.run(run())


def password_of(servers: Embedded) -> str:
    return str(urlsplit(str(servers.urls.database)).password)


@pytest.mark.parametrize("password", [None, "", "postgres", "0" * 64], ids=["none", "empty", "name", "wrong"])
def test_postgresql_lets_nobody_in_without_the_password(servers: Embedded, password: str | None) -> None:
    """HST-12: not even the user that it runs as, which may enter the folder of its socket."""
    with as_nobody(), pytest.raises(asyncpg.InvalidPasswordError):
        log_in(servers, password)
    with as_nobody():
        assert 1 == log_in(servers, password_of(servers))


def test_valkey_lets_nobody_in_without_the_password(servers: Embedded) -> None:
    """HST-12: no command but AUTH is answered."""
    parts = urlsplit(str(servers.urls.redis))
    with as_nobody(), redis.Redis(unix_socket_path=parts.path) as client:
        for command in ("PING", "KEYS *", "CONFIG GET requirepass"):
            with pytest.raises(redis.AuthenticationError):
                client.execute_command(*command.split())
    with as_nobody(), redis.Redis(unix_socket_path=parts.path, password=parts.password) as client:
        assert client.ping()


def test_password_is_in_no_argument_and_no_log(servers: Embedded) -> None:
    """Every user of a host sees the arguments of every process."""
    assert servers.database is not None
    assert servers.redis is not None
    password = password_of(servers)
    for server in (servers.database, servers.redis):
        process = psutil.Process(server.pid)
        for one in (process, *process.children(recursive=True)):
            assert password not in " ".join(one.cmdline())
    run_dir = Path(urlsplit(str(servers.urls.redis)).path).parent
    assert [] == [path.name for path in run_dir.glob("*") if path.is_file() and password in path.read_text()]


def test_each_start_has_another_password() -> None:
    """On the same data, which is kept; yesterday's lets nobody in."""
    with open_folder() as folder:
        with Embedded(folder, redis=False) as first:
            old = password_of(first)
            ask(str(first.urls.database), "CREATE TABLE kept AS SELECT 7 AS value")
        with Embedded(folder, redis=False) as second:
            with pytest.raises(asyncpg.InvalidPasswordError):
                log_in(second, old)
            assert 7 == ask(str(second.urls.database), "SELECT value FROM kept")[0]["value"]


def test_data_of_a_version_without_passwords_is_taken() -> None:
    """Its own list of who may log in says `trust`, and does not count any more."""
    with open_folder() as folder:
        with Embedded(folder, redis=False):
            pass
        hba = folder / "postgresql" / "data" / "pg_hba.conf"
        hba.write_text("local all all trust\n")
        with Embedded(folder, redis=False) as servers:
            with pytest.raises(asyncpg.InvalidPasswordError):
                log_in(servers, "0")
            assert 1 == log_in(servers, password_of(servers))


def test_server_that_is_started_again_keeps_its_password() -> None:
    """Its clients know no other."""
    with Embedded(None) as servers:
        assert servers.database is not None
        assert servers.redis is not None
        psutil.Process(servers.database.pid).kill()
        psutil.Process(servers.redis.pid).kill()
        servers.database.stop()
        servers.redis.stop()
        before = servers.urls
        servers.start_database()
        servers.start_redis()
        assert before == servers.urls
        assert 1 == log_in(servers, password_of(servers))

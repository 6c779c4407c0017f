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

from engine.dev.embedded import OWN_IDS, Embedded, EmbeddedError
from tests.support.stack import ask, open_folder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives the servers another user")


@contextlib.contextmanager
def as_user(uid: int) -> Iterator[None]:
    """As another user, with its group alone."""
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def as_server(servers: Embedded) -> contextlib.AbstractContextManager[None]:
    """As the user that the servers run as when root starts them; as ourselves where we are not root."""
    assert servers.database is not None
    uid = psutil.Process(servers.database.pid).uids().real
    return as_user(uid) if os.geteuid() == 0 else contextlib.nullcontext()


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
    with as_server(servers), pytest.raises(asyncpg.InvalidPasswordError):
        log_in(servers, password)
    with as_server(servers):
        assert 1 == log_in(servers, password_of(servers))


def test_valkey_lets_nobody_in_without_the_password(servers: Embedded) -> None:
    """HST-12: no command but AUTH is answered."""
    parts = urlsplit(str(servers.urls.redis))
    with as_server(servers), redis.Redis(unix_socket_path=parts.path) as client:
        for command in ("PING", "KEYS *", "CONFIG GET requirepass"):
            with pytest.raises(redis.AuthenticationError):
                client.execute_command(*command.split())
    with as_server(servers), redis.Redis(unix_socket_path=parts.path, password=parts.password) as client:
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
        killed = [*family(servers.database.pid), *family(servers.redis.pid)]
        psutil.Process(servers.database.pid).kill()
        psutil.Process(servers.redis.pid).kill()
        servers.database.stop()
        servers.redis.stop()
        psutil.wait_procs(killed, timeout=120)  # none may hold the shared memory of the last PostgreSQL
        before = servers.urls
        servers.start_database()
        servers.start_redis()
        assert before == servers.urls
        assert 1 == log_in(servers, password_of(servers))


@needs_root
def test_servers_have_a_user_of_their_own(servers: Embedded) -> None:
    """HST-12: no account and no other process has it; what they own, nobody else can enter."""
    assert servers.database is not None
    assert servers.redis is not None
    own = [process for server in (servers.database, servers.redis) for process in family(server.pid)]
    [uid] = {process.uids().real for process in own}
    assert uid in OWN_IDS
    with pytest.raises(KeyError):
        pwd.getpwuid(uid)
    others = {process.pid for process in psutil.process_iter() if process.uids().real == uid} - {one.pid for one in own}
    assert not [pid for pid in others if not is_descendant(pid, servers)]
    folder = Path(urlsplit(str(servers.urls.redis)).path).parent
    with as_user(pwd.getpwnam("nobody").pw_uid):
        for path in (folder, folder / "valkey.sock", *(Path(f"/proc/{one.pid}/environ") for one in own)):
            with pytest.raises(PermissionError):
                os.open(path, os.O_RDONLY)
        for one in own:
            with pytest.raises(PermissionError):
                os.kill(one.pid, 0)


@needs_root
def test_two_services_have_two_users_and_one_folder_has_one_service() -> None:
    """A folder that is in use is refused: PostgreSQL would not see the server of another user in it."""
    with open_folder() as folder, Embedded(folder, redis=False) as first, Embedded(None, redis=False) as second:
        assert first.database is not None
        assert second.database is not None
        assert psutil.Process(first.database.pid).uids() != psutil.Process(second.database.pid).uids()
        with pytest.raises(EmbeddedError, match="another service uses it"), Embedded(folder, redis=False):
            pass


@needs_root
def test_data_of_nobody_is_handed_over() -> None:
    """Of a version whose servers ran as nobody; its rows are there, and none of its files is nobody's any more."""
    with open_folder() as folder:
        with Embedded(folder, redis=False) as before:
            ask(str(before.urls.database), "CREATE TABLE kept AS SELECT 7 AS value")
        for path in ((data := folder / "postgresql"), *data.rglob("*")):
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
        with Embedded(folder, redis=False) as after:
            assert 7 == ask(str(after.urls.database), "SELECT value FROM kept")[0]["value"]
            assert {path.stat().st_uid for path in data.rglob("*")} <= set(OWN_IDS)


@needs_root
def test_file_that_is_no_servers_is_not_handed_over() -> None:
    """A link to a file of root's, which the user before may have laid there, stays root's."""
    with open_folder() as folder:
        with Embedded(folder, redis=False):
            pass
        (secret := folder / "secret").write_text("root's")
        os.link(secret, folder / "postgresql" / "data" / "linked")
        with pytest.raises(EmbeddedError, match="linked"), Embedded(folder, redis=False):
            pass
        assert 0 == secret.stat().st_uid


def family(pid: int | None) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def is_descendant(pid: int, servers: Embedded) -> bool:
    """Whether a process that came meanwhile is one of the servers' own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        roots = {servers.database and servers.database.pid, servers.redis and servers.redis.pid}
        return bool(roots & {parent.pid for parent in psutil.Process(pid).parents()})
    return True

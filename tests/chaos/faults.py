"""All that a storm does to the service: one table, ``FAULTS``.

A line of it is one fault: its name, the part that it befalls, what it does, how it is undone, and how long it lasts.
Nothing is ever repaired but what was broken here: the service must find its way back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import asyncpg
import psutil
import redis

from tests.chaos.scene import AWAY, Scene
from tests.support.line import BACK, BOTH, TO, Line
from tests.support.stack import frozen

JUNK = {
    "PostgreSQL": b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
    "Redis": b"*99999999999\r\n",
    "HTTP": b"\0\x9f\x92\x96 no HTTP at all\r\n\r\n",
}
"""Protocol → bytes that no message of it begins with: whoever gets them cannot go on.

Not tried: a message of PostgreSQL that claims to be shorter than its own length, at which asyncpg never returns.
"""
SLOW_S = 0.3
FEW_DESCRIPTORS = 3
"""So many more than a process has open."""
TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    " AND application_name = 'unityai-engine'"
)
PREPARE = """
CREATE TABLE storm (fault text PRIMARY KEY);
CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM storm WHERE fault = 'full') THEN
        RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER no_space BEFORE INSERT OR UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION no_space();
CREATE TRIGGER no_space BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION no_space();
CREATE FUNCTION slow_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM storm WHERE fault = 'slow') THEN PERFORM pg_sleep(0.4); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER slow_writes AFTER INSERT OR UPDATE ON tasks FOR EACH STATEMENT EXECUTE FUNCTION slow_writes();
"""
"""Triggers that do nothing until the table ``storm`` says so: to make them later takes a lock, which others have."""
LOCK_S = 1.0

Blow = Callable[[Scene], AbstractContextManager[object]]


class NotNowError(Exception):
    """A fault cannot come while another one lasts."""


class Fault(NamedTuple):
    """One line of the table."""

    name: str
    part: str
    """What it befalls. No two faults befall the same part at the same time."""
    what: str
    undone: str
    lasts_s: float
    """At least; a long storm lets it last longer now and then."""
    blow: Blow


# ---- processes -----------------------------------------------------------------------------------------------------


def end(name: str, signum: signal.Signals) -> Blow:
    """The API, or any worker, is ended and started again."""
    return lambda scene: scene.ended(name or scene.any_worker(), signum)


def stop(name: str) -> Blow:
    """The API, or any worker, and not what is below it, does nothing for a while."""
    return lambda scene: frozen(scene.parts[name or scene.any_worker()].pid, whole_family=False)


def stop_family(scene: Scene) -> AbstractContextManager[None]:
    """A worker and all below it do nothing for a while, as in a container that is paused."""
    return frozen(scene.parts[scene.any_worker()].pid)


@contextlib.contextmanager
def stall(scene: Scene) -> Iterator[None]:
    """A worker's event loop stands still, for as long as DEBUG_STALL_S says."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(scene.parts[scene.any_worker()].pid, signal.SIGUSR2)
    yield


def is_run_by(*words: str) -> Callable[[psutil.Process], bool]:
    """Tells a process by its command line."""
    return lambda process: all(word in " ".join(process.cmdline()) for word in words)


is_keeper = is_run_by("engine.worker.keeper")
is_checker = is_run_by("engine.api.body.check")


def is_zygote(process: psutil.Process) -> bool:
    """The parent of the sandboxes: the process between the worker and it only waits for it."""
    parent = process.parent()
    return is_run_by("zygote.serve")(process) and parent is not None and "waitpid" in " ".join(parent.cmdline())


def is_child(process: psutil.Process) -> bool:
    """A process that runs a task or is ready for one."""
    parent = process.parent()
    return parent is not None and is_zygote(parent)


def meant(scene: Scene, name: str, is_meant: Callable[[psutil.Process], bool], most: int) -> list[psutil.Process]:
    """Some processes of a sort below the API or any worker, the oldest first: of children those that run a task.

    Raises:
        NotNowError: there is none.
    """
    found = sorted(scene.below(name or scene.any_worker(), is_meant), key=lambda process: process.pid)[:most]
    if not found:
        raise NotNowError
    return found


def kill_below(name: str, is_meant: Callable[[psutil.Process], bool], most: int = 1) -> Blow:
    """Some processes below a part are killed. Their part starts others."""

    @contextlib.contextmanager
    def blow(scene: Scene) -> Iterator[None]:
        for process in meant(scene, name, is_meant, most):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        yield

    return blow


def stop_below(name: str, is_meant: Callable[[psutil.Process], bool], most: int = 1) -> Blow:
    """Some processes below a part do nothing for a while."""

    @contextlib.contextmanager
    def blow(scene: Scene) -> Iterator[None]:
        stopped = meant(scene, name, is_meant, most)
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    return blow


def starve(name: str) -> Blow:
    """A process may open no more than a few further descriptors."""

    @contextlib.contextmanager
    def blow(scene: Scene) -> Iterator[None]:
        process = psutil.Process(scene.parts[name or scene.any_worker()].pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            before = process.rlimit(resource.RLIMIT_NOFILE)
            process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + FEW_DESCRIPTORS, before[1]))
        yield
        with contextlib.suppress(psutil.NoSuchProcess):
            process.rlimit(resource.RLIMIT_NOFILE, before)

    return blow


# ---- lines ---------------------------------------------------------------------------------------------------------


def over(line: str, act: Callable[[Line], AbstractContextManager[None]]) -> Blow:
    """Something happens to a line."""
    return lambda scene: act(getattr(scene, line))


@contextlib.contextmanager
def cut(line: Line) -> Iterator[None]:
    """Every connection is reset; new ones pass."""
    line.cut()
    yield


def line_faults(name: str, line: str, protocol: str) -> list[Fault]:
    """All that can happen to a line."""
    kinds: list[tuple[str, str, str, float, Callable[[Line], AbstractContextManager[None]]]] = [
        ("cut", "resets every connection", "new ones pass at once", 0.3, cut),
        ("refused", "resets every connection and lets no new one in", "listens again", 1.0, Line.refusing),
        ("hangs", "lets nothing pass, both ways", "all of it passes, late", 1.5, lambda line: line.hanging(*BOTH)),
        ("hangs back", "lets no answer pass", "they pass, late", 1.5, lambda line: line.hanging(BACK)),
        ("slow", f"passes each piece {SLOW_S:g} s late, both ways", "passes at once",
         1.5, lambda line: line.slow(SLOW_S, *BOTH)),
        ("loses answers", "swallows each answer", "resets what lost one", 1.5, lambda line: line.losing(BACK)),
        ("garbage to", "puts junk in the place of a request", "resets what was spoilt",
         1.0, lambda line: line.garbling(JUNK[protocol], TO, is_answered=protocol != "HTTP")),
        ("garbage back", "puts junk in the place of an answer", "resets what was spoilt",
         1.0, lambda line: line.garbling(JUNK[protocol], BACK)),
    ]  # fmt: skip
    return [
        Fault(f"{name}: {kind}", name, what, undone, lasts_s, over(line, act))
        for kind, what, undone, lasts_s, act in kinds
    ]


# ---- PostgreSQL ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def database_restarted(scene: Scene) -> Iterator[None]:
    """PostgreSQL is stopped and comes back."""
    assert scene.stack.servers.database
    scene.stack.servers.database.stop()
    yield
    scene.stack.servers.start_database()


@contextlib.contextmanager
def database_crashes(scene: Scene) -> Iterator[None]:
    """PostgreSQL dies with all its processes and recovers from its log."""
    server = scene.stack.servers.database
    assert server
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.stop()
    psutil.wait_procs(family, timeout=10)
    yield
    scene.stack.servers.start_database()


def database_hangs(scene: Scene) -> AbstractContextManager[None]:
    """PostgreSQL neither answers nor refuses."""
    assert scene.stack.servers.database
    return frozen(scene.stack.servers.database.pid)


@contextlib.contextmanager
def backend_crashes(scene: Scene) -> Iterator[None]:
    """One session's process of PostgreSQL is killed: PostgreSQL ends all others and recovers."""
    found = scene.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'unityai-engine' LIMIT 1")
    if not found:
        raise NotNowError
    for row in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(row[0], signal.SIGKILL)
    yield


@contextlib.contextmanager
def sessions_end(scene: Scene) -> Iterator[None]:
    """Every session is ended, as an administrator or a failover does."""
    scene.ask(TERMINATE)
    yield


def by_statements(begin: str, undo: str) -> Blow:
    """PostgreSQL is told something, and later the opposite. DATABASE is the name of its database."""

    @contextlib.contextmanager
    def blow(scene: Scene) -> Iterator[None]:
        name = scene.ask("SELECT current_database()")[0][0]
        scene.ask(begin.replace("DATABASE_NAME", f'"{name}"'))
        yield
        scene.ask(undo.replace("DATABASE_NAME", f'"{name}"'))

    return blow


READ_ONLY = by_statements(
    f"ALTER DATABASE DATABASE_NAME SET default_transaction_read_only = on; {TERMINATE}",
    f"BEGIN READ WRITE; ALTER DATABASE DATABASE_NAME RESET default_transaction_read_only; COMMIT; {TERMINATE}",
)


@contextlib.contextmanager
def sessions_refused(scene: Scene) -> Iterator[None]:
    """PostgreSQL lets no new session in, and has ended the old ones. It can be told so in another database only."""
    other = scene.dsn.replace("/postgres?", "/template1?")
    scene.ask("ALTER DATABASE postgres ALLOW_CONNECTIONS false", other)
    scene.ask(TERMINATE, other)
    yield
    scene.ask("ALTER DATABASE postgres ALLOW_CONNECTIONS true", other)


def flagged(fault: str) -> Blow:
    """A trigger of ``PREPARE`` does its work."""
    return by_statements(f"INSERT INTO storm VALUES ('{fault}')", f"DELETE FROM storm WHERE fault = '{fault}'")


@contextlib.contextmanager
def tasks_locked(scene: Scene) -> Iterator[None]:
    """Somebody else has the table of tasks. While a transaction hangs on another fault, nobody gets it."""
    with asyncio.Runner() as runner:
        try:
            connection = runner.run(asyncpg.connect(scene.dsn))
        except AWAY as error:
            raise NotNowError from error
        try:
            lock = f"BEGIN; SET LOCAL lock_timeout = '{LOCK_S:g}s'; LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE"
            try:
                runner.run(connection.execute(lock))
            except (asyncpg.LockNotAvailableError, *AWAY) as error:
                raise NotNowError from error
            yield
        finally:
            with contextlib.suppress(*AWAY):
                runner.run(connection.close())


# ---- Redis ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis_flushed(scene: Scene) -> Iterator[None]:
    """Everything in Redis is gone."""
    with scene.redis() as connection:
        connection.flushall()
    yield


@contextlib.contextmanager
def redis_killed(scene: Scene) -> Iterator[None]:
    """Redis dies, and comes back empty."""
    server = scene.stack.servers.redis
    assert server
    os.kill(server.pid or 0, signal.SIGKILL)
    server.stop()
    yield
    scene.stack.servers.start_redis()


@contextlib.contextmanager
def redis_away(scene: Scene) -> Iterator[None]:
    """Redis is stopped, and comes back empty."""
    assert scene.stack.servers.redis
    scene.stack.servers.redis.stop()
    yield
    scene.stack.servers.start_redis()


def redis_hangs(scene: Scene) -> AbstractContextManager[None]:
    """Redis takes connections and says nothing."""
    assert scene.stack.servers.redis
    return frozen(scene.stack.servers.redis.pid)


def drop_clients(connection: redis.Redis) -> None:
    """End each connection but this one."""
    connection.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    connection.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


@contextlib.contextmanager
def redis_drops_clients(scene: Scene) -> Iterator[None]:
    """Redis ends each connection."""
    with scene.redis() as connection:
        drop_clients(connection)
    yield


@contextlib.contextmanager
def redis_refuses_clients(scene: Scene) -> Iterator[None]:
    """Redis has ended each connection, and has no room for another."""
    with scene.redis() as connection:
        connection.config_set("maxclients", 1)
        drop_clients(connection)
        yield
        connection.config_set("maxclients", 10_000)


def by_setting(name: str, value: int, usual: int) -> Blow:
    """Redis gets a setting, and then its usual one again."""

    @contextlib.contextmanager
    def blow(scene: Scene) -> Iterator[None]:
        with scene.redis() as connection:
            connection.config_set(name, value)
            yield
            connection.config_set(name, usual)

    return blow


@contextlib.contextmanager
def redis_pauses(scene: Scene) -> Iterator[None]:
    """Redis lets every client wait for a while, as while it forks or fails over."""
    with scene.redis() as connection:
        connection.execute_command("CLIENT", "PAUSE", "1500", "ALL")
    yield


# ---- the table -----------------------------------------------------------------------------------------------------

ALL: tuple[Fault, ...] = (
    Fault("API killed", "API", "kill -9", "started again", 0.5, end("API", signal.SIGKILL)),
    Fault("API told to stop", "API", "SIGTERM", "started again", 0.5, end("API", signal.SIGTERM)),
    Fault("API stopped", "API", "SIGSTOP", "SIGCONT", 2.0, stop("API")),
    Fault("API without descriptors", "API", "lowers its limit to three more", "raises it again", 2.0, starve("API")),
    Fault("checker killed", "API", "kill -9 to each checker of bodies", "its API starts others",
          0.3, kill_below("API", is_checker, 2)),
    Fault("checker stopped", "API", "SIGSTOP to each checker of bodies", "SIGCONT",
          2.0, stop_below("API", is_checker, 2)),
    Fault("worker killed", "worker", "kill -9", "started again", 0.3, end("", signal.SIGKILL)),
    Fault("worker told to stop", "worker", "SIGTERM with its hands full", "started again",
          0.5, end("", signal.SIGTERM)),
    Fault("worker stopped", "worker", "SIGSTOP, its keeper goes on", "SIGCONT", 3.0, stop("")),
    Fault("worker paused", "worker", "SIGSTOP to it and all below it, for longer than a lease", "SIGCONT",
          5.0, stop_family),
    Fault("worker stalls", "worker", "its event loop stands still for 4 s", "goes on by itself", 4.5, stall),
    Fault("worker without descriptors", "worker", "lowers its limit to three more", "raises it again",
          2.0, starve("")),
    Fault("keeper killed", "worker", "kill -9 to the process that renews leases", "its worker starts another",
          0.3, kill_below("", is_keeper)),
    Fault("keeper stopped", "worker", "SIGSTOP to it", "SIGCONT", 2.0, stop_below("", is_keeper)),
    Fault("zygote killed", "worker", "kill -9 to the parent of sandboxes", "its worker starts another",
          0.3, kill_below("", is_zygote)),
    Fault("zygote stopped", "worker", "SIGSTOP to it", "SIGCONT", 2.0, stop_below("", is_zygote)),
    Fault("child killed", "worker", "kill -9 to two sandboxes", "their tasks run again",
          0.3, kill_below("", is_child, 2)),
    # at its longest it leaves a task the time that the client has asked for
    Fault("child stopped", "worker", "SIGSTOP to two sandboxes", "SIGCONT", 1.0, stop_below("", is_child, 2)),
    *line_faults("client-API", "to_api", "HTTP"),
    *line_faults("API-PostgreSQL", "api_to_database", "PostgreSQL"),
    *line_faults("worker-PostgreSQL", "worker_to_database", "PostgreSQL"),
    *line_faults("API-Redis", "api_to_redis", "Redis"),
    *line_faults("worker-Redis", "worker_to_redis", "Redis"),
    *line_faults("worker-receiver", "to_receiver", "HTTP"),
    Fault("PostgreSQL restarted", "PostgreSQL", "stops it", "starts it", 0.5, database_restarted),
    Fault("PostgreSQL crashes", "PostgreSQL", "kill -9 to all its processes", "starts it", 0.5, database_crashes),
    Fault("PostgreSQL hangs", "PostgreSQL", "SIGSTOP to all its processes", "SIGCONT", 3.0, database_hangs),
    Fault("session crashes", "PostgreSQL", "kill -9 to one session: it ends all and recovers", "by itself",
          1.0, backend_crashes),
    Fault("sessions ended", "PostgreSQL", "pg_terminate_backend for each", "new ones are let in", 0.3, sessions_end),
    Fault("sessions refused", "PostgreSQL", "ends each and lets no new one in", "lets them in", 1.5, sessions_refused),
    Fault("PostgreSQL read-only", "PostgreSQL", "default_transaction_read_only", "resets it", 2.0, READ_ONLY),
    Fault("PostgreSQL full", "PostgreSQL", "each write of a task fails with disk_full", "writes pass",
          1.5, flagged("full")),
    Fault("PostgreSQL slow", "PostgreSQL", "each write of a task takes 0.4 s more", "writes pass at once",
          1.5, flagged("slow")),
    Fault("tasks locked", "PostgreSQL", "LOCK TABLE tasks", "rolls back", 2.5, tasks_locked),
    Fault("Redis flushed", "Redis", "FLUSHALL", "PostgreSQL has it all", 0.0, redis_flushed),
    Fault("Redis killed", "Redis", "kill -9", "started again, empty", 1.0, redis_killed),
    Fault("Redis away", "Redis", "SIGTERM", "started again, empty", 1.5, redis_away),
    Fault("Redis hangs", "Redis", "SIGSTOP", "SIGCONT", 2.5, redis_hangs),
    Fault("Redis pauses", "Redis", "CLIENT PAUSE for 1.5 s", "by itself", 1.6, redis_pauses),
    Fault("Redis drops clients", "Redis", "CLIENT KILL for each", "new ones are let in", 0.3, redis_drops_clients),
    Fault("Redis refuses clients", "Redis", "ends each, and maxclients 1", "maxclients 10000",
          1.5, redis_refuses_clients),
    Fault("Redis read-only", "Redis", "min-replicas-to-write 1", "0", 1.5, by_setting("min-replicas-to-write", 1, 0)),
    Fault("Redis full", "Redis", "maxmemory 1", "maxmemory 0", 1.5, by_setting("maxmemory", 1, 0)),
)  # fmt: skip

FAULTS: dict[str, Fault] = {fault.name: fault for fault in ALL}
"""Name → the fault."""

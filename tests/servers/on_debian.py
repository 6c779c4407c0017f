"""The service on Debian's servers: behind a pooler, over TLS, after a failover; and what each mistake is called.

``make servers-test`` runs it; its name keeps it out of ``make test``, whose machines need not have these servers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.debian import ESCAPED, Debian, debian
from tests.support.stack import Part, Stack, ask, free_port, light_policies, task, until

TASKS = 20


@pytest.fixture(scope="session")
def servers() -> Iterator[Debian]:
    """All servers of this run."""
    with debian() as found:
        yield found


@pytest.fixture(scope="session")
def postgres(servers: Debian) -> int:
    """A PostgreSQL without TLS."""
    return servers.postgres()


@pytest.fixture(scope="session")
def postgres_tls(servers: Debian) -> int:
    """A PostgreSQL that takes nobody without TLS."""
    return servers.postgres_with_tls()


@pytest.fixture(scope="session")
def redis(servers: Debian) -> int:
    """A Redis without TLS."""
    return servers.redis()


@pytest.fixture(scope="session")
def redis_tls(servers: Debian) -> int:
    """A Redis with TLS only."""
    return servers.redis(tls=True)


@pytest.fixture(scope="session")
def ports(postgres: int, postgres_tls: int, redis: int, redis_tls: int) -> dict[str, int]:
    """All of them, by the names that ``MISTAKES`` has for them."""
    return {"postgres": postgres, "tls": postgres_tls, "redis": redis, "redis_tls": redis_tls}


def database_url(port: int, database: str = "postgres", parameters: str = "") -> str:
    return f"postgresql://app:{ESCAPED}@127.0.0.1:{port}/{database}{parameters}"


def new_database(port: int, name: str, *, tls: str = "") -> None:
    ask(database_url(port, parameters=tls), f'CREATE DATABASE "{name}"')


def try_service(folder: Path, **urls: str) -> list[dict[str, Any]]:
    """Run tasks of many sorts on these servers; the log lines of all parts."""
    stack = Stack(folder, rewire=lambda environ: environ | urls)
    try:
        stack.worker()
        body = task("result = sum(args)", labels={"of": "these"})
        body["parameters"]["args"] = [20, 22]
        bodies = [body | {"idempotency_key": f"key-{number}"} for number in range(TASKS)]
        accepted, again = submit(stack, bodies), submit(stack, bodies)
        assert [one["task_id"] for one in accepted] == [one["task_id"] for one in again]
        large = stack.submit("result = len(args)", priority="high")
        ended = [stack.get(one["task_id"], wait_s=60) for one in accepted]
        assert [("succeeded", 42, 1)] * TASKS == [(one["status"], one["result"], one["attempts"]) for one in ended]
        assert "failed" == stack.get(large["task_id"], wait_s=60)["status"]  # it has no args
        endless = stack.submit("while True: pass")["task_id"]
        until(lambda: stack.get(endless)["status"] == "running", "it runs")
        stack.client.delete(f"/task/{endless}")
        assert "cancelled" == stack.get(endless, wait_s=60)["status"]
        assert "ok" == stack.client.get("/health").json()["status"]
        assert TASKS <= len(stack.client.get("/tasks", params={"label": "of:these", "limit": 100}).json()["tasks"])
    finally:
        stack.close()
    lines = [line for log in folder.glob("*.log") for line in log.read_text().splitlines()]
    return [json.loads(line) for line in lines if line]


def submit(stack: Stack, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Submit a batch, again where a busy machine answers 503: the keys of its tasks allow that."""
    answers: list[httpx.Response] = []

    def is_accepted() -> bool:
        answers.append(stack.client.post("/execute/batch", json=bodies))
        assert answers[-1].status_code in (200, 503), answers[-1].text
        return answers[-1].status_code == 200 and all("task" in one for one in answers[-1].json()["tasks"])

    until(is_accepted, "the batch is accepted", 30)
    return [one["task"] for one in answers[-1].json()["tasks"]]


def errors(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("level") in ("error", "critical") or "exception" in line]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_service_works_behind_pgbouncer(servers: Debian, postgres: int, redis: int, tmp_path: Path, mode: str) -> None:
    """As it comes from Debian: no setting of PgBouncer and none of ours."""
    new_database(postgres, f"behind_{mode}")
    url = database_url(servers.pgbouncer(postgres, mode), f"behind_{mode}")
    lines = try_service(tmp_path, DATABASE_URL=url, REDIS_URL=f"redis://:{ESCAPED}@127.0.0.1:{redis}/0")
    assert [] == errors(lines)
    assert {True} == {line["pooled"] for line in lines if line["event"] == "PostgreSQL is open"}


def test_service_works_over_tls_with_passwords_of_any_characters(
    servers: Debian, postgres_tls: int, redis_tls: int, tmp_path: Path
) -> None:
    """Both servers prove who they are; what is special in a URL is percent-encoded."""
    tls = f"?sslmode=verify-full&sslrootcert={servers.ca}"
    new_database(postgres_tls, "over_tls", tls=tls)
    lines = try_service(
        tmp_path,
        DATABASE_URL=database_url(postgres_tls, "over_tls", tls),
        REDIS_URL=f"rediss://:{ESCAPED}@127.0.0.1:{redis_tls}/1?ssl_ca_certs={servers.ca}",
    )
    assert [] == errors(lines)
    assert {False} == {line["pooled"] for line in lines if line["event"] == "PostgreSQL is open"}


def test_hosts_are_named_and_the_one_that_takes_changes_is_used(
    servers: Debian, postgres: int, redis: int, tmp_path: Path
) -> None:
    """As after a failover: the first is read-only, and ``target_session_attrs`` passes it by."""
    standby = servers.postgres("default_transaction_read_only=on")
    hosts = f"127.0.0.1:{standby},127.0.0.1:{postgres}"
    url = f"postgresql://app:{ESCAPED}@{hosts}/postgres?target_session_attrs=read-write"
    assert [] == errors(try_service(tmp_path, DATABASE_URL=url, REDIS_URL=f"redis://:{ESCAPED}@127.0.0.1:{redis}/2"))


MISTAKES: dict[str, tuple[str, str]] = {
    "wrong password": ("postgresql://app:wrong@127.0.0.1:{postgres}/postgres", "password authentication failed"),
    "no such database": ("postgresql://app:{word}@127.0.0.1:{postgres}/nothing", '"nothing" does not exist'),
    "no TLS where it is required": (
        "postgresql://app:{word}@127.0.0.1:{tls}/postgres?sslmode=disable",
        "no encryption",
    ),
    "TLS where there is none": ("postgresql://app:{word}@127.0.0.1:{postgres}/postgres?sslmode=require", "SSL upgrade"),
    "another authority": (
        "postgresql://app:{word}@127.0.0.1:{tls}/postgres?sslmode=verify-full&sslrootcert={other}",
        "CERTIFICATE_VERIFY_FAILED",
    ),
    "another name": (
        "postgresql://app:{word}@127.0.0.2:{tls}/postgres?sslmode=verify-full&sslrootcert={ca}",
        "Connect",
    ),
    "a parameter that there is not": (
        "postgresql://app:{word}@127.0.0.1:{postgres}/postgres?no_such_thing=1",
        'unrecognized configuration parameter "no_such_thing"',
    ),
    "nobody listens": ("postgresql://app:{word}@127.0.0.1:{free}/postgres", "Connect"),
    "no such host": ("postgresql://app:{word}@no-such-host.invalid/postgres", "Name or service not known"),
    "Redis: wrong password": ("redis://:wrong@127.0.0.1:{redis}/0", "invalid username-password pair"),
    "Redis: no password": ("redis://127.0.0.1:{redis}/0", "Authentication required"),
    "Redis: no such database": ("redis://:{word}@127.0.0.1:{redis}/99", "DB index is out of range"),
    "Redis: another authority": (
        "rediss://:{word}@127.0.0.1:{redis_tls}/0?ssl_ca_certs={other}",
        "CERTIFICATE_VERIFY_FAILED",
    ),
    "Redis: no authority": ("rediss://:{word}@127.0.0.1:{redis_tls}/0", "CERTIFICATE_VERIFY_FAILED"),
    "Redis: no TLS where it is required": ("redis://:{word}@127.0.0.1:{redis_tls}/0", "Redis"),
    "Redis: no such host": ("redis://:{word}@no-such-host.invalid/0", "Name or service not known"),
}


@pytest.mark.parametrize(("url", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_one_clear_line(servers: Debian, ports: dict[str, int], tmp_path: Path, url: str, said: str) -> None:
    """In the log of the API: the reason in words, no traceback beside it, and no password."""
    given = url.format(word=ESCAPED, free=free_port(), other=servers.other_ca, ca=servers.ca, **ports)
    wrong = {"DATABASE_URL" if given.startswith("postgresql") else "REDIS_URL": given}
    right = {
        "DATABASE_URL": database_url(ports["postgres"]),
        "REDIS_URL": f"redis://:{ESCAPED}@127.0.0.1:{ports['redis']}/3",
        "POLICIES_DIR": str(light_policies(tmp_path, "custom_script")),
        "PORT": str(free_port()),
    }
    log = tmp_path / "api.log"
    api = Part(["api"], right | wrong, log)
    try:
        until(lambda: said in log.read_text().replace("\\", ""), f"the log says {said!r}", 60)
        first = len(log.read_text())
        until(lambda: len(log.read_text()) > first or url.startswith("redis"), "it has tried again", 60)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [] == errors(lines)
        assert "wrong" not in log.read_text()
        assert ESCAPED not in log.read_text()
    finally:
        api.stop()

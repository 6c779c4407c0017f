"""``python -m engine doctor``: what keeps a service from working here, each with its fix."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import typer

from engine.cli.shared import AsJson, load, print_json, sentences

if TYPE_CHECKING:
    from engine.config.settings import Settings

ANSWER_S = 5.0
CLOCK_S = 5.0
"""Leases and signatures of callbacks allow for less than this between two clocks."""
FREE_MIB = 256


class DoctorFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    detail: str
    fix: str | None = None
    """What to do; ``None`` where all is well."""


def doctor(json: AsJson = False) -> None:
    """Look at database, Redis, keys, clock, disk and isolation, and say the fix of each fault. Exit code 1 if any."""
    with sentences():
        settings = load()
        found = [*asyncio.run(_ask_servers(settings)), _keys(settings), _disk(), _isolation(settings)]
        if json:
            print_json(found)
        else:
            for one in found:
                print(f"{'ok   ' if one.fix is None else 'FAULT'} {one.name}: {one.detail}")
                if one.fix is not None:
                    print(f"      fix: {one.fix}")
        raise typer.Exit(1 if any(one.fix is not None for one in found) else 0)


async def _ask_servers(settings: Settings) -> list[DoctorFinding]:
    return [*await _database(settings), await _redis(settings)]


async def _database(settings: Settings) -> list[DoctorFinding]:
    """Whether PostgreSQL answers and takes changes, and whether its clock is ours."""
    import asyncpg

    if not settings.database_url:
        return [_not_set("database", "DATABASE_URL")]
    try:
        async with asyncio.timeout(ANSWER_S):
            connection = await asyncpg.connect(settings.database_url)
            try:
                row = await connection.fetchrow(
                    "SELECT clock_timestamp() AS now, current_setting('server_version') AS version, "
                    "current_setting('transaction_read_only') AS read_only"
                )
            finally:
                await connection.close()
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        fix = "start PostgreSQL, or set DATABASE_URL to where it is, with a database and a user that there are"
        return [DoctorFinding(name="database", detail=f"PostgreSQL does not answer: {_why(error)}", fix=fix)]
    is_read_only = row["read_only"] == "on"
    fix = "name the primary in DATABASE_URL: this server takes no changes (it is a standby, or recovers)"
    return [
        DoctorFinding(
            name="database", detail=f"PostgreSQL {row['version']} answers", fix=fix if is_read_only else None
        ),
        _clock((datetime.now(UTC) - row["now"]).total_seconds()),
    ]


def _clock(ahead_s: float) -> DoctorFinding:
    detail = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} PostgreSQL's"
    fix = "synchronise the clocks of both hosts (chrony, systemd-timesyncd)"
    return DoctorFinding(name="clock", detail=detail, fix=fix if abs(ahead_s) > CLOCK_S else None)


async def _redis(settings: Settings) -> DoctorFinding:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    if not settings.redis_url:
        return _not_set("redis", "REDIS_URL")
    started = time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_S), Redis.from_url(settings.redis_url) as client:
            await client.ping()
    except (OSError, TimeoutError, ValueError, RedisError) as error:
        fix = "start Redis or Valkey, or set REDIS_URL to where it is"
        return DoctorFinding(name="redis", detail=f"Redis does not answer: {_why(error)}", fix=fix)
    return DoctorFinding(name="redis", detail=f"Redis answers within {(time.perf_counter() - started) * 1000:.0f} ms")


def _keys(settings: Settings) -> DoctorFinding:
    from engine.config.keys import KeysError, read_keys

    make = "python -m engine keys new --tenant NAME makes one"
    if settings.api_keys_file is None:
        fix = f"set API_KEYS_FILE, which production requires; {make}" if settings.environment == "production" else None
        return DoctorFinding(name="keys", detail="there are none: every caller is one tenant", fix=fix)
    try:
        keys = read_keys(settings.api_keys_file)
    except KeysError as error:
        return DoctorFinding(name="keys", detail=str(error), fix=f"repair or remove the entry that it names; {make}")
    expired = sum(key.expires_at is not None and key.expires_at <= datetime.now(UTC) for key in keys.values())
    detail = f"{len(keys)} in {settings.api_keys_file}, {expired} of them expired"
    return DoctorFinding(name="keys", detail=detail, fix=make if expired == len(keys) else None)


def _disk() -> DoctorFinding:
    folder = tempfile.gettempdir()
    free_mib = shutil.disk_usage(folder).free >> 20
    detail = f"{free_mib:,} MiB free in {folder}"
    fix = f"make room in {folder}, or name another folder by TMPDIR: uploads and workspaces need {FREE_MIB} MiB"
    return DoctorFinding(name="disk", detail=detail, fix=fix if free_mib < FREE_MIB else None)


def _isolation(settings: Settings) -> DoctorFinding:
    from engine.cli.once import check_host

    found = check_host(settings)
    if found.met:
        return DoctorFinding(name="isolation", detail=f"profile {found.host.profile}; it meets every policy")
    missing = [f"{policy.policy} lacks {', '.join(policy.missing)}" for policy in found.policies if not policy.met]
    fixes = [f"{layer.name}: {layer.fix}" for layer in found.host.layers if layer.fix]
    return DoctorFinding(
        name="isolation",
        detail=found.fault or "; ".join(missing),
        fix="; ".join(fixes) or "`python -m engine check` shows each layer",
    )


def _not_set(name: str, variable: str) -> DoctorFinding:
    fix = f"set {variable}; `python -m engine up` starts a server of its own"
    return DoctorFinding(name=name, detail=f"{variable} is not set", fix=fix)


def _why(error: BaseException) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)

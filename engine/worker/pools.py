"""The sandboxes of a worker: the template of its zygotes, and one started pool for each policy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from engine.config import libraries, model_files
from engine.config.settings import PROJECT_DIR, Settings
from sandbox import (
    Host,
    Policy,
    Pool,
    SplitPool,
    Template,
    make_pool,
    probe_host,
)

ENTRY = "handlers.entry:main"


def template(settings: Settings) -> Template:
    """The template of the zygotes of a process with these settings."""
    return Template(
        code=PROJECT_DIR,
        entry=ENTRY,
        libraries=libraries.find_sets(settings.libraries_dir),
        places={"scripts": settings.scripts_dir, model_files.PLACE: settings.models_dir}
        | ({"inputs": settings.files_dir} if settings.files_dir else {}),
        ca_file=settings.ca_file,
        egress_exceptions=settings.egress_allow_private,
        uid=settings.sandbox_uid,
        gid=settings.sandbox_gid,
    )


@contextlib.asynccontextmanager
async def open_pools(
    settings: Settings, host: Host, policies: tuple[Policy, ...], *, ready: int
) -> AsyncIterator[dict[str, Pool | SplitPool]]:
    """A started pool for each policy, by policy name; closed at the end.

    Raises:
        HostError: a policy requires a layer that this host lacks, or libraries or models that are not there.
        SandboxError: a zygote did not come up.
    """
    libraries.require(settings.libraries_dir, policies)
    model_files.require(settings.models_dir, policies)
    made_of = template(settings)
    pools = {
        policy.name: make_pool(policy, host, made_of, ready=ready, rotate_after=settings.rotate_after)
        for policy in policies
    }
    try:
        await asyncio.gather(*(pool.start() for pool in pools.values()))
        yield pools
    finally:
        await asyncio.gather(*(pool.close() for pool in pools.values()), return_exceptions=True)


def probe(settings: Settings) -> Host:
    """Probe this host's layers, under the profile that the settings name."""
    return probe_host(
        settings.sandbox_uid,
        settings.sandbox_gid,
        isolation=settings.isolation,
        landlock_abi_max=settings.sandbox_landlock_abi_max,
    )

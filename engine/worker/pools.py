"""The sandboxes of a worker: the template of its zygotes, and one started pool for each policy."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from engine.config import libraries, model_files
from engine.config.settings import PROJECT_DIR, Settings
from engine.model.cancel import end_tasks
from engine.telemetry.logs import get_logger
from sandbox import (
    Host,
    Policy,
    Pool,
    SandboxError,
    SplitPool,
    Template,
    make_pool,
    probe_host,
)

ENTRY = "handlers.entry:main"
GRACE_S = 20.0
"""A worker that is ready for one policy waits so long for the others, then begins; they follow."""
AGAIN_S = 10.0
"""Between two tries to start the pool of a policy."""
COMING = "its zygote is being started"
AnyPool = Pool | SplitPool


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
        start_s=settings.zygote_start_s,
        uid=settings.sandbox_uid,
        gid=settings.sandbox_gid,
    )


def pool_maker(
    settings: Settings, host: Host, policies: tuple[Policy, ...], *, ready: int
) -> Callable[[Policy], AnyPool]:
    """A function that makes the pool of one of these policies.

    Raises:
        HostError: libraries or models of a policy are not there.
    """
    libraries.require(settings.libraries_dir, policies)
    model_files.require(settings.models_dir, policies)
    made_of = template(settings)
    return lambda policy: make_pool(policy, host, made_of, ready=ready, rotate_after=settings.rotate_after)


@contextlib.asynccontextmanager
async def open_pools(
    settings: Settings, host: Host, policies: tuple[Policy, ...], *, ready: int
) -> AsyncIterator[dict[str, AnyPool]]:
    """A started pool for each policy, by policy name; closed at the end.

    Raises:
        HostError: a policy requires a layer that this host lacks, or libraries or models that are not there.
        SandboxError: a zygote did not come up.
    """
    make = pool_maker(settings, host, policies, ready=ready)
    pools = {policy.name: make(policy) for policy in policies}
    try:
        await asyncio.gather(*(pool.start() for pool in pools.values()))
        yield pools
    finally:
        await asyncio.gather(*(pool.close() for pool in pools.values()), return_exceptions=True)


@contextlib.asynccontextmanager
async def open_serving_pools(
    settings: Settings, host: Host, policies: tuple[Policy, ...], *, ready: int
) -> AsyncIterator[ServingPools]:
    """The pools of a worker, as soon as it can serve; closed at the end.

    Raises:
        HostError: as ``open_pools``: what a policy requires and this host lacks stops the worker.
        SandboxError: the zygote of no policy came up.
    """
    pools = ServingPools(pool_maker(settings, host, policies, ready=ready), policies)
    try:
        await pools.start()
        yield pools
    finally:
        await pools.close()


class ServingPools(Mapping[str, AnyPool]):
    """The pools of a worker, by policy: those that are ready serve, and each other one is started until it is.

    A task under a policy that is not ready yet waits for its zygote, in its slot, as it does when a zygote has died. If
    the start fails it is queued again, and no attempt is spent (``FailingPolicies``).
    """

    def __init__(self, make: Callable[[Policy], AnyPool], policies: tuple[Policy, ...]) -> None:
        """
        Args:
            make: makes the pool of a policy.
            policies: those that the worker has.
        """
        self._make = make
        self._policies = {policy.name: policy for policy in policies}
        self._pools = {name: make(policy) for name, policy in self._policies.items()}
        self._tried: dict[str, asyncio.Event] = {name: asyncio.Event() for name in self._policies}
        self._first_error: SandboxError | None = None
        self._starting: list[asyncio.Task[None]] = []
        self.not_ready: dict[str, str] = dict.fromkeys(self._policies, COMING)
        """Policy → why its sandboxes do not stand yet."""

    def __getitem__(self, name: str) -> AnyPool:
        return self._pools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    async def start(self) -> None:
        """Start all pools; return when all are ready or have been tried, or when one has been ready for ``GRACE_S``.

        Raises:
            HostError: this host lacks a layer that a policy requires.
            SandboxError: none is ready, and each has been tried.
        """
        self._starting = [asyncio.create_task(self._keep_starting(name)) for name in self._pools]
        all_tried = asyncio.create_task(self._all_tried())
        try:
            waited = {all_tried, *self._starting}
            until_s: float | None = None
            while not all_tried.done():
                grace_s = None if until_s is None else max(0.0, until_s - time.monotonic())
                done, _ = await asyncio.wait(waited, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # HostError
                if not done:
                    return
                waited -= done
                until_s = until_s or time.monotonic() + GRACE_S
        finally:
            all_tried.cancel()
        if len(self.not_ready) == len(self._pools) and self._first_error is not None:
            raise self._first_error

    async def close(self) -> None:
        """Stop starting, and close every pool."""
        await end_tasks(*self._starting)
        await asyncio.gather(*(pool.close() for pool in self._pools.values()), return_exceptions=True)

    async def _all_tried(self) -> None:
        for tried in self._tried.values():
            await tried.wait()

    async def _keep_starting(self, name: str) -> None:
        """Start the pool of a policy, until it stands. One that failed is closed, and another takes its place."""
        while True:
            try:
                await self._pools[name].start()
            except SandboxError as error:
                self.not_ready[name] = str(error)
                self._first_error = self._first_error or error
                get_logger().error("policy not ready", policy=name, stage=error.stage, reason=error.message)
                self._pools[name] = self._make(self._policies[name])
                self._tried[name].set()
                await asyncio.sleep(AGAIN_S)
            else:
                del self.not_ready[name]
                self._tried[name].set()
                return


def probe(settings: Settings) -> Host:
    """Probe this host's layers, under the profile that the settings name."""
    return probe_host(
        settings.sandbox_uid,
        settings.sandbox_gid,
        isolation=settings.isolation,
        landlock_abi_max=settings.sandbox_landlock_abi_max,
        try_s=settings.zygote_start_s,
    )

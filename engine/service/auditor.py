"""Answers auditors and operators: who ran what, under which grant, what was denied, and which tenant has how much.

Every question is about the asker's own tenant, unless its key has the scope ``admin``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

from engine.model.principal import Principal
from engine.model.trail import (
    AttemptRecord,
    Denial,
    Denied,
    EndedMinute,
    SubmittedTask,
    Submitter,
    TenantLoad,
    Tenants,
    TrailFilter,
    TrailPage,
)
from engine.policies.denials import denials
from engine.policies.policies import Policies
from engine.service.history import History
from engine.store.trail import Trail
from sandbox import Policy, parse_policy

REFUSED = MappingProxyType(
    {
        "host_not_allowed": "no entry of network.allow covers that",
        "private_address": "that is a private address: network.deny_private",
        "too_many_connections": "it had as many connections as it may: network.connections, network.connections_total",
        "bytes_limit": "its bytes were used up: network.in_mib, network.out_mib",
        "head_limit": "the head of its request is too long: network.head_kib",
        "bad_request": "the proxy cannot read that request in one way only",
        "not_tls": "what followed was no TLS, which a tunnel must be",
        "name_mismatch": "inside the tunnel it asked for another host",
    }
)
"""Decision of the egress proxy → the same in words, with the policy's key that makes it."""


class Auditor:
    """Reads the record of tasks, for who may see it."""

    def __init__(self, trail: Trail, policies: Policies, exceptions: tuple[IPv4Network | IPv6Network, ...]) -> None:
        """
        Args:
            trail: the record.
            policies: those of this API.
            exceptions: private networks that policies may name (EGRESS_ALLOW_PRIVATE).
        """
        self._exceptions = exceptions
        self._trail = trail
        self._policies = policies
        self._history = History()

    async def page(self, principal: Principal, wanted: TrailFilter) -> TrailPage:
        """The newest tasks that a filter lets through, or the next of them.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        tenants = await self._tenants(principal, wanted.tenant)
        return (await self._trail.page(tenants.names, wanted))._replace(has_all_tenants=tenants.are_all)

    async def own_page(self, principal: Principal, wanted: TrailFilter) -> TrailPage:
        """The same of the asker's own tenant, whatever its key opens. Raises as ``page``."""
        return await self._trail.page([principal.tenant], wanted)

    async def submitter(self, principal: Principal, task_id: UUID) -> Submitter | None:
        """Who submitted a task of the asker's tenant; ``None`` where there is none such. Raises as ``page``."""
        return await self._trail.submitter(task_id, principal.tenant)

    async def request(self, principal: Principal, task_id: UUID) -> SubmittedTask | None:
        """The request of a task of the asker's tenant; ``None`` where there is none such. Raises as ``page``."""
        return await self._trail.request(task_id, principal.tenant)

    async def attempts(self, principal: Principal, task_id: UUID) -> list[AttemptRecord]:
        """The attempts at a task of the asker's tenant that have ended. Raises as ``page``."""
        return await self._trail.attempts(task_id, principal.tenant)

    async def denials(self, principal: Principal, policy: str, most: int) -> tuple[list[Denial], bool]:
        """What runs under a policy were denied lately, the last one first, and whether of all tenants.

        Raises as ``page``.
        """
        tenants = await self._tenants(principal, None)
        return await self._trail.denials(policy, tenants.names, most), tenants.are_all

    async def loads(self, principal: Principal) -> tuple[list[TenantLoad], bool]:
        """What each tenant has that waits, runs and is stored, and whether these are all. Raises as ``page``."""
        tenants = await self._tenants(principal, None)
        return await self._trail.loads(tenants.names), tenants.are_all

    async def last_hour(self, principal: Principal) -> list[EndedMinute | None]:
        """The minutes of the last hour, the oldest first. Raises as ``page``."""
        return await self._history.last_hour(self._trail, None if principal.sees_all_tenants else principal.tenant)

    async def keep_policies(self) -> None:
        """Keep the texts of this API's policies. Raises as ``page``."""
        found = [file for policy in self._policies.all if (file := self._policies.file(policy.name))]
        await self._trail.keep_policies(found)

    async def old_policy(self, name: str, digest: str) -> Policy | None:
        """A policy as it was when its file had this digest; ``None`` when that was never in force here.

        Raises:
            PolicyError: the file is of an older format.
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        text = await self._trail.policy_text(name, digest)
        if text is None:
            return None
        file = await asyncio.to_thread(parse_policy, Path(f"{name}.toml"), text.encode(), exceptions=self._exceptions)
        return file.policy

    def words(self, policy: str, denied: Iterable[Denied]) -> tuple[str, ...]:
        """What was denied, a sentence each, and the policy's key that denies it."""
        found = tuple(denied)
        calls = [call.syscall for one in found for call in one.calls]
        known = self._policies.named(policy)
        if known is None:
            said = [f"it made system calls that were denied: {', '.join(sorted(set(calls)))}"] if calls else []
        else:
            said = denials(calls, known, self._policies.all)
        hosts = {(host.host, host.port, host.decision) for one in found for host in one.hosts}
        return (*said, *(f"it asked for {host}:{port}; {REFUSED.get(why, why)}" for host, port, why in sorted(hosts)))

    async def _tenants(self, principal: Principal, asked: str | None) -> Tenants:
        """Whose tasks an asker sees: its own, or those of a tenant that it names, or of all."""
        if not principal.sees_all_tenants:
            return Tenants([principal.tenant] if asked in (None, principal.tenant) else [])
        return Tenants([asked]) if asked is not None else await self._trail.tenants()

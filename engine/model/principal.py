"""The caller of the API: its tenant, and what its API key allows."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

DEFAULT_TENANT = "default"
"""The tenant of all requests where there are no API keys, which only development allows."""


class Scope(enum.StrEnum):
    """One kind of call that an API key allows."""

    SUBMIT = "submit"
    """Submit tasks and upload files."""
    READ = "read"
    """Read the tenant's own tasks, their events and artifacts."""
    CANCEL = "cancel"
    """Cancel the tenant's own tasks."""
    AUDIT = "audit"
    """Read policies, the record of the tenant's own tasks, and the health of the service in detail."""
    ADMIN = "admin"
    """See other tenants, too, wherever ``audit`` shows something of tenants. Opens no call by itself."""
    METRICS = "metrics"
    """Read metrics."""


class Quotas(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits of one tenant; ``None`` is no limit."""

    tasks_per_minute: Annotated[int, Meta(ge=1)] | None = None
    """Tasks accepted within any 60 seconds."""
    queued_tasks: Annotated[int, Meta(ge=1)] | None = None
    """Tasks that wait at the same time."""
    concurrent_tasks: Annotated[int, Meta(ge=1)] | None = None
    """Tasks that run at the same time, on all workers together."""
    stored_mib: Annotated[int, Meta(ge=1)] | None = None
    """MiB that files, artifacts and tasks take together."""
    files_per_minute: Annotated[int, Meta(ge=1)] | None = None
    """Files uploaded within any 60 seconds."""

    @property
    def stored_bytes(self) -> int | None:
        """``stored_mib`` in bytes."""
        return None if self.stored_mib is None else self.stored_mib << 20


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The caller of a request. A tenant sees and changes what is its own, and nothing else exists for it."""

    tenant: str
    scopes: frozenset[Scope]
    policies: frozenset[str] | None = None
    """Names of the policies that its tasks may run under; ``None`` for all."""
    quotas: Quotas = Quotas()
    """Of the tenant; where its keys differ, those of the key that submitted a task apply to it."""
    key_id: str | None = None
    """The id of its key, never the key itself; ``None`` where there are no keys."""
    request_id: str | None = None
    client_address: str | None = None
    """Where the request came from."""

    @property
    def sees_all_tenants(self) -> bool:
        """Whether it sees other tenants, too, wherever the record shows something of tenants."""
        return Scope.ADMIN in self.scopes

    def may_see(self, tenant: str | None) -> bool:
        """Whether it sees what is of this tenant there; ``None``: of none."""
        return self.sees_all_tenants or tenant == self.tenant


ANYONE = Principal(tenant=DEFAULT_TENANT, scopes=frozenset(Scope))
"""Every caller of a service without API keys."""

"""Who asks, and what they may."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

DEFAULT_TENANT = "default"
"""Whose everything is where there are no API keys, which only development allows."""


class Scope(enum.StrEnum):
    """What an API key opens."""

    SUBMIT = "submit"
    """Submit tasks and upload files."""
    READ = "read"
    """Read the tenant's own tasks, their events and artifacts."""
    CANCEL = "cancel"
    """Cancel the tenant's own tasks."""
    AUDIT = "audit"
    """Read policies, and the health of the service in detail."""
    METRICS = "metrics"
    """Read metrics."""


class Quotas(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a tenant may ask for; ``None`` for as much as there is."""

    tasks_per_minute: Annotated[int, Meta(ge=1)] | None = None
    """Accepted within any 60 seconds."""
    queued_tasks: Annotated[int, Meta(ge=1)] | None = None
    """Waiting at the same time."""
    concurrent_tasks: Annotated[int, Meta(ge=1)] | None = None
    """Running at the same time, on all workers together."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from. A tenant sees and touches what is its own, and nothing else exists for it."""

    tenant: str
    scopes: frozenset[Scope]
    policies: frozenset[str] | None = None
    """Names of the policies that its tasks may run under; ``None`` for all."""
    quotas: Quotas = Quotas()
    """Of the tenant; where its keys differ, those of the key that a task came with count."""
    key_id: str | None = None
    """Which key it came with; never the key itself. ``None`` where there are none."""


ANYONE = Principal(tenant=DEFAULT_TENANT, scopes=frozenset(Scope))
"""Whoever reaches a service without API keys."""

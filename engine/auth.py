"""Who asks, and what they may."""

from __future__ import annotations

import enum

import msgspec

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


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from. A tenant sees and touches what is its own, and nothing else exists for it."""

    tenant: str
    scopes: frozenset[Scope]
    policies: frozenset[str] | None = None
    """Names of the policies that its tasks may run under; ``None`` for all."""
    key_id: str | None = None
    """Which key it came with; never the key itself. ``None`` where there are none."""


ANYONE = Principal(tenant=DEFAULT_TENANT, scopes=frozenset(Scope))
"""Whoever reaches a service without API keys."""

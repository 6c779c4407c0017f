"""Serves the application over HTTP until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from prometheus_client import CollectorRegistry

from engine.api.app import create_app
from engine.api.server.connections import IDLE_S, Connections
from engine.config.keys import Keys, KeysChange
from engine.config.listening import listen, refuse_open
from engine.config.settings import Settings
from engine.model.versions import engine_version
from engine.policies.policies import Policies
from engine.queue.queue import Queue
from engine.service.service import Service
from engine.store.store import Store
from engine.telemetry.audit import AuditLog
from engine.telemetry.logs import get_logger
from engine.telemetry.metrics import ApiMetrics
from engine.telemetry.tracing import Traces, open_traces

CONNECTIONS = 2000
OTHER_DESCRIPTORS = 200
"""For servers, logs and pipes."""
GRACEFUL_S = 10
STORE_ANSWER_S = 1.7
"""A client learns within two seconds that PostgreSQL is unreachable, also when it hangs instead of refusing."""


async def serve(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT; whoever waits for a task then is answered at once.

    Raises:
        ListenError: the address is taken, or not ours.
        PolicyError: a policy file is invalid.
        KeysError: the file of keys is invalid.
        AuditError: the audit log cannot be written.
        SettingsError: others could reach the API without a key.
    """
    with contextlib.closing(AuditLog(settings.audit_log)) as audit:
        keys = _read_keys(settings, audit)
        listener = listen(settings.listen_host, settings.port)
        async with open_traces(settings, "api") as traces:
            service = _make_service(settings, traces)
            audit.note(
                "API started",
                {
                    "version": engine_version(),
                    "policies": service.policies.digests,
                    "key_ids": sorted(keys.ids) if keys else None,
                },
            )
            config = _config(service, keys, audit, _count_connections())
            await _Server(config, service).serve(sockets=[listener])


def _read_keys(settings: Settings, audit: AuditLog) -> Keys | None:
    """The keys; ``None`` where there are none, which is for a developer's own machine.

    Raises:
        KeysError: the file cannot be used.
        SettingsError: others could reach the API without a key.
    """
    if settings.api_keys_file is not None:
        policies = (policy.name for policy in Policies.load(settings).all)
        return Keys(settings.api_keys_file, policies, partial(_note_reload, audit))
    refuse_open(settings)
    return None


def _note_reload(audit: AuditLog, change: KeysChange) -> None:
    if change.error is None:
        get_logger().info("keys reloaded", keys=change.in_force)
        audit.note("keys changed", {"made": change.added, "revoked": change.removed, "changed": change.changed})
    else:
        reason = str(change.error)
        get_logger().error("keys not reloaded: the last ones stay in force", keys=change.in_force, reason=reason)


def _make_service(settings: Settings, traces: Traces) -> Service:
    database_url, redis_url = settings.servers
    return Service(
        settings,
        Store(database_url, connections=settings.database_connections, answer_s=STORE_ANSWER_S),
        Queue(redis_url, settings.queue_name),
        Policies.load(settings),
        metrics=ApiMetrics(CollectorRegistry(), version=engine_version()),
        traces=traces,
    )


def _count_connections() -> int:
    """How many clients may be connected: each takes a descriptor, and another for the file that it uploads."""
    wanted = 2 * CONNECTIONS + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS
    count = max(1, (soft - OTHER_DESCRIPTORS) // 2)
    get_logger().warning("too few descriptors for all clients", connections=count, descriptors=soft, fix="ulimit -n")
    return count


def _config(service: Service, keys: Keys | None, audit: AuditLog, connections: int) -> uvicorn.Config:
    http = cast(type[asyncio.Protocol], Connections(connections))  # uvicorn calls it, as it would the class
    return uvicorn.Config(
        create_app(service, keys, audit, version=engine_version(), connections=connections),
        loop="uvloop", http=http, ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, date_header=True, proxy_headers=False,
        timeout_keep_alive=IDLE_S, timeout_graceful_shutdown=GRACEFUL_S,
    )  # fmt: skip


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """Let go of those who wait, and stop; at once when asked twice. uvicorn's own would die of the signal."""
        self._service.waiters.close()
        self.force_exit = self.should_exit
        self.should_exit = True

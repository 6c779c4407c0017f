"""Serves the application over HTTP until it is told to stop."""

from __future__ import annotations

from types import FrameType

import uvicorn
from prometheus_client import CollectorRegistry

from engine.api.app import create_app
from engine.listening import listen
from engine.metrics import ApiMetrics
from engine.policies import Policies
from engine.queue import Queue
from engine.service import Service
from engine.settings import Settings
from engine.store import Store
from engine.versions import engine_version

CONNECTIONS = 2000
KEEP_ALIVE_S = 75
GRACEFUL_S = 10
STORE_ANSWER_S = 1.7
"""A client hears within two seconds that PostgreSQL is away, also when it hangs instead of refusing."""


async def serve(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT; whoever waits for a task then is answered at once.

    Raises:
        ListenError: the address is taken, or not ours.
        PolicyError: a policy file that cannot be.
    """
    database_url, redis_url = settings.servers
    listener = listen(settings.listen_host, settings.port)
    service = Service(
        settings,
        Store(database_url, connections=settings.database_connections, answer_s=STORE_ANSWER_S),
        Queue(redis_url, settings.queue_name),
        Policies.load(settings),
        ApiMetrics(CollectorRegistry(), version=engine_version()),
    )
    config = uvicorn.Config(
        create_app(service, version=engine_version()),
        loop="uvloop", http="httptools", ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, date_header=True, proxy_headers=False, limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=GRACEFUL_S,
    )  # fmt: skip
    await _Server(config, service).serve(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """Let go of those who wait, and stop; at once when asked twice. uvicorn's own would die of the signal."""
        self._service.waiters.close()
        self.force_exit = self.should_exit
        self.should_exit = True

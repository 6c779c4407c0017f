"""``python -m engine api`` and ``worker``: the two processes of the service."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

from engine.cli.shared import load_with_servers, sentences


def api() -> None:
    """Serve the HTTP API until SIGTERM. Needs DATABASE_URL and REDIS_URL."""
    with sentences():
        settings = load_with_servers()
        import uvloop

        from engine.api.server.serve import serve

        uvloop.run(serve(settings))


def worker() -> None:
    """Run one worker until SIGTERM; then it drains. Needs DATABASE_URL and REDIS_URL."""
    with sentences():
        settings = load_with_servers()
        import uvloop

        from engine.worker.worker import run_worker

        uvloop.run(run_worker(settings))

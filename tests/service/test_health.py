"""Health through HTTP: what shows when something is not as it should be."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from engine.config.machine import read_confinement
from engine.model.worker_state import BEAT_S, SHOWN_FOR_S
from engine.service.health import ALIVE_WITHIN_S, SLOW_S
from tests.support.stack import Stack, ask, free_port, until


def workers(stack: Stack) -> dict[int, dict[str, Any]]:
    """Process id → what health says of the worker."""
    return {worker["pid"]: worker for worker in stack.client.get("/health").json()["workers"]}


def test_health_tells_latency_versions_and_digests(client: httpx.Client) -> None:
    """Each dependency's latency; each worker's heartbeat, versions and policies, which are those of the API."""
    health = client.get("/health").json()
    assert all(health[name]["latency_ms"] > 0 for name in ("database", "redis"))
    assert (platform.python_version(), os.uname().release) == (
        health["versions"]["python"],
        health["versions"]["kernel"],
    )
    digests = {policy["name"]: policy["digest"] for policy in client.get("/policies").json()["policies"]}
    assert digests == health["policies"]
    for worker in health["workers"]:
        assert (health["versions"], digests, []) == (worker["versions"], worker["policies"], worker["policies_differ"])
        assert ("working", True) == (worker["state"], worker["heartbeat_age_s"] <= ALIVE_WITHIN_S)
        assert worker["lag_ms"] >= 0
        assert msgspec.to_builtins(read_confinement(Path("/proc", str(worker["pid"])))) == worker["confinement"]
    assert [] == health["reasons"]


def test_silence_shows_within_ten_seconds() -> None:
    """A worker that stops right after a beat is silent ``ALIVE_WITHIN_S`` later; two beats may be late before that."""
    assert 3 * BEAT_S < ALIVE_WITHIN_S < 10


def test_stopped_worker_shows_as_silent_and_comes_back(stack: Stack) -> None:
    """SIGSTOP: health, readiness and metrics all say that nobody is at work, and why; SIGCONT ends that."""
    assert (503, "not_ready") == _ready(stack)[:2]
    worker = stack.worker()
    assert (200, "ready", []) == _ready(stack)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        time.sleep(SLOW_S + BEAT_S)  # so late will its next beat be, at least
        ask(stack.environ["DATABASE_URL"], f"UPDATE workers SET seen_at = seen_at - interval '{ALIVE_WITHIN_S} s'")
        until(lambda: workers(stack)[worker.pid]["state"] == "silent", "the worker shows as silent")
        health = stack.client.get("/health").json()
        code, status, reasons = _ready(stack)
        metrics = stack.client.get("/metrics").text
        ask(stack.environ["DATABASE_URL"], f"UPDATE workers SET seen_at = seen_at - interval '{SHOWN_FOR_S} s'")
        until(lambda: worker.pid in workers(stack), "it is shown for as long as it hangs, and so its alerts fire on")
        assert "silent" == workers(stack)[worker.pid]["state"]
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert ("degraded", 0) == (health["status"], health["queue"]["free_slots"])
    assert any(re.search(rf"pid {worker.pid}\) has been silent for \d+ s", reason) for reason in health["reasons"])
    assert (503, "not_ready") == (code, status)
    assert ["no worker takes tasks: tasks are accepted, and run when one does"] == reasons
    assert 'unityai_workers{state="silent"} 1.0' in metrics
    until(lambda: workers(stack)[worker.pid]["state"] == "working", "the worker is back")
    awake = stack.client.get("/health").json()
    assert awake["workers"][0]["lag_ms"] > SLOW_S * 1000
    assert any(f"pid {worker.pid}) is slow" in reason for reason in awake["reasons"])
    until(lambda: stack.client.get("/health").json()["status"] == "ok", "all is well again")


def test_worker_with_other_policies_is_reported(stack: Stack, tmp_path: Path) -> None:
    """A worker that started on a changed policy file is named, with the policy, and the service is degraded."""
    other = tmp_path / "other-policies"
    shutil.copytree(stack.environ["POLICIES_DIR"], other)
    with (other / "custom_script.toml").open("a") as file:
        file.write("# changed\n")
    worker = stack.worker(POLICIES_DIR=str(other))
    found = workers(stack)[worker.pid]
    health = stack.client.get("/health").json()
    assert ["custom_script"] == found["policies_differ"]
    assert health["policies"]["custom_script"] != found["policies"]["custom_script"]
    assert "degraded" == health["status"]
    assert any("policies" in reason and str(worker.pid) in reason for reason in health["reasons"])


def test_worker_that_does_not_reach_redis_is_named(stack: Stack) -> None:
    """A worker that is alive, and takes nothing because its own way to Redis is cut, does not pass for one at work."""
    worker = stack.worker(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    health = stack.client.get("/health").json()
    assert ("ok", "away", 0) == (
        health["redis"]["status"],
        workers(stack)[worker.pid]["redis"],
        health["queue"]["free_slots"],
    )
    assert any(f"pid {worker.pid}) cannot reach Redis" in reason for reason in health["reasons"])
    assert 503 == _ready(stack)[0]


def test_database_away_is_down_with_the_reason(stack: Stack) -> None:
    """Without PostgreSQL: 503 from both, alive nevertheless; the address of the server is for operators only."""
    assert stack.servers.database
    stack.servers.database.stop()
    health, ready = stack.client.get("/health"), stack.client.get("/health/ready")
    assert (503, "down", "away") == (
        health.status_code,
        health.json()["status"],
        health.json()["database"]["status"],
    )
    assert (503, ["PostgreSQL is unreachable: tasks are not accepted"]) == (
        ready.status_code,
        ready.json()["reasons"],
    )
    assert 200 == stack.client.get("/health/live").status_code
    metrics = stack.client.get("/metrics").text
    assert 'unityai_dependency_up{dependency="database"} 0.0' in metrics
    assert "unityai_queue_tasks{" not in metrics


def _ready(stack: Stack) -> tuple[int, str, list[str]]:
    response = stack.client.get("/health/ready")
    return response.status_code, response.json()["status"], response.json()["reasons"]

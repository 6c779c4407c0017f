"""Metrics through HTTP: what an operator's Prometheus reads of a running service."""

from __future__ import annotations

import contextlib
import socket
import uuid

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from engine.api.routes.system import ROUTES
from engine.config.listening import ListenError
from engine.telemetry.metrics import PROCESS_METRICS, MetricsListener, WorkerMetrics
from tests.support.stack import Stack, task

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(address: str | httpx.Client) -> Samples:
    """Every sample of a process: name and labels → value."""
    response = httpx.get(f"http://{address}/metrics") if isinstance(address, str) else address.get("/metrics")
    assert (200, True) == (response.status_code, response.headers["content-type"].startswith("text/plain"))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def of_workers(client: httpx.Client) -> Samples:
    """The samples of the only worker."""
    [[group]] = [client.get("/metrics/targets").json()]
    [address] = group["targets"]
    return read(address)


def increase(before: Samples, after: Samples, name: str, **labels: str) -> float:
    """By how much a counter grew."""
    key = (name, tuple(sorted(labels.items())))
    return after.get(key, 0.0) - before.get(key, 0.0)


def test_task_is_counted_from_request_to_result(client: httpx.Client) -> None:
    """One task: accepted by the API, timed and finished on the worker, with what it was denied."""
    client.post("/execute", params={"wait": 60}, json=task("result = 0"))
    before, worker_before = read(client), of_workers(client)
    script = "import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\nresult = 1"
    answer = client.post("/execute", params={"wait": 60}, json=task(script)).json()
    assert "ok" == answer["exit_reason"], answer
    after, worker_after = read(client), of_workers(client)
    kind = {"task_type": "custom_script"}
    of_policy = kind | {"policy": "custom_script"}
    assert 1 == increase(before, after, "unityai_tasks_accepted_total", **of_policy)
    assert 1 == increase(before, after, "unityai_http_requests_total", route="/execute", method="POST", status="2xx")
    assert 1 == increase(worker_before, worker_after, "unityai_tasks_finished_total", **of_policy, exit_reason="ok")
    assert 1 == increase(worker_before, worker_after, "unityai_violations_total", syscall="ptrace")
    for name in ("queue", "sandbox", "end_to_end"):
        assert 1 == increase(worker_before, worker_after, f"unityai_task_{name}_seconds_count", **kind)
    assert 1 <= increase(worker_before, worker_after, "unityai_pool_spawned_total", policy="custom_script")


def test_end_to_end_holds_queue_and_sandbox(client: httpx.Client) -> None:
    """The whole is not shorter than its parts."""
    before = of_workers(client)
    client.post("/execute", params={"wait": 60}, json=task("import time\ntime.sleep(0.05)\nresult = 1"))
    after = of_workers(client)
    queue, sandbox, total = (
        increase(before, after, f"unityai_task_{name}_seconds_sum", task_type="custom_script")
        for name in ("queue", "sandbox", "end_to_end")
    )
    assert 0.05 <= sandbox <= queue + sandbox <= total


def test_queue_workers_and_dependencies_are_told_by_the_api(client: httpx.Client) -> None:
    """Queue depth, workers and dependencies are what PostgreSQL and Redis say at the time of the scrape."""
    samples = read(client)
    assert 1 == samples["unityai_workers", (("state", "working"),)]
    assert 0 == samples["unityai_workers", (("state", "silent"),)]
    for name in ("database", "redis"):
        assert 1 == samples["unityai_dependency_up", (("dependency", name),)]
    assert {"queued", "running"} == {dict(labels)["status"] for name, labels in samples if "queue_tasks" in name}
    assert ("unityai_queue_oldest_wait_seconds", ()) in samples


def test_pools_and_processes_are_told_by_the_worker(client: httpx.Client) -> None:
    """Each policy's pool, and the process itself."""
    samples = of_workers(client)
    wanted = {dict(labels)["policy"] for name, labels in samples if name == "unityai_pool_wanted"}
    assert {policy["name"] for policy in client.get("/policies").json()["policies"]} == wanted
    assert set(PROCESS_METRICS) <= {name for name, _ in samples} & {name for name, _ in read(client)}


def test_clients_cannot_make_series(client: httpx.Client) -> None:
    """Whatever is asked for: the routes are our own, and nothing of a path, id, label or header is a label."""
    mark = f"mark-{uuid.uuid4().hex}"
    client.get(f"/task/{uuid.uuid4()}")
    client.get(f"/{mark}/x")
    client.request(mark.upper()[:20], "/execute")
    client.post("/execute", json=task("result = 1", labels={"a": mark}), headers={"X-Request-ID": mark})
    text = client.get("/metrics").text
    routes = {dict(labels)["route"] for name, labels in read(client) if name == "unityai_http_requests_total"}
    assert routes <= {"none"} | {
        path.replace(":str", "").replace(":path", "") for route in ROUTES for path in route.paths
    }
    assert mark not in text.lower()


def test_openmetrics_is_answered_who_asks_for_it(client: httpx.Client) -> None:
    """Prometheus asks for OpenMetrics first."""
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert "application/openmetrics-text" in response.headers["content-type"]
    assert response.text.endswith("# EOF\n")


def test_task_that_is_cancelled_in_the_queue_is_counted_by_the_api(stack: Stack) -> None:
    """No worker ever sees it; asking twice counts once."""
    task_id = stack.submit("result = 1")["task_id"]
    labels = {"task_type": "custom_script", "policy": "custom_script", "exit_reason": "cancelled"}
    before = read(stack.client)
    for _ in range(2):
        assert "cancelled" == stack.client.delete(f"/task/{task_id}").json()["status"]
    assert 1 == increase(before, read(stack.client), "unityai_tasks_finished_total", **labels)


@pytest.fixture
def worker() -> WorkerMetrics:
    """A worker's metrics, in a registry of their own."""
    return WorkerMetrics(CollectorRegistry(), version="1", slots=3, policies={"custom_script": "custom_script"})


def test_listener_serves_and_lets_go_of_its_port(worker: WorkerMetrics) -> None:
    """A worker's metrics are to be had over HTTP, until it ends."""
    listener = MetricsListener(worker.registry, "127.0.0.1", 0)
    text = httpx.get(f"http://127.0.0.1:{listener.port}/metrics").text
    listener.close()
    assert "unityai_worker_slots 3.0" in text
    MetricsListener(worker.registry, "127.0.0.1", listener.port).close()


def test_taken_port_is_a_sentence(worker: WorkerMetrics) -> None:
    """A second worker on one port names the variable to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ListenError, match="WORKER_METRICS_PORT"):
            MetricsListener(worker.registry, "127.0.0.1", taken.getsockname()[1])


def test_liveness_of_a_worker_names_its_dead_loops(worker: WorkerMetrics) -> None:
    """200 while all go on, 503 when one does not."""
    dead: list[str] = []
    with contextlib.closing(MetricsListener(worker.registry, "127.0.0.1", 0, lambda: tuple(dead))) as listener:
        url = f"http://127.0.0.1:{listener.port}/health/live"
        well = httpx.get(url)
        dead.append("sweep")
        ill = httpx.get(url)
    assert (200, {"status": "ok", "dead": []}) == (well.status_code, well.json())
    assert (503, {"status": "failing", "dead": ["sweep"]}) == (ill.status_code, ill.json())

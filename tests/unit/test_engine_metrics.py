"""Metrics: what is counted, and that labels stay few whatever runs and clients do."""

from __future__ import annotations

import re
from pathlib import Path

import pyseccomp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from engine.config.load import load_settings
from engine.dev.stack import metrics_port
from engine.model.result import NoRun, TaskResult
from engine.model.status import Status
from engine.telemetry.metric_families import API_FAMILIES, WORKER_FAMILIES, markdown_table
from engine.telemetry.metrics import (
    EGRESS_DECISIONS,
    PROCESS_METRICS,
    SYSCALLS,
    ApiMetrics,
    ServiceState,
    WorkerMetrics,
    expose,
)
from sandbox import ExitReason, PoolStats, Usage, Violation
from sandbox.egress.decisions import Decision, Ledger
from tests.support.results import task_result

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def api() -> ApiMetrics:
    """An API's metrics, in a registry of their own."""
    return ApiMetrics(CollectorRegistry(), version="1")


@pytest.fixture
def worker() -> WorkerMetrics:
    """A worker's metrics, in a registry of their own."""
    return WorkerMetrics(CollectorRegistry(), version="1", slots=3, policies={"custom_script": "custom_script"})


def value(metrics: ApiMetrics | WorkerMetrics, name: str, **labels: str) -> float | None:
    """One value as it is exposed."""
    return metrics.registry.get_sample_value(name, labels)


def names(metrics: ApiMetrics | WorkerMetrics) -> set[str]:
    """The families that are exposed, counters under their whole name."""
    text = expose(metrics.registry, "").text.decode()
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(text)
    }


def test_what_is_exposed_is_what_is_listed(api: ApiMetrics, worker: WorkerMetrics) -> None:
    """Each family of the list is there, none beside them but those of the process."""
    api.note_state(ServiceState(1, 1, 0.5, {"working": 1}, 9, {"database": True}))
    worker.watch_memory(4096, lambda: 512, lambda: True)
    worker.watch_pools({"custom_script": lambda: PoolStats(**dict.fromkeys(PoolStats.__struct_fields__, 0))})
    assert {family.name for family in API_FAMILIES} | set(PROCESS_METRICS) == names(api)
    assert {family.name for family in WORKER_FAMILIES} | set(PROCESS_METRICS) == names(worker)


@pytest.mark.parametrize("family", {*API_FAMILIES, *WORKER_FAMILIES}, ids=lambda family: family.name)
def test_names_follow_the_conventions(family: object) -> None:
    """Prefix, base units, ``_total`` on counters and nowhere else; no label that grows with tasks or tenants."""
    name, kind, labels = family.name, family.kind, family.labels  # type: ignore[attr-defined]
    assert re.fullmatch(r"unityai_[a-z_]+", name)
    assert name.endswith("_total") == (kind == "counter")
    assert not re.search(r"_(ms|milliseconds|kib|mib|minutes)(_|$)", name)
    assert set() == {"task_id", "tenant", "worker_id", "host", "path", "request_id", "key_id"} & set(labels)


def test_syscalls_have_names_that_libseccomp_knows() -> None:
    """A call that is misspelt would be counted as other for ever."""
    assert [] == [name for name in SYSCALLS if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) == -1]


def test_denied_calls_make_no_more_series_than_we_know_names(worker: WorkerMetrics) -> None:
    """A run that tries every number there is fills one series, ``other``."""
    made_up = tuple(Violation(syscall=f"syscall_{number}", count=2) for number in range(1000))
    known = (Violation(syscall="ptrace", count=3),)
    worker.ran("custom_script", task_result(violations=made_up + known))
    assert (2000, 3) == (
        value(worker, "unityai_violations_total", syscall="other"),
        value(worker, "unityai_violations_total", syscall="ptrace"),
    )
    assert None is value(worker, "unityai_violations_total", syscall="syscall_1")


def test_egress_words_are_those_of_the_proxy() -> None:
    """A decision that is added there must be counted by its name here."""
    assert {decision.value for decision in Decision} == set(EGRESS_DECISIONS)


def test_series_of_failures_begin_with_zero(worker: WorkerMetrics) -> None:
    """The first lost task and the first refused connection must be an increase."""
    labels = {"task_type": "custom_script", "policy": "custom_script", "exit_reason": "worker_lost"}
    assert 0 == value(worker, "unityai_tasks_finished_total", **labels)
    assert 0 == value(worker, "unityai_attempts_failed_total", policy="custom_script")
    assert 0 == value(worker, "unityai_egress_connections_total", decision="private_address")


def test_egress_is_counted_by_decision_and_never_by_host(worker: WorkerMetrics) -> None:
    """Hosts come from scripts: they are in results and in the audit log, not in metrics."""
    ledger = Ledger()
    ledger.add("a.example", 443, Decision.ALLOWED, bytes_in=100, bytes_out=10)
    ledger.add("b.example", 443, Decision.HOST_NOT_ALLOWED)
    worker.ran("custom_script", task_result(usage=Usage(egress=ledger.rows())))
    for decision in ("allowed", "host_not_allowed"):
        assert 1 == value(worker, "unityai_egress_connections_total", decision=decision)
    assert 100 == value(worker, "unityai_egress_bytes_total", direction="in")
    assert b"example" not in expose(worker.registry, "").text


def test_requests_are_counted_by_template_whatever_was_asked_for(api: ApiMetrics) -> None:
    """Paths that do not exist and methods that nobody knows make one series each."""
    for number in range(100):
        api.answered(None, f"M{number}", 404, 0.001)
    api.answered("/task/{task_id}", "GET", 200, 0.001)
    api.answered("/execute", "POST", 0, 0.001)
    count = "unityai_http_requests_total"
    assert 100 == value(api, count, route="none", method="other", status="4xx")
    assert 1 == value(api, count, route="/task/{task_id}", method="GET", status="2xx")
    assert 1 == value(api, count, route="/execute", method="POST", status="none")


def test_what_cannot_be_known_is_left_out(api: ApiMetrics) -> None:
    """While PostgreSQL is away there is no queue depth: a zero would be a lie that scales workers down."""
    api.note_state(ServiceState(7, 1, 2.5, {"working": 1}, 9, {"database": True}))
    assert (7, 2.5) == (
        value(api, "unityai_queue_tasks", status="queued"),
        value(api, "unityai_queue_oldest_wait_seconds"),
    )
    api.note_state(ServiceState(None, None, None, None, None, {"database": False}))
    assert (None, None, 0) == (
        value(api, "unityai_queue_tasks", status="queued"),
        value(api, "unityai_queue_oldest_wait_seconds"),
        value(api, "unityai_dependency_up", dependency="database"),
    )


def test_lost_worker_counts_a_task_only_when_it_is_final(worker: WorkerMetrics) -> None:
    """A task that runs again is not finished."""
    worker.lease_lost("custom_script", "p", Status.QUEUED)
    labels = {"task_type": "custom_script", "policy": "p", "exit_reason": "worker_lost"}
    assert (1, None) == (
        value(worker, "unityai_leases_lost_total"),
        value(worker, "unityai_tasks_finished_total", **labels),
    )
    worker.lease_lost("custom_script", "p", Status.FAILED)
    assert 1 == value(worker, "unityai_tasks_finished_total", **labels)


def test_attempt_that_never_ran_is_no_fast_run(worker: WorkerMetrics) -> None:
    """A script that could not be read took no time in a sandbox, and must not pull its percentiles down."""
    no_run = NoRun(exit_reason=ExitReason.ERROR, message="no such script")
    worker.ran("custom_script", TaskResult(run=no_run, queue_s=0.5))
    assert None is value(worker, "unityai_task_sandbox_seconds_count", task_type="custom_script")


@pytest.mark.parametrize(
    ("given", "expected"), [("", ["0", "0", "0"]), ("0", ["0", "0", "0"]), ("9100", ["9100", "9101", "9102"])]
)
def test_each_worker_of_up_has_a_port_of_its_own(given: str, expected: list[str]) -> None:
    """Counted on from the port that was asked for, else any that is free."""
    settings = load_settings({"WORKER_METRICS_PORT": given})
    assert expected == [metrics_port(settings, number) for number in range(3)]


def test_table_in_the_readme_is_the_one_that_the_engine_prints() -> None:
    """A metric that is added, or means something else, must change engine/README.md (``python -m engine metrics``)."""
    text = (ROOT / "engine" / "README.md").read_text()
    found = re.findall(r"^<!-- metrics: [^\n]* -->\n(.*?)\n<!-- /metrics -->$", text, re.DOTALL | re.MULTILINE)
    assert [markdown_table()] == found
    assert 1 == text.count("<!-- metrics: ")

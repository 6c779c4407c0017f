"""The families of metrics: the single list that all else is made from.

What is registered, the table in engine/README.md, and what the tests of dashboard and alert rules know come from here.
Labels are bounded: no ids, no tenants, no host names, no text of a client.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""From a ready sandbox, which answers within a millisecond, to MAX_TASK_TIMEOUT as it is unless set."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One family of metrics."""

    name: str
    """As it is exposed; a counter's ends in ``_total``."""
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...] = ()
    about: str
    """One sentence that says what the metric counts."""

    def counter(self, registry: CollectorRegistry) -> Counter:
        """A counter of this family, registered."""
        return Counter(self.name, self.about, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """A gauge of this family, registered."""
        return Gauge(self.name, self.about, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """A histogram of seconds of this family, registered."""
        return Histogram(self.name, self.about, self.labels, buckets=_SHORT_S, registry=registry)

    def sampled(self, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        """Values that are known elsewhere, as they are now.

        Args:
            values: the values of the labels, and the value.
        """
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        metric = kind(self.name, self.about, labels=self.labels)
        for labels, value in values:
            metric.add_metric(labels, value)
        return metric


BUILD = Family(
    name="unityai_build_info",
    kind="gauge",
    labels=("process", "version"),
    about="Always 1: which part of the service this is (api, worker), and its version.",
)
FINISHED = Family(
    name="unityai_tasks_finished_total",
    kind="counter",
    labels=("task_type", "policy", "exit_reason"),
    about="Tasks whose result was stored.",
)
ACCEPTED = Family(
    name="unityai_tasks_accepted_total",
    kind="counter",
    labels=("task_type", "policy"),
    about="Tasks that were accepted and stored.",
)
HTTP_REQUESTS = Family(
    name="unityai_http_requests_total",
    kind="counter",
    labels=("route", "method", "status"),
    about="Requests by route template, method and class of the status (2xx; none when the client left before it).",
)
HTTP_SECONDS = Family(
    name="unityai_http_request_seconds",
    kind="histogram",
    labels=("route", "method"),
    about="Time from a request's head to the end of its answer; with ?wait it holds the run.",
)
QUEUE_TASKS = Family(
    name="unityai_queue_tasks",
    kind="gauge",
    labels=("status",),
    about="Tasks that are not final, by status, as PostgreSQL has them: the same from each API. Missing while it is "
    "unreachable.",
)
OLDEST_WAIT = Family(
    name="unityai_queue_oldest_wait_seconds",
    kind="gauge",
    about="How long the task that has waited longest has been due, 0 when none waits; those that are held for "
    "concurrent_tasks do not count. Missing while PostgreSQL is unreachable.",
)
WORKERS = Family(
    name="unityai_workers",
    kind="gauge",
    labels=("state",),
    about="Workers by state (working, draining, silent), as PostgreSQL has them: the same from each API.",
)
FREE_SLOTS = Family(
    name="unityai_workers_free_slots",
    kind="gauge",
    about="Tasks that the working workers could take at once.",
)
DEPENDENCY_UP = Family(
    name="unityai_dependency_up",
    kind="gauge",
    labels=("dependency",),
    about="Whether PostgreSQL (database) and Redis (redis) answer this process: 1 or 0.",
)
QUEUE_SECONDS = Family(
    name="unityai_task_queue_seconds",
    kind="histogram",
    labels=("task_type",),
    about="Time from a task's acceptance, or its return to the queue, to its claim by a worker.",
)
SANDBOX_SECONDS = Family(
    name="unityai_task_sandbox_seconds",
    kind="histogram",
    labels=("task_type",),
    about="Time from a request's first byte into a sandbox to the death of all in it.",
)
END_TO_END_SECONDS = Family(
    name="unityai_task_end_to_end_seconds",
    kind="histogram",
    labels=("task_type",),
    about="Time from a task's acceptance to the storing of its result, all attempts included.",
)
ATTEMPTS_FAILED = Family(
    name="unityai_attempts_failed_total",
    kind="counter",
    labels=("policy",),
    about="Attempts that ended by our own failure (SandboxError), never by the task's.",
)
LEASES_LOST = Family(
    name="unityai_leases_lost_total",
    kind="counter",
    about="Tasks that this worker's sweeper took back from workers that were lost or silent.",
)
SLOTS = Family(name="unityai_worker_slots", kind="gauge", about="Tasks that this worker runs at the same time.")
RUNNING = Family(name="unityai_worker_running_tasks", kind="gauge", about="Tasks that this worker runs now.")
TASK_MEMORY = Family(
    name="unityai_worker_task_memory_bytes",
    kind="gauge",
    about="Memory that all running tasks of this worker may have together (WORKER_MEMORY_MIB).",
)
TASK_MEMORY_TAKEN = Family(
    name="unityai_worker_task_memory_taken_bytes",
    kind="gauge",
    about="The sum of the memory limits of the tasks that this worker runs now.",
)
WAITS_FOR_MEMORY = Family(
    name="unityai_worker_waits_for_memory",
    kind="gauge",
    about="1 while tasks wait for which this worker has a free slot and not enough memory, else 0.",
)
LOOP_LAG = Family(
    name="unityai_worker_loop_lag_seconds",
    kind="gauge",
    about="How late this worker's event loop was at its last heartbeat: it is slow when this is not near 0.",
)
POOL_READY = Family(
    name="unityai_pool_ready", kind="gauge", labels=("policy",), about="Sandboxes that stand ready for a request."
)
POOL_WANTED = Family(
    name="unityai_pool_wanted", kind="gauge", labels=("policy",), about="Sandboxes that should stand ready."
)
POOL_RUNNING = Family(
    name="unityai_pool_running", kind="gauge", labels=("policy",), about="Sandboxes that run a request."
)
POOL_SPAWNED = Family(
    name="unityai_pool_spawned_total", kind="counter", labels=("policy",), about="Sandboxes that were made."
)
ZYGOTE_RESTARTS = Family(
    name="unityai_pool_zygote_restarts_total",
    kind="counter",
    labels=("policy",),
    about="Zygotes that had died and were started again.",
)
ZYGOTE_ROTATIONS = Family(
    name="unityai_pool_zygote_rotations_total",
    kind="counter",
    labels=("policy",),
    about="Zygotes that were replaced on purpose (ROTATE_AFTER).",
)
VIOLATIONS = Family(
    name="unityai_violations_total",
    kind="counter",
    labels=("syscall",),
    about="System calls that were denied, by name; rarer ones as other.",
)
EGRESS_CONNECTIONS = Family(
    name="unityai_egress_connections_total",
    kind="counter",
    labels=("decision",),
    about="Connections that runs asked of the egress proxy, by what became of them.",
)
EGRESS_BYTES = Family(
    name="unityai_egress_bytes_total",
    kind="counter",
    labels=("direction",),
    about="Bytes through the egress proxy: in from hosts, out to them.",
)
LOOP_FAILURES = Family(
    name="unityai_loop_failures_total",
    kind="counter",
    labels=("loop",),
    about="Failures of the loops that run beside the requests or tasks of a process. Each loop goes on afterwards.",
)
CALLBACKS = Family(
    name="unityai_callbacks_total",
    kind="counter",
    labels=("outcome",),
    about="Attempts to deliver a callback, by outcome: delivered, retried (later), dead (given up).",
)

API_FAMILIES = (
    BUILD, ACCEPTED, FINISHED, HTTP_REQUESTS, HTTP_SECONDS, QUEUE_TASKS, OLDEST_WAIT, WORKERS, FREE_SLOTS,
    DEPENDENCY_UP, LOOP_FAILURES,
)  # fmt: skip
POOL_FAMILIES: tuple[tuple[Family, str], ...] = (
    (POOL_READY, "ready"),
    (POOL_WANTED, "wanted"),
    (POOL_RUNNING, "running"),
    (POOL_SPAWNED, "spawned"),
    (ZYGOTE_RESTARTS, "zygote_restarts"),
    (ZYGOTE_ROTATIONS, "zygote_rotations"),
)
WORKER_FAMILIES = (
    BUILD, FINISHED, QUEUE_SECONDS, SANDBOX_SECONDS, END_TO_END_SECONDS, ATTEMPTS_FAILED, LEASES_LOST, SLOTS, RUNNING,
    TASK_MEMORY, TASK_MEMORY_TAKEN, WAITS_FOR_MEMORY, LOOP_LAG, *(family for family, _ in POOL_FAMILIES), VIOLATIONS,
    EGRESS_CONNECTIONS, EGRESS_BYTES, CALLBACKS, LOOP_FAILURES,
)  # fmt: skip


def describe_families() -> list[list[str]]:
    """For each family: name, type, labels, the processes that have it, meaning."""
    rows = []
    for family in dict.fromkeys((*API_FAMILIES, *WORKER_FAMILIES)):
        where = [name for name, there in (("api", API_FAMILIES), ("worker", WORKER_FAMILIES)) if family in there]
        rows.append([family.name, family.kind, ", ".join(family.labels), ", ".join(where), family.about])
    return rows


def markdown_table() -> str:
    """The families as a table, as ``engine/README.md`` has it."""
    head = ["metric", "type", "labels", "from", "meaning"]
    rows = [[f"`{name}`", *more] for name, *more in describe_families()]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])

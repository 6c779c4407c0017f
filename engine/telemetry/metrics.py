"""Prometheus metrics: what the API and each worker count, and how that is told.

Each process counts for itself and is a target of its own, which is Prometheus' way: sums over processes, restarts and
lost targets are its business, and an API that added up its workers would be counted twice behind a load balancer. The
API answers ``GET /metrics``; a worker listens on ``WORKER_METRICS_PORT``; ``GET /metrics/targets`` lists the workers.

Labels are bounded: what is not among the words that are known here is counted as ``other``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple
from wsgiref.simple_server import WSGIServer

import msgspec
from msgspec import Meta
from prometheus_client import (
    CollectorRegistry,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from engine.config.listening import ListenError
from engine.config.settings import Settings
from engine.model.result import NoRun, TaskResult
from engine.model.status import Status
from engine.telemetry.metric_families import (
    ACCEPTED,
    ATTEMPTS_FAILED,
    BUILD,
    CALLBACKS,
    DEPENDENCY_UP,
    EGRESS_BYTES,
    EGRESS_CONNECTIONS,
    END_TO_END_SECONDS,
    FINISHED,
    FREE_SLOTS,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    LEASES_LOST,
    LOOP_FAILURES,
    LOOP_LAG,
    OLDEST_WAIT,
    POOL_FAMILIES,
    QUEUE_SECONDS,
    QUEUE_TASKS,
    RUNNING,
    SANDBOX_SECONDS,
    SLOTS,
    TASK_MEMORY,
    TASK_MEMORY_TAKEN,
    VIOLATIONS,
    WAITS_FOR_MEMORY,
    WORKERS,
)
from sandbox import (
    ExitReason,
    PoolStats,
)

MIB = 1 << 20
LIVE_PATH = "/health/live"
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
OTHER = "other"
NO_ROUTE = "none"
PROCESS_METRICS = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
)
"""The client library's metrics of each process, under the names that all Prometheus clients use."""
_NAMED_SYSCALLS = """
    accept accept4 acct add_key bind bpf capset chmod chown chroot clone clone3 connect delete_module execve
    execveat fchmod fchown finit_module fork fsconfig fsmount fsopen getsockname init_module io_uring_enter
    io_uring_register io_uring_setup ioctl kcmp kexec_load keyctl kill landlock_restrict_self link linkat listen
    memfd_create memfd_secret mknod mknodat modify_ldt mount mount_setattr move_mount name_to_handle_at
    open_by_handle_at open_tree perf_event_open personality pidfd_getfd pidfd_open pidfd_send_signal pivot_root
    prctl process_vm_readv process_vm_writev ptrace quotactl reboot recvfrom request_key seccomp sendmsg sendto
    setgid setgroups setns setresgid setresuid setrlimit setsid setuid shmat shmget socket socketpair splice swapon
    symlink symlinkat syslog tgkill tkill umount2 unshare userfaultfd vfork vmsplice
"""
SYSCALLS = frozenset(_NAMED_SYSCALLS.split())
"""The calls whose denials are counted by name; all others are counted as ``other``."""
EGRESS_DECISIONS = (
    "allowed", "bad_request", "head_limit", "host_not_allowed", "private_address", "dns_failed", "connect_failed",
    "bad_response", "not_tls", "name_mismatch", "too_many_connections", "bytes_limit", "timeout", "run_ended",
)  # fmt: skip
"""The words of the egress proxy; any other would be counted as ``other``."""
CALLBACK_OUTCOMES = ("delivered", "retried", "dead")
API_LOOPS = ("database", "finished", "events")
WORKER_LOOPS = ("queue", "leases", "sweep", "clean-up", "callbacks", "cancellations", "events")


class ServiceState(NamedTuple):
    """The values of the API's gauges, which describe the whole service. ``None``: the value is not known now."""

    queued: int | None
    running: int | None
    oldest_wait_s: float | None
    workers: Mapping[str, int] | None
    """State → how many."""
    free_slots: int | None
    up: Mapping[str, bool]
    """Dependency → whether it answers."""


class ApiMetrics:
    """The metrics of an API process."""

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        """
        Args:
            registry: where the metrics are registered; one is for one process.
            version: of the service.
        """
        self.registry = registry
        _describe_process(registry, "api", version)
        self._accepted = ACCEPTED.counter(registry)
        self._finished = FINISHED.counter(registry)
        self._requests = HTTP_REQUESTS.counter(registry)
        self._seconds = HTTP_SECONDS.histogram(registry)
        self._loop_failures = LOOP_FAILURES.counter(registry)
        for loop in API_LOOPS:
            self._loop_failures.labels(loop)
        self._state: ServiceState | None = None
        registry.register(_Sampled(self._sample))

    def accepted(self, task_type: str, policy: str) -> None:
        """A task was stored."""
        self._accepted.labels(task_type, policy).inc()

    def finished(self, task_type: str, policy: str, exit_reason: ExitReason) -> None:
        """A task was ended here: it was cancelled while it waited."""
        self._finished.labels(task_type, policy, exit_reason.value).inc()

    def answered(self, route: str | None, method: str, status: int, duration_s: float) -> None:
        """A request is over.

        Args:
            route: its template, such as ``/task/{task_id}``; ``None`` when there is no such path.
            method: as it came.
            status: of the answer; 0 when there was none.
            duration_s: seconds.
        """
        route, method = route or NO_ROUTE, method if method in METHODS else OTHER
        self._requests.labels(route, method, f"{status // 100}xx" if status else "none").inc()
        self._seconds.labels(route, method).observe(duration_s)

    def loop_failed(self, loop: str) -> None:
        """A loop of this process failed, and goes on."""
        self._loop_failures.labels(loop).inc()

    def note_state(self, state: ServiceState) -> None:
        """The values that the gauges show until the next call."""
        self._state = state

    def _sample(self) -> Iterator[Metric]:
        state = self._state
        if state is None:
            return
        depth = {"queued": state.queued, "running": state.running}
        yield QUEUE_TASKS.sampled([((status,), count) for status, count in depth.items() if count is not None])
        yield OLDEST_WAIT.sampled([] if state.oldest_wait_s is None else [((), state.oldest_wait_s)])
        yield WORKERS.sampled([((name,), count) for name, count in (state.workers or {}).items()])
        yield FREE_SLOTS.sampled([] if state.free_slots is None else [((), state.free_slots)])
        yield DEPENDENCY_UP.sampled([((name,), float(is_up)) for name, is_up in state.up.items()])


class WorkerMetrics:
    """The metrics of a worker process."""

    def __init__(self, registry: CollectorRegistry, *, version: str, slots: int, policies: Mapping[str, str]) -> None:
        """
        Args:
            registry: where the metrics are registered; one is for one process.
            version: of the service.
            slots: tasks that the worker runs at the same time.
            policies: policy → its task type. Their series are there from the start, as 0: Prometheus sees no increase
                in a series that begins with 1.
        """
        self.registry = registry
        _describe_process(registry, "worker", version)
        self._finished = FINISHED.counter(registry)
        self._queue_seconds = QUEUE_SECONDS.histogram(registry)
        self._sandbox_seconds = SANDBOX_SECONDS.histogram(registry)
        self._end_to_end_seconds = END_TO_END_SECONDS.histogram(registry)
        self._attempts_failed = ATTEMPTS_FAILED.counter(registry)
        self._leases_lost = LEASES_LOST.counter(registry)
        self._running = RUNNING.gauge(registry)
        self._loop_lag = LOOP_LAG.gauge(registry)
        self._violations = VIOLATIONS.counter(registry)
        self._dead_loops: Callable[[], tuple[str, ...]] = tuple
        self._connections = EGRESS_CONNECTIONS.counter(registry)
        self._bytes = EGRESS_BYTES.counter(registry)
        self._callbacks = CALLBACKS.counter(registry)
        self._loop_failures = LOOP_FAILURES.counter(registry)
        for loop in WORKER_LOOPS:
            self._loop_failures.labels(loop)
        SLOTS.gauge(registry).set(slots)
        for policy, task_type in policies.items():
            self._attempts_failed.labels(policy)
            for reason in ExitReason:
                self._finished.labels(task_type, policy, reason.value)
        for decision in EGRESS_DECISIONS:
            self._connections.labels(decision)
        for outcome in CALLBACK_OUTCOMES:
            self._callbacks.labels(outcome)

    def watch_pools(self, stats: Mapping[str, Callable[[], PoolStats]]) -> None:
        """Tell of these pools from now on.

        Args:
            stats: policy → its pool's counts as they are now. Called from another thread.
        """

        def sample() -> Iterator[Metric]:
            now = {policy: ask() for policy, ask in stats.items()}
            for family, field in POOL_FAMILIES:
                yield family.sampled([((policy,), getattr(counts, field)) for policy, counts in now.items()])

        self.registry.register(_Sampled(sample))

    def count_running(self, count: Callable[[], int]) -> None:
        """Ask this how many tasks run, whenever somebody wants to know. Called from another thread."""
        self._running.set_function(count)

    def watch_memory(self, whole_mib: int, taken_mib: Callable[[], int], is_short: Callable[[], bool]) -> None:
        """Tell of the memory of this worker's tasks from now on. The functions are called from another thread.

        Args:
            whole_mib: what they may have together, MiB.
            taken_mib: how much of it is taken.
            is_short: whether tasks wait for some.
        """
        TASK_MEMORY.gauge(self.registry).set(whole_mib * MIB)
        TASK_MEMORY_TAKEN.gauge(self.registry).set_function(lambda: taken_mib() * MIB)
        WAITS_FOR_MEMORY.gauge(self.registry).set_function(lambda: float(is_short()))

    def watch_loops(self, dead: Callable[[], tuple[str, ...]]) -> None:
        """Ask this what of the process does not go on, whenever a probe wants to know. Called from another thread."""
        self._dead_loops = dead

    def dead_loops(self) -> tuple[str, ...]:
        """List what of this process does not go on."""
        return self._dead_loops()

    def claimed(self, task_type: str, queue_s: float) -> None:
        """A task was claimed after it had waited for ``queue_s`` seconds."""
        self._queue_seconds.labels(task_type).observe(queue_s)

    def ran(self, task_type: str, result: TaskResult) -> None:
        """An attempt ended, whether or not its result can be stored. One without a run counts nothing here."""
        run = result.run
        if isinstance(run, NoRun):
            return
        for violation in run.violations:
            name = violation.syscall if violation.syscall in SYSCALLS else OTHER
            self._violations.labels(name).inc(violation.count)
        self._sandbox_seconds.labels(task_type).observe(run.usage.wall_s)
        for row in run.usage.egress:
            decision = row.decision if row.decision in EGRESS_DECISIONS else OTHER
            self._connections.labels(decision).inc(row.connections)
            self._bytes.labels("in").inc(row.bytes_in)
            self._bytes.labels("out").inc(row.bytes_out)

    def attempt_failed(self, policy: str) -> None:
        """An attempt ended by our own failure."""
        self._attempts_failed.labels(policy).inc()

    def finished(self, task_type: str, policy: str, exit_reason: ExitReason, total_s: float | None) -> None:
        """A result was stored, ``total_s`` seconds after the task's acceptance (``None``: not known)."""
        self._finished.labels(task_type, policy, exit_reason.value).inc()
        if total_s is not None:
            self._end_to_end_seconds.labels(task_type).observe(total_s)

    def lease_lost(self, task_type: str, policy: str, status: Status) -> None:
        """A task was taken back from a lost worker, and stands so now."""
        self._leases_lost.inc()
        if status.final:
            reason = ExitReason.CANCELLED if status is Status.CANCELLED else ExitReason.WORKER_LOST
            self.finished(task_type, policy, reason, None)

    def lagged(self, lag_s: float) -> None:
        """The event loop was late by so many seconds."""
        self._loop_lag.set(lag_s)

    def loop_failed(self, loop: str) -> None:
        """A loop of this process failed, and goes on."""
        self._loop_failures.labels(loop).inc()

    def called_back(self, outcome: str) -> None:
        """An attempt to deliver a callback is over."""
        self._callbacks.labels(outcome if outcome in CALLBACK_OUTCOMES else OTHER).inc()


class Exposition(NamedTuple):
    """The metrics of a process as text."""

    media_type: str
    text: bytes


def expose(registry: CollectorRegistry, accept: str) -> Exposition:
    """All that is registered, in the format that the header ``Accept`` asks for."""
    encode, media_type = choose_encoder(accept)
    return Exposition(media_type, encode(registry))


class Liveness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the process goes on with all that it should do."""

    status: Literal["ok", "failing"] = "ok"
    dead: Annotated[
        tuple[str, ...], Meta(description="The loops of the process that do not go on; it is better started anew.")
    ] = ()


class MetricsListener:
    """Serves the metrics of a worker over HTTP, in a thread of its own, so that a slow reader holds up no task.

    ``/health/live`` answers whether the worker's loops go on: 200, or 503 and which do not.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        host: str,
        port: int,
        dead_loops: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        """
        Args:
            registry: what is served.
            host: address to listen on.
            port: 0 is any that is free.
            dead_loops: what of the worker does not go on; called in the listener's threads.

        Raises:
            ListenError: the address is taken, or not ours.
        """
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            reason = error.strerror or str(error)
            settings = "see WORKER_METRICS_HOST and WORKER_METRICS_PORT"
            raise ListenError(f"cannot listen on {host} port {port}: {reason} ({settings})") from error
        self.port = self._server.server_port
        self._tell_metrics = self._server.get_app()
        self._dead_loops = dead_loops
        self._server.set_app(self._answer)

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        if environ["PATH_INFO"] != LIVE_PATH:
            answer: Iterable[bytes] = self._tell_metrics(environ, start_response)  # type: ignore[misc]
            return answer
        dead = self._dead_loops()
        start_response("503 Service Unavailable" if dead else "200 OK", [("Content-Type", "application/json")])
        return [msgspec.json.encode(Liveness(status="failing" if dead else "ok", dead=dead))]


class _Sampled(Collector):
    """Asks for values when they are wanted."""

    def __init__(self, sample: Callable[[], Iterable[Metric]]) -> None:
        self._sample = sample

    def collect(self) -> Iterable[Metric]:
        return self._sample()

    def describe(self) -> Iterable[Metric]:
        return ()  # otherwise the registry would ask for values at once


def _describe_process(registry: CollectorRegistry, process: str, version: str) -> None:
    # no second series with its time of creation beside each; the library knows this for the whole process only
    disable_created_metrics()  # type: ignore[no-untyped-call]
    ProcessCollector(registry=registry)
    BUILD.gauge(registry).labels(process, version).set(1)


EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  compared, not listened on


@contextlib.contextmanager
def serve_metrics(settings: Settings, metrics: WorkerMetrics) -> Iterator[str | None]:
    """Serve a worker's metrics where ``WORKER_METRICS_PORT`` says; yields the address and port under which others
    reach it, ``None`` where it says nothing.

    Raises:
        ListenError: the address is taken, or not ours.
    """
    if settings.worker_metrics_port is None:
        yield None
        return
    host = settings.worker_metrics_host
    listening = MetricsListener(metrics.registry, host, settings.worker_metrics_port, metrics.dead_loops)
    with contextlib.closing(listening) as listener:
        reached_as = socket.gethostname() if host in EVERYWHERE else host
        yield f"[{reached_as}]:{listener.port}" if ":" in reached_as else f"{reached_as}:{listener.port}"

"""OpenTelemetry traces: one trace from a request over the queue to the attempt. Only where an endpoint is set.

The context of a trace travels with the task, as the value of a W3C ``traceparent`` header in its row. Without
``OTEL_EXPORTER_OTLP_ENDPOINT`` nothing of OpenTelemetry is imported and nothing is recorded or stored.

Spans hold ids, names of policies and exit reasons; no parameters, no results, nothing that a run printed. Names follow
OpenTelemetry's semantic conventions for HTTP and messaging (``CONVENTIONS``); others begin with ``unityai.``. Two
attributes of the conventions are left out, for they may hold what a client wrote: the path of a request that no route
has, and the URL of a callback, which often holds a secret.
"""
# ruff: noqa: PLC0415  the library takes 0.15 s to load, which is for those who asked for it
# ruff: noqa: ARG002  who records nothing needs no arguments

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol, Self

from engine.config.settings import Settings
from engine.model.versions import engine_version

EXPORT_TIMEOUT_S = 3.0
Attribute = str | float | None
CONVENTIONS = MappingProxyType(
    {
        "method": "http.request.method",
        "route": "http.route",
        "path": "url.path",
        "scheme": "url.scheme",
        "status": "http.response.status_code",
        "server": "server.address",
        "port": "server.port",
        "resent": "http.request.resend_count",
        "error_type": "error.type",
        "messaging_system": "messaging.system",
        "destination": "messaging.destination.name",
        "operation": "messaging.operation.name",
        "operation_type": "messaging.operation.type",
        "message_id": "messaging.message.id",
        "message_count": "messaging.batch.message_count",
    }
)
"""What we call an attribute → what https://opentelemetry.io/docs/specs/semconv calls it."""
SYSTEM = "arq"
SAYS_NOTHING = ("/health", "/metrics")
"""Paths that are asked for again and again, and never of interest."""


class Span(Protocol):
    """Something that took time."""

    @property
    def trace_id(self) -> str | None:
        """Of the trace that it is part of, in hex; ``None`` when it is not recorded."""

    def note(self, **attributes: Attribute) -> None:
        """Say more of it. ``None`` is left out; ``CONVENTIONS`` has the names."""

    def end_as(self, name: str, *, failed: bool) -> None:
        """Name it by what is known at its end only."""

    def fail(self, reason: str) -> None:
        """Mark it as failed."""


class Traces:
    """Records nothing: what there is where no endpoint is set."""

    def traceparent(self) -> str | None:
        """The current span as the value of a ``traceparent`` header, ``None`` when there is none."""
        return None

    def request(self, traceparent: str | None, **attributes: Attribute) -> contextlib.AbstractContextManager[Span]:
        """A request, within the trace that its header names, if that is well-formed; else in a new one."""
        return _NOTHING

    def span(self, name: str, **attributes: Attribute) -> contextlib.AbstractContextManager[Span]:
        """A part of the current span."""
        return _NOTHING

    def sending(self, **attributes: Attribute) -> contextlib.AbstractContextManager[Span]:
        """Tasks that are put into the queue, a part of the current span."""
        return _NOTHING

    def callback(self, traceparent: str | None, **attributes: Attribute) -> contextlib.AbstractContextManager[Span]:
        """One attempt to deliver a callback, in the trace of its task."""
        return _NOTHING

    def attempt(
        self, traceparent: str | None, *, queue_s: float, claimed_at_ns: int, **attributes: Attribute
    ) -> contextlib.AbstractContextManager[Span]:
        """An attempt, with what was before it as parts of the same trace: the wait and the claim.

        Args:
            traceparent: as it was stored with the task; ``None`` begins a new trace.
            queue_s: how long the task waited.
            claimed_at_ns: when the claim began, by the wall clock.
            attributes: more of it.
        """
        return _NOTHING


class _Nothing:
    """A span that is not recorded."""

    trace_id = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def note(self, **attributes: Attribute) -> None: ...

    def end_as(self, name: str, *, failed: bool) -> None: ...

    def fail(self, reason: str) -> None: ...


_NOTHING = _Nothing()
NO_TRACES = Traces()


@contextlib.asynccontextmanager
async def open_traces(settings: Settings, process: str) -> AsyncIterator[Traces]:
    """Records spans and sends them to ``OTEL_EXPORTER_OTLP_ENDPOINT``; what is left is sent at the end.

    Args:
        settings: has the endpoint.
        process: ``api`` or ``worker``.
    """
    if settings.otlp_endpoint is None:
        yield NO_TRACES
        return
    provider = _make_provider(settings.otlp_endpoint, process)
    try:
        yield _Recorded(provider)
    finally:
        await asyncio.to_thread(provider.shutdown)


def _make_provider(endpoint: str, process: str) -> Any:
    """Sends to an endpoint. Other variables (``OTEL_TRACES_SAMPLER`` and the like) are OpenTelemetry's own to read."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.name": f"unityai-{process}", "service.version": engine_version()}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class _Recorded(Traces):
    """Records spans. Those of other libraries, and the global provider, are left alone."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._tracer = provider.get_tracer("unityai")
        self._propagator = TraceContextTextMapPropagator()

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    @contextlib.contextmanager
    def request(self, traceparent: str | None, **attributes: Attribute) -> Iterator[Span]:
        context = self._context(traceparent)
        with self._current("request", attributes, context=context, kind=self._trace.SpanKind.SERVER) as span:
            yield span

    @contextlib.contextmanager
    def span(self, name: str, **attributes: Attribute) -> Iterator[Span]:
        with self._current(name, attributes) as span:
            yield span

    @contextlib.contextmanager
    def sending(self, **attributes: Attribute) -> Iterator[Span]:
        about = {"operation": "enqueue", "operation_type": "send", "messaging_system": SYSTEM}
        with self._current("enqueue", about | attributes, kind=self._trace.SpanKind.PRODUCER) as span:
            yield span

    @contextlib.contextmanager
    def callback(self, traceparent: str | None, **attributes: Attribute) -> Iterator[Span]:
        context, kind = self._context(traceparent), self._trace.SpanKind.CLIENT
        with self._current("POST callback", {"method": "POST"} | attributes, context=context, kind=kind) as span:
            yield span

    @contextlib.contextmanager
    def attempt(
        self, traceparent: str | None, *, queue_s: float, claimed_at_ns: int, **attributes: Attribute
    ) -> Iterator[Span]:
        attributes |= {"operation": "attempt", "operation_type": "process", "messaging_system": SYSTEM}
        context, kind = self._context(traceparent), self._trace.SpanKind.CONSUMER
        waiting_since_ns = claimed_at_ns - round(queue_s * 1e9)
        self._tracer.start_span("queue wait", context=context, start_time=waiting_since_ns).end(claimed_at_ns)
        with self._current("attempt", attributes, context=context, kind=kind, start_time=claimed_at_ns) as span:
            self._tracer.start_span("claim", start_time=claimed_at_ns).end(time.time_ns())
            yield span

    @contextlib.contextmanager
    def _current(self, name: str, attributes: Mapping[str, Attribute], **how: Any) -> Iterator[Span]:
        # the library's own way to note an exception keeps its message and traceback, which may hold what a client sent
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **how
        ) as span:
            recorded = _RecordedSpan(span)
            recorded.note(**attributes)
            try:
                yield recorded
            except Exception as error:
                recorded.fail(type(error).__name__)
                raise

    def _context(self, traceparent: str | None) -> Any:
        """The context that a header names; an empty one, so a new trace, when it is none or malformed."""
        from opentelemetry.context import Context

        return self._propagator.extract({"traceparent": traceparent or ""}, context=Context())


class _RecordedSpan:
    def __init__(self, span: Any) -> None:
        self._span = span

    @property
    def trace_id(self) -> str | None:
        return f"{self._span.get_span_context().trace_id:032x}"

    def note(self, **attributes: Attribute) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(CONVENTIONS.get(name, f"unityai.{name}"), value)

    def end_as(self, name: str, *, failed: bool) -> None:
        from opentelemetry.trace import StatusCode

        self._span.update_name(name)
        if failed:
            self._span.set_status(StatusCode.ERROR)

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR, reason)
        self.note(error_type=reason)

"""What the API and the worker both mean by a task: how one is accepted, looked up, waited for and handed to a sandbox.

Insert first, then queue: a task whose id was given out exists in PostgreSQL, whatever happens to Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from engine.auth import Principal
from engine.destinations import CallbackUrlError, Destinations
from engine.health import Health, ask_health
from engine.logs import get_logger
from engine.metrics import ApiMetrics
from engine.policies import Policies, allowed_attempts
from engine.queue import Queue, QueueUnavailableError
from engine.scripts import NamedScript, list_scripts
from engine.settings import Settings
from engine.store import SchemaError, Store, StoreUnavailableError
from engine.task import Callback, Claim, NewFile, NewTask, Priority, Status, StoredTask
from engine.tracing import NO_TRACES, Traces
from sandbox import Artifact, ExitReason, Policy

MAX_WAIT_S = 300.0
POLL_LISTENING_S = 5.0
POLL_DEAF_S = 0.25
RECONNECT_S = (0.1, 2.0)


class TaskError(Exception):
    """A task that cannot be accepted. ``path`` names the part of the request that is at fault."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for, with its syntax and types checked."""

    task_type: str
    parameters: bytes | memoryview
    """JSON text as the client sent it."""
    timeout_s: float | None = None
    memory_mib: int | None = None
    labels: dict[str, str] = {}
    priority: Priority = Priority.NORMAL
    script_name: str | None = None
    callback_url: str | None = None
    policy: str | None = None
    """Name of the policy to run under; ``None`` for the task type's own."""
    file_ids: tuple[str, ...] = ()
    """The uploaded files that the parameters name."""


class KeptFile(NamedTuple):
    """An uploaded file, and until when it is kept."""

    file: NewFile
    expires_at: datetime


class Waiter(msgspec.Struct, frozen=True):
    """Somebody who waits for one task."""

    task_id: UUID
    ended: asyncio.Event
    """Set when the task may have ended, and never too late."""


class Waiters:
    """Who waits for which task, within this process."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}
        self.closing = False
        """Whether nobody should wait any longer, because this process stops."""

    @contextlib.contextmanager
    def waiting(self, task_id: UUID) -> Iterator[Waiter]:
        """A waiter for a task. Enter this before the task can end."""
        key, event = str(task_id), asyncio.Event()
        self._events.setdefault(key, set()).add(event)
        try:
            yield Waiter(task_id, event)
        finally:
            self._events[key].discard(event)
            if not self._events[key]:
                del self._events[key]

    def wake(self, task_id: str) -> None:
        """The task has ended."""
        for event in self._events.get(task_id, ()):
            event.set()

    def wake_all(self) -> None:
        """Everybody looks again: something may have been missed."""
        for events in self._events.values():
            for event in events:
                event.set()

    def close(self) -> None:
        """Nobody waits any longer."""
        self.closing = True
        self.wake_all()


class Service:
    """Accepts tasks and answers for them."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        queue: Queue,
        policies: Policies,
        *,
        metrics: ApiMetrics,
        traces: Traces = NO_TRACES,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.traces = traces
        self.policies = policies
        self.waiters = Waiters()
        self._destinations = Destinations(settings.callback_urls)
        self._store = store
        self._queue = queue
        self._log = get_logger()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps connecting to PostgreSQL until it answers, and listens for tasks that end."""
        background = [
            asyncio.create_task(self._open_store()),
            asyncio.create_task(self._queue.listen("finished", self.waiters.wake, self.waiters.wake_all)),
        ]
        try:
            yield
        finally:
            self.waiters.close()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._queue.close()
            await self._store.close()

    async def submit(self, principal: Principal, ask: Ask, task_id: UUID) -> StoredTask:
        """Accept a task under an id that was made for it (random, so that nobody guesses it).

        Raises:
            TaskError: it cannot be accepted, and why.
            StoreUnavailableError: PostgreSQL is away; nothing is promised.
        """
        task = self._new_task(principal, ask, task_id)
        await self._check_files(ask.file_ids, principal.tenant)
        with self.traces.span("store", task_id=str(task_id)):
            created_at = await self._store.insert(task)
        self.metrics.accepted(task.task_type, task.policy)
        with self.traces.span("enqueue"):
            await self._enqueue(task_id)
        return StoredTask(
            task_id=task_id,
            tenant=task.tenant,
            task_type=task.task_type,
            status=Status.QUEUED,
            policy=task.policy,
            priority=task.priority,
            labels=task.labels,
            attempts=0,
            created_at=created_at,
            started_at=None,
            finished_at=None,
            outcome=None,
            callback=Callback(url=task.callback_url, state="waiting") if task.callback_url else None,
        )

    async def keep_file(self, principal: Principal, name: str, media_type: str, content: bytes) -> KeptFile:
        """Keep an uploaded file for ``FILE_TTL`` seconds, under an id that nobody guesses.

        Raises:
            StoreUnavailableError: PostgreSQL is away; nothing was kept.
        """
        file = NewFile(
            file_id=f"file_{secrets.token_hex(16)}",
            tenant=principal.tenant,
            name=name,
            media_type=media_type,
            sha256=hashlib.sha256(content).hexdigest(),
            content=content,
        )
        expires_at = await self._store.insert_file(file, self.settings.file_ttl_s)
        return KeptFile(file=file, expires_at=expires_at)

    async def artifact(self, principal: Principal, task_id: UUID, name: str) -> Artifact | None:
        """A file that a task left behind, ``None`` when there is none of this name.

        Raises:
            StoreUnavailableError: PostgreSQL is away.
        """
        return await self._store.artifact(task_id, name, principal.tenant)

    async def callbacks(self, principal: Principal, state: str, most: int) -> list[tuple[UUID, Callback]]:
        """The newest callbacks of a tenant in a state.

        Raises:
            StoreUnavailableError: PostgreSQL is away.
        """
        return await self._store.callbacks(principal.tenant, state, most)

    async def redeliver(self, principal: Principal, task_id: UUID) -> Callback | None:
        """Owe a final task's callback once more; ``None`` when there is none.

        Raises:
            StoreUnavailableError: PostgreSQL is away.
        """
        return await self._store.redeliver(task_id, principal.tenant)

    async def get(self, principal: Principal, task_id: UUID, *, wait_s: float = 0.0) -> StoredTask | None:
        """A task as it stands, or, within ``wait_s`` seconds, as it ended; ``None`` when the tenant has none such.

        Raises:
            StoreUnavailableError: PostgreSQL is away.
        """
        with self.waiters.waiting(task_id) as waiter:
            found = await self._store.get(task_id, principal.tenant)
            if found is None or found.status.final or wait_s <= 0:
                return found
            return await self.wait(principal, waiter, wait_s)

    async def cancel(self, principal: Principal, task_id: UUID, *, wait_s: float = 0.0) -> StoredTask | None:
        """Ask for a task's end, and wait up to ``wait_s`` seconds for it; ``None`` when the tenant has none such.

        One that is queued has ended when this returns; of one that runs the worker is told; one that has ended stays
        as it is.

        Raises:
            StoreUnavailableError: PostgreSQL is away.
        """
        with self.waiters.waiting(task_id) as waiter:
            cancelled = await self._store.cancel(task_id, principal.tenant)
            if cancelled is not None and cancelled.status.final:
                self.metrics.finished(cancelled.task_type, cancelled.policy, ExitReason.CANCELLED)
                await self._queue.drop(task_id)
                await self._queue.announce(task_id)
            elif cancelled is not None:
                await self._queue.ask_to_cancel(task_id)
                if wait_s > 0:
                    return await self.wait(principal, waiter, wait_s)
            return await self._store.get(task_id, principal.tenant)

    async def wait(self, principal: Principal, waiter: Waiter, wait_s: float) -> StoredTask | None:
        """A task as it ended within ``wait_s`` seconds, else as it stands then.

        Looks whenever somebody says that it has ended, and now and then in case nobody could say it.

        Raises:
            StoreUnavailableError: PostgreSQL is away.
        """
        deadline = time.monotonic() + min(wait_s, MAX_WAIT_S)
        while True:
            left_s = deadline - time.monotonic()
            poll_s = POLL_LISTENING_S if self._queue.listening else POLL_DEAF_S
            if not self.waiters.closing:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiter.ended.wait(), max(0.0, min(poll_s, left_s)))
            waiter.ended.clear()
            found = await self._store.get(waiter.task_id, principal.tenant)
            if found is None or found.status.final or self.waiters.closing or time.monotonic() >= deadline:
                return found

    async def health(self) -> Health:
        """Ask every dependency."""
        health = await ask_health(self._store, self._queue, self.policies)
        self.metrics.note_state(health.service_state)
        return health

    def _new_task(self, principal: Principal, ask: Ask, task_id: UUID) -> NewTask:
        if ask.task_type not in self.policies.task_types:
            available = ", ".join(self.policies.task_types)
            raise TaskError("$.task_type", f"{ask.task_type} is not available here; available are: {available}")
        if ask.timeout_s is not None and ask.timeout_s > self.settings.max_task_timeout_s:
            raise TaskError("$.timeout_s", f"at most {self.settings.max_task_timeout_s:g} s (MAX_TASK_TIMEOUT)")
        most_mib = self.settings.max_task_memory_mib
        if ask.memory_mib is not None and most_mib is not None and ask.memory_mib > most_mib:
            raise TaskError("$.memory_mib", f"at most {most_mib} MiB (MAX_TASK_MEMORY_MIB)")
        if ask.script_name is not None:
            self._check_script(ask.script_name)
        policy = self._choose_policy(ask)
        return NewTask(
            task_id=task_id,
            task_type=ask.task_type,
            parameters=ask.parameters,
            policy=policy.name,
            timeout_s=ask.timeout_s,
            labels=ask.labels,
            priority=ask.priority,
            script_name=ask.script_name,
            max_attempts=allowed_attempts(policy, self.settings),
            file_ids=ask.file_ids,
            memory_mib=ask.memory_mib,
            traceparent=self.traces.traceparent(),
            tenant=principal.tenant,
            callback_url=self._callback_url(ask.callback_url),
        )

    def _callback_url(self, url: str | None) -> str | None:
        if url is None:
            return None
        if not self.settings.callback_secrets:
            raise TaskError("$.callback_url", "there are no callbacks here: CALLBACK_SECRET is not set")
        try:
            return self._destinations.check(url)
        except CallbackUrlError as error:
            raise TaskError("$.callback_url", str(error)) from None

    def _choose_policy(self, ask: Ask) -> Policy:
        if ask.policy is None:
            return self.policies.default(ask.task_type)
        chosen = self.policies.named(ask.policy)
        if chosen is None or chosen.task_type != ask.task_type:
            there_are = sorted(policy.name for policy in self.policies.all if policy.task_type == ask.task_type)
            raise TaskError("$.policy", f"no such policy for {ask.task_type}; there are: {', '.join(there_are)}")
        return chosen

    async def _check_files(self, file_ids: tuple[str, ...], tenant: str) -> None:
        if file_ids and (missing := sorted(set(file_ids) - await self._store.known_files(file_ids, tenant))):
            raise TaskError(
                "$.parameters", f"there is no file {', '.join(missing)}: it was never uploaded here, or has expired"
            )

    def _check_script(self, name: str) -> None:
        known = list_scripts(self.settings.scripts_dir)
        if name not in known:
            raise TaskError(
                "$.parameters.script",
                f"there is no script {name}; there are: {', '.join(known) or 'none'}. (Source text must not look like "
                "a file's name: add a line break.)",
            )

    async def _enqueue(self, task_id: UUID) -> None:
        try:
            await self._queue.put([task_id])
        except QueueUnavailableError as error:
            self._log.warning("task accepted but not queued yet", task_id=str(task_id), reason=str(error))

    async def _open_store(self) -> None:
        pause = RECONNECT_S[0]
        while True:
            try:
                await self._store.open()
            except StoreUnavailableError as error:
                self._log.warning("database away", reason=str(error), retry_s=pause)
            except SchemaError as error:
                self._log.error("database not usable", reason=str(error), retry_s=pause)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_S[1])


def build_request(claim: Claim, script: NamedScript | None) -> bytes:
    """What a sandbox reads on stdin: one JSON object around the client's own text, which is not decoded here."""
    parts = [b'{"task_type":', msgspec.json.encode(claim.task_type), b',"parameters":', claim.parameters]
    if script is not None:
        parts += [b',"source":', msgspec.json.encode(script.source)]
        parts += [b',"source_name":', msgspec.json.encode(script.script.name)]
    return b"".join([*parts, b"}"])

"""The service behind the API: it accepts a task, looks it up, waits for its end, and cancels it.

Insert first, then queue: a task whose id was given out exists in PostgreSQL, whatever happens to Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Literal
from uuid import UUID, uuid4

import msgspec

from engine.config.settings import Settings
from engine.model.callback import Callback
from engine.model.errors import (
    InvalidRequestError,
    KeyTakenError,
    NoReceiptsError,
    NotEndedError,
    QueueUnavailableError,
    SchemaError,
    StoreFullError,
    StoreUnavailableError,
)
from engine.model.principal import Principal
from engine.model.receipt import SignedReceipt, state_receipt
from engine.model.request import SubmitRequest
from engine.model.result import ArtifactFacts
from engine.model.status import Status
from engine.model.task import (
    AcceptedTask,
    Cancellation,
    ListedFile,
    ListedTask,
    NewFile,
    NewTask,
    QueueItem,
    StoredFile,
    StoredTask,
    TaskFilter,
)
from engine.model.turns import taking_turns
from engine.model.versions import versions
from engine.policies.policies import Policies
from engine.queue.queue import Queue
from engine.service.accept import accept
from engine.service.auditor import Auditor
from engine.service.health import Health, ask_health
from engine.service.room import LOOK_S, find_fullness
from engine.service.wait_estimate import WaitEstimator
from engine.service.waiting import Waiter, Waiters
from engine.store.patience import one_patience, renew_patience
from engine.store.sessions import Sessions
from engine.store.store import Store
from engine.telemetry.logs import get_logger
from engine.telemetry.loops import Loop, Loops
from engine.telemetry.metrics import ApiMetrics
from engine.telemetry.receipts import ReceiptSigner
from engine.telemetry.tracing import NO_TRACES, Traces
from sandbox import ExitReason

MAX_WAIT_S = 300.0
POLL_LISTENING_S = 5.0
POLL_DEAF_S = 0.25
RECONNECT_S = (0.1, 2.0)


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
        self.loops = Loops(metrics.loop_failed)
        self._signer = ReceiptSigner(settings.receipt_keys) if settings.receipt_keys else None
        self._full: str | None = None
        """What of PostgreSQL is almost full."""
        self._versions = versions()
        self._wait_estimator = WaitEstimator()
        self.auditor = Auditor(store.trail, policies, settings.egress_allow_private)
        self._store = store
        self._queue = queue
        self._log = get_logger()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps connecting to PostgreSQL until it answers, and listens for tasks that end."""
        loops: dict[str, Loop] = {
            "database": self._watch_store,
            "finished": partial(self._queue.listen, "finished", self.waiters.wake, self.waiters.wake_all),
        }
        try:
            async with self.loops.running(loops):
                try:
                    yield
                finally:
                    self.waiters.close()
        finally:
            await self._queue.close()
            await self._store.close()

    async def submit(self, principal: Principal, request: SubmitRequest, task_id: UUID) -> AcceptedTask:
        """Accept a task under an id that was made for it (random, so that nobody guesses it).

        Raises:
            InvalidRequestError: it cannot be accepted, and why.
            KeyTakenError: its idempotency key stands for another request.
            QuotaError: its tenant may not have another task accepted just now, or not one as large.
            StoreFullError: PostgreSQL is almost full.
            StoreUnavailableError: PostgreSQL is unreachable; nothing is promised.
        """
        self._check_not_full()
        known_files = await self._known_files(principal, [request])
        task = self._accept(principal, request, task_id, known_files)
        with self.traces.span("store", task_id=str(task_id)):
            created_at = await self._store.tasks.insert(task, self.settings.quotas_of(principal.quotas))
        if created_at is None:
            return await self._replayed(principal, task)
        self.metrics.accepted(request.task_type, task.policy)
        with self.traces.sending(destination=self.settings.queue_name, message_id=str(task_id)):
            await self._enqueue([task])
        return AcceptedTask(_waiting_task(task, created_at))

    async def submit_many(
        self, principal: Principal, requests: Sequence[SubmitRequest]
    ) -> list[AcceptedTask | Exception]:
        """Accept many tasks, each for itself: in their order what ``submit`` returns or raises.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable; nothing is promised.
        """
        self._check_not_full()
        known_files = await self._known_files(principal, requests)
        prepared = [self._accept_or_not(principal, request, known_files) async for request in taking_turns(requests)]
        tasks = [task for task in prepared if isinstance(task, NewTask)]
        with self.traces.span("store", tasks=len(tasks)):
            quotas = self.settings.quotas_of(principal.quotas)
            stored = await self._store.tasks.insert_many(tasks, quotas) if tasks else {}
        for task in tasks:
            if task.task_id in stored:
                self.metrics.accepted(task.request.task_type, task.policy)
        with self.traces.sending(destination=self.settings.queue_name, message_count=len(stored)):
            await self._enqueue([task for task in tasks if task.task_id in stored])
        return [
            AcceptedTask(_waiting_task(task, stored[task.task_id]))
            if isinstance(task, NewTask) and task.task_id in stored
            else await self._replayed_or_not(principal, task)
            async for task in taking_turns(prepared)
        ]

    async def keep_file(self, principal: Principal, name: str, media_type: str, content: bytes) -> StoredFile:
        """Keep an uploaded file for ``FILE_TTL`` seconds, under an id that nobody guesses.

        Raises:
            QuotaError: the tenant may not store it just now.
            StoreFullError: PostgreSQL is almost full; nothing was kept.
            StoreUnavailableError: PostgreSQL is unreachable; nothing was kept.
        """
        self._check_not_full()
        file = NewFile(
            file_id=f"file_{secrets.token_hex(16)}",
            tenant=principal.tenant,
            name=name,
            media_type=media_type,
            sha256=await asyncio.to_thread(_sha256, content),  # of a large one it takes long, beside the loop
            content=content,
        )
        quotas = self.settings.quotas_of(principal.quotas)
        expires_at = await self._store.files.insert(file, self.settings.file_ttl_s, quotas)
        return StoredFile(file=file, expires_at=expires_at)

    async def list_files(self, principal: Principal, most: int) -> tuple[list[ListedFile], int]:
        """A tenant's newest files, and how many bytes it has stored in all.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        found = await self._store.files.find(principal.tenant, most)
        return found, await self._store.files.stored_bytes(principal.tenant)

    async def delete_file(self, principal: Principal, file_id: str) -> Literal["deleted", "waited for", "missing"]:
        """Delete an uploaded file, unless a task waits for it.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        if await self._store.files.delete(file_id, principal.tenant):
            return "deleted"
        return "waited for" if await self._store.files.known([file_id], principal.tenant) else "missing"

    def artifact_parts(self, principal: Principal, task_id: UUID, artifact: ArtifactFacts) -> AsyncIterator[bytes]:
        """The content of an artifact, a MiB at a time; raises ``StoreUnavailableError`` on the way."""
        return self._store.files.artifact_parts(task_id, artifact.name, principal.tenant, artifact.size_bytes)

    async def artifact(self, principal: Principal, task_id: UUID, name: str) -> ArtifactFacts | None:
        """A file that a task left behind, ``None`` when there is none of this name.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        return await self._store.files.artifact(task_id, name, principal.tenant)

    async def artifact_was_deleted(self, principal: Principal, task_id: UUID, name: str) -> bool:
        """Whether a task left a file of this name, which is not there: its tenant has deleted it.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        return await self._store.files.artifact_was_deleted(task_id, principal.tenant, name)

    async def delete_artifacts(self, principal: Principal, task_id: UUID, name: str | None = None) -> int | None:
        """Delete one artifact of a task, or all: how many there were; ``None`` when the tenant has no such task.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        return await self._store.files.delete_artifacts(task_id, principal.tenant, name)

    async def callbacks(self, principal: Principal, state: str, most: int) -> list[tuple[UUID, Callback]]:
        """The newest callbacks of a tenant in a state.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        return await self._store.callbacks.find(principal.tenant, state, most)

    async def redeliver(self, principal: Principal, task_id: UUID) -> Callback | None:
        """Owe a final task's callback once more; ``None`` when there is none.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        return await self._store.callbacks.redeliver(task_id, principal.tenant)

    async def get(self, principal: Principal, task_id: UUID, *, wait_s: float = 0.0) -> StoredTask | None:
        """A task as it stands, or, within ``wait_s`` seconds, as it ended; ``None`` when the tenant has none such.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        by_s = time.monotonic() + wait_s
        with self.waiters.waiting(task_id) as waiter:
            found = await self._store.tasks.get(task_id, principal.tenant)
            if found is not None and not found.status.final and wait_s > 0:
                found = await self.wait(principal, waiter, by_s - time.monotonic())
            return await self._placed(found)

    async def _placed(self, task: StoredTask | None) -> StoredTask | None:
        """A task that waits is told its place, and how long that will take."""
        if task is None or task.status is not Status.QUEUED:
            return task
        before = await self._queue.position(task.task_id)
        if before is None:
            return task
        wait_s = None
        with contextlib.suppress(StoreUnavailableError):  # the task is known: that is what was asked
            wait_s = await self._wait_estimator.wait_s(self._store, before + 1)
        return msgspec.structs.replace(task, queue_position=before + 1, estimated_wait_s=wait_s)

    async def list_tasks(self, principal: Principal, wanted: TaskFilter) -> list[ListedTask]:
        """A tenant's tasks, the newest first.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable, or the question took too long.
        """
        return await self._store.tasks.find(principal.tenant, wanted)

    async def cancel(self, principal: Principal, task_id: UUID, *, wait_s: float = 0.0) -> StoredTask | None:
        """Ask for a task's end, and wait up to ``wait_s`` seconds for it; ``None`` when the tenant has none such.

        One that is queued has ended when this returns; of one that runs the worker is told; one that has ended stays
        as it is.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        by_s = time.monotonic() + wait_s
        with self.waiters.waiting(task_id) as waiter:
            cancelled = await self._store.tasks.cancel(task_id, principal.tenant)
            if cancelled is None:
                return await self._store.tasks.get(task_id, principal.tenant)
            if wait_s > 0 and not cancelled.status.final:
                await self._tell_of_cancel(task_id, cancelled)
                return await self.wait(principal, waiter, by_s - time.monotonic())
            # side by side: a Redis and a PostgreSQL that both hang would else be waited for one after the other
            getting = self._store.tasks.get(task_id, principal.tenant)
            _, task = await asyncio.gather(self._tell_of_cancel(task_id, cancelled), getting)
            return task

    async def _tell_of_cancel(self, task_id: UUID, cancelled: Cancellation) -> None:
        """Tell those who need to know; what Redis does not pass on they find in PostgreSQL."""
        if cancelled.status.final:
            self.metrics.finished(cancelled.task_type, cancelled.policy, ExitReason.CANCELLED)
            await self._queue.drop(task_id)
            await self._queue.announce(task_id)
        else:
            await self._queue.ask_to_cancel(task_id)

    async def receipt(self, principal: Principal, task_id: UUID) -> SignedReceipt | None:
        """The signed receipt of a final task; ``None`` when there is no such task.

        Raises:
            NoReceiptsError: this service has no key to sign with.
            NotEndedError: the task is not final.
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        signer = self.receipt_signer
        task = await self._store.tasks.get(task_id, principal.tenant)
        submission = await self._store.tasks.submission(task_id, principal.tenant)
        if task is None or submission is None:
            return None
        # beside the loop: a result of 8 MiB takes 20 ms
        statement = await asyncio.to_thread(state_receipt, task, submission)
        if statement is None:
            raise NotEndedError
        return signer.sign(statement)

    @property
    def sessions(self) -> Sessions:
        """Those of browsers."""
        return self._store.sessions

    @property
    def receipt_signer(self) -> ReceiptSigner:
        """It signs the receipts.

        Raises:
            NoReceiptsError: this service has no key to sign with.
        """
        if self._signer is None:
            raise NoReceiptsError
        return self._signer

    async def wait(self, principal: Principal, waiter: Waiter, wait_s: float) -> StoredTask | None:
        """A task as it ended within ``wait_s`` seconds, else as it stands then.

        Looks whenever somebody says that it has ended, and now and then in case nobody could say it.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        deadline = time.monotonic() + min(wait_s, MAX_WAIT_S)
        while True:
            left_s = deadline - time.monotonic()
            poll_s = POLL_LISTENING_S if self._queue.listening else POLL_DEAF_S
            if not self.waiters.closing:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, min(poll_s, left_s))):
                        await waiter.ended.wait()
            waiter.ended.clear()
            renew_patience()
            found = await self._store.tasks.get(waiter.task_id, principal.tenant)
            if found is None or found.status.final or self.waiters.closing or time.monotonic() >= deadline:
                return found

    def patience(self) -> contextlib.AbstractContextManager[None]:
        """The context of one request: all that it asks of PostgreSQL has the time of one answer."""
        return one_patience(self._store.database.answer_s)

    async def health(self) -> Health:
        """Ask every dependency."""
        health = await ask_health(self._store, self._queue, self.policies, full=self._full, own_versions=self._versions)
        self.metrics.note_state(health.service_state)
        return health

    def _accept(
        self, principal: Principal, request: SubmitRequest, task_id: UUID, known_files: Collection[str]
    ) -> NewTask:
        return accept(
            self.settings,
            self.policies,
            request,
            task_id=task_id,
            principal=principal,
            known_files=known_files,
            traceparent=self.traces.traceparent(),
        )

    def _accept_or_not(
        self, principal: Principal, request: SubmitRequest, known_files: Collection[str]
    ) -> NewTask | InvalidRequestError:
        try:
            return self._accept(principal, request, uuid4(), known_files)
        except InvalidRequestError as error:
            return error

    async def _known_files(self, principal: Principal, requests: Sequence[SubmitRequest]) -> set[str]:
        named = {file_id for request in requests for file_id in request.file_ids}
        return await self._store.files.known(sorted(named), principal.tenant) if named else set()

    async def _replayed_or_not(
        self, principal: Principal, task: NewTask | InvalidRequestError
    ) -> AcceptedTask | Exception:
        if isinstance(task, InvalidRequestError):
            return task
        try:
            return await self._replayed(principal, task)
        except KeyTakenError as error:
            return error

    async def _replayed(self, principal: Principal, task: NewTask) -> AcceptedTask:
        """The task that stands under the idempotency key of one that was not stored.

        Raises:
            KeyTakenError: it was made by another request.
            StoreUnavailableError: PostgreSQL is unreachable, or the task has been deleted this very moment.
        """
        found = await self._store.tasks.by_key(principal.tenant, task.request.idempotency_key or "")
        stored = await self._store.tasks.get(found[0], principal.tenant) if found else None
        if found is None or stored is None:
            raise StoreUnavailableError("the task under this idempotency key has just been deleted")
        if found[1] != task.request.request_sha256:
            raise KeyTakenError
        return AcceptedTask(stored, is_replay=True)

    async def _enqueue(self, tasks: list[NewTask]) -> None:
        try:
            await self._queue.put(
                QueueItem(task.task_id, task.tenant, task.request.priority, memory_mib=task.memory_limit_mib)
                for task in tasks
            )
        except QueueUnavailableError as error:
            first = str(tasks[0].task_id) if tasks else None
            self._log.warning("accepted but not queued yet", task_id=first, tasks=len(tasks), reason=str(error))

    def _check_not_full(self) -> None:
        if self._full is not None:
            raise StoreFullError

    async def _watch_store(self) -> None:
        """Open the store as soon as PostgreSQL answers, then look for room there every few seconds, until cancelled."""
        await self._open_store()
        are_kept = False
        while True:
            are_kept = are_kept or await self._keep_policies()
            with contextlib.suppress(StoreUnavailableError):
                full = await find_fullness(self.settings, self._store.database)
                if full != self._full and full is not None:
                    self._log.error("almost full: no tasks and no files are accepted", reason=full)
                self._full = full
            await asyncio.sleep(LOOK_S)

    async def _open_store(self) -> None:
        pause = RECONNECT_S[0]
        while True:
            try:
                await self._store.open()
            except StoreUnavailableError as error:
                self._log.warning("PostgreSQL is unreachable", reason=str(error), retry_s=pause)
            except SchemaError as error:
                self._log.error("database not usable", reason=str(error), retry_s=pause)
            else:
                self._log.info("PostgreSQL is open", **self._store.facts)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_S[1])

    async def _keep_policies(self) -> bool:
        """Keep the texts of the policies in force, and say whether that is done.

        It is not while PostgreSQL is unreachable, or a replica, which takes no writes until it becomes the primary.
        """
        try:
            await self._store.ping()  # a replica says so here, without a failed statement in its log
            await self.auditor.keep_policies()
        except StoreUnavailableError:
            return False
        return True


def _waiting_task(task: NewTask, created_at: datetime) -> StoredTask:
    """A task that has just been stored."""
    return StoredTask(
        task_id=task.task_id,
        tenant=task.tenant,
        task_type=task.request.task_type,
        status=Status.QUEUED,
        policy=task.policy,
        priority=task.request.priority,
        labels=task.request.labels,
        attempts=0,
        created_at=created_at,
        started_at=None,
        finished_at=None,
        exit_reason=None,
        callback=Callback(url=task.callback_url, state="waiting") if task.callback_url else None,
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

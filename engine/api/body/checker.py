"""Checks bodies without stopping the event loop: small ones at once, big ones in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import cast

import msgspec

from engine.api.body.check import HEAD, LENGTH, Reply, check, check_batch
from engine.config.settings import PROJECT_DIR
from engine.model.errors import EngineError, InvalidRequestError
from engine.model.request import SubmitRequest

INLINE_BYTES = 128 * 1024
"""About two milliseconds of work."""
READ_BYTES = 1 << 20


class CheckerEndedError(EngineError):
    """The checking process ended before it answered: it was killed, or the host had no memory left."""

    status = 503
    retry_after_s = 2.0

    def __init__(self) -> None:
        super().__init__(
            "The process that checks large bodies ended before it answered. Nothing was accepted: try again."
        )


class Checker:
    """Owns the checking process; it is started for the first big body and kept."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def check(self, body: bytes, *, has_key: bool = False) -> SubmitRequest:
        """Check a body; the request's parameters stay a part of it.

        Args:
            body: of ``POST /execute``.
            has_key: whether an idempotency key stands for it.
        Raises:
            InvalidRequestError: what is wrong with it, and where.
            CheckerEndedError: it could not be checked.
        """
        if len(body) <= INLINE_BYTES:
            return check(body, has_key=has_key)
        (found,) = await self._check_apart(body, is_batch=False, has_key=has_key)
        if isinstance(found, InvalidRequestError):
            raise found
        return found

    async def check_batch(self, body: bytes) -> list[SubmitRequest | InvalidRequestError]:
        """Check a body that is an array of tasks, each for itself.

        Raises:
            InvalidRequestError: what is wrong with the body as a whole.
            CheckerEndedError: it could not be checked.
        """
        if len(body) <= INLINE_BYTES:
            return check_batch(body)
        return await self._check_apart(body, is_batch=True)

    async def _check_apart(
        self, body: bytes, *, is_batch: bool, has_key: bool = False
    ) -> list[SubmitRequest | InvalidRequestError]:
        async with self._turn:
            try:
                reply = await self._exchange(HEAD.pack(is_batch, has_key, len(body)), body)
            except BaseException:
                await self._end()  # it may be in the middle of an answer that nobody reads any more
                raise
        if reply.faults:
            raise InvalidRequestError(*reply.faults)
        return [packed.unpack(body) for packed in reply.requests]

    async def close(self) -> None:
        """End the checking process."""
        async with self._turn:
            await self._end()

    async def _exchange(self, head: bytes, body: bytes) -> Reply:
        process = await self._started()
        requests, answers = cast(asyncio.StreamWriter, process.stdin), cast(asyncio.StreamReader, process.stdout)
        try:
            requests.write(head)
            requests.write(body)
            await requests.drain()
            length = await answers.readexactly(LENGTH.size)
            text = await answers.readexactly(LENGTH.unpack(length)[0])
        except (OSError, asyncio.IncompleteReadError) as error:
            raise CheckerEndedError from error
        return msgspec.json.decode(text, type=Reply)

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "engine.api.body.check",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=READ_BYTES, cwd=PROJECT_DIR,
                env={"PATH": os.defpath}, start_new_session=True,
            )  # fmt: skip
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()

"""A client of the service, as anybody could write one from its documentation: ``python client.py --url URL …``.

It knows HTTP and nothing of the service's code. Until its standard input ends it submits tasks of many kinds, waits,
follows, cancels, lists and receives callbacks; then it asks for the end of all that was accepted. Each thing that it
asks and each thing that it hears is a line of JSON on the standard output, with its time (CLOCK_MONOTONIC, seconds):
the history, which ``promises.py`` judges.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx

READ_S = 12.0
"""Longest silence of the service, beyond what a request asked to wait for, before the connection is given up."""
LONG_S = 300.0
PLAIN_S = (0.5, 4.0)
"""How long a plain task lasts at most, and how long it may: a worker may be paused for longer than that."""
AT_ONCE = 40
LIVE_EVERY_S = 0.3
"""Between two control requests, for which the service needs no server."""
SOON_S = 60.0
"""A callback that is due later than that is not waited for."""
LIST_EVERY_S = 4.0
LARGE_BYTES = 140_000
CHECKED_APART = 21
"""Tasks of a batch that is checked in a process of its own."""
SETTLE_S = 240.0
FINAL = ("succeeded", "failed", "cancelled")

QUICK = "import time\ntime.sleep(args['lasts_s'])\nresult = args['nonce']"
TALKS = """
import time
for number in range(args['rows']):
    print(args['nonce'], number, flush=True)
    time.sleep(args['lasts_s'] / args['rows'])
result = args['nonce']
"""
FAILS = "import time\ntime.sleep(args['lasts_s'])\nraise ValueError(args['nonce'])"


class Options(NamedTuple):
    """What the client is to do."""

    url: str
    receiver: int
    """Port on which it receives callbacks; 0 for none."""
    callbacks: str
    """URL below which the service reaches it."""
    rate: float
    """New requests each second."""
    longest_s: float
    """Of a task."""
    seed: int


class Job(NamedTuple):
    """A task that the client wants done."""

    nonce: str
    body: dict[str, Any]
    ends: str
    """The one status that it may end with."""


class Client:
    """One client with many customers."""

    def __init__(self, options: Options, http: httpx.AsyncClient) -> None:
        self._options = options
        self._http = http
        self._random = random.Random(options.seed)
        self._numbers = itertools.count(1)
        self._nonces = itertools.count(1)
        self._ids: dict[str, str] = {}
        """Accepted task → its nonce."""
        self._ended: set[str] = set()
        self._stopping = asyncio.Event()
        self._settled_by = 0.0

    # ---- the history -----------------------------------------------------------------------------------------------

    def _note(self, event: str, **facts: Any) -> None:
        sys.stdout.write(json.dumps({"at": time.monotonic(), "event": event, **facts}) + "\n")

    async def _ask(
        self,
        call: str,
        method: str,
        path: str,
        *,
        wait_s: float = 0.0,
        facts: dict[str, Any] | None = None,
        **more: Any,
    ) -> httpx.Response | None:
        """Ask once; ``None`` when no whole answer came."""
        number = next(self._numbers)
        if wait_s:
            more.setdefault("params", {})["wait"] = wait_s
        self._note("ask", number=number, call=call, wait_s=wait_s, **(facts or {}))
        try:
            response = await self._http.request(method, path, timeout=httpx.Timeout(READ_S + wait_s), **more)
        except httpx.HTTPError as error:
            self._note("answer", number=number, error=type(error).__name__)
            return None
        self._note("answer", number=number, status=response.status_code, **_read(call, response))
        return response

    async def _insist(self, *asked: Any, **more: Any) -> httpx.Response | None:
        """Ask until there is an answer that is no 503; ``None`` only when all patience is over."""
        while not self._settled_by or time.monotonic() < self._settled_by:
            response = await self._ask(*asked, **more)
            if response is not None and response.status_code != 503:
                return response
            await asyncio.sleep(self._random.uniform(0.2, 0.6) if response is None else _pause_s(response))
        return None

    # ---- what customers do -----------------------------------------------------------------------------------------

    def _job(self, script: str, *, ends: str = "succeeded", lasts_s: float | None = None, **more: Any) -> Job:
        nonce = f"{self._options.seed}-{next(self._nonces)}"
        lasts_s = self._random.uniform(0.01, self._options.longest_s) if lasts_s is None else lasts_s
        args = {"nonce": nonce, "lasts_s": lasts_s, **more.pop("args", {})}
        body = {
            "task_type": "custom_script",
            "parameters": {"script": script, "args": args},
            "labels": {"storm": str(self._options.seed), "nonce": nonce},
            **more,
        }
        self._note("want", nonce=nonce, ends=ends, calls_back="callback_url" in more)
        return Job(nonce, body, ends)

    async def _submit(self, job: Job, *, wait_s: float = 0.0, is_large: bool = False) -> dict[str, Any]:
        """Have a task accepted, however often it must be sent."""
        response = await self._insist(
            "execute",
            "POST",
            "/execute",
            wait_s=wait_s,
            facts={"nonces": [job.nonce], "key": job.nonce, "is_large": is_large},
            json=job.body,
            headers={"Idempotency-Key": job.nonce},
        )
        return self._accepted(_json(response), job.nonce)

    def _accepted(self, task: Any, nonce: str) -> dict[str, Any]:
        if isinstance(task, dict) and "task_id" in task:
            self._ids[task["task_id"]] = nonce
            self._look(task)
            return task
        return {}

    def _look(self, task: dict[str, Any]) -> bool:
        if task.get("status") in FINAL:
            self._ended.add(task["task_id"])
        return task.get("status") in FINAL

    async def _await_end(self, task_id: str, wait_s: float = 5.0) -> None:
        """Ask for a task until it has ended."""
        while task_id not in self._ended:
            response = await self._insist("get", "GET", f"/task/{task_id}", wait_s=wait_s, facts={"task_id": task_id})
            if response is None or response.status_code != 200:
                return
            self._look(_json(response))

    async def plain(self) -> None:
        """Submit, then ask for the end. The task has so much more time than it needs that only a fault uses it up."""
        lasts_s = self._random.uniform(0.01, PLAIN_S[0])
        task = await self._submit(self._job(QUICK, lasts_s=lasts_s, timeout_s=PLAIN_S[1]))
        if task:
            await self._await_end(task["task_id"])

    async def waits(self) -> None:
        """Submit and wait in one request."""
        await self._submit(self._job(QUICK), wait_s=self._random.choice((0.5, 2, 6)))

    async def fails(self) -> None:
        """A script that raises an exception: that, and nothing else, is how it ends."""
        task = await self._submit(self._job(FAILS, ends="failed"), wait_s=1)
        if task:
            await self._await_end(task["task_id"])

    async def large(self) -> None:
        """A body that the service checks in another process."""
        await self._submit(self._job(QUICK, args={"ballast": "x" * LARGE_BYTES}), wait_s=3, is_large=True)

    async def twins(self) -> None:
        """Send the same request twice at once, under one key."""
        job = self._job(QUICK)
        await asyncio.gather(self._submit(job), self._submit(job))

    async def batch(self) -> None:
        """Several tasks in one request, each with a key; those that were refused come again alone."""
        jobs = [self._job(QUICK) for _ in range(self._random.randint(2, 5))]
        response = await self._insist(
            "batch",
            "POST",
            "/execute/batch",
            facts={"nonces": [job.nonce for job in jobs], "keys": [job.nonce for job in jobs]},
            json=[job.body | {"idempotency_key": job.nonce} for job in jobs],
        )
        items = (_json(response) or {}).get("tasks", [{}] * len(jobs))
        for job, item in zip(jobs, items, strict=False):
            if not self._accepted(item, job.nonce):
                await self._submit(job)

    async def calls_back(self) -> None:
        """Submit, and be told of the end."""
        await self._submit(self._job(QUICK, callback_url=f"{self._options.callbacks}/told"))

    async def cancels(self) -> None:
        """A task that would last for long; after a moment it is cancelled."""
        task = await self._submit(self._job(QUICK, ends="cancelled", lasts_s=LONG_S))
        if not task:
            return
        await asyncio.sleep(self._random.uniform(0.0, 1.5))
        task_id, wait_s = task["task_id"], self._random.choice((0.0, 3.0))
        response = await self._insist("cancel", "DELETE", f"/task/{task_id}", wait_s=wait_s, facts={"task_id": task_id})
        if response is not None and response.status_code in (200, 202):
            await self._await_end(task_id)

    async def follows(self) -> None:
        """Hear a task's output as it is printed, and take the stream up again wherever it breaks."""
        rows = self._random.randint(3, 12)
        task = await self._submit(self._job(TALKS, args={"rows": rows}, lasts_s=self._random.uniform(0.2, 2.0)))
        after = ""
        while task and task["task_id"] not in self._ended:
            if self._settled_by and time.monotonic() > self._settled_by:
                return
            after = await self._hear(task["task_id"], after)
            if after == "end":
                self._ended.add(task["task_id"])
                return
            await asyncio.sleep(self._random.uniform(0.1, 0.5))

    async def _hear(self, task_id: str, after: str) -> str:
        """Follow once; the id from which to go on."""
        number = next(self._numbers)
        headers = {"Last-Event-ID": after} if after else {}
        self._note("ask", number=number, call="follow", wait_s=0, task_id=task_id, after=after)
        try:
            async with self._http.stream(
                "GET", f"/task/{task_id}/events", headers=headers, timeout=httpx.Timeout(READ_S)
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    facts = _read("follow", response)
                    self._note("answer", number=number, status=response.status_code, **facts)
                    return "end" if response.status_code == 204 else after
                last = ""
                async for name, event_id, data in _events(response):
                    last, after = name, event_id or after
                    said = _view(data) if name == "result" else data
                    self._note("heard", number=number, task_id=task_id, name=name, id=event_id, data=said)
                self._note("answer", number=number, status=200, last=last)
                return after
        except httpx.HTTPError as error:
            self._note("answer", number=number, error=type(error).__name__)
            return after

    # ---- beside the customers --------------------------------------------------------------------------------------

    async def ask_controls(self) -> None:
        """The controls: requests that need no server, so that their answers are as late as the machine is.

        The second is a batch with a fault, which is checked where batches and large bodies are, in another process.
        """
        async with asyncio.TaskGroup() as asking:
            for number in itertools.count():
                asking.create_task(self._ask("live", "GET", "/health/live"))
                if number % 2:
                    asking.create_task(
                        self._ask("check", "POST", "/execute/batch", json=[{"task_type": "none"}] * CHECKED_APART)
                    )
                await asyncio.sleep(LIVE_EVERY_S)

    async def list_all(self) -> None:
        """List the newest tasks now and then, and see how the service is."""
        while not self._stopping.is_set():
            await self._ask("list", "GET", "/tasks", params={"label": f"storm:{self._options.seed}", "limit": 50})
            await self._ask("health", "GET", "/health")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LIST_EVERY_S):
                    await self._stopping.wait()

    async def list_everything(self) -> None:
        """Every page of the list, in the end."""
        cursor = None
        while True:
            params = {"label": f"storm:{self._options.seed}", "limit": 500} | ({"cursor": cursor} if cursor else {})
            response = await self._insist("list", "GET", "/tasks", facts={"whole": True}, params=params)
            cursor = (_json(response) or {}).get("next_cursor")
            if not cursor:
                return

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear a callback. One in eight is answered with 500, and one in eight not at all."""
        # KeyError: a line has put junk in the place of the head
        with contextlib.suppress(OSError, ValueError, KeyError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:] if line)
            }
            body = await reader.readexactly(int(headers["content-length"]))
            chance = 1.0 if self._stopping.is_set() else self._random.random()
            message = json.loads(body)
            self._note(
                "callback",
                message_id=headers.get("webhook-id"),
                signature=headers.get("webhook-signature", ""),
                stamp=headers.get("webhook-timestamp", ""),
                body=body.decode(),
                type=message["type"],
                task=_view(message["data"]),
                answered=500 if chance < 0.125 else None if chance < 0.25 else 204,
            )
            if not 0.125 <= chance < 0.25:
                line = "500 Internal Server Error" if chance < 0.125 else "204 No Content"
                writer.write(f"HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
                await writer.drain()
        writer.close()

    # ---- from the beginning to the end -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Be a client until the standard input ends, then see everything through."""
        receiver = await asyncio.start_server(self.receive, "127.0.0.1", self._options.receiver)
        beside = [asyncio.create_task(self.ask_controls()), asyncio.create_task(self.list_all())]
        customers: set[asyncio.Task[None]] = set()
        async for kind in self._arrivals():
            if len(customers) < AT_ONCE:
                customers.add(asyncio.create_task(kind()))
            for one in [one for one in customers if one.done()]:
                customers.discard(one)
                one.result()
        self._note("calm")
        self._settled_by = time.monotonic() + SETTLE_S
        await asyncio.gather(*customers)
        await self._see_through()
        for one in beside:
            one.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        receiver.close()
        self._note("end")

    async def _arrivals(self) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
        kinds = {
            self.plain: 6, self.waits: 5, self.follows: 4, self.cancels: 3, self.calls_back: 4, self.batch: 2,
            self.twins: 2, self.fails: 2, self.large: 2,
        }  # fmt: skip
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, self._await_stop, loop)
        while not self._stopping.is_set():
            yield self._random.choices(list(kinds), list(kinds.values()))[0]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._random.expovariate(self._options.rate)):
                    await self._stopping.wait()

    def _await_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(self._stopping.set)

    async def _see_through(self) -> None:
        """Ask for all that was accepted, and for its callbacks; then for the list, and for the service's health."""
        await asyncio.gather(*(self._await_end(task_id) for task_id in self._ids))
        await self._await_callbacks()
        await self.list_everything()
        while time.monotonic() < self._settled_by:
            response = await self._ask("health", "GET", "/health")
            said = _json(response) or {}
            if said.get("status") and all("has been silent" in reason for reason in said["reasons"]):
                return  # workers that were killed are named for some minutes
            await asyncio.sleep(0.5)

    async def _await_callbacks(self) -> None:
        """Until the service says of no callback that it is due soon: pauses grow, so that the last ones are long."""
        while time.monotonic() < self._settled_by:
            response = await self._insist("callbacks", "GET", "/callbacks", params={"state": "due"})
            if response is not None and all(one["due_in_s"] > SOON_S for one in _due(_json(response) or {})):
                return
            await asyncio.sleep(0.5)


def _json(response: httpx.Response | None) -> Any:
    if response is None or "json" not in response.headers.get("content-type", ""):
        return None
    return response.json()


def _pause_s(response: httpx.Response) -> float:
    """What the service asks for, and a second where it does not say it."""
    return float(response.headers.get("retry-after", "1"))


def _read(call: str, response: httpx.Response) -> dict[str, Any]:
    """What of an answer is kept."""
    facts: dict[str, Any] = {"retry_after": response.headers.get("retry-after")}
    found = _json(response)
    if response.status_code >= 400:
        return facts | {"detail": found.get("detail") if isinstance(found, dict) else response.text[:200]}
    if call in ("execute", "get", "cancel") and isinstance(found, dict):
        return facts | {"tasks": [_view(found)], "replay": response.headers.get("idempotent-replay") == "true"}
    if call in ("batch", "list") and isinstance(found, dict):
        return facts | {"tasks": [_view(item) for item in found.get("tasks", ())]}
    if call == "health" and isinstance(found, dict):
        return facts | {"health": found.get("status"), "reasons": found.get("reasons")}
    if call == "callbacks" and isinstance(found, dict):
        return facts | {"due": _due(found)}
    return facts


def _due(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each callback that is due: its task, its attempts so far, and in how many seconds the next one comes."""
    now = datetime.now(UTC)
    return [
        {
            "task_id": one["task_id"],
            "attempts": one["callback"]["attempts"],
            "due_in_s": (datetime.fromisoformat(one["callback"]["due_at"]) - now).total_seconds(),
        }
        for one in found.get("callbacks", ())
    ]


def _view(task: dict[str, Any]) -> dict[str, Any]:
    """What of a task is kept: where it stands, and how it ended."""
    error, logs = task.get("error") or {}, task.get("logs") or {}
    view = {
        "task_id": task.get("task_id"),
        "nonce": (task.get("labels") or {}).get("nonce"),
        "status": task.get("status"),
        "attempts": task.get("attempts"),
        "exit_reason": task.get("exit_reason"),
        "finished_at": task.get("finished_at"),
        "result": task.get("result"),
        "error": error.get("message"),
        "stdout": logs.get("stdout"),
        "message": task.get("message"),
    }
    return {name: value for name, value in view.items() if value is not None}


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, str, Any]]:
    """Name, id and data of each server-sent event."""
    name, event_id, data = "", "", ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if not line:
            if data:
                yield name, event_id, json.loads(data)
            name, event_id, data = "", "", ""
        elif field == "event":
            name = value
        elif field == "id":
            event_id = value
        elif field == "data":
            data += value


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--receiver", type=int, required=True)
    parser.add_argument("--callbacks", required=True)
    parser.add_argument("--rate", type=float, default=4.0)
    parser.add_argument("--longest-s", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=1)
    options = Options(**vars(parser.parse_args()))
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=20)
    async with httpx.AsyncClient(base_url=options.url, limits=limits) as http:
        await Client(options, http).run()


if __name__ == "__main__":
    asyncio.run(_main())

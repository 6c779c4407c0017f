"""``python -m engine loadtest URL``: sends a bounded number of tasks to a running service, and says what it saw."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.client import KEY_ENV, ServiceError
from engine.cli.load_report import LoadReport, TimedAnswer, answer_of, lines, report
from engine.cli.shared import AsJson, fail, print_either, read_body, sentences

if TYPE_CHECKING:
    from engine.client import AsyncClient

MOST_AT_ONCE = 100
"""As many connections does the client keep."""
WAIT_S = 30
_TRIVIAL = b'{"task_type":"custom_script","parameters":{"script":"result = 1"}}'


def loadtest(  # noqa: PLR0917  each is an option
    url: Annotated[str, typer.Argument(help="The service. A key is taken from ENGINE_KEY, never from here.")],
    file: Annotated[str | None, typer.Option("--task", help="A file with the task to send; - reads stdin.")] = None,
    clients: Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="Each sends its next on its answer.")] = 8,
    rate: Annotated[
        float | None, typer.Option(min=0.1, max=10_000, help="Send so many a second instead, whatever comes back.")
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, max=1_000_000, help="Send no more than these.")] = 500,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="And none after so long.")] = 30,
    json: AsJson = False,
) -> None:
    """Load a running service, and say how fast it was and what to change next. Its tasks are real: they stay listed.

    With --clients the load is closed: it is never more than the service can do. With --rate it is open, as users are;
    what is late counts from the moment at which it was to be sent. At most 100 are under way at once.
    """
    with sentences():
        body = _TRIVIAL if file is None else read_body(file)
        shown = asyncio.run(_measure(url, body, clients=clients, rate=rate, tasks=tasks, seconds=seconds))
        print_either(shown, json, lambda found: print("\n".join(lines(found))))
        if not shown.ended.get("ok"):
            fail(["no task ended well"])


async def _measure(
    url: str, body: bytes, *, clients: int, rate: float | None, tasks: int, seconds: float
) -> LoadReport:
    """Send, and put together what came back.

    Raises:
        ServiceError: the service is unreachable, or refuses the very first.
    """
    from engine.client import AsyncClient, ClientError

    try:
        async with AsyncClient(url, os.environ.get(KEY_ENV), patience_s=0) as client:
            await client.ask("POST", "/execute", query={"wait": WAIT_S}, content=body)  # what is slow only once
            load = BoundedLoad(client, body, tasks=tasks, seconds=seconds)
            started, cpu = time.perf_counter(), time.process_time()
            await (load.closed(clients) if rate is None else load.open(rate))
            took_s = time.perf_counter() - started
            own_cpu = (time.process_time() - cpu) / took_s
    except ClientError as error:
        raise ServiceError(str(error)) from None
    return report(load.answers, seconds=took_s, not_sent=load.not_sent, own_cpu=own_cpu)


class BoundedLoad:
    """A bounded load of one task, again and again."""

    def __init__(self, client: AsyncClient, body: bytes, *, tasks: int, seconds: float) -> None:
        """
        Args:
            client: of the service.
            body: the task's JSON.
            tasks: that are sent at most.
            seconds: after which none is sent.
        """
        self._client, self._body = client, body
        self._tasks, self._seconds = tasks, seconds
        self.answers: list[TimedAnswer] = []
        self.not_sent = 0

    async def closed(self, clients: int) -> None:
        """Each client sends its next when it has its answer."""
        with _progress(self._tasks) as advance:
            end, left = time.perf_counter() + self._seconds, iter(range(self._tasks))

            async def work() -> None:
                for _ in left:
                    if (now := time.perf_counter()) >= end:
                        return
                    await self._send(now)
                    advance()

            await asyncio.gather(*(work() for _ in range(min(clients, self._tasks))))

    async def open(self, rate: float) -> None:
        """One each ``1 / rate`` seconds; none while ``MOST_AT_ONCE`` are under way, which is counted."""
        with _progress(self._tasks) as advance:
            async with asyncio.TaskGroup() as group:
                under_way = 0

                async def work(moment: float) -> None:
                    nonlocal under_way
                    under_way += 1
                    await self._send(moment)
                    under_way -= 1
                    advance()

                async for moment in _moments(rate, self._tasks, self._seconds):
                    if under_way < MOST_AT_ONCE:
                        group.create_task(work(moment))
                        await asyncio.sleep(0)
                    else:
                        self.not_sent += 1

    async def _send(self, moment: float) -> None:
        from engine.client import RequestRefusedError, ServiceUnreachableError

        try:
            task = await self._client.ask("POST", "/execute", query={"wait": WAIT_S}, content=self._body)
            answer = answer_of(task, time.perf_counter() - moment)
        except RequestRefusedError as error:
            answer = TimedAnswer(total_s=time.perf_counter() - moment, ended=f"refused {error.status}")
        except ServiceUnreachableError:
            answer = TimedAnswer(total_s=time.perf_counter() - moment, ended="unreachable")
        self.answers.append(answer)


async def _moments(rate: float, count: int, seconds: float) -> AsyncIterator[float]:
    """The moments at which to send, each when it has come; behind time, all that have come meanwhile."""
    started = time.perf_counter()
    for number in range(min(count, int(rate * seconds) + 1)):
        moment = started + number / rate
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        yield moment


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, where that is a terminal; what it gives is called for each answer."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal, refresh_per_second=4) as progress:
        bar = progress.add_task("tasks", total=total)
        yield lambda: progress.advance(bar)

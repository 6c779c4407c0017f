"""A worker or an API that kills itself at one step: ``python -m tests.chaos.doomed STEP worker|api``.

It is the very program of the service; one method of it is wrapped here so that the process gets SIGKILL, from itself,
right before or after it. Which task it held, and when, is a JSON line on stderr.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from engine.__main__ import app
from engine.queue.queue import Queue, QueueWorker
from engine.service.service import Service
from engine.store.claims import Claims
from engine.store.tasks import Tasks
from engine.worker.attempt import Attempts
from engine.worker.leases import Leases

RUN_FOR_S = 0.3
SENT_FOR_S = 0.001


def die(step: str, task_id: object) -> None:
    """Say so, and be killed as by the kernel: nothing is tidied up."""
    line = {"died_at": step, "task_id": str(task_id), "time": time.time()}
    os.write(2, json.dumps(line).encode() + b"\n")
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: type, name: str, task_of: Callable[..., object]) -> Callable[[str], None]:
    """Dies when the method is called."""

    def plant(step: str) -> None:
        async def doomed(*arguments: Any, **_: Any) -> None:
            die(step, task_of(*arguments))

        setattr(owner, name, doomed)

    return plant


def after(owner: type, name: str, task_of: Callable[..., object]) -> Callable[[str], None]:
    """Dies when the method has answered with something. ``task_of`` is given the answer first."""
    original = getattr(owner, name)

    def plant(step: str) -> None:
        async def doomed(*arguments: Any, **named: Any) -> Any:
            answer = await original(*arguments, **named)
            if answer or name in ("announce", "_enqueue"):
                die(step, task_of(answer, *arguments))
            return answer

        setattr(owner, name, doomed)

    return plant


def within(owner: type, name: str, seconds: float, task_of: Callable[..., object]) -> Callable[[str], None]:
    """Dies so long after the method has been called, whether or not it has answered by then."""
    original = getattr(owner, name)

    def plant(step: str) -> None:
        async def doomed(*arguments: Any, **named: Any) -> Any:
            loop = asyncio.get_running_loop()
            loop.call_later(seconds, die, step, task_of(*arguments))
            return await original(*arguments, **named)

        setattr(owner, name, doomed)

    return plant


def with_empty_hands(plant: Callable[[str], None]) -> Callable[[str], None]:
    """The same for a worker that takes no task, so that none is lost with it."""

    def idle(step: str) -> None:
        async def rest(_: QueueWorker) -> None:
            await asyncio.Event().wait()

        QueueWorker.main = rest  # type: ignore[method-assign, assignment]
        plant(step)

    return idle


STEPS = {
    # a worker, from the queue to the answer
    "taken from the queue": after(QueueWorker, "_take", lambda taken, *_: taken[0].decode()),
    "entry fetched": before(Claims, "claim", lambda _, task_id, *__: task_id),
    "claimed": after(Claims, "claim", lambda claim, *_: claim.task_id),
    "running": within(Attempts, "_execute", RUN_FOR_S, lambda _, attempt: attempt.claim.task_id),
    "lease renewed": after(Leases, "_hear", lambda kept, *_: kept[0]),
    "ran": before(Claims, "finish", lambda _, claim, *__: claim.task_id),
    "result sent": within(Claims, "finish", SENT_FOR_S, lambda _, claim, *__: claim.task_id),
    "result stored": after(Claims, "finish", lambda _, __, claim, *___: claim.task_id),
    "told": after(Queue, "announce", lambda _, __, task_id: task_id),
    "given back": after(Claims, "release", lambda _, __, claim, *___: claim.task_id),
    # a worker as sweeper
    "swept": with_empty_hands(after(Claims, "sweep_lost", lambda swept, *_: swept[0].task_id)),
    # the API, from the request to the answer
    "task stored": after(Tasks, "insert", lambda _, __, task, *___: task.task_id),
    "task queued": after(Service, "_enqueue", lambda _, __, tasks: tasks[0].task_id),
}
"""Step → plants the death there."""


def main() -> None:
    """Be the part that the arguments name, and die at the step that they name."""
    chosen, command = sys.argv[1:]
    STEPS[chosen](chosen)
    app([command])


if __name__ == "__main__":
    main()

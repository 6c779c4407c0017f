"""Runs scripts on both sides: one process of plain runs, one whole service. All are under way from the start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import quote

import httpx

from tests.differential.compare import ServedRun
from tests.differential.corpus import Script
from tests.differential.interpreter import script_interpreter
from tests.differential.plain import Plain, PlainRun
from tests.support.stack import whole_service

AT_ONCE = 4
_REFUSED: dict[str, object] = {
    "status": "refused",
    "result": None,
    "error": None,
    "logs": {"stdout": "", "stderr": ""},
    "violations": [],
    "artifacts": [],
}
Both = Callable[[Script], tuple[PlainRun, ServedRun]]


@contextlib.contextmanager
def run_both(scripts: Iterable[Script], *, wall_s: int = 0, at_once: int = AT_ONCE) -> Iterator[Both]:
    """Begin all scripts; what is yielded waits for one of them.

    Args:
        wall_s: let the policy grant so much time, and processor time, instead of what it does.
        at_once: how many scripts the service runs at once.
    """
    with (
        contextlib.closing(Plain(script_interpreter())) as plain,
        whole_service(wall_s=wall_s, only=["custom_script"]) as (url, _),
        httpx.Client(base_url=url, timeout=90) as client,
        ThreadPoolExecutor(at_once) as threads,
    ):
        outside: dict[str, Future[PlainRun]] = {}
        inside: dict[str, Future[ServedRun]] = {}
        for script in scripts:
            outside[script.id] = plain.run(script)
            inside[script.id] = threads.submit(serve, client, script)
        try:
            yield lambda script: (outside[script.id].result(), inside[script.id].result())
        finally:
            threads.shutdown(cancel_futures=True)


def serve(client: httpx.Client, script: Script) -> ServedRun:
    """Have the service run a script, and get all that it kept."""
    body: dict[str, object] = {"task_type": "custom_script", "parameters": script.parameters}
    if script.timeout_s:
        body["timeout_s"] = script.timeout_s
    answer = client.post("/execute", params={"wait": 60}, json=body)
    if answer.status_code not in (200, 202):
        return ServedRun(task=_REFUSED | {"exit_reason": f"HTTP {answer.status_code}: {answer.text}"}, artifacts={})
    task = answer.json()
    while task["status"] in ("queued", "running"):
        task = client.get(f"/task/{task['task_id']}", params={"wait": 60}).json()
    artifacts = {}
    for artifact in task["artifacts"]:
        kept = client.get(f"/task/{task['task_id']}/artifacts/{quote(artifact['name'])}")
        artifacts[artifact["name"]] = kept.content if kept.status_code == 200 else f"HTTP {kept.status_code}".encode()
    return ServedRun(task=task, artifacts=artifacts)

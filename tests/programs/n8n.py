"""The shipped workflows in a real n8n: ``python -m tests.programs.n8n`` (make n8n-test).

It installs n8n from npm into ``.n8n`` (``N8N`` names a program that is there), starts a service with an API key and a
worker, imports ``.github/deploy/n8n/*.json`` as they are but for the service's address, and calls their webhooks: a
workflow sleeps and is resumed by a callback, a failed task takes the branch of failures, each item has a task and an
idempotency key of its own, polling ends, and a callback's signature holds over its raw bytes.

Needs Node.js 20 or later with npm.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from engine.config.keys import add_key, make_key
from engine.model.principal import Scope
from tests.support.stack import ROOT, Stack, free_port, until

PACKAGE = {
    "private": True,
    "dependencies": {"n8n": "1.123.0"},
    "overrides": {"xlsx": "0.18.5"},  # n8n takes a newer one from its maker's own server; no workflow here needs it
}
FOLDER = ROOT / ".n8n"
WORKFLOWS = ROOT / ".github" / "deploy" / "n8n"
CREDENTIAL = "unityaiworkerkey"
"""The id of the credential, as the workflows name it."""
ANSWER_S = 120.0


class N8n:
    """A running n8n with the shipped workflows."""

    def __init__(self, url: str, database: Path) -> None:
        self._url, self._database = url, database

    def call(self, workflow: str, body: dict[str, Any]) -> Any:
        """What the last node of a workflow answers."""
        response = httpx.post(f"{self._url}/webhook/unityai-{workflow}", json=body, timeout=ANSWER_S)
        assert response.status_code == 200, response.text
        return response.json()

    def end_of_newest(self, stack: Stack, task_id: str) -> tuple[str, str]:
        """The last node of the newest execution, once it has succeeded, and what its nodes have put out, as text."""
        until(lambda: stack.get(task_id)["callback"]["state"] == "delivered", "the callback is delivered")
        until(lambda: self._newest()[0] == "success", "the execution has succeeded", 60)
        text = self._newest()[1]
        parts = json.loads(text)  # n8n's own form: a list of values that name each other by their places in it
        last = parts[int(parts[int(parts[0]["resultData"])]["lastNodeExecuted"])]
        return str(last), text

    def _newest(self) -> tuple[str, str]:
        with contextlib.closing(sqlite3.connect(self._database)) as database:
            newest = (
                "SELECT status, data FROM execution_entity JOIN execution_data ON executionId = id ORDER BY id DESC"
            )
            status, data = database.execute(newest).fetchone()
        return str(status), str(data)


def wait_and_resume(n8n: N8n, stack: Stack) -> None:
    """The workflow sleeps (its webhook is answered with the task), and the callback resumes it."""
    task = n8n.call("callback", {"script": "result = 'forty' + '-two'"})
    last, output = n8n.end_of_newest(stack, task["task_id"])
    assert ("Result", True) == (last, "forty-two" in output), (last, output[-2000:])


def failed_task_takes_its_branch(n8n: N8n, stack: Stack) -> None:
    """A failed task resumes the workflow too, on the other branch."""
    task = n8n.call("callback", {"script": "raise ValueError('no such customer')"})
    last, output = n8n.end_of_newest(stack, task["task_id"])
    assert ("Failed", True) == (last, '"error"' in output), output[-2000:]


def each_item_has_its_own_task(n8n: N8n, stack: Stack) -> None:
    """Three items, three keys, three tasks."""
    answers = n8n.call("items", {"numbers": [1, 2, 3]})["answers"]
    assert [7, 14, 21] == [answer["result"] for answer in answers]
    assert 3 == len({answer["task_id"] for answer in answers})


def polling_ends(n8n: N8n, stack: Stack) -> None:
    """A task that takes longer than one look."""
    answer = n8n.call("polling", {"script": "import time\ntime.sleep(3)\nresult = 'polled'"})
    assert {"status": "succeeded", "result": '"polled"'} == answer


def signature_holds(n8n: N8n, stack: Stack) -> None:
    """Over the raw bytes, of a result with characters that JSON may write in two ways; else the node would fail."""
    task = n8n.call("signature", {"script": "result = ['é', 1e-7, '\\u2028']"})
    last, output = n8n.end_of_newest(stack, task["task_id"])
    assert ("Check", True) == (last, '"task.succeeded"' in output), output[-2000:]


TRIALS: tuple[Callable[[N8n, Stack], None], ...] = (
    wait_and_resume, failed_task_takes_its_branch, each_item_has_its_own_task, polling_ends, signature_holds,
)  # fmt: skip


def main() -> int:
    """Try every workflow; the exit code."""
    program = find_program()
    if program is None:
        print("node and npm are missing, or n8n could not be installed: apt-get install nodejs npm", file=sys.stderr)
        return 2
    faults = []
    with tempfile.TemporaryDirectory() as folder, services(Path(folder), program) as (n8n, stack):
        for trial in TRIALS:
            try:
                trial(n8n, stack)
                print(f"ok    {trial.__name__}", flush=True)
            except (AssertionError, httpx.HTTPError, KeyError) as error:
                faults.append(trial.__name__)
                print(f"FAULT {trial.__name__}: {error!r}", flush=True)
    return 1 if faults else 0


def find_program() -> str | None:
    """The n8n to try, installed where it is not there yet."""
    given = os.environ.get("N8N")
    if given or shutil.which("npm") is None:
        return given
    program = FOLDER / "node_modules" / ".bin" / "n8n"
    if not program.exists():
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "package.json").write_text(json.dumps(PACKAGE))
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER)]
        if subprocess.run(command, check=False).returncode != 0:
            return None
    return str(program)


@contextlib.contextmanager
def services(folder: Path, program: str) -> Iterator[tuple[N8n, Stack]]:
    """A service with a worker, and n8n beside it."""
    port, secret = free_port(), "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    key = make_key("n8n", [Scope.SUBMIT, Scope.READ, Scope.CANCEL, Scope.AUDIT])
    add_key(folder / "keys.toml", key)
    stack = Stack(
        folder,
        headers={"authorization": f"Bearer {key.text}"},
        API_KEYS_FILE=str(folder / "keys.toml"),
        CALLBACK_SECRET=secret,
        N8N_WEBHOOK_URL=f"http://127.0.0.1:{port}/",
    )
    with contextlib.ExitStack() as ends:
        ends.callback(stack.close)
        stack.worker()
        environ = n8n_environ(folder, port, secret)
        import_all(folder, program, environ, stack.port, key.text)
        log = ends.enter_context((folder / "n8n.log").open("ab"))
        process = subprocess.Popen([program, "start"], env=environ, stdout=log, stderr=log)
        ends.callback(process.wait)
        ends.callback(process.terminate)
        url = f"http://127.0.0.1:{port}"
        until(lambda: is_up(url), f"n8n is up; see {log.name}", 300)
        yield N8n(url, folder / "n8n" / ".n8n" / "database.sqlite"), stack


def n8n_environ(folder: Path, port: int, secret: str) -> dict[str, str]:
    """The environment of n8n: it talks to nobody but the service."""
    return os.environ | {
        "N8N_USER_FOLDER": str(folder / "n8n"),
        "N8N_PORT": str(port),
        "N8N_LISTEN_ADDRESS": "127.0.0.1",
        "N8N_RUNNERS_ENABLED": "false",
        "N8N_DIAGNOSTICS_ENABLED": "false",
        "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
        "N8N_TEMPLATES_ENABLED": "false",
        "N8N_BLOCK_ENV_ACCESS_IN_NODE": "false",
        "N8N_ENCRYPTION_KEY": "of-this-test-alone",
        "NODE_FUNCTION_ALLOW_BUILTIN": "crypto",
        "WEBHOOK_URL": f"http://127.0.0.1:{port}/",
        "CALLBACK_SECRET": secret,
    }


def import_all(folder: Path, program: str, environ: dict[str, str], port: int, key: str) -> None:
    """Give n8n the workflows and the credential that they name, and activate them."""
    header = {"name": "Authorization", "value": f"Bearer {key}"}
    credential = {"id": CREDENTIAL, "name": "UnityAI Python worker", "type": "httpHeaderAuth", "data": header}
    (folder / "credentials.json").write_text(json.dumps([credential]))
    ready = folder / "workflows"
    ready.mkdir()
    for path in WORKFLOWS.glob("*.json"):
        (ready / path.name).write_text(path.read_text().replace("http://api:8001", f"http://127.0.0.1:{port}"))
    for command in (
        ["import:credentials", f"--input={folder / 'credentials.json'}"],
        ["import:workflow", "--separate", f"--input={ready}"],
    ):
        subprocess.run([program, *command], env=environ, check=True)
    # The import of this version writes no history, to which its own activation refers: n8n's editor does both.
    with contextlib.closing(sqlite3.connect(folder / "n8n" / ".n8n" / "database.sqlite")) as database, database:
        database.execute(
            "INSERT INTO workflow_history (versionId, workflowId, authors, nodes, connections, name)"
            " SELECT versionId, id, 'import', nodes, connections, name FROM workflow_entity"
        )
    subprocess.run([program, "update:workflow", "--all", "--active=true"], env=environ, check=True)


def is_up(url: str) -> bool:
    """Whether n8n answers for every workflow: a GET, which none takes, is answered with a hint at POST."""
    try:
        said = [httpx.get(f"{url}/webhook/unityai-{path.stem}").text for path in WORKFLOWS.glob("*.json")]
    except httpx.TransportError:
        return False
    return all("POST request" in text for text in said)


if __name__ == "__main__":
    sys.exit(main())

"""Has four generators make clients of the OpenAPI document, and uses each against a real service with keys.

``python -m tests.programs.clients`` (make clients-test): openapi-python-client and datamodel-code-generator, whose code
mypy then checks strictly; openapi-typescript and hey-api, whose code the TypeScript compiler checks strictly. A warning
of a generator is a failure. LangChain's example of the agents' page runs, too.

Needs Node.js 20 or later with npm. What it installs goes into ``.clients``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import httpx

from engine.config.keys import add_key, make_key
from engine.model.principal import Scope
from tests.support.readme import blocks
from tests.support.stack import ROOT, Part, free_port, is_open, until, whole_service
from tests.support.tools import install

FOLDER = ROOT / ".clients"
HERE = Path(__file__).parent
NPM = {
    "@hey-api/openapi-ts": "0.95.0",
    "@types/node": "26.6.7",
    "openapi-fetch": "0.17.0",
    "openapi-typescript": "7.13.0",
    "tsx": "4.23.15",
    "typescript": "5.9.3",
}
TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "target": "es2022",
        "module": "esnext",
        "moduleResolution": "bundler",
        "lib": ["es2023", "dom", "dom.iterable", "dom.asynciterable"],
        "types": ["node"],
        "noEmit": True,
        "skipLibCheck": True,
    },
    "include": ["scenarios.ts", "types.ts"],
}
BY_CLIENT = """
import os
import httpx
from made import AuthenticatedClient
from made.api.default import execute, list_tasks, upload_file
from made.models import DataProcessingTask, DataSum, ExecuteDataProcessing, FileAnswer, Problem, SumResult, TasksAnswer
from made.models import CustomScript, ExecuteCustomScript
from made.types import File
import io

url, key = os.environ["SERVICE_URL"], os.environ["SERVICE_KEY"]
service = AuthenticatedClient(base_url=url, token=key, timeout=httpx.Timeout(60))
with service as client:
    body = ExecuteDataProcessing(task_type="data_processing", parameters=DataSum(operation="sum", data=[1, 2, 3]))
    task = execute.sync(client=client, body=body, wait=60)
    assert isinstance(task, DataProcessingTask), task
    assert isinstance(task.result, SumResult), task.result
    assert 6 == task.result.sum_
    refused = execute.sync(
        client=client, body=ExecuteCustomScript(task_type="custom_script", parameters=CustomScript(script=""))
    )
    assert isinstance(refused, Problem), refused
    assert 400 == refused.status
    file = upload_file.sync(client=client, body=File(payload=io.BytesIO(b"x,y")), name="table.csv")
    assert isinstance(file, FileAnswer), file
    assert 3 == file.size_bytes
    listed = list_tasks.sync(client=client, limit=1)
    assert isinstance(listed, TasksAnswer), listed
    assert task.task_id == listed.tasks[0].task_id
print("ok the client of openapi-python-client")
"""
BY_MODELS = """
import os
import urllib.request
import models

body = models.ExecuteDataProcessing(
    task_type="data_processing", parameters=models.DataProcessing(models.DataSum(operation="sum", data=[1, 2, 3]))
).model_dump_json(exclude_unset=True)
asked = urllib.request.Request(
    os.environ["SERVICE_URL"] + "/execute?wait=60", data=body.encode(),
    headers={"content-type": "application/json", "authorization": "Bearer " + os.environ["SERVICE_KEY"]},
)
with urllib.request.urlopen(asked) as answer:
    task = models.Task.model_validate_json(answer.read()).root
assert isinstance(task, models.DataProcessingTask), task
assert task.result is not None
assert isinstance(task.result.root, models.SumResult), task.result
assert 6 == task.result.root.sum
print("ok the models of datamodel-code-generator")
"""


PAGE = """
const [url, key] = [process.env.SERVICE_URL, process.env.SERVICE_KEY];
const shown = [];
const show = (one) => shown.push(one);
const script = "import time\\nfor row in 'ab':\\n    time.sleep(0.3)\\n    print(row)\\nresult = 'done'";
const body = JSON.stringify({ task_type: "custom_script", parameters: { script } });
const sent = { authorization: `Bearer ${key}`, "content-type": "application/json" };
const taskId = (await (await fetch(`${url}/execute`, { method: "POST", headers: sent, body })).json()).task_id;
%s
if (shown.join("") !== "a\\nb\\ndone") throw new Error(JSON.stringify(shown));
console.log("ok what a page in a browser does");
"""
"""Around the example of the page on following a task; ``fetch`` of Node.js is that of browsers."""


def main() -> int:
    """Install, generate, compile, use; the exit code."""
    if shutil.which("npm") is None:
        print("npm is missing: install Node.js 20 or later", file=sys.stderr)
        return 1
    _install()
    with tempfile.TemporaryDirectory() as keys:
        key = make_key("clients", Scope)
        add_key(Path(keys, "keys.toml"), key)
        os.environ["API_KEYS_FILE"] = str(Path(keys, "keys.toml"))
        with whole_service(only=("custom_script", "data_processing")) as (url, _):
            environ = {"SERVICE_URL": url, "SERVICE_KEY": key.text}
            document = httpx.get(f"{url}/openapi.json", headers={"x-api-key": key.text}).json()
            (FOLDER / "openapi.json").write_text(json.dumps(document))
            _python(environ)
            _typescript(environ)
            _page(environ)
            _langchain(url, key.text)
    return 0


def _install() -> None:
    install("clients")
    package = json.dumps({"private": True, "type": "module", "dependencies": NPM})
    if not (FOLDER / "node_modules").exists() or (FOLDER / "package.json").read_text() != package:
        (FOLDER / "package.json").write_text(package)
        _run(["npm", "install", "--silent", "--no-fund", "--no-audit"])


def _python(environ: Mapping[str, str]) -> None:
    for name in ("client", "models.py"):
        path = FOLDER / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (FOLDER / "config.json").write_text(json.dumps({"package_name_override": "made", "post_hooks": []}))
    _run([_program("openapi-python-client"), "generate", "--path", "openapi.json", "--output-path", "client",
          "--config", "config.json", "--fail-on-warning"])  # fmt: skip
    _run([_program("datamodel-codegen"), "--input", "openapi.json", "--input-file-type", "openapi",
          "--output", "models.py", "--output-model-type", "pydantic_v2.BaseModel", "--formatters", "builtin",
          "--target-python-version", "3.11", "--use-annotated", "--set-default-enum-member"])  # fmt: skip
    (FOLDER / "by_client.py").write_text(BY_CLIENT)
    (FOLDER / "by_models.py").write_text(BY_MODELS)
    places = os.pathsep.join((str(FOLDER / "client"), str(FOLDER)))
    for name in ("by_client.py", "by_models.py"):
        # silent about what is within the generated code: some defaults of its models are of another type
        _run([_program("mypy"), "--strict", "--no-incremental", "--follow-imports=silent", name], MYPYPATH=places)
        _run([_program("python"), name], PYTHONPATH=places, **environ)


def _typescript(environ: Mapping[str, str]) -> None:
    shutil.rmtree(FOLDER / "hey", ignore_errors=True)
    _run(["npx", "openapi-typescript", "openapi.json", "--output", "api.ts", "--default-non-nullable=false"])
    _run(["npx", "openapi-ts", "--input", "openapi.json", "--output", "hey"])
    for name in ("scenarios.ts", "types.ts"):
        shutil.copy(HERE / name, FOLDER / name)
    (FOLDER / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    _run(["npx", "tsc"])
    for name in ("scenarios.ts", "types.ts"):
        _run(["npx", "tsx", name], **environ)


def _page(environ: Mapping[str, str]) -> None:
    (example,) = (block.text for block in blocks("engine/api/README.md") if block.language == "javascript")
    (FOLDER / "page.mjs").write_text(PAGE % example)
    _run(["node", "page.mjs"], **environ)


def _langchain(url: str, key: str) -> None:
    """The example of the agents' page, with the address and the key of this service."""
    (example,) = (block.text for block in blocks("engine/mcp/README.md") if block.section == "LangChain")
    port = free_port()
    door = Part(["mcp", "--http", "--port", str(port)], {"ENGINE_URL": url}, FOLDER / "door.log")
    try:
        until(lambda: is_open(port), "the agents' door is open")
        text = example.replace("localhost:8002", f"127.0.0.1:{port}").replace("uak_…", key)
        printed = _run([_program("python"), "-c", text])
        assert "42" in printed, printed
        print("ok LangChain's example")
    finally:
        door.stop()


def _program(name: str) -> str:
    return str(FOLDER / "venv" / "bin" / name)


def _run(command: list[str], **environ: str) -> str:
    """Run a command in the folder; what it prints is shown, and a failure ends the program."""
    done = subprocess.run(
        command, cwd=FOLDER, env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

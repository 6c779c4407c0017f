"""The service as it is delivered, in containers, with real servers beside it; and real tasks through it over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import yaml

from engine.dev.embedded import Embedded
from tests.image.podman import Containers, Profile
from tests.support.stack import free_port

ROOT = Path(__file__).resolve().parents[2]
SECRETS = "/run/secrets/unityai"
START_TIMEOUT_S = 120.0
TASKS: list[dict[str, Any]] = [
    {"script": "data_analysis.py", "args": {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"}},
    {"operation": "statistics", "data": [{"value": 10, "category": "A"}, {"value": 20, "category": "B"}]},
    {"model_type": "sentiment", "input_data": "This product is absolutely amazing!"},
    {"document_type": "txt", "operation": "summarize", "sentences": 1, "content": "Ada wrote notes. It rained."},
    {"operation": "analyze", "image_path": {"base64": (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )}},
]  # fmt: skip
TYPES = ("custom_script", "data_processing", "ml_inference", "document_processing", "image_processing")
ATTACK = f"""
signs = {{"{SECRETS}/database_url": b"", "/proc/1/environ": b"", "/proc/self/environ": b"", "/etc/passwd": b"appuser"}}
result = {{}}
for path, sign in signs.items():
    try:
        result[path] = sign in open(path, "rb").read()
    except OSError:
        result[path] = False
"""
"""Says of each file whether it holds something of the container: any byte, or the name of its user."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """An API and a worker that run."""

    client: httpx.Client
    api: str
    """Name of its container."""
    worker: str


def try_service(containers: Containers, profile: Profile) -> list[str]:
    """Start it under a profile, have it do all that can be done without the internet, stop it; what went wrong."""
    with running(containers, profile) as service:
        faults = [*check_tasks(service, profile), *check_attack(service), *check_containers(containers, service)]
    if profile.isolation != "full":
        faults += check_refusal(containers, profile)
    print(f"{profile.name}: service tried, {len(faults)} faults", flush=True)
    return faults


def check_tasks(service: Service, profile: Profile) -> list[str]:
    """Each task type that needs no network gives its result in the isolation that is expected."""
    faults = []
    for task_type, parameters in zip(TYPES, TASKS, strict=True):
        task = ask(service, task_type, parameters)
        seen = (task["status"], (task.get("isolation") or {}).get("profile"))
        if seen != ("succeeded", profile.isolation):
            faults.append(f"{task_type}: {seen}, {task.get('error')}")
    return faults


def check_attack(service: Service) -> list[str]:
    """A script finds neither secrets nor anything of the container."""
    task = ask(service, "custom_script", {"script": ATTACK})
    found = {path for path, is_seen in (task.get("result") or {"nothing, for it failed": True}).items() if is_seen}
    return [f"a script read {sorted(found)}"] if found else []


def check_containers(containers: Containers, service: Service) -> list[str]:
    """Health checks pass, the root cannot be written, the environment has no secret, both end in order."""
    faults = []
    if containers.podman("exec", service.api, *containers.health_check(containers.IMAGE), check=False).returncode:
        faults.append("the API's health check fails")
    program, *arguments = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["worker"]["healthcheck"][
        "test"
    ][1:]
    if containers.podman("exec", service.worker, program, *arguments, check=False).returncode:
        faults.append("the worker's health check fails")
    if not containers.podman(
        "exec", service.worker, "touch", "/app/x", check=False, stderr=subprocess.DEVNULL
    ).returncode:
        faults.append("the root can be written")
    shown = containers.podman("inspect", "--format", "{{.Config.Env}}", service.api, stdout=subprocess.PIPE, check=True)
    if "whsec_" in shown.stdout or "postgresql://" in shown.stdout:
        faults.append("a secret is in the environment")
    for name in (service.worker, service.api):
        containers.podman("stop", "--time", "45", name, check=False, stdout=subprocess.DEVNULL)
        code = containers.podman("wait", name, check=False, stdout=subprocess.PIPE).stdout.strip()
        if code != "0":
            faults.append(f"{name} ended with {code}")
    return faults


def check_refusal(containers: Containers, profile: Profile) -> list[str]:
    """Where namespaces are refused, `full` is not silently less: it says so."""
    variables = ("--env", "ENVIRONMENT=development", "--env", "SANDBOX_ISOLATION=full")
    said = containers.run([containers.IMAGE, "check"], *profile.options, *variables)
    return [] if said.returncode == 1 and "unshare" in said.stdout else [f"check: {said.returncode} {said.stdout}"]


def ask(service: Service, task_type: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A task, submitted and waited for."""
    answer = service.client.post(
        "/execute", params={"wait": 60}, json={"task_type": task_type, "parameters": parameters}
    )
    return dict(answer.json()) if answer.status_code == 200 else {"status": answer.status_code, "error": answer.text}


@contextlib.contextmanager
def running(containers: Containers, profile: Profile) -> Iterator[Service]:
    """An API and a worker in containers, on servers beside them."""
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Embedded(None))
        secrets = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        secrets.chmod(0o755)
        address = urlsplit(str(servers.urls.database))
        folder = parse_qs(address.query)["host"][0]
        postgres = stack.enter_context(relay(f"{folder}/.s.PGSQL.5432"))
        valkey = stack.enter_context(relay(urlsplit(str(servers.urls.redis)).path))
        user, _, _ = address.netloc.rpartition("@")
        password = urlsplit(str(servers.urls.redis)).password
        redis = f"redis://:{password}@127.0.0.1:{valkey}/0"
        make_secrets(containers, secrets, f"postgresql://{user}@127.0.0.1:{postgres}{address.path}", redis)
        name, port = f"image-test-{uuid.uuid4().hex[:8]}", free_port()
        for part in ("api", "worker"):
            start(containers, profile, secrets, part=part, name=f"{name}-{part}", port=port)
            stack.callback(containers.podman, "rm", "--force", "--time", "0", f"{name}-{part}", check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        key = (secrets / "client" / "api_key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90, headers=headers))
        wait_until_ready(containers, client, f"{name}-api", f"{name}-worker")
        yield Service(client=client, api=f"{name}-api", worker=f"{name}-worker")


def make_secrets(containers: Containers, folder: Path, database: str, redis: str) -> None:
    """As compose.yaml makes them, by the program of the image; then the addresses of the servers that are here."""
    program = ROOT / ".github" / "deploy" / "make_secrets.py"
    mounts = ("--volume", f"{program}:/make_secrets.py:ro", "--volume", f"{folder}:/run/secrets:rw")
    options = (*mounts, "--user", "0:0", "--network", "none", "--env", "PYTHONPATH=/app")
    made = containers.run([containers.IMAGE, "/make_secrets.py"], *options, "--entrypoint", "python")
    assert made.returncode == 0, made.stderr
    for name, address in (("database_url", database), ("redis_url", redis)):
        (folder / "service" / name).unlink()
        (folder / "service" / name).write_text(address)


def start(containers: Containers, profile: Profile, secrets: Path, *, part: str, name: str, port: int) -> None:
    """One part, as compose.yaml and the manifests have it, on the host's network."""
    variables = {
        "DATABASE_URL_FILE": f"{SECRETS}/database_url",
        "REDIS_URL_FILE": f"{SECRETS}/redis_url",
        "CALLBACK_SECRET_FILE": f"{SECRETS}/callback_secret",
        "API_KEYS_FILE": f"{SECRETS}/keys.toml",
        "N8N_WEBHOOK_URL": "http://127.0.0.1:9/",
        "FASTAPI_URL": "http://127.0.0.1:9/",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "SANDBOX_ISOLATION": profile.isolation,
        "WORKER_METRICS_PORT": "9001",
        **profile.settings,
    }
    given = [option for variable, value in variables.items() for option in ("--env", f"{variable}={value}")]
    mount = ("--volume", f"{secrets / 'service'}:{SECRETS}:ro")
    options = ["--detach", "--name", name, "--network", "host", *mount, *given, *profile.options]
    # --rm would take exit code and log along
    command = [word for word in containers.command([containers.IMAGE, part], *options) if word != "--rm"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def wait_until_ready(containers: Containers, client: httpx.Client, *names: str) -> None:
    """Until tasks are accepted and run.

    Raises:
        RuntimeError: not in time; what the containers said is in it.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health/ready").status_code == 200:
                return
        time.sleep(0.2)
    said = [containers.podman("logs", "--tail", "20", name, check=False, capture_output=True) for name in names]
    raise RuntimeError("not ready:\n" + "\n".join(one.stdout + one.stderr for one in said))


@contextlib.contextmanager
def relay(path: str) -> Iterator[int]:
    """A TCP port on the loopback that leads to a Unix socket which the container's user may not reach."""
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

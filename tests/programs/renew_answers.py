"""Asks a real service with keys each call, and writes down its answers as the examples of the OpenAPI document.

``python -m tests.programs.renew_answers``; look at what has changed before you commit it. The six answers of tasks are
those of the interface's page, which ``renew_examples`` renews. What a healthy service does not answer stands below.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from engine.api.docs.answers import PATH
from engine.config.keys import add_key, make_key
from engine.dev.demo import own_service
from engine.model.principal import Scope
from tests.support.readme import examples, format_json

SHOWN = 2
"""Entries of a list; a reader sees by two how they differ."""
LINE = 160
WAIT = {"wait": 60}
SCRIPT = """
for name in ("a.txt", "b.txt"):
    open(f"artifacts/{name}", "w").write(name)
print("two files")
result = args
"""
REFUSED = {
    401: "Missing or invalid API key. Send `Authorization: Bearer uak_…` or `X-API-Key: uak_…`.",
    403: "The key 3c66e13770e2 lacks the scope `cancel`, which this call needs.",
    408: "The body did not arrive within 120 s. Send it again.",
    413: "The body is longer than 64 MiB (MAX_BODY_MIB). Upload the data with POST /files, or send less.",
    429: "The quota of the tenant n8n is used up: tasks_per_minute is 600. Try again in 12 s.",
    503: "PostgreSQL cannot be reached. Try again in 2 s.",
    507: "The service's storage is almost full. It accepts no tasks and no files until there is room.",
}
"""Status → a sentence of a refusal that a service gives only when it has no other choice."""
TITLES = {
    401: "Unauthorized", 403: "Forbidden", 408: "Request Timeout", 413: "Request Entity Too Large",
    429: "Too Many Requests", 503: "Service Unavailable", 507: "Insufficient Storage",
}  # fmt: skip


def main() -> None:
    """Ask, and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder, "keys.toml")
        key = make_key("n8n", tuple(Scope))
        add_key(keys, key)
        os.environ |= {
            "API_KEYS_FILE": str(keys),
            "AUDIT_LOG": str(Path(folder, "audit.log")),
            "RECEIPT_KEY": f"uarec_{'0' * 43}=",
            "CALLBACK_SECRET": f"whsec_{'0' * 40}",
            "CALLBACK_ALLOW": "http://127.0.0.1:9/",
        }
        headers = {"authorization": f"Bearer {key.text}"}
        with own_service() as url, httpx.Client(base_url=url, timeout=90, headers=headers) as client:
            found = _tasks() | _asked(client)
    for status, detail in REFUSED.items():
        word = TITLES[status].lower().replace(" ", "-")
        problem = {"type": f"urn:unityai:problem:{word}", "title": TITLES[status], "status": status, "detail": detail}
        found[f"problem {status}"] = {"refused": problem}
    PATH.write_text(f"{format_json(found, width=LINE)}\n", encoding="utf-8")


def _tasks() -> dict[str, dict[str, Any]]:
    """The whole answers of the interface's page, one for each task type."""
    shown = [one for one in examples("engine/api/README.md") if one.shown and not one.picks and one.request]
    tasks = {one.request["task_type"]: json.loads(one.shown.text) for one in shown if one.target.startswith("/execute?")
             and one.shown}  # fmt: skip
    tasks = {name: task for name, task in tasks.items() if "task_id" in task}
    return {"execute 200": tasks, "getTask 200": {"custom_script": tasks["custom_script"]}}


def _asked(client: httpx.Client) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def ask(name: str, method: str, path: str, shown: str = "answer", **more: Any) -> Any:
        answer = client.request(method, path, **more)
        operation = name if answer.is_success or name.startswith("get") else "problem"
        value = answer.json()
        found.setdefault(f"{operation} {answer.status_code}", {})[shown] = _short(value)
        return value

    body = {
        "task_type": "custom_script", "labels": {"team": "a"}, "callback_url": "http://127.0.0.1:9/done",
        "parameters": {"script": SCRIPT, "args": [1, 2]},
    }  # fmt: skip
    slow = {"task_type": "custom_script", "parameters": {"script": "import time\ntime.sleep(50)"}}
    task_id = ask("execute", "POST", "/execute", "accepted", json=body)["task_id"]
    client.get(f"/task/{task_id}", params=WAIT)
    items = [body | {"idempotency_key": "order-4711"}, {"task_type": "custom_script", "parameters": {}}]
    ask("executeBatch", "POST", "/execute/batch", json=items)
    running = client.post("/execute", json=slow).json()["task_id"]
    _until_running(client, running)
    ask("cancelTask", "DELETE", f"/task/{running}", "a worker stops it")
    ask("cancelTask", "DELETE", f"/task/{running}", "final", params=WAIT)
    for name, path in {
        "listTasks": "/tasks", "getReceipt": f"/task/{task_id}/receipt", "listAttempts": f"/task/{task_id}/attempts",
        "getTaskRequest": f"/task/{task_id}/request", "listAudit": "/audit", "readAuditLog": "/audit/log",
        "diffPolicies": "/policies/custom_script_network/diff?to=custom_script",
        "getPolicyUse": "/policies/custom_script/use", "listTenants": "/tenants", "getHistory": "/history",
        "listScripts": "/scripts", "listLibraries": "/libraries", "listPolicies": "/policies",
        "getPolicy": "/policies/custom_script", "getHealth": "/health", "getLiveness": "/health/live",
        "getReadiness": "/health/ready", "getReceiptKeys": "/.well-known/unityai-receipt-keys",
        "getMetricsTargets": "/metrics/targets", "getSession": "/session", "listCallbacks": "/callbacks?state=due",
    }.items():  # fmt: skip
        ask(name, "GET", path)
    ask("redeliverCallback", "POST", f"/task/{task_id}/callback")
    ask("beginSession", "POST", "/session")
    ask("uploadFile", "POST", "/files", params={"name": "table.csv"}, content=b"x,y\n1,2\n")
    ask("listFiles", "GET", "/files")
    json_type = {"content-type": "application/json"}
    ask("execute", "POST", "/execute", "invalid", json={"task_type": "custom_scripts", "parameters": {}, "timeout": 3})
    ask("execute", "POST", "/execute", "no JSON object", content=b"{", headers=json_type)
    ask("getX", "GET", "/task/00000000-0000-0000-0000-000000000000", "no such task")
    ask("getX", "GET", "/execute", "another method")
    ask("execute", "POST", "/execute", "another media type", content=b"a=b")
    for script in ("result = 1", "result = 2"):
        again = {"task_type": "custom_script", "parameters": {"script": script}}
        client_headers = {"idempotency-key": "order-4712"}
        answer = client.post("/execute", json=again, headers=client_headers)
    found["problem 409"] = {"another request": answer.json()}
    client.delete(f"/task/{task_id}/artifacts")
    ask("getX", "GET", f"/task/{task_id}/artifacts/a.txt", "deleted")
    for name in [name for name in found if name.startswith("getX ")]:
        found.setdefault(f"problem {name.split()[1]}", {}).update(found.pop(name))
    del found["listPolicies 200"]["answer"]["policies"][1:]  # each is a page long
    return found | _ill(found)


def _ill(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a service answers of itself that is not well."""
    reason = "PostgreSQL is unreachable: tasks are not accepted"
    (health,) = found["getHealth 200"].values()
    away = {"status": "away", "latency_ms": 1700.2, "detail": "no answer within 1.7 s"}
    queue = {"queued": None, "running": None, "oldest_wait_s": None, "free_slots": 0}
    ill = health | {"status": "down", "reasons": [reason], "database": away, "queue": queue, "workers": []}
    (live,) = found["getLiveness 200"].values()
    return {
        "getHealth 503": {"down": ill},
        "getLiveness 503": {"a loop has ended": live | {"status": "failing", "dead": ["checker"]}},
        "getReadiness 503": {"not ready": {"status": "not_ready", "reasons": [reason]}},
    }


def _until_running(client: httpx.Client, task_id: str) -> None:
    while client.get(f"/task/{task_id}").json()["status"] != "running":
        time.sleep(0.05)


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    return [_short(one) for one in value[:SHOWN]] if isinstance(value, list) else value


if __name__ == "__main__":
    main()

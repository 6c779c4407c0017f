"""API keys: no route without its scope, no tenant in another's things, and a file that may change under us."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from litestar import Request, get

from engine.api.access import Access, leave
from engine.api.call import ANY_KEY, PUBLIC, call_of
from engine.api.problems import RequestError
from engine.api.routes.requests import BigBodies
from engine.api.routes.system import ROUTES
from engine.api.routes.tasks import get_task
from engine.api.server.serve import CONNECTIONS
from engine.config.keys import Keys, KeysError, NewKey, add_key, make_key, read_keys, remove_key
from engine.config.machine import BODY_PLACES
from engine.model.principal import Principal, Quotas, Scope
from tests.support.command_line import engine_text as run
from tests.support.stack import Stack, task, until

POLICIES = ("custom_script",)
NOBODY_LISTENS = "http://127.0.0.1:9/"
THINGS_OF_A_TENANT = {
    "getTask": "named", "followTask": "named", "cancelTask": "named", "getArtifact": "named",
    "getReceipt": "named", "listAttempts": "named", "getTaskRequest": "named",
    "redeliverCallback": "named", "deleteFile": "named", "deleteArtifact": "named", "deleteArtifacts": "named",
    "listTasks": "listed", "listCallbacks": "listed", "listFiles": "listed",
    "listAudit": "listed", "getHistory": "listed",
    "readAuditLog": "listed", "getPolicyUse": "listed", "listTenants": "listed",
    "execute": "made", "executeBatch": "made", "uploadFile": "made",
}  # fmt: skip
"""Operation → how it touches what is a tenant's own."""
THINGS_OF_ALL = {
    "listScripts", "listLibraries", "getReceiptKeys",
    "listPolicies", "getPolicy", "diffPolicies", "getHealth", "getLiveness", "getReadiness", "getMetrics",
    "getMetricsTargets", "getOpenAPI", "getDocs", "beginSession", "getSession", "endSession",
}  # fmt: skip
"""Operations that touch nothing of a tenant."""


class Held:
    """A service with keys, and who holds which."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.toml"
        self.admin = self.key("ops", *Scope)
        self.a = self.key("a", *(scope for scope in Scope if scope != Scope.ADMIN))
        self.b = self.key("b", *(scope for scope in Scope if scope != Scope.ADMIN))
        self.stack = Stack(
            folder, headers=bearer(self.admin), twin="custom_script_twin", API_KEYS_FILE=str(self.path),
            CALLBACK_SECRET=f"whsec_{'0' * 40}", CALLBACK_ALLOW=NOBODY_LISTENS,
            RECEIPT_KEY=f"uarec_{'0' * 43}=", AUDIT_LOG=str(folder / "audit.log"),
        )  # fmt: skip
        self.stack.worker()

    def key(self, tenant: str, *scopes: Scope, **more: Any) -> NewKey:
        made = make_key(tenant, scopes, **more)
        add_key(self.path, made)
        return made

    def as_(self, key: NewKey) -> httpx.Client:
        return httpx.Client(base_url=self.stack.client.base_url, headers=bearer(key), timeout=60)

    def holds(self, key: NewKey) -> bool:
        with self.as_(key) as client:
            return client.get("/openapi.json").status_code == 200


def bearer(key: NewKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.text}"}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    found = Held(tmp_path_factory.mktemp("keys"))
    yield found
    found.stack.close()


def calls() -> dict[str, tuple[str, str]]:
    """Operation → method and path, with names in it that nobody has."""
    found: dict[str, tuple[str, str]] = {}
    for route in ROUTES:
        path = next(iter(route.paths)).replace("{task_id:str}", str(uuid4()))
        path = re.sub(r"\{(?:name|file_id):\w+\}", "nothing", path)
        found[str(route.operation_id)] = (next(iter(route.http_methods)), path)
    return found


CALLS = calls()


SCOPES: dict[str, Scope | str] = {
    "execute": Scope.SUBMIT,
    "executeBatch": Scope.SUBMIT,
    "uploadFile": Scope.SUBMIT,
    "redeliverCallback": Scope.SUBMIT,
    "deleteFile": Scope.SUBMIT,
    "deleteArtifact": Scope.SUBMIT,
    "deleteArtifacts": Scope.SUBMIT,
    "listFiles": Scope.READ,
    "listScripts": Scope.SUBMIT,
    "listLibraries": Scope.SUBMIT,
    "getTask": Scope.READ,
    "listTasks": Scope.READ,
    "followTask": Scope.READ,
    "getArtifact": Scope.READ,
    "getReceipt": Scope.READ,
    "listCallbacks": Scope.READ,
    "listAttempts": Scope.READ,
    "getTaskRequest": Scope.READ,
    "listAudit": Scope.AUDIT,
    "readAuditLog": Scope.AUDIT,
    "diffPolicies": Scope.AUDIT,
    "getPolicyUse": Scope.AUDIT,
    "listTenants": Scope.AUDIT,
    "getHistory": Scope.AUDIT,
    "cancelTask": Scope.CANCEL,
    "listPolicies": Scope.AUDIT,
    "getPolicy": Scope.AUDIT,
    "getHealth": Scope.AUDIT,
    "getMetrics": Scope.METRICS,
    "getMetricsTargets": Scope.METRICS,
    "getOpenAPI": ANY_KEY,
    "getDocs": ANY_KEY,
    "getSession": ANY_KEY,
    "endSession": ANY_KEY,
    "beginSession": ANY_KEY,
    "getLiveness": PUBLIC,  # they say no more than yes or no, and a probe has no key
    "getReadiness": PUBLIC,
    "getReceiptKeys": PUBLIC,  # whoever has a receipt may check it
}
"""The scope of each call, written down a second time: a change on a route must be made here, too."""


def test_every_route_has_its_scope() -> None:
    """API-01: no more and no fewer routes, and each opened by what is written here."""
    found = {str(route.operation_id): call_of(route) for route in ROUTES}
    assert SCOPES == {name: said.scope if said else None for name, said in found.items()}


def test_route_that_says_nothing_is_closed() -> None:
    """A new route answers nobody until it says which scope opens it."""

    @get("/new", operation_id="getNew")
    async def get_new() -> None: ...

    connection = cast(Any, SimpleNamespace(scope={}, headers=None))
    with pytest.raises(RequestError) as refused:
        asyncio.run(Access(None, 1, sessions=cast(Any, None)).guard(connection, get_new))
    assert 403 == refused.value.status


def test_service_has_no_other_routes(held: Held) -> None:
    """The calls that it lists are those that have a scope."""
    paths = held.stack.client.get("/openapi.json").json()["paths"]
    operations = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert sorted(SCOPES) == sorted(operations)


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("key", ["none", "wrong", "malformed", "in the query", "of nobody", "two", "basic"])
def test_no_route_answers_without_a_key_that_holds(held: Held, operation: str, key: str) -> None:
    """API-01: 401 with WWW-Authenticate, docs, metrics and health in detail included; only two say yes or no."""
    method, path = CALLS[operation]
    headers: list[tuple[str, str]] = {
        "none": [],
        "wrong": [("Authorization", f"Bearer {held.a.text[:-1]}{'A' if held.a.text[-1] != 'A' else 'B'}")],
        "malformed": [("X-API-Key", "uak_")],
        "in the query": [],
        "of nobody": [("X-API-Key", make_key("a", [Scope.READ]).text)],
        "two": [("X-API-Key", held.a.text), ("Authorization", f"Bearer {held.a.text}")],
        "basic": [("Authorization", f"Basic {held.a.text}")],
    }[key]
    params = {"key": held.a.text, "api_key": held.a.text} if key == "in the query" else {}
    answer = httpx.request(method, f"{held.stack.client.base_url}{path}", headers=headers, params=params)
    if SCOPES[operation] == PUBLIC:
        assert answer.status_code in ((400,) if params else (200, 503))  # no call takes a key in its query
    else:
        assert 401 == answer.status_code
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert held.a.text not in answer.text


@pytest.mark.parametrize("operation", [name for name, scope in SCOPES.items() if isinstance(scope, Scope)])
def test_no_route_answers_without_its_scope(held: Held, operation: str) -> None:
    """403 for a key with every scope but that one, naming the scope and the key's id, never the key."""
    method, path = CALLS[operation]
    scope = SCOPES[operation]
    key = _without(held, scope)
    with held.as_(key) as client:
        answer = client.request(method, path)
    assert 403 == answer.status_code
    assert f"`{scope}`" in answer.json()["detail"]
    assert key.key_id in answer.json()["detail"]
    assert key.text not in answer.text


_made: dict[Any, NewKey] = {}


def _without(held: Held, scope: Any) -> NewKey:
    if scope not in _made:
        _made[scope] = held.key("a", *(other for other in Scope if other != scope))
        until(lambda: held.holds(_made[scope]), "the new key is taken up")
    return _made[scope]


@pytest.mark.parametrize("operation", [name for name, scope in SCOPES.items() if scope == ANY_KEY])
def test_docs_open_to_any_key(held: Held, operation: str) -> None:
    """Any valid key may read the documentation."""
    with held.as_(_without(held, Scope.READ)) as client:
        assert client.request(*CALLS[operation]).is_success


@pytest.mark.parametrize("path", ["/docs", "/tasks"])
def test_a_person_without_a_key_gets_a_page(held: Held, path: str) -> None:
    """In a browser it says what to do, and leads to the console; programs, and scripts of pages, get a problem."""
    with httpx.Client(base_url=held.stack.client.base_url) as client:
        page = client.get(path, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert (401, "text/html; charset=utf-8") == (page.status_code, page.headers["content-type"])
        for words in (
            "An API key is needed",
            '<a href="/">sign in to the console</a>',
            "python -m engine keys new",
            path,
        ):
            assert words in page.text
        assert "Bearer" in page.headers["www-authenticate"]
        assert "<style" not in page.text
        for accept in ("*/*", "application/json", "text/event-stream"):
            problem = client.get(path, headers={"accept": accept})
            assert (401, "application/problem+json") == (problem.status_code, problem.headers["content-type"])


def test_of_every_route_it_is_known_what_it_touches() -> None:
    """XT: a new route fails here until somebody says whose things it touches; with a task in its path, a tenant's."""
    assert CALLS.keys() == THINGS_OF_A_TENANT.keys() | THINGS_OF_ALL
    assert not THINGS_OF_A_TENANT.keys() & THINGS_OF_ALL
    with_an_id = {name for name, (_, path) in CALLS.items() if path.startswith(("/task/", "/files/"))}
    assert with_an_id == {name for name, how in THINGS_OF_A_TENANT.items() if how == "named"}


def things(held: Held) -> dict[str, str]:
    """Tenant a's things: a task with an artifact and a callback, and a file."""
    with held.as_(held.a) as client:
        script = "open('artifacts/nothing', 'w').write('of a'); result = 1"
        body = task(script, labels={"of": "a"}, callback_url=f"{NOBODY_LISTENS}a")
        made = client.post("/execute", json=body, params={"wait": 30}).json()
        file_id = client.post("/files", content=b"of a").json()["file_id"]
        assert 200 == client.get(f"/task/{made['task_id']}/artifacts/nothing").status_code
    return {"task_id": made["task_id"], "file_id": file_id}


@pytest.mark.parametrize("operation", [name for name, how in THINGS_OF_A_TENANT.items() if how == "named"])
def test_things_of_another_tenant_are_not_there(held: Held, operation: str) -> None:
    """404, as for what nobody has, on every route that names a task."""
    method, _ = CALLS[operation]
    (route,) = [route for route in ROUTES if route.operation_id == operation]
    found = things(held)
    path = next(iter(route.paths)).replace("{task_id:str}", found["task_id"]).replace("{file_id:str}", found["file_id"])
    path = re.sub(r"\{name:\w+\}", "nothing", path)
    with held.as_(held.b) as client:
        assert 404 == client.request(method, path).status_code
    with held.as_(held.a) as client:
        assert client.request(method, path).is_success


def test_lists_show_the_own_only(held: Held) -> None:
    """Neither tasks nor callbacks of another tenant."""
    found = things(held)
    with held.as_(held.b) as client:
        assert [] == client.get("/tasks", params={"label": "of:a"}).json()["tasks"]
        assert [] == client.get("/callbacks", params={"state": "due"}).json()["callbacks"]
    with held.as_(held.a) as client:
        assert found["task_id"] in {item["task_id"] for item in client.get("/tasks").json()["tasks"]}
        assert found["task_id"] in {
            item["task_id"] for item in client.get("/callbacks", params={"state": "due"}).json()["callbacks"]
        }


def test_record_shows_other_tenants_to_admins_only(held: Held) -> None:
    """Who ran what, the audit log, denials, the tenants: each shows the asker's own, and all with the scope admin."""
    of_a = things(held)["task_id"]
    with held.as_(held.a) as client:
        denied = task("import os\ntry:\n    os.fork()\nexcept OSError:\n    pass")
        denied_id = client.post("/execute", json=denied, params={"wait": 30}).json()["task_id"]
    shown: dict[str, dict[str, Any]] = {}
    for name, key in {"a": held.a, "b": held.b, "admin": held.admin}.items():
        with held.as_(key) as client:
            use = client.get("/policies/custom_script/use").json()
            shown[name] = {
                "tasks": {
                    item["task"]["task_id"] for item in client.get("/audit", params={"limit": 500}).json()["tasks"]
                },
                "of a": len(client.get("/audit", params={"tenant": "a"}).json()["tasks"]) > 0,
                "lines": {line.get("task_id") for line in client.get("/audit/log").json()["lines"]},
                "denied": {one["task_id"] for one in use["denials"]},
                "keys": {one["tenant"] for one in use["keys"]},
                "tenants": {one["tenant"] for one in client.get("/tenants").json()["tenants"]},
            }
    for name in ("a", "admin"):
        assert {of_a, denied_id} <= shown[name]["tasks"]
        assert {of_a, denied_id} <= shown[name]["lines"]
        assert denied_id in shown[name]["denied"]
        assert shown[name]["of a"]
    assert not {of_a, denied_id} & (shown["b"]["tasks"] | shown["b"]["lines"] | shown["b"]["denied"])
    assert not shown["b"]["of a"]
    assert ({"a"}, {"b"}) == (shown["a"]["tenants"], shown["b"]["tenants"])
    assert {"a"} == shown["a"]["keys"]
    assert {"a", "ops"} <= shown["admin"]["keys"]
    assert "a" in shown["admin"]["tenants"]


def test_last_hour_shows_other_tenants_to_admins_only(held: Held) -> None:
    """Whoever asks first: what was worked out for one asker is not told to another one."""
    some, none = (held.key(f"hour-{uuid4()}", Scope.SUBMIT, Scope.READ, Scope.AUDIT) for _ in range(2))
    until(lambda: held.holds(some) and held.holds(none), "the new keys are taken up")

    def ended(key: NewKey) -> int:
        with held.as_(key) as client:
            return int(sum(minute["ended"] for minute in client.get("/history").json()["minutes"]))

    with held.as_(some) as client:
        for _ in range(2):
            assert 200 == client.post("/execute", json=task("result = 1"), params={"wait": 30}).status_code
    with held.as_(held.a) as client:
        assert 200 == client.post("/execute", json=task("result = 1"), params={"wait": 30}).status_code
    assert ended(held.admin) > 2
    assert (2, 0) == (ended(some), ended(none))
    assert ended(held.admin) > 2


def test_file_of_another_tenant_cannot_be_named(held: Held) -> None:
    """XT-07: as if it had never been uploaded."""
    file_id = things(held)["file_id"]
    body = {"task_type": "custom_script", "parameters": {"script": "pass", "inputs": {"x": {"file_id": file_id}}}}
    with held.as_(held.b) as client:
        alone = client.post("/execute", json=body)
        (item,) = client.post("/execute/batch", json=[body]).json()["tasks"]
    assert 400 == alone.status_code == item["status"]
    assert "there is no file" in alone.json()["detail"]
    assert "there is no file" in item["problem"]["detail"]
    with held.as_(held.a) as client:
        assert client.post("/execute", json=body).is_success


def test_idempotency_keys_of_two_tenants_are_two(held: Held) -> None:
    """API-05: the same key and request by another tenant is another task."""
    alone, batch = f"key-{uuid4()}", f"key-{uuid4()}"
    ids = []
    for key in (held.a, held.b):
        with held.as_(key) as client:
            made = client.post("/execute", json=task("result = 1"), headers={"Idempotency-Key": alone})
            (item,) = client.post("/execute/batch", json=[task("result = 1", idempotency_key=batch)]).json()["tasks"]
            ids += [made.json()["task_id"], item["task"]["task_id"]]
    assert 4 == len(set(ids))


def test_policy_that_is_not_for_the_key_is_403(held: Held) -> None:
    """Alone and in a batch, whichever way the policy is meant."""
    key = held.key("a", Scope.SUBMIT, policies=["custom_script"])
    until(lambda: held.holds(key), "the new key is taken up")
    twin = task("result = 1", policy="custom_script_twin")
    with held.as_(key) as client:
        assert 202 == client.post("/execute", json=task("result = 1")).status_code
        alone = client.post("/execute", json=twin)
        items = client.post("/execute/batch", json=[task("result = 1"), twin]).json()["tasks"]
    assert (403, "$.policy") == (alone.status_code, alone.json()["errors"][0]["path"])
    assert f"the key {key.key_id} may not use the policy custom_script_twin" in alone.json()["detail"]
    assert [202, 403] == [item["status"] for item in items]


def test_quota_of_a_key_is_429(held: Held) -> None:
    """API-11: with Retry-After, and the quota's name."""
    key = held.key(f"quota-{uuid4()}", Scope.SUBMIT, quotas=Quotas(tasks_per_minute=2))
    until(lambda: held.holds(key), "the new key is taken up")
    with held.as_(key) as client:
        answers = [client.post("/execute", json=task("result = 1")) for _ in range(3)]
    assert [202, 202, 429] == [answer.status_code for answer in answers]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert "tasks_per_minute" in answers[-1].json()["detail"]


def test_open_requests_of_a_tenant_are_half_of_all() -> None:
    """Those that wait long leave connections to others: one more is 429, another tenant's is not, an end makes room."""
    access = Access(cast(Keys, Finds()), most_of_one=2, sessions=cast(Any, None))

    def ask(tenant: str) -> dict[str, Any]:
        scope: dict[str, Any] = {"type": "http", "headers": [(b"x-api-key", tenant.encode())]}
        asyncio.run(access.guard(Request(cast(Any, scope)), get_task))
        return scope

    first, _ = ask("a"), ask("a")
    with pytest.raises(RequestError) as caught:
        ask("a")
    assert (429, "2") == (caught.value.status, caught.value.headers["Retry-After"])
    ask("b")
    leave(first)
    leave(first)
    ask("a")
    with pytest.raises(RequestError):
        ask("a")


class Finds:
    """Keys that are the names of their tenants."""

    def find(self, text: str) -> Principal:
        return Principal(tenant=text, scopes=frozenset(Scope))


def test_requests_that_were_answered_are_not_open(held: Held) -> None:
    """However they end: more than a tenant may have open, one after another, with every sort of answer."""
    key = held.key("patient", *Scope)
    until(lambda: held.holds(key), "the new key is taken up")
    paths = ("/openapi.json", "/nothing", f"/task/{uuid4()}", "/tasks?limit=x", f"/task/{uuid4()}/events")
    with held.as_(key) as client:
        for _ in range(CONNECTIONS // 2 // len(paths) + 1):
            assert 429 not in [client.get(path).status_code for path in paths]


def test_slow_bodies_of_one_tenant_leave_a_place_to_others() -> None:
    """However many it sends; another tenant's comes at once."""

    async def take() -> None:
        bodies = BigBodies()

        async def hold(tenant: str, taken: asyncio.Event) -> None:
            async with bodies.place(tenant):
                taken.set()
                await asyncio.Event().wait()

        events = [asyncio.Event() for _ in range(BODY_PLACES + 1)]
        tasks = [asyncio.create_task(hold("slow", event)) for event in events[:-1]]
        await asyncio.gather(*(event.wait() for event in events[: BODY_PLACES - 1]))
        tasks.append(asyncio.create_task(hold("other", events[-1])))
        async with asyncio.timeout(20):
            await events[-1].wait()
        assert not events[-2].is_set()
        tasks[0].cancel()
        async with asyncio.timeout(20):
            await events[-2].wait()
        for each in tasks:
            each.cancel()

    asyncio.run(take())


def test_keys_of_a_running_service_come_and_go(held: Held) -> None:
    """A new key holds, a revoked one does not, an expired one does not; a broken file changes nothing."""
    key = held.key("c", Scope.READ)
    until(lambda: held.holds(key), "the new key is taken up")
    text = held.path.read_text()
    held.path.write_text(text + "\n[keys.broken")
    until(lambda: held.holds(key) and "keys not reloaded" in held.stack.api.log.read_text(), "the file was looked at")
    assert held.holds(key)
    held.path.write_text(text)
    remove_key(held.path, key.key_id)
    until(lambda: not held.holds(key), "the revoked key is refused")
    expired = held.key("c", Scope.READ, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    fresh = held.key("c", Scope.READ, expires_at=datetime.now(UTC) + timedelta(days=1))
    until(lambda: held.holds(fresh), "the new key is taken up")
    with held.as_(expired) as client:
        answer = client.get("/tasks")
    assert (401, f"The key {expired.key_id} has expired: ask the operator for a new one.") == (
        answer.status_code,
        answer.json()["detail"],
    )


def test_no_key_is_in_any_log(held: Held) -> None:
    """API-02: neither in those of the API nor of the worker."""
    with held.as_(held.a) as client:
        client.get(f"/task/{held.a.text}")
    logs = "".join(path.read_text() for path in held.path.parent.glob("*.log"))
    assert "/task/" in logs
    for key in (held.admin, held.a, held.b):
        assert key.text.split("_", 2)[2][:20] not in logs


def test_log_says_which_key_asked(held: Held) -> None:
    """By its id, with what it was refused as well."""
    key = _without(held, Scope.CANCEL)
    with held.as_(key) as client:
        request_id = client.delete(f"/task/{uuid4()}").headers["x-request-id"]

    def logged() -> list[dict[str, Any]]:
        lines = [
            json.loads(line) for line in held.stack.api.log.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]
        return [line for line in lines if line.get("request_id") == request_id and line["event"] == "request"]

    until(logged, "the line of the request, which comes after its answer")
    (line,) = logged()
    assert (403, key.key_id) == (line["status"], line["key_id"])


# ---- the file ---------------------------------------------------------------------------------------------------


GOOD = '[keys.0123456789ab]\nsha256 = "' + "0" * 64 + '"\ntenant = "a"\nscopes = ["read"]\n'
BAD = {
    "not TOML": GOOD + "[",
    "short id": GOOD.replace("0123456789ab", "0123"),
    "a key as the id": GOOD.replace("0123456789ab", "uak_0123456789ab_" + "x" * 43),
    "no hash": GOOD.replace("0" * 64, "0" * 63),
    "a key instead of a hash": GOOD.replace("0" * 64, "uak_0123456789ab_" + "x" * 43),
    "no tenant": GOOD.replace('tenant = "a"\n', ""),
    "tenant with a slash": GOOD.replace('"a"', '"a/b"'),
    "no scope": GOOD.replace('"read"', ""),
    "unknown scope": GOOD.replace('"read"', '"write"'),
    "unknown field": GOOD + 'scope = "x"\n',
    "unknown policy": GOOD + 'policies = ["none"]\n',
    "no policy": GOOD + "policies = []\n",
    "quota of nothing": GOOD + "quotas = {tasks_per_minute = 0}\n",
    "unknown quota": GOOD + "quotas = {tasks = 1}\n",
    "time without offset": GOOD + "expires_at = 2027-01-01T00:00:00\n",
    "no key": "",
    "another table": "[users]\n" + GOOD,
}


NAMES_THE_KEY = BAD.keys() - {"not TOML", "short id", "a key as the id", "no key", "another table"}


@pytest.mark.parametrize("name", BAD)
def test_file_that_cannot_be_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    """With the names of file and key, and never a hash or key of it."""
    path = tmp_path / "keys.toml"
    path.write_text(BAD[name])
    with pytest.raises(KeysError) as caught:
        Keys(path, POLICIES, print)
    assert str(path) in str(caught.value)
    assert "x" * 43 not in str(caught.value)
    if name in NAMES_THE_KEY:
        assert "keys.0123456789ab" in str(caught.value)


def test_good_file_is_read(tmp_path: Path) -> None:
    """The same without a fault."""
    path = tmp_path / "keys.toml"
    path.write_text(GOOD)
    assert Keys(path, POLICIES, print).find("uak_0123456789ab_" + "x" * 43) is None
    assert ["0123456789ab"] == list(read_keys(path))


def test_every_key_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """API-02: once, whole hashes, whether or not there is such an id, and whatever the text is."""
    path = tmp_path / "keys.toml"
    made = make_key("a", [Scope.READ])
    add_key(path, made)
    keys = Keys(path, POLICIES, print)
    compared: list[tuple[int, int]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("engine.config.keys.hmac", SimpleNamespace(compare_digest=compare))
    texts = [
        made.text,
        made.text[:-1] + "!",
        make_key("a", [Scope.READ]).text,
        f"uak_{made.key_id}_{'x' * 43}",
        "",
        "x",
    ]
    assert [True] + [False] * 5 == [keys.find(text) is not None for text in texts]
    assert [(64, 64)] * 6 == compared


def test_keys_made_at_the_same_time_are_all_in_the_file(tmp_path: Path) -> None:
    """None of them is lost, and the file stays whose it was, also behind a link."""
    real, link = tmp_path / "keys.toml", tmp_path / "link" / "keys.toml"
    link.parent.mkdir()
    link.symlink_to(real)
    add_key(link, make_key("first", [Scope.READ]))
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 1000, 1000)
    before = real.stat()
    made = [make_key(f"tenant-{number}", [Scope.READ]) for number in range(20)]
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda new: add_key(link, new), made))
    assert {new.key_id for new in made} < read_keys(real).keys()
    assert link.is_symlink()
    after = real.stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    assert ["keys.toml", "link"] == sorted(path.name for path in tmp_path.iterdir())


def test_commands_make_list_and_revoke(tmp_path: Path) -> None:
    """A key is printed once, its hash is in the file, which is its owner's alone; what cannot be is a sentence."""
    path = tmp_path / "keys.toml"
    made = run("keys", "new", "--tenant", "acme", "--scopes", "submit,read", "--policies", "custom_script",
               "--tasks-per-minute", "60", "--expires-days", "30", "--file", str(path))  # fmt: skip
    assert 0 == made.returncode, made.stderr
    text = made.stdout.strip()
    assert 0o600 == path.stat().st_mode & 0o777
    assert text not in path.read_text()
    principal = Keys(path, POLICIES, print).find(text)
    assert principal is not None
    assert ("acme", frozenset({Scope.SUBMIT, Scope.READ}), frozenset({"custom_script"}), 60) == (
        principal.tenant, principal.scopes, principal.policies, principal.quotas.tasks_per_minute,
    )  # fmt: skip
    listed = run("keys", "list", API_KEYS_FILE=str(path)).stdout
    assert "acme" in listed
    assert text not in listed
    (shown,) = json.loads(run("keys", "list", "--json", API_KEYS_FILE=str(path)).stdout).values()
    assert ("acme", ["submit", "read"]) == (shown["tenant"], shown["scopes"])
    assert "sha256" not in shown
    assert 0 == run("keys", "revoke", str(principal.key_id), "--file", str(path)).returncode
    assert {} == read_keys(path)
    for command in (["new", "--tenant", "a b"], ["new", "--tenant", "a", "--scopes", "all"],
                    ["new", "--tenant", "a", "--policies", "none"], ["revoke", "0123456789ab"],
                    ["new", "--tenant", "a", "--expires-days", "0"]):  # fmt: skip
        done = run("keys", *command, "--file", str(path))
        assert 1 == done.returncode
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr


def test_secret_is_one_that_callbacks_take() -> None:
    """`keys secret` prints a CALLBACK_SECRET, another each time."""
    from engine.config.load import load_settings  # noqa: PLC0415

    first, second = (run("keys", "secret").stdout.strip() for _ in range(2))
    assert first != second
    assert (first,) == load_settings({"CALLBACK_SECRET": first}).callback_secrets


def test_api_without_keys_listens_on_loopback_only() -> None:
    """Development on all addresses without keys does not start, and says what to do."""
    done = run("api", HOST="0.0.0.0", DATABASE_URL="postgresql://x/y", REDIS_URL="redis://x")
    assert 1 == done.returncode
    assert "API_KEYS_FILE" in done.stderr
    assert "keys new" in done.stderr

"""Bytes are a quota: nobody fills PostgreSQL's disk, neither by files, nor by artifacts, nor by tasks."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from engine.config.keys import NewKey, add_key, make_key
from engine.model.principal import Quotas, Scope
from tests.support.held import Held
from tests.support.stack import Stack, ask, task, until

MIB = 1 << 20


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service with keys, and a tenant in each test that may store 3 MiB and four files a minute."""
    folder = tmp_path_factory.mktemp("limited")
    first = make_key("ops", tuple(Scope))
    add_key(folder / "keys.toml", first)
    found = Stack(folder, headers={"Authorization": f"Bearer {first.text}"}, API_KEYS_FILE=str(folder / "keys.toml"))
    found.worker()
    yield found
    found.close()


@contextlib.contextmanager
def client_of(stack: Stack, tenant: str, **quotas: int) -> Iterator[httpx.Client]:
    made: NewKey = make_key(tenant, tuple(Scope), quotas=Quotas(**quotas))
    add_key(stack.folder / "keys.toml", made)
    headers = {"Authorization": f"Bearer {made.text}"}
    with httpx.Client(base_url=stack.client.base_url, timeout=60, headers=headers) as client:
        until(lambda: client.get("/openapi.json").status_code == 200, "the key holds")
        yield client


def really_stored(stack: Stack, tenant: str) -> int:
    """What lies in PostgreSQL's tables, counted there: files, artifacts, and tasks with one KiB for each row."""
    found = ask(
        stack.environ["DATABASE_URL"],
        f"""SELECT coalesce(sum(bytes), 0)::bigint FROM (
            SELECT size_bytes AS bytes, tenant FROM files UNION ALL SELECT size_bytes, tenant FROM artifacts
            UNION ALL
            SELECT 1024 + octet_length(parameters) + octet_length(labels::text) + coalesce(octet_length(outcome), 0),
            tenant FROM tasks
        ) AS found WHERE tenant = '{tenant}'""",
    )
    return int(found[0][0])


def test_files_beyond_the_bytes_are_refused_until_one_is_deleted(limited: Stack) -> None:
    """QUO-01: 429 names what is full; a deleted file makes room, and another tenant is as before."""
    with client_of(limited, "a", stored_mib=3) as client, client_of(limited, "b", stored_mib=3) as other:
        kept = client.post("/files", content=os.urandom(2 * MIB)).json()
        refused = client.post("/files", content=os.urandom(2 * MIB))
        assert 429 == refused.status_code
        assert "stored_mib" in refused.json()["detail"]
        assert 201 == other.post("/files", content=os.urandom(2 * MIB)).status_code
        shown = client.get("/files").json()
        assert ([kept], 2 * MIB, 3) == (shown["files"], shown["stored_bytes"], shown["stored_mib"])
        assert 404 == other.delete(f"/files/{kept['file_id']}").status_code
        assert 204 == client.delete(f"/files/{kept['file_id']}").status_code
        assert 404 == client.delete(f"/files/{kept['file_id']}").status_code
        assert 201 == client.post("/files", content=os.urandom(2 * MIB)).status_code


def test_large_parameters_count_and_are_refused(limited: Stack) -> None:
    """QUO-02: a task is a way to store bytes, too; one that still fits is accepted all the same."""
    with client_of(limited, "c", stored_mib=1) as client:
        big = task("result = 1")
        big["parameters"]["args"] = "x" * (600 << 10)
        assert 202 == client.post("/execute", json=big).status_code
        for path, body in (("/execute", big), ("/execute/batch", [big])):
            refused = client.post(path, json=body)
            assert (429, True) == (refused.status_code, "stored_mib" in refused.text)
        assert 202 == client.post("/execute", json=task("result = 1")).status_code


def test_small_tasks_fill_the_quota_too(limited: Stack) -> None:
    """QUO-10: they are refused before they are more than the quota; what was accepted is answered again."""
    with client_of(limited, "small", stored_mib=1) as client:
        for number in range(30):
            body = task("result = 1 #" + "x" * (40 << 10), labels={"number": str(number)})
            answer = client.post("/execute", json=body, headers={"Idempotency-Key": str(number)})
            if answer.status_code != 202:
                break
        assert (429, True) == (answer.status_code, "stored_mib" in answer.text)
        assert 22 <= number <= 25
        refused = client.post("/execute/batch", json=[body]).json()
        assert (429, True) == (refused["status"], "stored_mib" in refused["detail"])
        body["labels"] = {"number": "0"}
        assert 200 == client.post("/execute", json=body, headers={"Idempotency-Key": "0"}).status_code


def test_what_counts_is_what_is_stored(limited: Stack) -> None:
    """QUO-11: after tasks, files and deletions of all sorts the count is what the tables hold."""
    with client_of(limited, "sum", stored_mib=8) as client:
        bodies = [task("print('é' * n)\nopen('artifacts/a', 'w').write('a' * n)\nresult = n".replace("n", str(n)))
                  for n in (1, 1000)]  # fmt: skip
        ids = [client.post("/execute?wait=60", json=body).json()["task_id"] for body in bodies]
        batch = client.post("/execute/batch", json=[task("result = 1"), task("1 / 0")]).json()["tasks"]
        ids += [one["task"]["task_id"] for one in batch]
        assert {"succeeded", "failed"} == {client.get(f"/task/{one}?wait=60").json()["status"] for one in ids}
        kept = client.post("/files", content=bytes(5000)).json()["file_id"]
        gone = client.post("/files", content=bytes(7000)).json()["file_id"]
        client.delete(f"/files/{gone}")
        client.delete(f"/task/{ids[1]}/artifacts")
        stored_bytes = client.get("/files").json()["stored_bytes"]
        assert (True, really_stored(limited, "sum")) == (stored_bytes > 4 * 1024 + 5000, stored_bytes)
        ask(limited.environ["DATABASE_URL"], "DELETE FROM tasks WHERE tenant = 'sum'")
        assert 5000 == client.get("/files").json()["stored_bytes"]
        client.delete(f"/files/{kept}")
        assert 0 == client.get("/files").json()["stored_bytes"]


def test_requests_at_once_store_no_more_than_one_after_the_other(limited: Stack) -> None:
    """QUO-09: what is asked and what is then stored is one matter, for files, large tasks and artifacts alike."""
    big = task("result = 1")
    big["parameters"]["args"] = "x" * MIB
    with client_of(limited, "race", stored_mib=2) as client, ThreadPoolExecutor(8) as at_once:
        sent = [at_once.submit(client.post, "/execute", json=big) for _ in range(4)]
        sent += [at_once.submit(client.post, "/files", content=bytes(MIB)) for _ in range(4)]
        answers = Counter(one.result().status_code for one in sent)
        assert client.get("/files").json()["stored_bytes"] <= 2 * MIB
        assert (answers[429], 0) == (8 - answers[201] - answers[202], answers[503])
    leaves = task("open('artifacts/a', 'wb').write(bytes(1 << 20))")
    with client_of(limited, "race2", stored_mib=3) as client, ThreadPoolExecutor(8) as at_once:
        sent = [at_once.submit(client.post, "/execute?wait=60", json=leaves) for _ in range(6)]
        kept = [len(one.result().json()["artifacts"]) for one in sent]
        assert (2, 2 * MIB) == (
            sum(kept),
            client.get("/files").json()["stored_bytes"] // MIB * MIB,
        )  # six tasks besides


def test_artifact_without_room_is_named_as_refused(limited: Stack) -> None:
    """QUO-03: the task ends as it would otherwise, and what fits is kept."""
    script = "import os\nfor n, mib in (('a', 1), ('b', 2), ('c', 1)):\n"
    script += "    open('artifacts/' + n, 'wb').write(os.urandom(mib << 20))\nresult = 1"
    with client_of(limited, "d", stored_mib=4) as client:
        client.post("/files", content=os.urandom(MIB))
        answer = client.post("/execute", json=task(script), params={"wait": 60}).json()
        assert "succeeded" == answer["status"]
        assert ["a", "c"] == [one["name"] for one in answer["artifacts"]]
        [refused] = answer["artifacts_refused"]
        assert ("b", True) == (refused["name"], "stored_mib" in refused["reason"])
        stored_bytes = client.get("/files").json()["stored_bytes"]
        assert (3, really_stored(limited, "d")) == (stored_bytes // MIB, stored_bytes)


def test_deleted_artifact_makes_room_and_stays_on_record(limited: Stack) -> None:
    """QUO-06: its tenant alone can delete it; then it is 410, and the task's answer still names it."""
    script = "import os\nos.mkdir('artifacts/x')\n"
    script += "for n in ('a', 'x/b'):\n    open('artifacts/' + n, 'wb').write(b'0' * (1 << 20))\nresult = 1"
    with client_of(limited, "g", stored_mib=3) as client, client_of(limited, "h") as other:
        ended = client.post("/execute", json=task(script), params={"wait": 60}).json()
        path = f"/task/{ended['task_id']}/artifacts"
        for url in (f"{path}/a", path):
            assert 404 == other.delete(url).status_code
        assert [404, 204, 410, 410, 200] == [
            client.delete(f"{path}/none").status_code,
            client.delete(f"{path}/a").status_code,
            client.delete(f"{path}/a").status_code,
            client.get(f"{path}/a").status_code,
            client.get(f"{path}/x/b").status_code,
        ]
        assert really_stored(limited, "g") == client.get("/files").json()["stored_bytes"]
        assert [204, 204, 410] == [
            client.delete(path).status_code, client.delete(path).status_code, client.get(f"{path}/x/b").status_code
        ]  # fmt: skip
        assert really_stored(limited, "g") == client.get("/files").json()["stored_bytes"]
        assert ended == client.get(f"/task/{ended['task_id']}").json()


def test_key_that_only_reads_deletes_nothing(limited: Stack) -> None:
    """QUO-07: deleting needs the scope that made the task; who deleted what stands in the audit log."""
    made = make_key("i", (Scope.READ,))
    add_key(limited.folder / "keys.toml", made)
    with client_of(limited, "i") as client:
        script = "open('artifacts/a', 'w').write('a')\nresult = 1"
        task_id = client.post("/execute", json=task(script), params={"wait": 60}).json()["task_id"]
        path, reader = f"/task/{task_id}/artifacts", {"Authorization": f"Bearer {made.text}"}
        until(lambda: client.get(f"{path}/a", headers=reader).status_code == 200, "the key holds")
        assert [403, 403] == [client.delete(url, headers=reader).status_code for url in (path, f"{path}/a")]
        request_id = f"deleting-{task_id}"
        assert 204 == client.delete(f"{path}/a", headers={"X-Request-ID": request_id}).status_code
    log = (limited.folder / "api.log").read_text()
    [entry] = [line for line in log.splitlines() if '"stored bytes deleted"' in line and request_id in line]
    assert {task_id, '"name": "a"'} <= {part for part in (task_id, '"name": "a"') if part in entry}


def test_files_of_a_minute_count_also_when_they_were_deleted(limited: Stack) -> None:
    """QUO-04: 429 with the name of the quota and Retry-After; deleting does not make a faster client."""
    with client_of(limited, "e", files_per_minute=4) as client:
        for _ in range(4):
            kept = client.post("/files", content=b"x").json()
            assert 204 == client.delete(f"/files/{kept['file_id']}").status_code
        refused = client.post("/files", content=b"x")
        assert (429, True) == (refused.status_code, "files_per_minute" in refused.json()["detail"])
        assert 1 <= int(refused.headers["Retry-After"]) <= 60


def test_file_that_a_task_waits_for_is_not_deleted(limited: Stack) -> None:
    """409 while the task runs, 204 after its end."""
    with client_of(limited, "f") as client:
        kept = client.post("/files", content=b"x").json()
        held = Held("hold()\nresult = open('inputs/a').read()")
        body = task(held.script)
        body["parameters"]["inputs"] = {"a": {"file_id": kept["file_id"]}}
        task_id = client.post("/execute", json=body).json()["task_id"]
        assert 409 == client.delete(f"/files/{kept['file_id']}").status_code
        held.tell()
        assert "x" == client.get(f"/task/{task_id}", params={"wait": 60}).json()["result"]
        assert 204 == client.delete(f"/files/{kept['file_id']}").status_code


@pytest.mark.parametrize(
    ("environ", "named"),
    [({"DATABASE_MAX_MIB": "16"}, "DATABASE_MAX_MIB"), ({"DATABASE_FREE_MIB": str(1 << 40)}, "DATABASE_FREE_MIB")],
    ids=["size", "disk"],
)
def test_database_that_is_almost_full_is_refused_before_it_stops(
    tmp_path: Path, environ: dict[str, str], named: str
) -> None:
    """QUO-05: 507 for tasks and files, health says why, and a task that was accepted before still ends."""
    stack = Stack(tmp_path, DATABASE_FREE_MIB="0")
    try:
        worker = stack.worker()
        held = Held("hold()\nresult = 1")
        task_id = stack.submit(held.script)["task_id"]
        if "DATABASE_MAX_MIB" in environ:
            assert 201 == stack.client.post("/files", content=os.urandom(20 * MIB)).status_code
        stack.api.stop()
        stack.api = stack.start("api", **environ)

        def is_full() -> bool:
            try:
                return stack.client.get("/health").status_code == 503
            except httpx.TransportError:
                return False

        until(is_full, "it is seen")
        until(lambda: any(named in one for one in stack.client.get("/health").json()["reasons"]), "it is said")
        assert 507 == stack.client.post("/execute", json=task("1")).status_code
        assert 507 == stack.client.post("/files", content=b"x").status_code
        held.tell()
        assert ("succeeded", 1) == (stack.get(task_id, wait_s=30)["status"], stack.get(task_id)["result"])
        assert worker.process.poll() is None
    finally:
        stack.close()

"""Files in and out through HTTP: uploads, inputs below FILES_DIR, artifacts."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import httpx
import pytest

from tests.support.stack import ROOT, task


def run(client: httpx.Client, script: str, **more: Any) -> dict[str, Any]:
    """Run a script and give the whole answer."""
    body = task(script)
    body["parameters"] |= more.pop("parameters", {})
    response = client.post("/execute", params={"wait": 60}, json=body | more)
    assert 200 == response.status_code, response.text
    return dict(response.json())


def test_an_uploaded_file_reaches_the_task_that_names_it(client: httpx.Client) -> None:
    """Byte for byte, whatever bytes they are."""
    content = os.urandom(3 << 20)
    kept = client.post("/files", params={"name": "räw.bin"}, content=content)
    assert 201 == kept.status_code, kept.text
    facts = kept.json()
    assert ("räw.bin", len(content), hashlib.sha256(content).hexdigest()) == (
        facts["name"],
        facts["size_bytes"],
        facts["sha256"],
    )
    script = "import hashlib\nresult = hashlib.sha256(open('inputs/a.bin', 'rb').read()).hexdigest()"
    answer = run(client, script, parameters={"inputs": {"a.bin": {"file_id": facts["file_id"]}}})
    assert facts["sha256"] == answer["result"]


def test_a_multipart_upload_keeps_the_file_in_it(client: httpx.Client) -> None:
    """As browsers and n8n send it."""
    kept = client.post("/files", files={"data": ("report.csv", b"x,y\n1,2\n", "text/csv")})
    assert 201 == kept.status_code, kept.text
    assert ("report.csv", "text/csv", 8) == tuple(kept.json()[name] for name in ("name", "media_type", "size_bytes"))


@pytest.mark.parametrize("count", [0, 2])
def test_a_multipart_upload_without_exactly_one_file_is_refused(client: httpx.Client, count: int) -> None:
    """Nothing is guessed."""
    files: list[tuple[str, Any]] = [("data", (f"{index}.txt", b"x", "text/plain")) for index in range(count)]
    files = files or [("data", (None, b"text"))]
    refused = client.post("/files", files=files)
    assert 400 == refused.status_code, refused.text
    assert f"it has {count}" in refused.json()["detail"]


def test_a_task_that_names_an_unknown_file_is_refused(client: httpx.Client) -> None:
    """At once, not when it runs."""
    body = task("result = 1")
    body["parameters"]["inputs"] = {"a": {"file_id": "file_" + "0" * 32}}
    refused = client.post("/execute", json=body)
    assert 400 == refused.status_code
    assert "never uploaded here, or has expired" in refused.json()["detail"]


def test_inline_input_files_reach_the_script(client: httpx.Client) -> None:
    """As text and as base64."""
    inputs = {"a.txt": {"text": "grüße"}, "b.bin": {"base64": "AAH/"}}
    script = "result = [open('inputs/a.txt', encoding='utf-8').read(), list(open('inputs/b.bin', 'rb').read())]"
    assert ["grüße", [0, 1, 255]] == run(client, script, parameters={"inputs": inputs})["result"]


@pytest.mark.parametrize(
    "name",
    ["report (1).csv", "résumé.csv", "日本語.txt", "a'b\"c;d&e.csv", "100%.csv", "#1, [2] {3} = $4!.txt", "📈.csv",
     "a b", "م.csv", "x" * 255, "é" * 127],
)  # fmt: skip
def test_an_input_has_any_name_that_a_browser_gives(client: httpx.Client, name: str) -> None:
    """The script finds the file under it, and no other file."""
    script = "import os\nresult = [os.listdir('inputs'), open('inputs/' + args).read()]"
    answer = run(client, script, parameters={"inputs": {name: {"text": "x"}}, "args": name})
    assert [[name], "x"] == answer["result"]


def test_an_input_name_of_too_many_bytes_is_refused(client: httpx.Client) -> None:
    """A file system counts bytes, not characters."""
    body = task("result = 1")
    body["parameters"]["inputs"] = {"é" * 128: {"text": "x"}}
    refused = client.post("/execute", json=body)
    assert (400, True) == (refused.status_code, "255 bytes" in refused.text)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../b", "a/..", "a/.", "./a", "/a", "a/", "a//b", "a/.b", "a/-b", "a/ b", "a/b\u202ec", "a/b\n",
     "a\\b/c", "/".join("a" * 257), "a/" + "x" * 256, ".hidden", "-x", "a\u0000", "", "..", "a\\b", " a", "a\n",
     "a\nb", "a\u001b[31m", "a\u007f", "a\u0085b", "a\u202egpj.exe", "a\u2066b", "a\u200fb", "a\u200bb", "\ufeffa",
     "a\u2028b", "x" * 256],
)  # fmt: skip
def test_an_input_name_that_leaves_its_folder_is_refused(client: httpx.Client, name: str) -> None:
    """By its form, before anything opens it."""
    body = task("result = 1")
    body["parameters"]["inputs"] = {name: {"text": "x"}}
    refused = client.post("/execute", json=body)
    assert 400 == refused.status_code, refused.text
    assert "parameters.inputs" in refused.json()["errors"][0]["path"]


def test_an_artifact_can_be_fetched(client: httpx.Client) -> None:
    """As bytes to be saved, never as a page to be shown."""
    answer = run(client, "open('artifacts/page 1.html', 'w').write('<script>alert(1)</script>')\nresult = 1")
    (facts,) = answer["artifacts"]
    assert ("page 1.html", 25) == (facts["name"], facts["size_bytes"])
    fetched = client.get(f"/task/{answer['task_id']}/artifacts/page%201.html")
    assert (200, b"<script>alert(1)</script>") == (fetched.status_code, fetched.content)
    assert "application/octet-stream" == fetched.headers["content-type"]
    assert (
        "attachment; filename=\"page 1.html\"; filename*=UTF-8''page%201.html" == fetched.headers["content-disposition"]
    )
    assert "nosniff" == fetched.headers["x-content-type-options"]
    assert facts["sha256"] == hashlib.sha256(fetched.content).hexdigest()


@pytest.mark.parametrize("name", ["missing", "..%2f..%2fetc%2fpasswd", "%00"])
def test_an_artifact_that_is_not_there_is_a_404(client: httpx.Client, name: str) -> None:
    """Whatever the name looks like."""
    answer = run(client, "open('artifacts/a', 'w').write('x')\nresult = 1")
    assert 404 == client.get(f"/task/{answer['task_id']}/artifacts/{name}").status_code


def test_refused_artifacts_are_named(client: httpx.Client) -> None:
    """A link that the run left is not followed, and the answer says so."""
    answer = run(client, "import os\nos.symlink('/app/handlers/entry.py', 'artifacts/link')\nresult = 1")
    assert [] == answer["artifacts"]
    assert ["link"] == [refused["name"] for refused in answer["artifacts_refused"]]


def test_a_task_may_name_its_policy(client: httpx.Client) -> None:
    """One of its task type."""
    assert "custom_script" == run(client, "result = 1", policy="custom_script")["policy"]


@pytest.mark.parametrize("policy", ["data_processing", "no_such", "", "../custom_script"])
def test_a_policy_of_another_task_type_is_refused(client: httpx.Client, policy: str) -> None:
    """With the names of those that there are."""
    refused = client.post("/execute", json=task("result = 1") | {"policy": policy})
    assert 400 == refused.status_code
    assert "$.policy" == refused.json()["errors"][0]["path"]
    assert "custom_script" in refused.json()["detail"]


def test_equal_artifacts_of_two_tasks_are_two(client: httpx.Client) -> None:
    """Nothing is shared by content: neither its id nor its time tells that somebody else has the same bytes."""
    script = "open('artifacts/a', 'wb').write(bytes(1000))\nresult = 1"
    first, second = run(client, script), run(client, script)
    for answer in (first, second):
        assert 200 == client.get(f"/task/{answer['task_id']}/artifacts/a").status_code
    assert first["task_id"] != second["task_id"]


def test_named_scripts_are_listed_with_what_they_take(client: httpx.Client) -> None:
    """By parsing them: none is run."""
    listed = {script["name"]: script for script in client.get("/scripts").json()["scripts"]}
    assert {"data_analysis.py", "ml_inference.py", "web_scraper.py"} <= set(listed)
    for name, script in listed.items():
        assert hashlib.sha256((ROOT / "scripts" / name).read_bytes()).hexdigest() == script["sha256"]
        assert script["description"].endswith((".", "network."))
        assert "object" == script["args"]["type"]


def test_a_large_artifact_is_sent_in_parts_and_known_again(client: httpx.Client) -> None:
    """Many MiB arrive whole, with their length; who has it already is told so."""
    script = "open('artifacts/large', 'wb').write(bytes(range(256)) * 4096 * 9 + b'end')"
    task = client.post("/execute", params={"wait": 30}, json=_script(script)).json()
    (artifact,) = task["artifacts"]
    path = f"/task/{task['task_id']}/artifacts/large"
    answer = client.get(path)
    assert bytes(range(256)) * 4096 * 9 + b"end" == answer.content
    assert (str(9 * (1 << 20) + 3), f'"{artifact["sha256"]}"') == (
        answer.headers["content-length"],
        answer.headers["etag"],
    )
    again = client.get(path, headers={"If-None-Match": f'"other", {answer.headers["etag"]}'})
    assert (304, b"") == (again.status_code, again.content)
    assert 200 == client.get(path, headers={"If-None-Match": '"other"'}).status_code


def test_a_large_upload_arrives_whole(client: httpx.Client) -> None:
    """Beyond what is kept in memory while it arrives, with and without a length."""
    content = bytes(range(256)) * 4096 * 5
    sha256 = hashlib.sha256(content).hexdigest()
    assert sha256 == client.post("/files", content=content).json()["sha256"]
    parts = (content[start : start + 70_000] for start in range(0, len(content), 70_000))
    assert sha256 == client.post("/files", content=parts).json()["sha256"]
    assert sha256 == client.post("/files", files={"file": ("x", content)}).json()["sha256"]


def test_an_upload_beyond_the_limit_is_413(client: httpx.Client) -> None:
    """Whether or not it says its length; nothing is kept."""
    part = bytes(1 << 20)
    assert 413 == client.post("/files", content=(part for _ in range(66))).status_code
    assert 413 == client.post("/files", content=part * 65).status_code


def _script(script: str) -> dict[str, object]:
    return {"task_type": "custom_script", "parameters": {"script": script}}


def test_an_upload_is_found_under_every_name_that_was_asked_for(client: httpx.Client) -> None:
    """Twice, once, and under its own id; a large one fits although the workspace could not hold it twice."""
    file_id = client.post("/files", content=b"x" * (40 << 20)).json()["file_id"]
    script = "import os; result = {name: os.path.getsize(f'inputs/{name}') for name in sorted(os.listdir('inputs'))}"
    body = _script(script) | {"parameters": {"script": script, "inputs": {"a": {"file_id": file_id}}}}
    assert {"a": 40 << 20} == client.post("/execute", params={"wait": 30}, json=body).json()["result"]
    small = client.post("/files", content=b"abc").json()["file_id"]
    names = {name: {"file_id": small} for name in ("a", "b", small)}
    body = _script(script) | {"parameters": {"script": script, "inputs": names}}
    assert dict.fromkeys(names, 3) == client.post("/execute", params={"wait": 30}, json=body).json()["result"]

"""The console's files, and the sessions by which a browser gets in: what they open, and what ends them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.api.console.files import FOLDER
from engine.config.keys import NewKey, add_key, make_key, remove_key
from engine.model.principal import Scope
from tests.support.stack import Stack, ask, locked, until

FILES = sorted(path.name for path in FOLDER.iterdir())
BROWSER = {"accept": "text/html,application/xhtml+xml"}
OWN_PAGE = {"sec-fetch-site": "same-origin"}


class Keyed:
    """An API with keys, and browsers that sign in with them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.toml"
        self.admin = self.key(*Scope)
        self.stack = Stack(folder, headers={"x-api-key": self.admin.text}, API_KEYS_FILE=str(self.path))
        self.url = str(self.stack.client.base_url)

    def key(self, *scopes: Scope, **more: Any) -> NewKey:
        made = make_key("acme", scopes, **more)
        add_key(self.path, made)
        return made

    def new_key(self, *scopes: Scope) -> NewKey:
        """One that the API has taken up."""
        made = self.key(*scopes)
        until(lambda: httpx.get(f"{self.url}/session", headers={"x-api-key": made.text}).is_success, "the key holds")
        return made

    @contextlib.contextmanager
    def browser(self, key: NewKey) -> Iterator[httpx.Client]:
        """Signed in; its further requests name no key, and those that change something have the token."""
        with httpx.Client(base_url=self.url, headers=OWN_PAGE, timeout=60) as found:
            answer = found.post("/session", headers={"authorization": f"Bearer {key.text}"})
            assert 201 == answer.status_code, answer.text
            found.headers["x-csrf-token"] = answer.json()["csrf_token"]
            yield found


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    found = Keyed(tmp_path_factory.mktemp("console"))
    yield found
    found.stack.close()


# ---- files


def test_the_page_is_for_browsers_and_programs_get_a_pointer(keyed: Keyed) -> None:
    """Without a key: neither says anything about what is in the service."""
    page = httpx.get(keyed.url, headers=BROWSER)
    assert (200, "text/html; charset=utf-8") == (page.status_code, page.headers["content-type"])
    pointer = httpx.get(keyed.url)
    assert "/openapi.json" == pointer.json()["interface"]
    assert "accept" == pointer.headers["vary"]


@pytest.mark.parametrize("path", ["/", *(f"/console/{name}" for name in FILES)])
def test_a_file_is_guarded_by_its_headers(keyed: Keyed, path: str) -> None:
    """No script and no style but its own files', no frame around it, no guess at its type."""
    answer = httpx.get(f"{keyed.url}{path}", headers=BROWSER)
    policy = answer.headers["content-security-policy"]
    assert 200 == answer.status_code
    assert "unsafe" not in policy
    for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'",
                 "require-trusted-types-for 'script'", "trusted-types 'none'"):  # fmt: skip
        assert part in policy.split("; ")
    assert ("nosniff", "no-store") == tuple(
        answer.headers[name] for name in ("x-content-type-options", "cache-control")
    )
    assert "" == httpx.head(f"{keyed.url}{path}", headers=BROWSER).text


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_no_other_host_and_no_way_from_text_to_code(name: str) -> None:
    """It works offline; what a task wrote becomes text only."""
    text = (FOLDER / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert [] == re.findall(r"(?:https?:)?//[\w-]+\.\w+", text)
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|javascript:"
    assert [] == re.findall(rf"{sinks}| on\w+=| style=", text)


def test_the_page_loads_files_that_there_are() -> None:
    """By its own tags, and by the imports of its modules."""
    page = (FOLDER / "index.html").read_text()
    assert set(re.findall(r'"/console/([^"]+)"', page)) <= set(FILES)
    for name in FILES:
        assert set(re.findall(r'from "\./([^"]+)"', (FOLDER / name).read_text())) <= set(FILES)


def test_other_paths_and_methods_are_refused(keyed: Keyed) -> None:
    """Nothing beside the files: no path leads out of their folder."""
    for path in ("/console/nothing.js", "/console/", "/console/../files.py", "/console/%2e%2e/files.py"):
        assert 404 == keyed.stack.client.get(path).status_code, path
    answer = keyed.stack.client.post("/console/main.js")
    assert (405, "GET, HEAD") == (answer.status_code, answer.headers["allow"])


# ---- what only a database of one's own shows


def test_grant_of_an_older_file_is_compared_with_the_grant_now(keyed: Keyed) -> None:
    """A policy that had less time, and more open files: what was granted since is looser, what was taken is tighter."""
    dsn = keyed.stack.environ["DATABASE_URL"]
    until(lambda: ask(dsn, "SELECT FROM policy_files"), "the files in force are kept")
    text = "replace(replace(content, 'wall_s = 60', 'wall_s = 5'), 'open_files = 128', 'open_files = 256')"
    ask(dsn, f"INSERT INTO policy_files SELECT 'sha256:old', name, {text} FROM policy_files RETURNING 1")
    answer = keyed.stack.client.get("/policies/custom_script/diff", params={"since": "sha256:old"})
    found = {change["key"]: change["direction"] for change in answer.json()["changes"]}
    assert {"limits.wall_s": "looser", "limits.open_files": "tighter"} == found, answer.text
    [policy] = keyed.stack.client.get("/policies").json()["policies"]
    assert ("no lock", None) == (policy["lock"], policy["locked_digest"])


# ---- sessions


def test_a_session_opens_what_its_key_opens(keyed: Keyed) -> None:
    """The calls, the documentation and the stream of events, by the cookie alone."""
    with keyed.browser(keyed.admin) as browser:
        said = browser.get("/session").json()
        assert ("acme", keyed.admin.key_id) == (said["tenant"], said["key_id"])
        for path in ("/tasks", "/docs", "/openapi.json", "/policies"):
            assert 200 == browser.get(path).status_code, path
        made = browser.post("/execute", json={"task_type": "custom_script", "parameters": {"script": "result = 1"}})
        assert 202 == made.status_code
        with browser.stream("GET", f"/task/{made.json()['task_id']}/events") as events:
            assert 200 == events.status_code
        assert "cancelled" == browser.delete(f"/task/{made.json()['task_id']}").json()["status"]


def test_the_cookie_is_kept_from_scripts_and_other_sites(keyed: Keyed) -> None:
    """HttpOnly, SameSite=Strict, with an end; over HTTPS also Secure, under a name that no other host can set."""
    bearer = {"authorization": f"Bearer {keyed.admin.text}"}
    plain = httpx.post(f"{keyed.url}/session", headers=bearer).headers["set-cookie"]
    assert ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"] == plain.split("; ")[1:]
    behind_tls = bearer | {"x-forwarded-proto": "https"}
    secure = httpx.post(f"{keyed.url}/session", headers=behind_tls).headers["set-cookie"]
    assert secure.startswith("__Host-unityai_session=")
    assert secure.endswith("; Secure")


def test_a_session_opens_no_more_than_its_key(keyed: Keyed) -> None:
    """A scope that the key lacks is refused, under the key's id."""
    key = keyed.new_key(Scope.READ)
    with keyed.browser(key) as browser:
        assert 200 == browser.get("/tasks").status_code
        for method, path in (("POST", "/execute"), ("GET", "/health"), ("GET", "/metrics"), ("POST", "/files")):
            answer = browser.request(method, path, json={})
            assert 403 == answer.status_code, path
            assert key.key_id in answer.json()["detail"]


@pytest.mark.parametrize("token", [None, "", "0" * 64, "another"])
def test_a_change_without_the_token_is_refused(keyed: Keyed, token: str | None) -> None:
    """CSRF: a form or a script of another page has the cookie, perhaps, and never the token; reading needs none."""
    with keyed.browser(keyed.admin) as browser, keyed.browser(keyed.admin) as other:
        own = browser.headers.pop("x-csrf-token")
        given = (
            {} if token is None else {"x-csrf-token": other.headers["x-csrf-token"] if token == "another" else token}
        )
        for method, path in (("POST", "/execute"), ("POST", "/files"), ("DELETE", "/session"), ("DELETE", "/files/x")):
            assert 403 == browser.request(method, path, headers=given, json={}).status_code, path
        assert 200 == browser.get("/tasks").status_code
        assert 404 == browser.delete("/files/x", headers={"x-csrf-token": own}).status_code


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_has_no_session(keyed: Keyed, site: str) -> None:
    """Not even with the cookie, which a page of another port of this host sends along, and not with the token."""
    with keyed.browser(keyed.admin) as browser:
        assert 401 == browser.get("/tasks", headers={"sec-fetch-site": site}).status_code
        assert 401 == browser.post("/execute", headers={"sec-fetch-site": site}, json={}).status_code
        assert 200 == browser.get("/docs", headers={"sec-fetch-site": "none"}).status_code


def test_no_client_chooses_a_session(keyed: Keyed) -> None:
    """Fixation: an id that somebody planted is not taken over; signing in again ends the session before."""
    planted = "A" * 43
    bearer = {"authorization": f"Bearer {keyed.admin.text}"}
    answer = httpx.post(f"{keyed.url}/session", headers=bearer | {"cookie": f"unityai_session={planted}"})
    first = answer.cookies["unityai_session"]
    assert planted != first
    again = httpx.post(f"{keyed.url}/session", headers=bearer | {"cookie": f"unityai_session={first}"})
    second = again.cookies["unityai_session"]
    found = [httpx.get(f"{keyed.url}/tasks", headers={"cookie": f"unityai_session={each}"}).status_code
             for each in (planted, first, second)]  # fmt: skip
    assert [401, 401, 200] == found


def test_a_session_is_looked_up_for_calls_that_ask_for_a_key_only(keyed: Keyed) -> None:
    """ENG-06: while nobody can look a session up, a cookie that may be one delays no public call and no refusal."""
    dsn = keyed.stack.environ["DATABASE_URL"]
    cookie, no_cookie = ({"cookie": f"unityai_session={value}"} for value in ("a" * 43, "a" * 5000))
    with locked(dsn, "sessions"), httpx.Client(base_url=keyed.url, headers=OWN_PAGE) as client:
        assert 200 == client.get("/health/live", headers=cookie).status_code
        assert "no worker" in client.get("/health/ready", headers=cookie).text
        assert 404 == client.get("/no-such-path", headers=cookie).status_code
        assert 405 == client.delete("/tasks", headers=cookie).status_code
        assert 401 == client.get("/tasks", headers=no_cookie).status_code
        assert 503 == client.get("/tasks", headers=cookie).status_code
    assert 401 == httpx.get(f"{keyed.url}/tasks", headers=OWN_PAGE | cookie).status_code


def test_a_cookie_that_stands_twice_is_none(keyed: Keyed) -> None:
    """Whoever can set a second one does not decide which counts."""
    with keyed.browser(keyed.admin) as browser:
        own = browser.cookies["unityai_session"]
    for text in (
        f"unityai_session={own}; unityai_session={own}",
        f"unityai_session={own}; __Host-unityai_session={own}",
    ):
        assert 401 == httpx.get(f"{keyed.url}/tasks", headers={"cookie": text}).status_code


def test_a_key_in_the_request_decides(keyed: Keyed) -> None:
    """A wrong one is refused, whatever the cookie says; and a session makes no further session."""
    with keyed.browser(keyed.admin) as browser:
        assert 401 == browser.get("/tasks", headers={"x-api-key": "uak_wrong"}).status_code
        assert 400 == browser.post("/session").status_code


def test_signing_out_ends_the_session(keyed: Keyed) -> None:
    """In the service, not only in the browser."""
    with keyed.browser(keyed.admin) as browser:
        own = browser.cookies["unityai_session"]
        assert 204 == browser.delete("/session").status_code
        assert {} == dict(browser.cookies)
    assert 401 == httpx.get(f"{keyed.url}/tasks", headers={"cookie": f"unityai_session={own}"}).status_code


def test_a_session_ends_with_its_key(keyed: Keyed) -> None:
    """Revoked; another secret under the same id is no help."""
    key, other = keyed.new_key(Scope.READ), keyed.new_key(Scope.READ)
    with keyed.browser(key) as browser, keyed.browser(other) as replaced:
        remove_key(keyed.path, key.key_id)
        text = keyed.path.read_text()
        keyed.path.write_text(text.replace(other.key.sha256, "0" * 64))
        until(lambda: browser.get("/tasks").status_code == 401, "the session of a revoked key has ended")
        until(lambda: replaced.get("/tasks").status_code == 401, "the session of a replaced key has ended")
    remove_key(keyed.path, other.key_id)


def test_a_session_ends_by_itself(keyed: Keyed) -> None:
    """After its time; and nobody who reads the database has its id."""
    with keyed.browser(keyed.admin) as browser:
        own = browser.cookies["unityai_session"]
        rows = ask(keyed.stack.environ["DATABASE_URL"], "SELECT session_sha256 FROM sessions")
        assert own not in {row["session_sha256"] for row in rows}
        ask(keyed.stack.environ["DATABASE_URL"], "UPDATE sessions SET expires_at = now()")
        assert 401 == browser.get("/tasks").status_code


def test_a_wrong_key_makes_no_session(keyed: Keyed) -> None:
    """Nor does none."""
    for headers in ({}, {"authorization": "Bearer uak_wrong"}, {"x-api-key": f"{keyed.admin.text}x"}):
        answer = httpx.post(f"{keyed.url}/session", headers=headers)
        assert (401, False) == (answer.status_code, "set-cookie" in answer.headers)


def test_a_service_without_keys_needs_no_session(client: httpx.Client) -> None:
    """It says who asks, and refuses to make one, because nothing would be closed without it."""
    said = client.get("/session").json()
    assert (None, None, "default") == (said["key_id"], said["csrf_token"], said["tenant"])
    assert 400 == client.post("/session").status_code

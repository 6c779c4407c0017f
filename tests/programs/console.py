"""The console in headless Chromium: ``python -m tests.programs.console`` (make console-test).

A person's way through every view of a keyed service, at the width of a desk and of a phone, in light and dark. It fails
for a request to any other host, a breach of the Content-Security-Policy, an error of a script, a dialog (which only an
injected script would open), a serious finding of axe-core, or a page that is wider than its window. The screenshots
are kept: look at them.

Needs Debian's ``chromium`` (``CHROMIUM`` names another), and what ``make console-test`` installs.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.config.keys import NewKey
from tests.programs.console_service import Tried, keyed_service
from tests.support.stack import until

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
EXPECTED_REFUSALS = ("status of 401", "status of 404", "status of 400", "status of 503", "ERR_FAILED")
"""What the browser itself notes of refusals that the way meets on purpose, and of a service that is away."""
PLANTED = "img[src='x'], b[onclick], i[onmouseover], script:not([src])"
"""Elements that are in the page only if a text of a script became HTML."""


def main(only: list[str]) -> int:
    """Go through everything, or what is named (``390-dark``); the exit code."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("chromium is missing: apt-get install chromium, or name one by CHROMIUM", file=sys.stderr)
        return 1
    folder = Path(os.environ.get("SCREENSHOTS") or tempfile.mkdtemp(prefix="console-"))
    folder.mkdir(exist_ok=True, parents=True)
    faults: list[str] = []
    with keyed_service() as tried:
        for width in WIDTHS:
            for scheme in SCHEMES:
                if not only or f"{width}-{scheme}" in only:
                    faults += Visit(tried, folder, f"{width}-{scheme}").go(chromium, width, scheme)
    print(*faults, f"{len(faults)} faults; screenshots in {folder}", sep="\n")
    return 1 if faults else 0


class Visit:
    """One person's way, at one width and in one scheme."""

    def __init__(self, tried: Tried, folder: Path, name: str) -> None:
        self._tried, self._folder, self._name = tried, folder, name
        self._url = tried.url
        self._faults: list[str] = []
        self._page: Any = None

    def go(self, chromium: str, width: int, scheme: str) -> list[str]:
        """Every view, in a browser of its own; what is wrong."""
        from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415  only this program needs it

        ways = (
            self._sign_in, self._see_tasks, self._see_a_task, self._find_tasks, self._run_again, self._run_a_script,
            self._meet_a_fault, self._cancel, self._fill_forms, self._see_policies, self._see_operations,
            self._audit, self._use_the_keyboard, self._meet_an_absent_service, self._sign_out, self._come_with_less,
        )  # fmt: skip
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self._url)
            self._page = context.new_page()
            self._page.set_default_timeout(30_000)
            self._listen()
            for way in ways:
                try:
                    way()
                except (Error, AssertionError) as error:
                    self._faults.append(f"{way.__name__.strip('_')} ends here: {error}")
                    self._page.screenshot(path=self._folder / f"fault-{way.__name__.strip('_')}-{self._name}.png")
            browser.close()
        return [f"{self._name}: {fault}" for fault in dict.fromkeys(self._faults)]

    # ---- what must never happen

    def _listen(self) -> None:
        self._page.on("pageerror", lambda error: self._faults.append(f"error of a script: {error}"))
        self._page.on("console", self._note)
        self._page.on("dialog", self._note_dialog)
        self._page.on("request", lambda request: self._check_host(request.url))

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(one in message.text for one in EXPECTED_REFUSALS):
            self._faults.append(f"console: {message.text}")

    def _note_dialog(self, dialog: Any) -> None:
        self._faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _check_host(self, url: str) -> None:
        if not url.startswith((self._url, f"blob:{self._url}", "about:")):
            self._faults.append(f"request to another host: {url}")

    # ---- the way

    def _sign_in(self, key: NewKey | None = None) -> None:
        self._open("", "input[type=password]", "door" if key is None else None)
        self._page.fill("input[type=password]", "uak_wrong")
        self._page.click("button.main")
        self._page.wait_for_selector(".fault")
        self._page.fill("input[type=password]", (key or self._tried.key).text)
        self._page.click("button.main")
        self._page.wait_for_selector("table tbody tr")

    def _see_tasks(self) -> None:
        self._look("tasks")
        for name, task_id in self._tried.tasks.items():
            self._open(f"#/tasks/{task_id}", "h2:has-text('Who submitted it')", name)
        self._open("#/tasks?label=of:nobody", ".empty", "empty")
        self._open("#/tasks/00000000-0000-0000-0000-000000000000", ".fault", "no such task")
        self._open("#/nowhere", "h1:has-text('nothing here')", "no such view")
        self._page.route("**/tasks?*", lambda _: None)  # never answered
        self._open("#/tasks", ".skeleton", "loading")
        self._page.unroute_all()

    def _see_a_task(self) -> None:
        """The picture, the chart, the marked line, and what was denied and by which key of which policy."""
        self._open(f"#/tasks/{self._tried.tasks['plot']}", "figure img")
        self._until("document.querySelector('figure img').naturalWidth > 100")
        self._page.click("th button:has-text('square')")
        self._page.click("th button:has-text('square')")
        self._expect("tbody td", str(299 * 299))
        with self._page.expect_download() as saved:
            self._page.click("button:has-text('Save as CSV')")
        assert "x,square,name" == Path(saved.value.path()).read_text().splitlines()[0]
        self._page.click("summary:has-text('As a chart')")
        self._page.wait_for_selector(".chart svg path, .chart svg rect")
        self._look("chart")
        self._open(f"#/tasks/{self._tried.tasks['error']}", "mark:has-text('return 1 / x')")
        self._open(f"#/tasks/{self._tried.tasks['denied']}", ".is-denied")
        self._expect(".is-denied", "limits.processes")
        self._expect(".is-denied", "custom_script_network would grant it")
        self._page.click("summary:has-text('What was submitted')")
        self._page.wait_for_selector("pre.source .py-keyword")
        self._look("what was submitted")
        self._open(f"#/tasks/{self._tried.tasks['callback']}", "h2:has-text('Callback')")
        self._page.click("button:has-text('Send it again')")
        self._page.wait_for_selector("text=sends it again now")
        self._page.click("h1 button.copy")
        assert self._tried.tasks["callback"] == self._page.evaluate("navigator.clipboard.readText()")

    def _find_tasks(self) -> None:
        """By id, label, key and hash; the address holds it, and the back button comes back to it."""
        error = self._tried.tasks["error"]
        self._open(f"#/tasks/{error}", "h2:has-text('Who submitted it')")
        self._page.click(f"a[href='#/tasks?key_id={self._tried.key.key_id}']")
        self._page.wait_for_selector("table tbody tr")
        self._page.go_back()
        self._page.click("a[href^='#/tasks?source_sha256=']")
        self._page.wait_for_selector(f"tbody a[href='#/tasks/{error}']")
        self._look("by hash")
        self._open("#/tasks", "table tbody tr")
        if not self._page.is_visible("input[name=task_id]"):
            self._page.click("summary:has-text('Filters')")
        self._page.fill("input[name=task_id]", error[:8])
        self._page.press("input[name=task_id]", "Enter")
        self._until("document.querySelectorAll('tbody tr').length === 1")
        self._page.click("tbody a")
        self._page.wait_for_selector("h1:has-text('Task')")
        self._page.go_back()
        self._until("document.querySelectorAll('tbody tr').length === 1")

    def _run_again(self) -> None:
        self._open(f"#/tasks/{self._tried.tasks['named']}", "button:has-text('Run it again')")
        self._page.click("button:has-text('Run it again')")
        self._until(f"!location.hash.includes('{self._tried.tasks['named']}')")
        self._page.wait_for_selector("h2:has-text('Result')")
        self._open(f"#/tasks/{self._tried.tasks['error']}", "a:has-text('Change it, then run')")
        self._page.click("a:has-text('Change it, then run')")
        self._page.wait_for_selector(".editor textarea")
        assert "return 1 / x" in self._page.input_value(".editor textarea")
        self._look("change it")
        self._open(f"#/playground?again={self._tried.tasks['hostile']}", ".drop li", "change the hostile one")
        self._open(f"#/tasks/{self._tried.tasks['hostile']}", "summary:has-text('What was submitted')")
        self._page.click("summary:has-text('What was submitted')")
        self._page.click("summary:has-text('The whole answer')")
        self._page.click("summary:has-text('As a chart')")
        self._look("all of the hostile one")

    def _run_a_script(self) -> None:
        """The example draws a picture; a long one shows its output and progress before its end; files come along."""
        self._open("#/playground", ".editor textarea", "playground")
        self._page.click("button.main")
        self._page.wait_for_selector(".stage figure img", timeout=60_000)
        self._page.wait_for_selector(".stage h2:has-text('Result')")
        self._look("ran")
        script = (
            "import time\nprint('first', open('inputs/notes.txt').read(), flush=True)\n"
            "report_progress(0.5, 'half of it')\ntime.sleep(3)\nresult = 'done'"
        )
        self._page.fill(".editor textarea >> nth=0", script)
        self._page.set_input_files(
            "input[type=file]", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"of mine"}
        )
        self._drop(".drop", "dropped.txt")
        self._page.wait_for_selector(".drop li:has-text('inputs/dropped.txt')")
        self._page.click("button.main")
        self._page.wait_for_selector(".stage pre:has-text('first of mine')")
        self._page.wait_for_selector(".stage .progress:has-text('half of it')")
        self._look("running")
        self._page.wait_for_selector(".stage h2:has-text('Result')", timeout=60_000)
        self._page.click("summary:has-text('As curl')")
        self._page.wait_for_selector("h3:has-text('JavaScript')")
        self._look("as code")

    def _meet_a_fault(self) -> None:
        """The line that raised is marked in the editor; JSON that is none is said to be none, before anything runs."""
        self._open("#/playground", ".editor textarea")
        self._page.fill(".editor textarea >> nth=0", "x = 1\nraise ValueError('mine')\n")
        self._page.click("button.main")
        self._page.wait_for_selector(".editor .gutter .bad:has-text('2')", timeout=60_000)
        self._look("marked")
        self._page.fill(
            ".editor textarea >> nth=0",
            "import os\ntry:\n    os.fork()\nexcept OSError as error:\n    result = str(error)",
        )
        self._page.click("button.main")
        self._page.wait_for_selector(".stage .is-denied:has-text('limits.processes')", timeout=60_000)
        self._page.fill(".editor textarea >> nth=1", "{not json")
        self._page.click("button.main")
        self._page.wait_for_selector(".fault:has-text('That is no JSON')")

    def _cancel(self) -> None:
        self._open("#/playground", ".editor textarea")
        self._page.fill(".editor textarea >> nth=0", "import time\nprint('begun', flush=True)\ntime.sleep(50)")
        self._page.click("button.main")
        self._page.wait_for_selector(".stage pre:has-text('begun')")
        self._page.click("button:has-text('Cancel it')")
        self._page.wait_for_selector(".stage .state.cancelled", timeout=60_000)
        self._look("cancelled")

    def _fill_forms(self) -> None:
        """A form for each task type and named script, filled with an example that runs; and the same as JSON."""
        self._open("#/playground?type=custom_script&script=data_analysis.py", "select[name=operation]", "named script")
        self._page.select_option("select[name=operation]", "statistics")
        self._page.click("button.main")
        self._page.wait_for_selector(".stage .state.succeeded", timeout=60_000)
        for task_type in ("data_processing", "ml_inference", "document_processing", "image_processing"):
            self._open(f"#/playground?type={task_type}", ".form", f"form {task_type}")
            self._page.click("button.main")
            self._page.wait_for_selector(".stage .state.succeeded", timeout=60_000)
        self._look("image made")
        self._open("#/playground?type=data_processing", ".form")
        self._page.select_option("form select >> nth=0", "group")
        self._page.wait_for_selector("[name=group_by]")
        self._page.click("button:has-text('Write it as JSON')")
        self._page.wait_for_selector(".editor textarea")
        assert '"group"' in self._page.input_value(".editor textarea")
        self._page.click("button.main")
        self._page.wait_for_selector(".stage .state.succeeded", timeout=60_000)
        self._look("group")
        self._open("#/playground?type=web_scraping", ".form", "form web_scraping")

    def _see_policies(self) -> None:
        self._open("#/policies", "table tbody tr", "policies")
        self._open("#/policies/custom_script", "h2:has-text('What it denied lately')", "policy")
        self._expect("section:has-text('Who may use it')", self._tried.key.key_id)
        self._expect("section:has-text('What it denied lately')", "limits.processes")
        self._page.select_option("section:has-text('Compared with another') select", "custom_script_network")
        self._page.wait_for_selector(".state.looser")
        self._look("difference")
        self._open("#/policies/custom_script?since=sha256:0", "h2:has-text('Since an older file')", "since")
        self._open("#/policies/nobody", ".fault")

    def _see_operations(self) -> None:
        self._open("#/operations", ".chart svg")
        self._page.wait_for_selector("h2:has-text('Dead callbacks')")
        self._expect("section:has-text('Tenants')", "globex")
        self._look("operations")

    def _audit(self) -> None:
        """Who ran this, under which grant, what was denied?"""
        self._open("#/audit", "table tbody tr", "audit")
        self._open("#/audit?denied=true&tenant=acme", "tbody .denied")
        row = self._page.inner_text(f"tr:has(a[href='#/tasks/{self._tried.tasks['denied']}'])")
        for said in (self._tried.key.key_id, "acme", "custom_script", "sha256:", "limits.processes"):
            assert said in row, (said, row)
        self._look("audit of denials")
        with self._page.expect_download() as saved:
            self._page.click("button:has-text('Export as CSV')")
        assert self._tried.tasks["denied"] in Path(saved.value.path()).read_text()
        if not self._page.is_visible("input[name=created_before]"):
            self._page.click("summary:has-text('Filters')")
        self._page.fill("input[name=created_before]", "2001-01-31T12:00")
        self._page.press("input[name=created_before]", "Enter")
        self._page.wait_for_selector(".empty")
        assert "created_before=2001-01-31T" in self._page.url, self._page.url
        self._open("#/audit/log?event=request+refused", ".line-of-log")
        self._page.click(".line-of-log summary")
        self._look("audit log")

    def _use_the_keyboard(self) -> None:
        """The skip link leads to the content; Tab indents in the editor, and leaves it after Esc."""
        self._open("#/playground", ".editor textarea")
        self._page.keyboard.press("Tab")
        self._page.keyboard.press("Enter")
        assert "main" == self._page.evaluate("document.activeElement.id")
        self._page.focus(".editor textarea")
        self._page.keyboard.press("Control+End")
        self._page.keyboard.type("if True:\nprint(1)")
        assert self._page.input_value(".editor textarea").endswith("if True:\n    print(1)")
        self._page.keyboard.press("Escape")
        self._page.keyboard.press("Tab")
        assert self._page.evaluate("document.activeElement !== document.querySelector('.editor textarea')")

    def _meet_an_absent_service(self) -> None:
        self._open("#/tasks", "table tbody tr")
        self._page.route("**/tasks?*", lambda route: route.abort())
        self._page.wait_for_selector(".fault:has-text('unreachable')", timeout=20_000)
        self._look("absent")
        self._page.unroute_all()
        self._page.wait_for_selector("table tbody tr", timeout=20_000)  # by itself
        self._page.route("**/health", lambda route: route.fulfill(status=503, json=DOWN))
        self._open("#/operations", ".reasons", "down")
        self._page.unroute_all()

    def _sign_out(self) -> None:
        self._page.goto(f"{self._url}/docs")
        self._page.wait_for_selector("h1")
        self._open("#/tasks", "table tbody tr")
        self._page.click("button:has-text('Sign out')")
        self._page.wait_for_selector("input[type=password]")
        if self._page.goto(f"{self._url}/docs").status != 401:
            self._faults.append("the session goes on after signing out")

    def _come_with_less(self) -> None:
        """A key that only reads is told what each view needs; another tenant's auditor sees nothing of this one."""
        self._sign_in(self._tried.reader)
        for view, scope in {
            "playground": "submit",
            "policies": "audit",
            "operations": "audit",
            "audit": "audit",
        }.items():
            self._open(f"#/{view}", f".fault:has-text('scope {scope}')", "no scope" if view == "audit" else None)
        self._page.click("button:has-text('Sign out')")
        self._sign_in(self._tried.other)
        self._open("#/audit", "table tbody tr")
        text = self._page.inner_text("main")
        assert "globex" in text, text
        assert self._tried.key.key_id not in text
        self._open(f"#/tasks/{self._tried.tasks['plot']}", ".fault")

    # ---- steps

    def _open(self, address: str, wait_for: str, name: str | None = None) -> None:
        self._page.goto("about:blank")
        self._page.goto(f"{self._url}/{address}")
        self._page.wait_for_selector(wait_for)
        if name:
            self._look(name)

    def _drop(self, where: str, name: str) -> None:
        """Let go of a file over an element, as a mouse does."""
        make = f"() => {{ const held = new DataTransfer(); held.items.add(new File(['x'], '{name}')); return held; }}"
        self._page.dispatch_event(where, "drop", {"dataTransfer": self._page.evaluate_handle(make)})

    def _until(self, expression: str) -> None:
        """Wait until something holds in the page. The driver's own wait evaluates text, which the page forbids."""
        until(lambda: self._page.evaluate(expression), expression, timeout_s=30)

    def _expect(self, where: str, text: str) -> None:
        self._page.wait_for_selector(f"{where}:has-text('{text}')")

    def _look(self, name: str) -> None:
        """Take a picture, and hold the page against axe-core's rules and its own window."""
        from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

        self._page.wait_for_timeout(200)
        self._page.screenshot(path=self._folder / f"{name.replace(' ', '-')}-{self._name}.png", full_page=True)
        if self._page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            self._faults.append(f"{name}: wider than the window")
        if planted := self._page.evaluate(f'[...document.querySelectorAll("{PLANTED}")].map((one) => one.outerHTML)'):
            self._faults.append(f"{name}: a text became HTML: {planted}")
        for found in Axe().run(self._page).response["violations"]:
            if found["impact"] in ("serious", "critical"):
                where = [node["target"] for node in found["nodes"]][:3]
                self._faults.append(f"{name}: {found['id']}: {found['help']} {where}")


DOWN = {
    "status": "down",
    "reasons": [
        "PostgreSQL is unreachable: tasks are not accepted",
        "worker 6b690294 (pid 7) has been silent for 40 s",
    ],
    "database": {"status": "away", "latency_ms": 5000.0, "detail": "PostgreSQL is unreachable: connection refused"},
    "redis": {"status": "ok", "latency_ms": 0.4, "detail": None},
    "queue": {"queued": None, "running": None, "oldest_wait_s": None, "free_slots": 0},
    "workers": [],
    "versions": {},
    "policies": {},
}
"""The health of a service that is down, as the console would be told."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

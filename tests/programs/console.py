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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from engine.config.keys import NewKey, add_key, make_key
from engine.model.principal import Scope
from tests.support.stack import whole_service

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e"
PLOT = (
    "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\n"
    "plt.savefig('artifacts/plot.png')\nresult = [{'x': x, 'y': x * x} for x in range(30)]"
)
SCRIPTS = {
    "plot": {"script": PLOT},
    "error": {"script": "def half(x):\n    return 1 / x\n\nprint('before')\nresult = half(0)"},
    "hostile": {
        "script": "import sys\nprint(args)\nprint(args, file=sys.stderr)\nopen('artifacts/x.svg', 'w').write(args)\n"
        "result = {args: args, 'rows': [{args: args}]}",
        "args": HOSTILE,
    },
    "hostile error": {"script": "raise type('X', (Exception,), {})(args)", "args": HOSTILE},
    "limit": {"script": "while True: pass"},
}
EXPECTED_REFUSALS = ("status of 401", "status of 404")
"""What the browser itself notes of the first ``GET /session`` and a wrong key, and of a task that there is not."""


def main() -> int:
    """Go through everything; the exit code."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("chromium is missing: apt-get install chromium, or name one by CHROMIUM", file=sys.stderr)
        return 1
    folder = Path(os.environ.get("SCREENSHOTS") or tempfile.mkdtemp(prefix="console-"))
    faults: list[str] = []
    with keyed_service() as (url, key):
        tasks = run_tasks(url, key)
        for width in WIDTHS:
            for scheme in SCHEMES:
                faults += Look(url, key, tasks, folder, f"{width}-{scheme}").go(chromium, width, scheme)
    print(*faults, f"{len(faults)} faults; screenshots in {folder}", sep="\n")
    return 1 if faults else 0


@contextmanager
def keyed_service() -> Iterator[tuple[str, NewKey]]:
    """A whole service with one key that opens everything."""
    with tempfile.TemporaryDirectory() as keys:
        key = make_key("acme", Scope)
        add_key(Path(keys) / "keys.toml", key)
        os.environ["API_KEYS_FILE"] = str(Path(keys) / "keys.toml")
        try:
            with whole_service() as (url, _):
                yield url.replace("127.0.0.1", "localhost"), key
        finally:
            del os.environ["API_KEYS_FILE"]


def run_tasks(url: str, key: NewKey) -> dict[str, str]:
    """Name → id of a task that has ended."""
    found = {}
    with httpx.Client(base_url=url, headers={"x-api-key": key.text}, timeout=90) as client:
        for name, parameters in SCRIPTS.items():
            body = {"task_type": "custom_script", "parameters": parameters, "labels": {"of": HOSTILE}}
            limit = {"timeout_s": 0.5} if name == "limit" else {}
            found[name] = client.post("/execute?wait=60", json=body | limit).json()["task_id"]
    return found


class Look:
    """One person's way, at one width and in one scheme."""

    def __init__(self, url: str, key: NewKey, tasks: dict[str, str], folder: Path, name: str) -> None:
        self._url, self._key, self._tasks, self._folder, self._name = url, key, tasks, folder, name
        self._faults: list[str] = []
        self._page: Any = None

    def go(self, chromium: str, width: int, scheme: str) -> list[str]:
        """Every view, in a browser of its own; what is wrong."""
        from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415  only this program needs it

        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            self._page = context.new_page()
            self._listen()
            try:
                self._visit()
            except Error as error:
                self._faults.append(f"the way ends here: {error}")
            browser.close()
        return [f"{self._name}: {fault}" for fault in dict.fromkeys(self._faults)]

    def _visit(self) -> None:
        self._sign_in()
        self._see_tasks()
        self._run()
        self._see_the_rest()
        self._sign_out()

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
        if not url.startswith((self._url, f"blob:{self._url}")):
            self._faults.append(f"request to another host: {url}")

    def _sign_in(self) -> None:
        self._open("", "input[type=password]", "door")
        self._page.fill("input[type=password]", "uak_wrong")
        self._page.click("button.main")
        self._page.wait_for_selector(".fault")
        self._page.fill("input[type=password]", self._key.text)
        self._page.click("button.main")
        self._page.wait_for_selector("table tbody tr")
        self._look("tasks")

    def _see_tasks(self) -> None:
        for name, task_id in self._tasks.items():
            self._open(f"#/tasks/{task_id}", "h2:has-text('Isolation')", name)
        self._open(f"#/tasks?task_id={self._tasks['error'][:8]}", "table tbody tr", "by id")
        self._page.click("table tbody a")
        self._page.wait_for_selector("mark:has-text('return 1 / x')")
        self._page.go_back()
        self._page.wait_for_selector("table tbody tr")
        self._open("#/tasks?label=of:nobody", ".empty", "empty")
        self._open("#/tasks/00000000-0000-0000-0000-000000000000", ".fault", "no such task")

    def _run(self) -> None:
        self._open("#/playground", "textarea", "playground")
        self._page.fill(".editor textarea", "import time\nprint('first', flush=True)\ntime.sleep(1)\nresult = args")
        self._page.click("button.main")
        self._page.wait_for_selector("pre:has-text('first')")
        self._page.wait_for_selector("h2:has-text('Result')", timeout=60_000)
        self._look("ran")
        self._page.fill(".editor textarea", "import time\ntime.sleep(60)")
        self._page.click("button.main")
        self._page.click("button:has-text('Cancel it')")
        self._page.wait_for_selector(".state.cancelled", timeout=60_000)
        self._open("#/playground?type=data_processing", "label:has-text('Parameters, as JSON')", "parameters")
        self._page.click("summary:has-text('As curl')")
        self._page.wait_for_selector("h3:has-text('JavaScript')")
        self._look("as code")

    def _see_the_rest(self) -> None:
        self._open("#/policies", "table tbody tr", "policies")
        self._open("#/policies/custom_script?with=custom_script_network", "table tbody tr", "difference")
        self._open("#/operations", "svg.chart", "operations")
        self._page.goto(f"{self._url}/docs")
        self._page.wait_for_selector("h1")

    def _sign_out(self) -> None:
        self._open("#/tasks", "table tbody tr", None)
        self._page.click("button:has-text('Sign out')")
        self._page.wait_for_selector("input[type=password]")
        if self._page.goto(f"{self._url}/docs").status != 401:
            self._faults.append("the session goes on after signing out")

    def _open(self, address: str, wait_for: str, name: str | None) -> None:
        self._page.goto("about:blank")
        self._page.goto(f"{self._url}/{address}")
        self._page.wait_for_selector(wait_for)
        if name:
            self._look(name)

    def _look(self, name: str) -> None:
        """Take a picture, and hold the page against axe-core's rules and its own window."""
        from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

        self._page.wait_for_timeout(200)
        self._page.screenshot(path=self._folder / f"{name.replace(' ', '-')}-{self._name}.png", full_page=True)
        if self._page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            self._faults.append(f"{name}: wider than the window")
        for found in Axe().run(self._page).response["violations"]:
            if found["impact"] in ("serious", "critical"):
                where = [node["target"] for node in found["nodes"]][:3]
                self._faults.append(f"{name}: {found['id']}: {found['help']} {where}")


if __name__ == "__main__":
    sys.exit(main())

"""What runs in the machine, as root: it tries each part and prints a line for every finding.

``python -m tests.kernels.inside --machine qemu --suite trixie check tasks``; init.sh starts it. A machine that is
emulated is 10 to 50 times slower, so that the waits are longer; no assertion is another one.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.api.docs.examples import EXAMPLES
from tests.kernels.findings import (
    ASKED,
    ATTACKS,
    BOTH,
    CHECK,
    CONFINED,
    LAYER,
    NAMED,
    PARSER,
    PROFILES,
    End,
    Finding,
    Progress,
    task_promise,
    written,
)

ROOT = Path(__file__).resolve().parents[2]
PYTHON = str(ROOT / ".venv/bin/python")
PATIENT = {"ZYGOTE_START_S": "3600"}
WITHIN_S = 3600.0
LAYERS = {"namespaces", "landlock", "seccomp", "rlimits"}
SITE = "site.test"
HOSTILE = """
import os, socket
found = {}
for name, act in {
    "read": lambda: open("/etc/shadow").read(),
    "write": lambda: open("/srv/new", "w"),
    "socket": socket.socket,
    "fork": os.fork,
    "truncate": lambda: os.truncate(os.__file__, 0),
    "signal": lambda: os.kill(1 if os.getpid() != 1 else -1, 0),
}.items():
    try:
        act()
    except OSError:
        continue
    found[name] = "it works"
result = found
"""
NAMELESS = """
import os
kept = os.open(".", os.O_TMPFILE | os.O_RDWR)  # no object of Python's, which would be closed before the end
for _ in range(args):
    os.write(kept, bytes(1 << 20))
result = args
"""
Judge = Callable[[dict[str, Any]], str]
"""Says what is wrong with a task's answer, or nothing."""
TICKS = "it counts processor time in ticks"
UML_ONLY = {
    "KERN-91": "it has no int 0x80 of its own",
    "CPU-05": TICKS,
    "OUT-10": TICKS,
    "MEM-91": "Landlock alone closes /dev/zero for writing",
}
"""Attacks whose outcome in user-mode Linux is its own, and why."""


def tell(promise: str, who: str, fault: str, note: str = "") -> None:
    """Print a finding; without a fault the promise held."""
    finding = Finding(promise=promise, who=who, verdict="failed" if fault else "held", detail=fault[:600] or note)
    print(written(finding), flush=True)


def say(text: str) -> None:
    """Print a word on what goes on."""
    print(written(Progress(text=text)), flush=True)


def call(who: str, *command: str, given: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the project's folder as root, or as an ordinary user."""
    become = () if who == "root" else ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    home = "/root" if who == "root" else "/home/user"
    fixed = PATIENT | {"HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*become, *command], cwd=ROOT, env=kept | fixed | variables, input=given,
        capture_output=True, text=True, errors="replace", timeout=WITHIN_S, check=False,
    )  # fmt: skip


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last that a program said, or how it left."""
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return said[-1] if said else f"exit code {done.returncode}, and not a word"


def try_check() -> None:
    """The host's check, by both users."""
    for who in BOTH:
        done = call(who, PYTHON, "-m", "engine", "check", "--json")
        try:
            found = json.loads(done.stdout)
        except ValueError:
            tell(CHECK, who, last_line(done))
            continue
        layers = {layer["name"]: layer for layer in found["host"]["layers"]}
        faults = [f"{name}: {layers[name]['detail']}" for name in sorted(LAYERS) if not layers[name]["available"]]
        works = {trial["profile"]: trial for trial in found["trials"]}
        faults += [
            f"{name}: {works[name]['detail'] if name in works else 'not tried'}"
            for name in PROFILES
            if not works.get(name, {}).get("works")
        ]
        faults += [f"exit code {done.returncode}"] if done.returncode else []
        tell(CHECK, who, "; ".join(faults), f"Landlock {layers['landlock']['version']}")


def run_task(who: str, profile: str, task_type: str, parameters: Any, *before: str) -> tuple[dict[str, Any], str]:
    """The answer of ``engine run``, or what was said instead of one."""
    body = json.dumps({"task_type": task_type, "parameters": parameters})
    allowed = {"EGRESS_ALLOW_PRIVATE": "127.0.0.0/8"}
    command = (*before, PYTHON, "-m", "engine", "run", "-")
    done = call(who, *command, given=body, SANDBOX_ISOLATION=profile, **allowed)
    try:
        return json.loads(done.stdout), ""
    except ValueError:
        return {}, last_line(done)


def is_ok(task: dict[str, Any]) -> str:
    """A run that ended well, by a layer of each sort."""
    return "" if task["exit_reason"] == "ok" else f"{task['exit_reason']}: {task['message']}"


def nothing_worked(task: dict[str, Any]) -> str:
    """The hostile script's own list is empty."""
    return is_ok(task) or ("" if task["result"] == {} else f"it could: {', '.join(task['result'])}")


def counts_forty(task: dict[str, Any]) -> str:
    """What the run wrote and still held at its end."""
    mib = task["usage"]["workspace_mib"]
    return is_ok(task) or ("" if 39.5 <= mib <= 41 else f"workspace_mib is {mib}")


def met_its_limit(task: dict[str, Any]) -> str:
    """By the right name."""
    return "" if task["exit_reason"] == "workspace_limit" else f"exit_reason is {task['exit_reason']}"


SCRIPTS: dict[str, tuple[str, int, Judge]] = {
    "hostile script": (HOSTILE, 0, nothing_worked),
    "nameless file": (NAMELESS, 40, counts_forty),
    "full nameless file": (NAMELESS, 80, met_its_limit),
}


def try_tasks() -> None:
    """One of each task type in each profile, and some scripts in the full one, by both users."""
    with site():
        for profile in PROFILES:
            for task_type, parameters in sorted(EXAMPLES.items()):
                for who in BOTH:
                    try_task(who, profile, task_type, parameters)
    for name, (script, args, judge) in SCRIPTS.items():
        for who in BOTH:
            task, fault = run_task(who, "full", "custom_script", {"script": script, "args": args})
            tell(ASKED[name], who, fault or judge(task))


def try_task(who: str, profile: str, task_type: str, parameters: dict[str, Any]) -> None:
    """One task; what needs a network must be refused where nothing confines it."""
    if task_type == "web_scraping":
        parameters = parameters | {"url": f"http://{SITE}/"}
    task, fault = run_task(who, profile, task_type, parameters)
    if task_type == "web_scraping" and profile == "unprivileged":
        is_right = not task and "the unprivileged profile cannot run it" in fault
        tell(task_promise(task_type, profile), who, "" if is_right else fault or "it ran", "refused by name")
        return
    tell(task_promise(task_type, profile), who, fault or is_ok(task))


class _Page(http.server.BaseHTTPRequestHandler):
    """One page, whatever is asked for."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>A page</title><h1>One</h1><p>Two</p>"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep the console for the findings."""


@contextlib.contextmanager
def site() -> Iterator[None]:
    """A web server on the loopback, whose name the machine knows."""
    with Path("/etc/hosts").open("a", encoding="ascii") as hosts:
        hosts.write(f"127.0.0.1 localhost {SITE} {SITE}.\n")  # the proxy asks for it with a final dot
    with http.server.ThreadingHTTPServer(("127.0.0.1", 80), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def try_apparmor(suite: str) -> None:
    """The delivered profile, in force; and two that refuse something."""
    mount_is_ours = Path("/sys/kernel/security/apparmor/.load").exists()
    delivered = (ROOT / ".github/deploy/apparmor-full").read_text(encoding="ascii")
    load, text, note = _parser(suite, delivered)
    fault = load(text) if mount_is_ours else "this kernel has no AppArmor in force"
    tell(PARSER, "root", fault, note)
    if fault:
        return
    under = ("/bin/sh", "-c", 'echo -n "exec $0" > /proc/self/attr/exec && exec "$@"')
    for who in BOTH:
        label = call(who, *under, "unityai-full", "cat", "/proc/self/attr/current").stdout.strip()
        task, fault = run_task(who, "full", "custom_script", {"script": HOSTILE}, *under, "unityai-full")
        fault = fault or nothing_worked(task)
        tell(CONFINED, who, fault or ("" if label == "unityai-full (enforce)" else f"its label is {label}"), _denied())
    tell(NAMED, "root", _what_check_says(load, text, under))


def _parser(suite: str, delivered: str) -> tuple[Callable[[str], str], str, str]:
    """What loads a profile and says what is wrong with it, the profile as that can read it, and its version."""
    own = Path("/apparmor") / suite
    if own.is_dir():  # newer than the system around it: it runs on the C library of its own suite
        library = own / "usr/lib/x86_64-linux-gnu"
        command = [str(library / "ld-linux-x86-64.so.2"), "--library-path", str(library)]
        command += [str(next(own.glob("**/sbin/apparmor_parser"))), "--base", str(own / "etc/apparmor.d")]
    else:
        command = ["/sbin/apparmor_parser"]
    said = call("root", *command, "--version").stdout
    version = (re.search(r"version ([0-9.]+)", said) or ["", "unknown"])[1]
    if version.startswith("3."):
        delivered = delivered.replace("abi/4.0", "abi/3.0").replace("\n  userns,", "")

    def load(text: str) -> str:
        done = call("root", *command, "--replace", "--skip-cache", given=text)
        return last_line(done) if done.returncode else ""

    return load, delivered, f"AppArmor {version}"


def _what_check_says(load: Callable[[str], str], text: str, under: Sequence[str]) -> str:
    """Two profiles that refuse something, and what ``check`` must say of each; what it did not say."""
    renamed = text.replace("unityai-full", "unityai-short")
    short = renamed.replace("attach_disconnected, ", "")
    cases = {"attach_disconnected": short}
    if "\n  userns," in text:
        cases["`unityai-short (enforce)`"] = renamed.replace("\n  userns,", "\n  deny userns,")
    for fix, profile in cases.items():
        if fault := load(profile):
            return fault
        done = call("root", *under, "unityai-short", PYTHON, "-m", "engine", "check", "--json")
        try:
            layer = next(one for one in json.loads(done.stdout)["host"]["layers"] if one["name"] == "namespaces")
        except ValueError:
            return last_line(done)
        if layer["available"] or fix not in layer["fix"]:
            return f"{fix} is not in: {layer['detail']}, {layer['fix']}"
    return ""


def _denied() -> str:
    """How many denials the kernel has logged under the delivered profile."""
    lines = [line for line in call("root", "dmesg").stdout.splitlines() if 'apparmor="DENIED"' in line]
    own = [line for line in lines if 'profile="unityai-full"' in line]
    for line in own:
        say(line)
    return f"{len(own)} denials in the kernel's log" if own else "nothing denied"


def leave_landlock_away() -> None:
    """In user-mode Linux, which has none: each other layer stays. The files are of a disk that is thrown away."""
    with (ROOT / "sandbox/isolation/landlock.py").open("a", encoding="utf-8") as file:
        file.write(
            "\n\ndef abi_version():\n    return 1\n\n\ndef restrict(abi, rules, *, connect_port=0):\n    return\n"
        )
    with (ROOT / "sandbox/probe.py").open("a", encoding="utf-8") as file:
        file.write("\n\n_TRY_LANDLOCK = \"print('ok')\"\n")


def try_attacks(machine: str) -> None:
    """The table of attacks, a line for each on the console."""
    command = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-v", "--tb=short", "-o", "timeout=3600"]
    command += ["tests/attacks/test_attacks.py", "-k", "is_stopped"]
    ended: dict[str, str] = {}
    variables = os.environ | PATIENT | {"TEST_PATIENCE": "20"}
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True) as tests:
        for line in tests.stdout or ():
            if (found := re.match(r"\S+::\S+\[(\S+)\] (PASSED|FAILED|ERROR)", line)) is None:
                print(line, end="", flush=True)
                continue
            ended[found[1]] = found[2]
            if len(ended) % 20 == 0:
                say(f"{len(ended)} attacks")
    own = UML_ONLY if machine == "uml" else {}
    failed = [name for name, how in ended.items() if how != "PASSED"]
    stated = [name for name in failed if "-".join(name.split("-")[:2]) in own]
    bad = [name for name in failed if name not in stated]
    bad += [] if tests.returncode in (0, 1) and len(ended) > 100 else [f"pytest left with {tests.returncode}"]
    note = f"{len(ended) - len(failed)} of {len(ended)}"
    note += "".join(f"; not {name}: {own['-'.join(name.split('-')[:2])]}" for name in stated)
    tell(ATTACKS, "root", f"{len(bad)} of {len(ended)}: {', '.join(bad)}" if bad else "", note)


def try_cgroup() -> None:
    """The cgroup layer's own program."""
    done = call("root", PYTHON, "-m", "tests.programs.cgroup_layer")
    print(done.stdout, done.stderr, flush=True)
    lines = [" ".join(line.replace("│", " ").split()) for line in done.stdout.splitlines()]
    faults = [line for line in lines if line.startswith("FAILED") or line.endswith("LIES")]
    tell(LAYER, "root", ("; ".join(faults) or last_line(done)) if done.returncode else "")


def main() -> None:
    """Try what is asked for, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--machine", required=True)
    parser.add_argument("--suite", required=True)
    parser.add_argument("parts", nargs="+")
    asked = parser.parse_args()
    modules = Path("/sys/kernel/security/lsm")
    say(f"Linux {os.uname().release}, security modules: {modules.read_text() if modules.exists() else 'none'}")
    if asked.machine == "uml":
        leave_landlock_away()
    tries: dict[str, Callable[[], None]] = {
        "check": try_check,
        "tasks": try_tasks,
        "apparmor": lambda: try_apparmor(asked.suite),
        "attacks": lambda: try_attacks(asked.machine),
        "cgroup": try_cgroup,
    }
    for part in asked.parts:
        say(f"tries {part}")
        tries[part]()
    print(written(End()), flush=True)


if __name__ == "__main__":
    main()

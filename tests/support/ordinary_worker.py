"""A worker in a process of its own, run by an ordinary user, on a host that may refuse namespaces.

Started by ``become_ordinary.py`` with one JSON argument; then one JSON line in, one out. What the host refuses is
refused by a real seccomp filter of this process, which everything that it starts inherits.

Sources: seccomp(2), unshare(2), clone(2); AppArmor's ``unprivileged_userns`` profile of Ubuntu 24.04 for MOUNT.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # it runs as a program of its own, as another user, in the folder /

import msgspec  # noqa: E402

import sandbox  # noqa: E402
from tests.support import container_seccomp  # noqa: E402
from tests.support.libraries import library_sets  # noqa: E402
from tests.support.synchronous import Sandbox, children_of, descendants, eventually, name_of, status_of  # noqa: E402

MEASURED = "SANDBOX_COVERAGE_FOLDER"
"""The variable by which ``coverage_sandbox.py`` says that the sandbox's lines are counted, and where."""
UMASK = os.umask(0o022)
os.umask(UMASK)
CLONE_NEWUSER = 0x10000000  # include/uapi/linux/sched.h


def refuse_namespaces() -> None:
    """As Docker's default profile: no unshare, no clone with a new user namespace, no clone3."""
    import pyseccomp  # noqa: PLC0415 only here

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare")
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    flag = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER)
    rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", flag)
    rules.load()


def refuse_mounts() -> None:
    """As Ubuntu 24.04: a user namespace comes, the capabilities in it do not."""
    import pyseccomp  # noqa: PLC0415 only here

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in ("mount", "umount2", "pivot_root", "fsopen", "move_mount", "open_tree", "mount_setattr", "sethostname"):
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    rules.load()


REFUSALS: dict[str, Callable[[], None]] = {"namespaces": refuse_namespaces, "mounts": refuse_mounts}

BYSTANDER = """
import ctypes, sys, time
secret = b"in the memory of a bystander"
buffer = ctypes.create_string_buffer(secret)
ctypes.CDLL(None).prctl(0x59616D61, -1, 0, 0, 0)  # PR_SET_PTRACER_ANY, where Yama is
print(ctypes.addressof(buffer), flush=True)
time.sleep(600)
"""

_OUTSIDE = """
import json, sys
given = json.loads(sys.stdin.read())
namespace = {"__name__": "__main__", "args": given["args"]}
exec(compile(given["script"], "script.py", "exec"), namespace)
print(json.dumps(namespace["result"]))
"""


class Victims:
    """The targets of an attack: files, a process and sockets of the very user that runs it."""

    def __init__(self, code: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="victims-"))
        self.readable = code / "handlers" / f"readable_{self.folder.name.replace('-', '_')}.py"
        self.files = {name: self.folder / name for name in ("secret", "truncated", "opened", "moded", "removed")}
        for path in (*self.files.values(), self.readable):
            path.write_text("precious", encoding="ascii")
            os.utime(path, (1_000_000_000, 1_000_000_000))
        self.process = subprocess.Popen([sys.executable, "-c", BYSTANDER], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.address = int(self.process.stdout.readline())
        self.sockets: dict[str, socket.socket] = {}
        self._contacts: set[str] = set()
        for name, kind in (("stream", socket.SOCK_STREAM), ("datagram", socket.SOCK_DGRAM)):
            for place in (str(self.folder / name), f"\0{self.folder.name}-{name}"):
                self._listen(name + (" abstract" if place[0] == "\0" else ""), socket.AF_UNIX, kind, place)
            self._listen(f"{name} ip", socket.AF_INET, kind, ("127.0.0.1", 0))

    def _listen(self, name: str, family: int, kind: int, place: Any) -> None:
        self.sockets[name] = found = socket.socket(family, kind)
        found.bind(place)
        found.setblocking(False)
        if kind == socket.SOCK_STREAM:
            found.listen()

    def aims(self) -> dict[str, Any]:
        """The values that the attack gets."""
        names = {name: one.getsockname() for name, one in self.sockets.items()}
        shown = {name: place.decode() if isinstance(place, bytes) else place for name, place in names.items()}
        files = {name: str(path) for name, path in self.files.items()}
        return files | {
            "folder": str(self.folder), "readable": str(self.readable), "pid": self.process.pid,
            "address": self.address, "sockets": shown,
        }  # fmt: skip

    def harm(self) -> list[str]:
        """List the targets that have changed."""
        found = [] if self.process.poll() is None and not self._stopped() else ["process"]
        for name, path in (*self.files.items(), ("readable", self.readable)):
            if not path.exists():
                found.append(f"{name} removed")
                continue
            seen = path.stat()
            if (seen.st_size, seen.st_mtime, seen.st_nlink) != (8, 1_000_000_000, 1):
                found.append(f"{name} written")
            if seen.st_mode & 0o777 != 0o666 & ~UMASK:
                found.append(f"{name} mode")
        expected = {path.name for path in self.files.values()} | {"stream", "datagram"}
        found += [f"{name} made" for name in sorted(set(os.listdir(self.folder)) - expected)]
        self._contacts |= {f"{name} heard" for name, one in self.sockets.items() if self._heard(one)}
        return found + sorted(self._contacts)

    def _stopped(self) -> bool:
        return status_of(self.process.pid)["State"].startswith(("T", "t", "Z"))

    @staticmethod
    def _heard(one: socket.socket) -> bool:
        with contextlib.suppress(BlockingIOError):
            if one.type == socket.SOCK_STREAM:
                one.accept()[0].close()
            else:
                one.recv(100)
            return True
        return False

    def close(self) -> None:
        """Everything of it is gone."""
        self.process.kill()
        self.process.communicate()
        for one in self.sockets.values():
            one.close()
        shutil.rmtree(self.folder)
        self.readable.unlink(missing_ok=True)


def _state_of(pid: int) -> dict[str, Any]:
    """Signals, scheduling and the like of a process: proc_pid_stat(5), ioprio_get(2)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ioprio_get = 252 if platform.machine() == "x86_64" else 31
    return {name: value for name, value in status_of(pid).items() if name in ("SigIgn", "SigBlk", "SigCgt")} | {
        "nice": int(fields[19 - 3]),
        "policy": int(fields[41 - 3]),
        "oom_score_adj": int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii")),
        "ioprio": ctypes.CDLL(None).syscall(ioprio_get, 1, pid),
    }


class Worker:
    """The questions of the tests, one method each."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.home = Path(os.environ["HOME"])
        self.code = self.home / "code"
        for name in ("handlers", "sandbox", "scripts"):
            shutil.copytree(ROOT / name, self.code / name, ignore=shutil.ignore_patterns("__pycache__"))
        if MEASURED in os.environ:
            from tests.programs import coverage_sandbox  # noqa: PLC0415 it imports pytest

            coverage_sandbox.instrument(self.code / "sandbox", Path(os.environ[MEASURED]))
        if options.get("refused"):
            REFUSALS[options["refused"]]()
        if options.get("seccomp"):
            container_seccomp.apply(options["seccomp"])
        self.options = {name: options[name] for name in ("isolation", "landlock_abi_max") if name in options}
        self.box: Sandbox | None = None

    def probe(self, **options: Any) -> Any:
        """The layers that the host offers."""
        found = sandbox.probe_host(**(self.options | options))
        return msgspec.to_builtins(found) | {"missing": [layer.name for layer in found.missing(self._policy())]}

    def start(self, ready: int = 2, policy: str | None = None, mode: str = "warm", **options: Any) -> Any:
        """Open the pool; the error's class and sentence if it does not start."""
        if self.box is not None:
            self.box.close()
        places = {"scripts": self.code / "scripts", "models": ROOT / "models"}
        template = sandbox.Template(
            code=self.code, entry="handlers.entry:main", libraries=library_sets(), places=places, uid=0, gid=0
        )
        chosen = sandbox.load_policies(ROOT / "policies")[policy] if policy else self._policy()
        chosen = msgspec.structs.replace(chosen, start=mode)
        try:
            self.box = Sandbox(chosen, sandbox.probe_host(**(self.options | options)), template, ready=ready)
        except sandbox.SandboxError as error:
            return [type(error).__name__, error.message]
        return "started"

    def _policy(self) -> sandbox.Policy:
        policy = sandbox.load_policies(ROOT / "policies")["custom_script"]
        return msgspec.structs.replace(policy, preload=("handlers.custom_script",))

    def run(self, script: str, args: Any = None, **limits: Any) -> Any:
        """One run."""
        assert self.box is not None
        result = self.box.run(script, args, **limits)
        plain = msgspec.to_builtins(msgspec.structs.replace(result, value=None))
        return plain | {"value": None if result.value is None else json.loads(bytes(result.value))}

    def child_state(self) -> Any:
        """What a ready child has that could come from the worker's starter."""
        assert self.box is not None
        return _state_of(self.box.pool.ready_pids()[0])

    def plain_state(self) -> Any:
        """The same of a plain program that this worker starts."""
        with subprocess.Popen(["sleep", "100"], restore_signals=False) as plain:
            state = _state_of(plain.pid)
            plain.kill()
        return state

    def ask(self, task_type: str, parameters: Any) -> Any:
        """One run of another task type: why it ended, its value, the calls that were denied."""
        assert self.box is not None
        request = json.dumps({"task_type": task_type, "parameters": parameters}).encode()
        result = self.box.do(self.box.pool.run(request))
        denied = [violation.syscall for violation in result.violations]
        return [result.exit_reason, None if result.value is None else json.loads(bytes(result.value)), denied]

    def attack(self, script: str, *, outside: bool = False, **limits: Any) -> Any:
        """The script against victims of its own, inside or as a plain process of the same user; then the harm."""
        victims = Victims(self.code)
        try:
            if outside:
                result: Any = {"value": self._outside(script, victims.aims())}
            else:
                result = self.run(script, victims.aims(), **limits)
            eventually(lambda: victims.harm() != [], within_s=0.1)
            return {"result": result, "harm": sorted(victims.harm())}
        finally:
            victims.close()

    def _outside(self, script: str, aims: Any) -> Any:
        folder = tempfile.mkdtemp()
        ended = subprocess.run(
            [sys.executable, "-c", _OUTSIDE], input=json.dumps({"script": script, "args": aims}).encode(),
            capture_output=True, cwd=folder, timeout=120, check=False,
        )  # fmt: skip
        shutil.rmtree(folder)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def kill_zygote_while_running(self, script: str) -> Any:
        """Report how the run ended, and whether the zygote and all its children are dead soon after."""
        assert self.box is not None
        box = self.box
        ended: list[str] = []

        def run() -> None:
            try:
                ended.append(box.run(script).exit_reason.value)
            except sandbox.SandboxError as error:
                ended.append(type(error).__name__)

        runner = threading.Thread(target=run)
        runner.start()
        assert eventually(lambda: "busy" in map(name_of, descendants()), within_s=10)
        # with no root to build there is one stage only: the zygote itself
        current = box.pool._zygotes.current
        assert current is not None
        zygote = current._process.pid
        children = children_of(zygote)
        os.kill(zygote, 9)
        gone = eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
        runner.join(30)
        return {"ended": ended, "gone": gone, "children": len(children)}

    def left(self) -> Any:
        """Workspaces that are neither of a ready child nor of a running one, when the pool is at rest."""
        assert self.box is not None
        box = self.box
        assert box.settle()
        folders = list(self.home.glob("sandbox-*/*"))
        return len(folders) - box.pool.stats().ready

    def close(self) -> Any:
        """End the pool; what is left of it on disk and in the process table."""
        box, self.box = self.box, None
        if box is not None:
            box.close()
        return {"folders": [str(path) for path in self.home.glob("sandbox-*")], "processes": len(descendants())}

    def who(self) -> Any:
        """Ids, capabilities, and the folder that everything of it is in."""
        status = status_of(os.getpid())
        return {
            "home": str(self.home),
            "uid": os.geteuid(),
            "capabilities": status["CapEff"],
            "seccomp": status["Seccomp"],
        }


def serve(worker: Worker) -> None:
    """One JSON line in, one out, until the end of the input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing else is ever printed there
    for line in sys.stdin:
        name, options = json.loads(line)
        try:
            answer = {"answer": getattr(worker, name)(**options)}
        except Exception as error:
            answer = {"raised": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()
    with contextlib.suppress(Exception):
        worker.close()
    shutil.rmtree(worker.home, ignore_errors=True)


if __name__ == "__main__":
    if MEASURED in os.environ:
        from tests.programs import coverage_sandbox

        coverage_sandbox.measure_this_process()
    serve(Worker(json.loads(sys.argv[1])))

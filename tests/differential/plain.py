"""Runs scripts as ``python script.py``: ``python -m tests.differential.plain``; a JSON line in for each, one out.

As root it first makes the interpreter reachable in a mount namespace of its own and becomes an ordinary user, for so
do people run scripts. Each script has an empty folder with ``artifacts/`` (and ``inputs/``), and the request on stdin
as the service gives it. What is told of ``result``: see ``hook/sitecustomize.py``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from sandbox.isolation import libc
from tests.differential.corpus import Script
from tests.programs.as_user import ROOT, UID, make_reachable

HOOK = Path(__file__).resolve().parent / "hook"
AT_ONCE = 2
WALL_S = 540.0


class PlainRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a script did under plain Python."""

    folder: str
    stdout: str
    stderr: str
    code: int
    """As ``subprocess`` says it: negative is a signal."""
    artifacts: dict[str, bytes]
    result: Any
    """JSON; ``UNTOLD`` if the process ended without ``atexit``."""
    packages: str
    """Folder of the packages, and of the standard library: what tracebacks name."""
    library: str
    executable: str


UNTOLD = "differential: untold"


class Plain:
    """A process that runs scripts as an ordinary user, some at once."""

    def __init__(self, interpreter: str) -> None:
        command = [sys.executable, "-m", "tests.differential.plain", interpreter]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._waiting: dict[str, Future[PlainRun]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def run(self, script: Script) -> Future[PlainRun]:
        """Start a script, now or when its turn comes."""
        future = self._waiting[script.id] = Future()
        assert self._process.stdin
        with self._lock:
            self._process.stdin.write(msgspec.json.encode(script).decode() + "\n")
            self._process.stdin.flush()
        return future

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            script_id, answer = msgspec.json.decode(line, type=tuple[str, PlainRun | str])
            future = self._waiting.pop(script_id)
            if isinstance(answer, str):
                future.set_exception(RuntimeError(answer))
            else:
                future.set_result(answer)
        for future in self._waiting.values():
            future.set_exception(RuntimeError(f"the process of the plain runs ended: {self._process.wait()}"))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._reader.join()
        assert self._process.wait() == 0
        assert self._process.stdout
        self._process.stdout.close()


def run_script(script: Script, interpreter: str) -> PlainRun:
    """One script, in a folder of its own."""
    top = Path(tempfile.mkdtemp(prefix="plain-"))
    folder, told = top / "work", top / "result.json"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "script.py").write_bytes((script.code + (f"\n{script.calls}\n" if script.calls else "")).encode())
    if script.inputs:
        (folder / "inputs").mkdir()
    for name, text in script.inputs.items():
        (folder / "inputs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "inputs" / name).write_bytes(text.encode())
    try:
        code, stdout, stderr = _execute(script, folder, told, interpreter)
        found = {
            str(path.relative_to(folder / "artifacts")): path.read_bytes()
            for path in sorted((folder / "artifacts").rglob("*"))
            if path.is_file() and not path.is_symlink()
        }
        result = json.loads(told.read_bytes()) if told.exists() else UNTOLD
        packages, library = places(interpreter)
        return PlainRun(
            folder=str(folder), stdout=stdout, stderr=stderr, code=code, artifacts=found, result=result,
            packages=packages, library=library, executable=interpreter,
        )  # fmt: skip
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", str(top)], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(top, ignore_errors=True)


@functools.cache
def places(interpreter: str) -> tuple[str, str]:
    """Folders of the interpreter's packages and of its standard library."""
    ask = "import json, sysconfig; print(json.dumps([sysconfig.get_path('purelib'), sysconfig.get_path('stdlib')]))"
    packages, library = json.loads(subprocess.check_output([interpreter, "-I", "-c", ask]))
    return packages, library


def _execute(script: Script, folder: Path, told: Path, interpreter: str) -> tuple[int, str, str]:
    environment = {
        "HOME": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC",
        "USER": "sandbox", "LOGNAME": "sandbox", "PYTHONPATH": str(HOOK),
        "DIFFERENTIAL_RESULT": str(told), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    if script.meaning:
        environment["DIFFERENTIAL_MEANING"] = script.meaning
    request = {"task_type": "custom_script", "parameters": script.parameters}
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [interpreter, "script.py"], cwd=folder, env=environment, start_new_session=True,
            stdin=subprocess.PIPE, stdout=stdout, stderr=stderr,
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(msgspec.json.encode(request), timeout=script.timeout_s or WALL_S)
        with contextlib.suppress(ProcessLookupError):  # what it started, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        texts = [os.pread(file.fileno(), 1 << 24, 0).decode(errors="replace") for file in (stdout, stderr)]
    return process.returncode, texts[0], texts[1]


def become_sandbox(home: str, interpreter: str) -> None:
    """Be an ordinary user of the name that runs have in the service, in a mount namespace of our own.

    As root, give root up. An ordinary user becomes one of another number in a user namespace (user_namespaces(7)).
    """
    Path(home).chmod(0o755)
    names = {}
    for name, line in (("passwd", f"sandbox:x:{UID}:{UID}::{home}:/bin/sh"), ("group", f"sandbox:x:{UID}:")):
        names[name] = Path(home, name)
        names[name].write_text(Path("/etc", name).read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        needed = [Path(sys.base_prefix), Path(sys.prefix), Path(interpreter).parents[1], ROOT]
        make_reachable([place.resolve() for place in needed])
    else:
        libc.unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWNS)
        for file, text in (("setgroups", "deny"), ("uid_map", f"{UID} {uid} 1"), ("gid_map", f"{UID} {gid} 1")):
            Path("/proc/self", file).write_text(text, encoding="ascii")
    for name, path in names.items():
        libc.mount(os.fsencode(path), f"/etc/{name}".encode(), None, libc.MS_BIND)
    if uid == 0:
        os.chown(home, UID, UID)
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)


def main(interpreter: str) -> None:
    """Become an ordinary user; then serve until stdin ends."""
    home = tempfile.mkdtemp(prefix="differential-")
    become_sandbox(home, interpreter)
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tempfile.tempdir = home
    lock = threading.Lock()

    def serve(script: Script) -> None:
        try:
            answer: PlainRun | str = run_script(script, interpreter)
        except Exception as error:  # the one who waits for it is told
            answer = f"{type(error).__name__}: {error}"
        with lock:
            print(msgspec.json.encode([script.id, answer]).decode(), flush=True)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for line in sys.stdin:
            threads.submit(serve, msgspec.json.decode(line, type=Script))
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])

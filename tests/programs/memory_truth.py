"""``python -m tests.programs.memory_truth``: what a result says of its memory beside what the kernel counted. As root.

Each way to hold memory that the attacks know is held still, and the kernel is asked meanwhile: by a memory cgroup of
version 1 that the child alone is in, where there is one; else, on a machine that does nothing else, by /proc/meminfo.
Compared is what a run takes beyond one that does nothing. ``make memory-test`` runs it; on a kernel with cgroup v2
``make cgroup-test`` does, with the cgroup layer. The exit code is 1 if a row is more than a tenth and a MiB away.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from sandbox import Host, Policy, Result, Template, load_policies, probe_host
from tests.support.libraries import library_sets
from tests.support.synchronous import HOLD, Sandbox, eventually

ROOT = Path(__file__).resolve().parents[2]
VERSION_2 = Path("/sys/fs/cgroup")
VERSION_1 = Path("/sys/fs/cgroup/memory")
MIB = 1 << 20
TENTH, SLACK_MIB = 0.1, 1.0
BEFORE = HOLD + "hold()\ntold.clear()\n"
AFTER = "\nctypes.CDLL(None).prctl(15, b'held', 0, 0, 0)\nhold()\nresult = 1\n"

HOLD_UNMAPPED = """
import mmap
held = mmap.mmap(-1, args << 20)
for part in range(0, args << 20, 1 << 20):
    held[part : part + (1 << 20)] = bytes(1 << 20)
    held.madvise(mmap.MADV_DONTNEED, part, 1 << 20)
"""
SOCKETS = """
import socket
pairs = [socket.socketpair() for _ in range(args)]
for one in (one for pair in pairs for one in pair):
    one.setblocking(False)
    try:
        while one.send(bytes(1 << 14)):
            pass
    except BlockingIOError:
        pass
"""
PIPES = """
import os
pipes = [os.pipe() for _ in range(args)]
for _, end in pipes:
    os.set_blocking(end, False)
    try:
        while os.write(end, bytes(1 << 16)):
            pass
    except BlockingIOError:
        pass
"""


class Row(NamedTuple):
    """One way to hold memory."""

    name: str
    script: str
    args: int
    seen: bool = True
    """Whether it is right without the cgroup layer. What is not is stated in sandbox/README.md, in MiB."""


ROWS = (
    Row("one large object", "kept = b'x' * (args << 20)", 60),
    Row("many small objects", "kept = [bytearray(b'x' * 1000) for _ in range(args << 10)]", 60),
    Row("an array", "import array\nkept = array.array('d', [1.0]) * (args << 17)", 60),
    Row("anonymous mappings", "import mmap\nkept = [mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)"
        " for _ in range(args)]\nfor one in kept:\n    one.write(bytes([1]) * (1 << 20))", 60),
    Row("shared memory, mapped", "import mmap\nkept = mmap.mmap(-1, args << 20)\nkept.write(bytes(args << 20))", 40),
    Row("shared memory, not mapped", HOLD_UNMAPPED, 60),
    Row("shared memory and its private copy", HOLD_UNMAPPED + "kept = bytes([1]) * (20 << 20)", 40),
    Row("a file in the workspace", "open('big', 'wb').write(bytes(args << 20))", 40),
    Row("a file that is mapped", "import mmap\nfile = open('big', 'w+b')\nfile.truncate(args << 20)\n"
        "kept = mmap.mmap(file.fileno(), args << 20)\nkept.write(bytes(args << 20))", 20),
    Row("a deleted file that is open", "import os\nkept = open('big', 'wb')\nkept.write(bytes(args << 20))\n"
        "kept.flush()\nos.unlink('big')", 40),
    Row("a file and private memory", "open('big', 'wb').write(bytes(args << 20))\nkept = b'x' * (args << 20)", 30),
    Row("stacks of threads", "import threading\nend = threading.Event()\nthreads = [threading.Thread(target=end.wait, "
        "daemon=True) for _ in range(args)]\n[one.start() for one in threads]", 20),
    Row("memory that was let go", "kept = b'x' * (args << 20)\ndel kept", 60),
    Row("a file that is mapped for a moment", "import mmap, sys\nkept = open(sys.executable, 'rb')\nmapped = mmap.mmap("
        "kept.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)\nsum(mapped[::4096])\nmapped.close()", 0, seen=False),
    Row("buffers of sockets", SOCKETS, 40, seen=False),
    Row("buffers of pipes", PIPES, 40, seen=False),
)  # fmt: skip


@contextlib.contextmanager
def counter_of(pid: int) -> Iterator[Callable[[], float]]:
    """What the kernel counts for a process from now on, at its most, in MiB."""
    own = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").partition("0::/")[2].strip()
    if (peak := VERSION_2 / own / "memory.peak").exists():  # of the group that the cgroup layer has made for it
        at_first = _peak_bytes(peak)  # what it took before it was in its group counts elsewhere, now more, now less
        yield lambda: (_peak_bytes(peak) - at_first) / MIB
        return
    if not (VERSION_1 / "memory.usage_in_bytes").exists():
        before = _free_mib()
        yield lambda: before - _free_mib()
        return
    folder = Path(tempfile.mkdtemp(prefix="unityai-truth-", dir=VERSION_1))
    (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")
    try:
        yield lambda: int((folder / "memory.max_usage_in_bytes").read_text(encoding="ascii")) / MIB
    finally:
        eventually(lambda: not (folder / "cgroup.procs").read_text(encoding="ascii"))
        folder.rmdir()


def _peak_bytes(peak: Path) -> int:
    """Without the cache of files on disks."""
    return int(peak.read_text(encoding="ascii")) - _cache_bytes(peak.with_name("memory.stat"))


def _cache_bytes(stat: Path) -> int:
    """The cache of files on disks, which the kernel gives back."""
    fields = dict(line.split() for line in stat.read_text(encoding="ascii").splitlines())
    return int(fields["file"]) - int(fields["shmem"])


def _free_mib() -> float:
    """Memory that nobody has, but for the cache of files on disks, which the kernel gives back."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    return (kib["MemFree"] + kib["Active(file)"] + kib["Inactive(file)"]) / 1024


def let_go_on(pid: int) -> None:
    """Have the script's ``hold()`` return, unless the run has met a limit and ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)


def measure(box: Sandbox, row: Row) -> tuple[Result, float]:
    """The result of a row, and what the kernel counted for it in MiB."""
    counted = 0.0

    def hold_still(pid: int) -> None:
        nonlocal counted
        with contextlib.ExitStack() as stack:
            count = stack.enter_context(counter_of(pid))
            stack.callback(let_go_on, pid)  # to its end, so that its cgroup can go
            let_go_on(pid)
            comm = Path(f"/proc/{pid}/comm")
            assert eventually(lambda: not comm.exists() or comm.read_text() == "held\n"), "it does not hold still"
            time.sleep(0.2)  # for the watchdog, which looks ten times meanwhile
            counted = count()

    _, result = box.while_running(BEFORE + row.script + AFTER, hold_still, row.args)
    if isinstance(result, Exception):
        raise result
    return result, counted


def compare(policy: Policy, host: Host, template: Template, *, layer: bool) -> int:
    """Print the table; how many rows lie that should not."""
    box, lies = Sandbox(policy, host, template), 0
    table = Table("way to hold memory", "exit_reason", "result, MiB", "kernel, MiB", "ratio", "")
    try:
        rest, rest_counted = measure(box, Row("nothing", "", 0))
        for row in ROWS:
            box.settle()
            result, counted = measure(box, row)
            said, real = result.usage.memory_peak_mib - rest.usage.memory_peak_mib, counted - rest_counted
            is_true = abs(said - real) <= TENTH * real + SLACK_MIB
            must = row.seen or layer
            lies += must and not is_true
            verdict = "true" if is_true else "LIES" if must else "stated"
            ratio = f"{said / real:.2f}" if real > SLACK_MIB else "-"
            table.add_row(row.name, result.exit_reason.value, f"{said:.1f}", f"{real:.1f}", ratio, verdict)
    finally:
        box.close()
    Console(width=120).print(table)
    return lies


def open_box(**more: object) -> tuple[Policy, Host, Template]:
    """The delivered policy for scripts, with a light zygote, on this host."""
    policy = load_policies(ROOT / "policies")["custom_script"]
    policy = msgspec.structs.replace(policy, preload=("handlers.custom_script",), preload_if_named=(), **more)
    places = {"scripts": ROOT / "scripts", "models": Path(tempfile.mkdtemp())}
    template = Template(
        code=ROOT, entry="handlers.entry:main", libraries=library_sets(), places=places, uid=60999, gid=60999
    )
    return policy, probe_host(), template


def main() -> int:
    """Exit code 0 when no row lies that should not."""
    policy, host, template = open_box()
    return 1 if compare(policy, host, template, layer=host.cgroup is not None) else 0


if __name__ == "__main__":
    sys.exit(main())

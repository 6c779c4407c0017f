"""Tries the project under other Linux kernels: ``python -m tests.kernels``, which ``make kernel-test`` calls.

Needs root, a Debian machine, half an hour to two hours, and 20 GB while it runs. What happens:

1. Kernels come from Debian's archive, by the mirror that apt uses here: 6.1 (Debian 12) and 6.12 (Debian 13) as they
   are delivered, and 6.1 as a program (user-mode Linux). A disk is made with Debian, this interpreter, the libraries
   and the models.
2. The whole kernels run in qemu, emulated: true in every respect, and 10 to 50 times slower. There `check` looks at the
   host, one task of each type runs in both profiles, as root and as an ordinary user, and the delivered AppArmor
   profile is put in force.
3. User-mode Linux is fast, and has one processor, no Landlock and no AppArmor. There every attack of the table runs,
   and the cgroup layer.

A table of what held is printed at the end; the exit code is 1 if anything failed. Everything lies in one folder, which
is removed at the end; with ``--keep FOLDER`` it stays, with the consoles, and the next run starts sooner.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from engine.api.docs.examples import EXAMPLES
from tests.kernels.findings import End, Finding, Progress, completed, expected, has_failed, read, table
from tests.kernels.machines import KERNELS, Kernel, Lab

TOOLS = ("qemu-system-x86_64", "debootstrap", "busybox", "depmod", "modprobe", "cpio", "mke2fs", "git")
INSTALL = "apt-get install qemu-system-x86 debootstrap busybox-static kmod cpio e2fsprogs git"
NAMES = [kernel.name for kernel in KERNELS]
LAST_LINES = 20
PARTS = ("check", "tasks", "apparmor", "attacks", "cgroup")


def try_kernel(lab: Lab, kernel: Kernel, parts: tuple[str, ...], limit_s: float, console: Path) -> list[Finding]:
    """Boot a kernel, print what it finds as it comes, and return it all."""
    started_s, found, has_ended = time.monotonic(), [], False
    with lab.booted(kernel, parts, limit_s) as lines, console.open("w", encoding="utf-8") as kept:
        for line in lines:
            kept.write(line)
            kept.flush()
            match read(line):
                case Finding() as one:
                    found.append(one)
                    text = f"{one.verdict}: {one.promise}, {one.who}{', ' if one.detail else ''}{one.detail}"
                case Progress(text=text):
                    pass
                case End():
                    has_ended, text = True, "the machine has ended"
                case None:
                    continue
            print(f"[{(time.monotonic() - started_s) / 60:5.1f} min] {kernel.name}: {text}", flush=True)
    if not has_ended:
        last = "".join(console.read_text(encoding="utf-8").splitlines(keepends=True)[-LAST_LINES:])
        print(f"{kernel.name}: the machine ended too early, or after {limit_s / 60:.0f} min:\n{last}", flush=True)
    return completed(found, [one for part in parts for one in expected(part, EXAMPLES)])


def main() -> int:
    """Everything that is asked for; 1 if a promise did not hold, 2 if nothing could be tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", action="append", choices=NAMES, help="this one only; may be repeated")
    parser.add_argument("--part", action="append", choices=PARTS, help="this part only; may be repeated")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep disks, kernels and consoles there")
    parser.add_argument("--limit-min", type=float, default=180, help="after which a machine is killed (180)")
    asked = parser.parse_args()
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0 or platform.machine() != "x86_64":
        print(f"needs root, an x86-64 machine with Debian, and: {INSTALL}", file=sys.stderr)
        return 2
    try:
        found = try_all(asked)
    except (LookupError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not found:
        print("error: that kernel has nothing with which these parts could be tried", file=sys.stderr)
        return 2
    print(table(found))
    return 1 if has_failed(found) else 0


def try_all(asked: argparse.Namespace) -> dict[str, list[Finding]]:
    """Each kernel that is asked for, one after the other: its name → what it found.

    Raises:
        LookupError: this is no Debian, or apt has no lists.
        RuntimeError: a kernel or a disk cannot be made.
    """
    with contextlib.ExitStack() as stack:
        folder = (asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kernel-test-")))).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, list[Finding]] = {}
        for kernel in KERNELS:
            parts = tuple(part for part in asked.part or kernel.parts if part in kernel.possible)
            if parts and kernel.name in (asked.kernel or NAMES):
                console = folder / f"console-{kernel.name}.txt"
                found[kernel.name] = try_kernel(Lab(folder), kernel, parts, asked.limit_min * 60, console)
        return found


if __name__ == "__main__":
    sys.exit(main())

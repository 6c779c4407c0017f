"""The machines: a Debian kernel whole in qemu, and one that is a program (user-mode Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tests.kernels import disk
from tests.kernels.packages import Suite

MEMORY_MIB = 5120


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel that the project is tried under."""

    name: str
    machine: Literal["qemu", "uml"]
    suite: str
    """Of Debian."""
    parts: tuple[str, ...]
    """What is tried unless somebody asks for something else."""
    possible: tuple[str, ...]
    """What can be tried at all: user-mode Linux has no Landlock, and no AppArmor."""


_WHOLE = ("check", "tasks", "apparmor")
KERNELS = (
    Kernel(
        name="6.1-uml", machine="uml", suite="bookworm", parts=("attacks", "cgroup"), possible=("attacks", "cgroup")
    ),
    Kernel(name="6.12", machine="qemu", suite="trixie", parts=_WHOLE, possible=(*_WHOLE, "attacks", "cgroup")),
    Kernel(name="6.1", machine="qemu", suite="bookworm", parts=_WHOLE, possible=(*_WHOLE, "attacks", "cgroup")),
)


class Lab:
    """A folder with the disks and kernels, which are made when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def booted(self, kernel: Kernel, parts: Sequence[str], limit_s: float) -> Iterator[Iterator[str]]:
        """The lines of the console of a machine that tries ``parts``; it is killed after ``limit_s``, or at the end."""
        root = disk.make_root(self._folder, Suite(self._folder, "trixie"))
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            project = disk.make_project(Path(folder))
            boot = self._qemu if kernel.machine == "qemu" else self._uml
            command, variables = boot(kernel, root, project, Path(folder), ",".join(parts))
            machine = subprocess.Popen(
                command, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
            end = threading.Timer(limit_s, os.killpg, (machine.pid, signal.SIGKILL))
            end.start()
            try:
                yield iter(machine.stdout or ())
            finally:
                end.cancel()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(machine.pid, signal.SIGKILL)
                machine.wait()

    def _qemu(
        self, kernel: Kernel, root: Path, project: Path, folder: Path, parts: str
    ) -> tuple[list[str], dict[str, str]]:
        files, version = self._fetch(kernel)
        words = "console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on mitigations=off audit=1"
        # nobody writes to the root disk, and user-mode Linux may have it, too
        disks = [(root, "snapshot=on,file.locking=off"), (project, "readonly=on")]
        drives = [f"file={path},format=raw,if=virtio,{how}" for path, how in disks]
        # emulated, for that works on any machine; with KVM it would be some twenty times faster
        command = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB),
            "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
            "-device", "virtio-rng-pci",
            *(part for drive in drives for part in ("-drive", drive)),
            "-kernel", str(next(files.glob(f"boot/vmlinuz-{version}"))),
            "-initrd", str(disk.make_initramfs(folder, files, version)),
            "-append", f"{words} {_told(kernel, parts, '/dev/vdb')}",
        ]  # fmt: skip
        return command, {}

    def _uml(
        self, kernel: Kernel, root: Path, project: Path, folder: Path, parts: str
    ) -> tuple[list[str], dict[str, str]]:
        files, _ = self._fetch(kernel)
        command = [
            str(files / "usr/bin/linux.uml"), f"mem={MEMORY_MIB}M", f"uml_dir={folder}", "umid=test",
            f"ubd0={folder}/overlay,{root}", f"ubd1r={project}", "root=/dev/ubda", "rw", "init=/kernel-test-init",
            "panic=-1", "quiet", "con=null", "con0=fd:0,fd:1", *_told(kernel, parts, "/dev/ubdb").split(),
        ]  # fmt: skip
        return command, {"TMPDIR": "/dev/shm"}

    def _fetch(self, kernel: Kernel) -> tuple[Path, str]:
        """The unpacked package of a kernel, fetched once, and the kernel's version."""
        at = self._folder / kernel.name
        if not at.exists():
            suite, unfinished = Suite(self._folder, kernel.suite), at.with_suffix(".unfinished")
            suite.unpack(unfinished, suite.kernel_package() if kernel.machine == "qemu" else "user-mode-linux")
            unfinished.rename(at)
        found = sorted(at.glob("boot/vmlinuz-*"))
        return at, found[0].name.removeprefix("vmlinuz-") if found else ""


def _told(kernel: Kernel, parts: str, project: str) -> str:
    """What init.sh reads on the kernel's command line."""
    told = {"machine": kernel.machine, "suite": kernel.suite, "parts": parts, "disk": project}
    return " ".join(f"kernel_test.{name}={value}" for name, value in told.items())

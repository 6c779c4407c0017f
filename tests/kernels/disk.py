"""The disks of a machine: Debian with an interpreter, the libraries and the models; and the project as it is now."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kernels.packages import Suite, mirror, own_suite

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PROJECT = "srv/unityai"
"""The project's folder inside."""
HEAVY = (".venv", ".libraries", "models")
"""What belongs to the project and changes seldom."""
PACKAGES = "python3,libseccomp2,apparmor,procps,iproute2,ca-certificates"
"""Debian's own Python brings the shared libraries of ours, too."""
MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "virtio_rng")
"""What must be there before the root disk can be mounted; what a kernel has built in is not looked for."""
DISK_SIZE = "12G"
_LEFT_OUT = ("./lib/python3.*/test",)
"""Of the interpreter: CPython's own tests."""


def make_root(folder: Path, parser_of: Suite) -> Path:
    """The root disk, made once: a work of minutes.

    Args:
        folder: where it lies.
        parser_of: the suite whose AppArmor parser lies beside Debian's own, for kernels that are newer than that one.
    """
    disk, root, unfinished = folder / "root.img", folder / "root", folder / "root.unfinished"
    if disk.exists():
        return disk
    print("makes the root disk, which takes some minutes", flush=True)
    shutil.rmtree(root, ignore_errors=True)
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", own_suite(), str(root), mirror())
    _copy(Path(sys.base_prefix), root / sys.base_prefix.lstrip("/"))
    for name in HEAVY:
        if (ROOT / name).is_dir():
            _copy((ROOT / name).resolve(), root / PROJECT / name)
    parser_of.unpack(root / "apparmor" / parser_of.name, "apparmor", "libc6")
    run("chroot", str(root), "useradd", "--create-home", "--uid", "1000", "user")
    shutil.copy(HERE / "init.sh", root / "kernel-test-init")
    (root / "kernel-test-init").chmod(0o755)
    unfinished.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext4", "-d", str(root), "-O", "^metadata_csum", str(unfinished), DISK_SIZE)
    shutil.rmtree(root)
    unfinished.rename(disk)
    return disk


def make_project(folder: Path) -> Path:
    """The second disk: the project's files as they lie here, compiled, as a bare tar."""
    disk, staged = folder / "project.tar", folder / "project"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    there = b"\0".join(name for name in names if name and os.path.lexists(os.path.join(os.fsencode(ROOT), name)))
    pack = ["tar", "-C", str(ROOT), "--null", "-T", "-", "-cf", "-"]
    packed = subprocess.run(pack, input=there, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", str(staged), "-xf", "-"], input=packed, check=True)
    code = [str(staged / name) for name in ("engine", "sandbox", "handlers", "tests")]
    run(sys.executable, "-m", "compileall", "-q", "-s", str(staged), "-p", f"/{PROJECT}", *code)
    run("tar", "-C", str(staged), "--mode=a+rX", "-cf", str(disk), ".")
    return disk


def make_initramfs(folder: Path, kernels: Path, version: str) -> Path:
    """The initramfs of a kernel: busybox, and the few modules that its root disk needs."""
    tree, archive = folder / "initramfs", folder / f"initramfs-{version}"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("bin", "proc", "dev", "root", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin/busybox")
    shutil.copy(HERE / "first_init.sh", tree / "init")
    (tree / "init").chmod(0o755)
    for number, module in enumerate(_modules(kernels, version), start=10):
        content = module.read_bytes()
        content = lzma.decompress(content) if module.suffix == ".xz" else content
        (tree / "modules" / f"{number}-{module.name.partition('.')[0]}.ko").write_bytes(content)
    names = "\0".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with archive.open("wb") as out:
        command = ["cpio", "--quiet", "--null", "-o", "-H", "newc", "-R", "0:0"]
        subprocess.run(command, cwd=tree, input=names.encode(), stdout=out, check=True)
    return archive


def _modules(kernels: Path, version: str) -> list[Path]:
    """Files of modules, each after those that it needs."""
    (at,) = [
        path for path in (kernels / "lib/modules" / version, kernels / "usr/lib/modules" / version) if path.is_dir()
    ]
    base = at.parents[2]
    run("depmod", "-b", str(base), version)
    found: list[Path] = []
    for name in MODULES:
        command = ["modprobe", "-d", str(base), "-S", version, "--show-depends", name]
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        found += [Path(line.split()[1]) for line in lines if line.startswith("insmod ")]
    return list(dict.fromkeys(found))


def _copy(source: Path, target: Path) -> None:
    """Copy a folder; everything above it may be entered by all, for runs have a user of their own."""
    if target.exists() and source == Path("/usr"):  # an interpreter of Debian's is there already
        return
    target.mkdir(parents=True, exist_ok=True)
    left_out = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    with subprocess.Popen(["tar", "-C", str(source), *left_out, "-cf", "-", "."], stdout=subprocess.PIPE) as packed:
        subprocess.run(["tar", "-C", str(target), "-xf", "-"], stdin=packed.stdout, check=True)
    if packed.returncode:
        raise RuntimeError(f"{source} cannot be copied")
    for part in (target, *target.parents):
        part.chmod(part.stat().st_mode | 0o055)
        if (part / "kernel-test-init").exists() or (part / "etc/debian_version").exists():
            break


def run(*command: str) -> None:
    """Run a program that must succeed.

    Raises:
        RuntimeError: it did not; with the end of what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-800:]}")

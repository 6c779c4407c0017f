"""The file system that a run sees: a minimal read-only root and one private workspace.

    /python      the interpreter, its standard library and the libraries that the policy names
    /usr /lib    the shared libraries that the interpreter needs
    /app         handlers/ and sandbox/
    /scripts     the named scripts, where the policy grants them
    /models      the models, likewise
    /inputs      the operator's files, likewise
    /certificates.pem  what to trust, where the policy grants network
    /usr/share/zoneinfo, /usr/lib/locale/C.utf8  time zones, and the locale that LANG names
    /etc         a few small files of our own: passwd, group, hosts, nsswitch.conf, os-release, localtime
    /dev         null zero full random urandom
    /work        the workspace: a tmpfs of its own for each run, the only place that can be written
    /tmp         a link to /work/tmp

There is no /proc, /sys, /home or /var, and nothing of the host's /etc. Sources: mount_namespaces(7), pivot_root(2),
tmpfs(5), passwd(5), nsswitch.conf(5), os-release(5).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sandbox.isolation import libc
from sandbox.isolation.namespaces import HOSTNAME, INNER_UID
from sandbox.isolation.prepared import Calls, Later

ZONES, LOCALE = "/usr/share/zoneinfo", "/usr/lib/locale/C.utf8"
"""Where glibc and Python look for time zones, and glibc for the locale C.UTF-8."""

USER = HOSTNAME.decode()
"""Name of the run's user, group and host."""

ETC: dict[str, str] = {
    "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\n{USER}:x:{INNER_UID}:{INNER_UID}:{USER}:/work:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": f"root:x:0:\n{USER}:x:{INNER_UID}:\nnogroup:x:65534:\n",
    "hosts": f"127.0.0.1 localhost {USER}\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\n",
    "os-release": "NAME=Linux\nID=linux\nPRETTY_NAME=Linux\n",
}
"""Name in /etc → content, the same on every host. What anybody else owns appears as nobody's: user_namespaces(7)."""

DEVICES = ("null", "zero", "full", "random", "urandom")
READ_ONLY_DEVICES = ("zero",)
"""Who may write to /dev/zero can map it shared, which is anonymous memory that no filter can tell from a file."""
_READ_ONLY = libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NOSUID
_OLD = "/.old"


def build_root(binds: Sequence[tuple[str, str]], links: Sequence[tuple[str, str]]) -> None:
    """Make a new root out of ``binds`` and leave the host's behind for good.

    Args:
        binds: (host path, path inside), each a file or a folder; shown read-only, without set-user-id and devices.
        links: (target, path inside) of symbolic links.
    Raises:
        OSError: a source is missing or the kernel refuses a mount.
    """
    libc.mount(None, b"/", None, libc.MS_REC | libc.MS_PRIVATE)
    base = next(path for path in ("/tmp", "/run", "/mnt", "/var") if os.path.isdir(path))  # noqa: S108 only covered
    libc.mount(b"tmpfs", base.encode(), b"tmpfs", libc.MS_NOSUID | libc.MS_NODEV, b"mode=0755,size=1m,nr_inodes=1024")
    os.mkdir(base + _OLD)
    libc.pivot_root(base.encode(), (base + _OLD).encode())
    os.chdir("/")
    for source, target in binds:
        _bind(_OLD + source, target)
    _make_devices()
    _make_etc()
    os.makedirs("/work", exist_ok=True)
    for goal, path in links:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(goal, path)
    libc.umount(_OLD.encode(), libc.MNT_DETACH)
    os.rmdir(_OLD)
    libc.mount_setattr(b"/", _READ_ONLY | libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOEXEC, recursive=False)


def mount_workspace(calls: Calls, *, size_bytes: int, files: int) -> Later:
    """Mount a fresh tmpfs on /work, make it the working directory; a descriptor for it.

    Past ``size_bytes`` or ``files`` (inodes) the kernel answers ENOSPC.
    """
    options, flags = f"mode=0700,size={size_bytes},nr_inodes={files}", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    calls.call("mount /work", "mount", b"tmpfs", b"/work", b"tmpfs", flags, options.encode())
    calls.call("chdir /work", "chdir", b"/work")
    for folder in (b"tmp", b"artifacts"):
        calls.call(f"mkdir {folder.decode()}", "mkdirat", libc.AT_FDCWD, folder, 0o700)
    return calls.call("open /work", "openat", libc.AT_FDCWD, b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _bind(source: str, target: str) -> None:
    _make_mount_point(source, target)
    libc.mount(source.encode(), target.encode(), None, libc.MS_BIND | libc.MS_REC)
    libc.mount_setattr(target.encode(), _READ_ONLY | libc.MOUNT_ATTR_NODEV, recursive=True)


def _make_devices() -> None:
    for name in DEVICES:
        source, target = f"{_OLD}/dev/{name}", f"/dev/{name}"
        _make_mount_point(source, target)
        libc.mount(source.encode(), target.encode(), None, libc.MS_BIND)
        libc.mount_setattr(target.encode(), _READ_ONLY | libc.MOUNT_ATTR_NOEXEC, recursive=False)


def _make_etc() -> None:
    os.mkdir("/etc")
    for name, content in ETC.items():
        with open(f"/etc/{name}", "x", encoding="utf-8") as file:
            file.write(content)
        os.chmod(f"/etc/{name}", 0o444)
    os.symlink(f"{ZONES}/UTC", "/etc/localtime")


def _make_mount_point(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444))

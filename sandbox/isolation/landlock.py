"""Landlock: an access list for files, TCP, signals and abstract sockets that the kernel holds to the process.

The second, independent layer behind the mount and network namespaces.
Sources: landlock(7), Documentation/userspace-api/landlock.rst, include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from sandbox.isolation import libc
from sandbox.isolation.prepared import Calls

FLOOR_ABI = 1
"""Linux 5.13. What older ABIs leave open is closed by read-only mounts and namespaces, or else by seccomp: truncation
(mediated from ABI 3), TCP (4), ioctls on devices (5), signals and abstract sockets (6)."""
REFER_ABI, TRUNCATE_ABI, SCOPE_ABI = 2, 3, 6
KNOWN_ABI = 7
"""The latest whose rules are written here; of a later one no more is used."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
RUN = READ | EXECUTE
DEVICE = READ_FILE | WRITE_FILE
READ_ONLY_DEVICE = READ_FILE
WORKSPACE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE

NET_ABI = 4
_NET_BIND_AND_CONNECT = 0b11
_NET_CONNECT = 0b10
_SCOPE_ABSTRACT_UNIX_AND_SIGNAL = 0b11
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
_LOG_SAME_EXEC_OFF = 1


class _RulesetAttr(ctypes.Structure):
    # struct landlock_ruleset_attr
    _fields_ = [(name, ctypes.c_uint64) for name in ("handled_access_fs", "handled_access_net", "scoped")]


class _PathBeneathAttr(ctypes.Structure):
    # struct landlock_path_beneath_attr
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


class _NetPortAttr(ctypes.Structure):
    # struct landlock_net_port_attr
    _fields_ = [("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def abi_version() -> int:
    """The kernel's Landlock ABI, 0 when there is none."""
    try:
        return libc.syscall("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(calls: Calls, abi: int, rules: Sequence[tuple[int, int]], *, connect_port: int = 0) -> None:
    """Deny the calling thread everything that Landlock mediates, except ``rules``.

    Args:
        abi: the ABI to use, at most the kernel's.
        rules: (descriptor of a folder or file, access rights beneath it).
        connect_port: the one TCP port that may be connected to; 0 for none.
    """
    handled_fs = _handled_fs(abi)
    attr = _RulesetAttr(
        handled_fs, _NET_BIND_AND_CONNECT if abi >= NET_ABI else 0, _SCOPE_ABSTRACT_UNIX_AND_SIGNAL if abi >= 6 else 0
    )
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = calls.call("landlock", "landlock_create_ruleset", attr, size, 0)
    for fd, access in rules:
        beneath = _PathBeneathAttr(access & handled_fs, fd)
        calls.call("landlock", "landlock_add_rule", ruleset, _RULE_PATH_BENEATH, beneath, 0)
    if connect_port and abi >= NET_ABI:
        port = _NetPortAttr(_NET_CONNECT, connect_port)
        calls.call("landlock", "landlock_add_rule", ruleset, _RULE_NET_PORT, port, 0)
    # a denial would otherwise be an audit record each time: a script could flood the host's log
    flags = _LOG_SAME_EXEC_OFF if abi >= 7 else 0
    calls.call("landlock", "landlock_restrict_self", ruleset, flags)
    calls.call("landlock", "close", ruleset)


def _handled_fs(abi: int) -> int:
    count = {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)
    return (1 << count) - 1

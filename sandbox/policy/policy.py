"""Policy files: what a run may do. One complete TOML file per task type, read strictly.

A file says everything; nothing is inherited and nothing has a default but ``libraries``, so that an auditor sees a
whole grant on one page. Any unknown key, missing key, value out of range or contradiction is a ``PolicyError``
that names the file, the place in it, the key and the reason. Every fault is reported, not only the first.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sandbox.egress.address import IPNetwork
from sandbox.egress.hosts import entry_fault
from sandbox.errors import PolicyError, PolicyFault
from sandbox.isolation.syscalls import ANSWERED, PARTLY, PARTLY_NETWORK, QUIET
from sandbox.policy.positions import PolicyText

LAYERS = ("namespaces", "landlock", "seccomp", "rlimits")
"""Those that every policy should require; ``cgroup`` beside them is not to be had on every host."""
PLACES = ("python", "scripts", "models")
MAX_FILE_BYTES = 64 << 10
_ODD_NAME = "name: a policy file is named by small letters, digits, _ and -, a letter first"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every limit is hard. policies/README.md says what a script sees when it meets one."""

    wall_s: Annotated[float, Meta(gt=0, le=86400)]
    cpu_s: Annotated[float, Meta(gt=0, le=86400)]
    memory_mib: Annotated[int, Meta(ge=64, le=1 << 20)]
    processes: Annotated[int, Meta(ge=0, le=1024)]
    """Beyond the child itself. More than 0 needs ``syscalls.profile = "processes"``."""
    threads: Annotated[int, Meta(ge=1, le=4096)]
    open_files: Annotated[int, Meta(ge=16, le=65536)]
    output_kib: Annotated[int, Meta(ge=1, le=1 << 20)]
    result_kib: Annotated[int, Meta(ge=1, le=1 << 20)]
    workspace_mib: Annotated[int, Meta(ge=1, le=1 << 16)]
    workspace_files: Annotated[int, Meta(ge=16, le=1 << 24)]
    artifacts_mib: Annotated[int, Meta(ge=0, le=1 << 16)]
    processors: Annotated[float, Meta(ge=0.01, le=4096)] | None = None
    """It has the time of so many, all its threads together; ``None`` for all. Needs the layer ``cgroup``."""

    def narrowed(self, *, timeout_s: float | None = None, memory_mib: int | None = None) -> Limits:
        """The same limits, lowered where the argument is lower. Never raises a limit.

        Args:
            timeout_s: wall time asked for, seconds.
            memory_mib: memory asked for, MiB.
        """
        return msgspec.structs.replace(
            self,
            wall_s=min(self.wall_s, timeout_s) if timeout_s is not None else self.wall_s,
            memory_mib=min(self.memory_mib, memory_mib) if memory_mib is not None else self.memory_mib,
        )


class Filesystem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which known places a run may read; never a path from a request."""

    read: tuple[Literal["python", "scripts", "models"], ...]
    inputs: Literal["none", "read-only"]


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which hosts a run may reach, and how much of it. An empty list is no network at all, and then every cap is 0."""

    allow: tuple[str, ...]
    """``HOST:PORT``; the grammar is in ``sandbox.egress.hosts``."""
    deny_private: bool
    """Whether private, loopback and link-local addresses stay shut but for the operator's exceptions."""
    connections: Annotated[int, Meta(ge=0, le=1024)]
    """At once."""
    connections_total: Annotated[int, Meta(ge=0, le=1 << 20)]
    """Over the whole run, refused ones included."""
    in_mib: Annotated[int, Meta(ge=0, le=1 << 20)]
    """Received from all hosts together."""
    out_mib: Annotated[int, Meta(ge=0, le=1 << 20)]
    """Sent to all hosts together."""
    head_kib: Annotated[int, Meta(ge=0, le=256)]
    """Longest head of a request or of a response, and longest TLS greeting."""
    first_byte_s: Annotated[float, Meta(ge=0, le=86400)]
    """Longest wait, each: for the run's own head, for look-up and connection together, for the response's head."""
    total_s: Annotated[float, Meta(ge=0, le=86400)]
    """Longest life of one connection."""

    @property
    def caps(self) -> dict[str, float]:
        """Key → value of what counts or measures, without the two keys that say where to."""
        return {key: getattr(self, key) for key in self.__struct_fields__ if key not in ("allow", "deny_private")}


class Syscalls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which system calls a run may make."""

    profile: Literal["threads", "processes"]
    allow: tuple[str, ...]


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The grants and limits of a run. ``name`` and ``digest`` come from the file, not from its text."""

    description: Annotated[str, Meta(min_length=1)]
    task_type: Annotated[str, Meta(pattern="^[a-z][a-z_]*$")]
    max_attempts: Annotated[int, Meta(ge=1, le=100)]
    """How often the work of one request may be started in all. Part of the grant, and so of the digest. Like
    ``task_type`` it is for the caller: nothing in this package reads it, or starts a run by itself."""
    start: Literal["warm", "cold"]
    preload: tuple[str, ...]
    preload_if_named: tuple[tuple[str, ...], ...]
    """Groups, also loaded beforehand, but only for requests whose text holds the first part of one of a group's names:
    that group, and all groups before it."""
    libraries: Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]*$")] = ""
    """Name of the set of packages that runs may import. Where the file does not say, ``default_libraries``."""
    require: tuple[Literal["namespaces", "landlock", "seccomp", "rlimits", "cgroup"], ...]
    limits: Limits
    filesystem: Filesystem
    network: Network
    syscalls: Syscalls
    name: str = ""
    digest: str = ""

    @property
    def fully_loaded(self) -> Policy:
        """The same grant, with everything loaded for every request."""
        return self.loaded_with(len(self.preload_if_named))

    def loaded_with(self, groups: int) -> Policy:
        """The same grant, with the first ``groups`` of ``preload_if_named`` loaded for every request."""
        named = [name for group in self.preload_if_named[:groups] for name in group]
        return msgspec.structs.replace(self, preload=(*self.preload, *named), preload_if_named=())


def default_libraries(task_type: str) -> str:
    """The set of libraries of a policy that names none."""
    return "scripts" if task_type == "custom_script" else "handlers"


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, and the text that it was read from."""

    path: Path
    text: str
    policy: Policy

    def comment(self, key: str, item: str) -> str:
        """The comment beside a text in the value of a key (dotted); empty when there is none."""
        return PolicyText(self.text).comment(key, item)


def load_policy(path: Path, *, exceptions: tuple[IPNetwork, ...] = ()) -> Policy:
    """Read one policy file.

    Args:
        path: of the file.
        exceptions: private networks that the operator opens to policies, as ``parse_exceptions`` gives them.

    Raises:
        PolicyError: the file cannot be read, or is not a whole and consistent policy.
    """
    return read_policy(path, exceptions=exceptions).policy


def load_policies(folder: Path, *, exceptions: tuple[IPNetwork, ...] = ()) -> dict[str, Policy]:
    """Read every ``*.toml`` file of a folder: policy name → policy. ``exceptions`` as of ``load_policy``.

    Raises:
        PolicyError: the folder has no policy file, or some are invalid; names all of their faults.
    """
    return {name: file.policy for name, file in read_policies(folder, exceptions=exceptions).items()}


def read_policies(folder: Path, *, exceptions: tuple[IPNetwork, ...] = ()) -> dict[str, PolicyFile]:
    """Read every policy file of a folder and keep the texts: policy name → file.

    Raises:
        PolicyError: as of ``load_policies``.
    """
    paths = policy_paths(folder)
    if not paths:
        raise PolicyError(
            f"{folder}: no policy file (*.toml) in this folder; set POLICIES_DIR to the folder that has them"
        )
    files: dict[str, PolicyFile] = {}
    faults: list[PolicyFault] = []
    for path in paths:
        try:
            files[path.stem] = read_policy(path, exceptions=exceptions)
        except PolicyError as error:
            faults += error.faults
    if faults:
        raise PolicyError.of(tuple(faults))
    return files


def policy_paths(folder: Path) -> list[Path]:
    """The paths of a folder's policy files, whether they are valid or not."""
    return sorted(folder.glob("*.toml"))


def read_policy(path: Path, *, exceptions: tuple[IPNetwork, ...] = ()) -> PolicyFile:
    """Read one policy file, and keep its text.

    Raises:
        PolicyError: as of ``load_policy``; every fault of the file is in it.
    """
    return parse_policy(path, _read(path), exceptions=exceptions)


def parse_policy(path: Path, data: bytes, *, exceptions: tuple[IPNetwork, ...] = ()) -> PolicyFile:
    """A policy from the bytes of its file.

    Args:
        path: of the file, which is not read: the policy has its name.
        data: what is in it.
        exceptions: as of ``load_policy``.

    Raises:
        PolicyError: it is not a whole and consistent policy; every fault is in it.
    """
    text, raw = _parse(path, data)
    faults = _file_faults(path, raw, exceptions)
    if faults:
        located = PolicyText(text)
        raise PolicyError.of(tuple(_located(path, located, raw, fault) for fault in faults))
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    policy = msgspec.convert(raw, Policy)
    libraries = policy.libraries or default_libraries(policy.task_type)
    policy = msgspec.structs.replace(policy, name=path.stem, digest=digest, libraries=libraries)
    return PolicyFile(path=path, text=text, policy=policy)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PolicyError.of((PolicyFault(file=str(path), reason=f"cannot be read: {error.strerror}"),)) from error


def _parse(path: Path, data: bytes) -> tuple[str, dict[str, Any]]:
    """The text of a file and its tables.

    Raises:
        PolicyError: it is too long, or is not TOML.
    """
    if len(data) > MAX_FILE_BYTES:
        reason = f"longer than {MAX_FILE_BYTES >> 10} KiB, which nobody could audit"
        raise PolicyError.of((PolicyFault(file=str(path), reason=reason),))
    try:
        text = data.decode("utf-8")
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        fault = _syntax_fault(path, data.decode("utf-8"), str(error))
    except UnicodeDecodeError as error:
        fault = PolicyFault(file=str(path), reason=f"not TOML: not UTF-8 (byte {error.start})")
    except RecursionError:
        fault = PolicyFault(file=str(path), reason="not TOML: nested too deep")
    raise PolicyError.of((fault,))


_PLACE = re.compile(r"(?P<reason>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


def _syntax_fault(path: Path, text: str, message: str) -> PolicyFault:
    """The parser's message as a fault; the place is taken from the end of its sentence."""
    lines = text.split("\n")
    found = _PLACE.fullmatch(message)
    reason, line, column = found.group("reason", "line", "column") if found else (message, None, None)
    place = (int(line), int(column or 1)) if line else (len(lines), len(lines[-1]) + 1)
    return PolicyFault(file=str(path), reason=f"not TOML: {reason}", line=place[0], column=place[1])


def _located(path: Path, text: PolicyText, raw: dict[str, Any], fault: str) -> PolicyFault:
    """A fault, given as ``key: reason``, with the place of its key, or of the text in its value that it speaks of."""
    key, _, reason = fault.partition(": ")
    value: Any = raw
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    items = [item for item in value if isinstance(item, str) and item in reason] if isinstance(value, list) else []
    item = min(items, key=lambda item: (reason.index(item), -len(item)), default=None)
    position = text.position(key, item)
    line, column = position or (None, None)
    return PolicyFault(file=str(path), key=key, reason=reason, line=line, column=column)


def _file_faults(path: Path, raw: dict[str, Any], exceptions: tuple[IPNetwork, ...]) -> list[str]:
    """Everything that is wrong with the tables of a file, each as ``key: reason``."""
    faults = [] if re.fullmatch(r"[a-z][a-z0-9_-]*", path.stem) else [_ODD_NAME]
    faults += [f"{name}: comes from the file itself, remove it" for name in ("name", "digest") if name in raw]
    faults += _type_faults({name: raw[name] for name in raw if name not in ("name", "digest")}, Policy)
    return faults or _contradictions(msgspec.convert(raw, Policy), exceptions)


def _type_faults(table: dict[str, Any], kind: type[msgspec.Struct], above: str = "") -> list[str]:
    """Unknown keys, missing keys, and values that are not of their type or range, at any depth."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    faults = [f"{above}{name}: unknown key{_meant(name, fields)}" for name in table if name not in fields]
    for name, field in fields.items():
        if name not in table:
            faults += [f"{above}{name}: missing"] if field.required else []
        elif not _is_table(field.type):
            faults += [f"{above}{name}: {fault}" for fault in _value_faults(table[name], field.type)]
        elif isinstance(table[name], dict):
            faults += _type_faults(table[name], field.type, f"{above}{name}.")
        else:
            faults.append(f"{above}{name}: must be a table, [{name}]")
    return faults


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _meant(name: str, known: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; is {near[0]} meant?" if near else ""


def _value_faults(value: Any, kind: Any) -> list[str]:
    """Find the faults of one value: one for each invalid item of a list, else at most one."""
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return [fault for item in value for fault in _value_faults(item, typing.get_args(kind)[0])]
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    if choices and value not in choices:
        return [f"{value!r} is none of {', '.join(map(str, choices))}"]
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        unit = (
            "; write the number alone, its unit is in the key" if isinstance(value, str) and "str" in str(error) else ""
        )
        return [f"{str(error).partition(' - at ')[0]}; the file says {value!r}{unit}"]
    return []


_NEVER = frozenset({
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl",
    "add_key", "request_key", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "mount",
    "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "unshare", "setns", "clone3", "init_module", "finit_module", "delete_module", "kexec_load",
    "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "settimeofday", "clock_settime", "adjtimex", "seccomp",
    "landlock_restrict_self", "socket", "name_to_handle_at", "open_by_handle_at", "execveat", "modify_ldt", "iopl",
    "ioperm", "personality", "memfd_create", "memfd_secret", "shmget", "shmat", "msgget", "semget", "mq_open",
    "sendmsg", "sendmmsg",
})  # fmt: skip
"""Calls that no policy file can open: each would undo a layer, reach past all of them, take memory that no limit sees,
or be a channel between runs where they share namespaces."""


_BY_PROFILE = frozenset({"fork", "vfork", "execve"})
_NOT_TO_WIDEN = frozenset(
    {*PARTLY, *PARTLY_NETWORK, *ANSWERED, *(name for calls in QUIET.values() for name in calls.split())}
)


def _call_faults(calls: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, fault) for name in calls if (fault := _call_fault(name))]


def _call_fault(name: str) -> str:
    if name in _NEVER:
        return "no policy may open this call"
    if name in _NOT_TO_WIDEN:
        return "is as open as it can safely be; a policy cannot widen it"
    if name in _BY_PROFILE:
        return 'comes with syscalls.profile = "processes" and no other way'
    return "" if re.fullmatch(r"[a-z][a-z0-9_]*", name) else "not a system call's name"


def _repeated(policy: Policy) -> list[str]:
    lists = {
        "preload and preload_if_named": policy.fully_loaded.preload,
        "require": policy.require,
        "filesystem.read": policy.filesystem.read,
        "network.allow": policy.network.allow,
        "syscalls.allow": policy.syscalls.allow,
    }
    return [f"{key}: {name!r} is there twice" for key, found in lists.items() for name in _twice(found)]


def _twice(found: tuple[str, ...]) -> list[str]:
    return sorted({name for name in found if found.count(name) > 1})


def _network_faults(network: Network, exceptions: tuple[IPNetwork, ...]) -> list[str]:
    """Entries that the proxy would not take or never grant, and caps that do not go with the list."""
    if not network.allow:
        odd = [key for key, value in network.caps.items() if value]
        return [f"network.{key}: must be 0 while network.allow is empty, which is no network at all" for key in odd]
    faults = [
        f"network.allow: {entry!r}: {fault}"
        for entry in network.allow
        if (fault := entry_fault(entry, deny_private=network.deny_private, exceptions=exceptions))
    ]
    none = [key for key, value in network.caps.items() if not value]
    faults += [f"network.{key}: 0, so that no host in network.allow could be reached" for key in none]
    if network.connections_total < network.connections:
        faults.append("network.connections_total: less than network.connections")
    if network.first_byte_s > network.total_s:
        faults.append("network.first_byte_s: longer than network.total_s")
    return faults


def _contradictions(policy: Policy, exceptions: tuple[IPNetwork, ...]) -> list[str]:
    limits, faults = policy.limits, _repeated(policy)
    if limits.cpu_s > limits.wall_s * 64:
        faults.append("limits.cpu_s: more than 64 cores could use within limits.wall_s")
    if limits.artifacts_mib > limits.workspace_mib:
        faults.append("limits.artifacts_mib: more than limits.workspace_mib can hold")
    if "python" not in policy.filesystem.read:
        faults.append('filesystem.read: must name "python", or no interpreter is there to run')
    if not policy.require:
        faults.append("require: empty; a policy that requires no layer isolates nothing")
    if limits.processors is not None and "cgroup" not in policy.require:
        faults.append('limits.processors: nothing but the layer "cgroup" holds it, and require does not name that')
    faults += _network_faults(policy.network, exceptions)
    if (policy.syscalls.profile == "processes") != (limits.processes > 0):
        faults.append('syscalls.profile: "processes" and limits.processes > 0 go together, or neither')
    faults += [f"syscalls.allow: {name}: {fault}" for name, fault in _call_faults(policy.syscalls.allow)]
    if () in policy.preload_if_named:
        faults.append("preload_if_named: an empty group, which no request can name")
    odd = [name for name in policy.fully_loaded.preload if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name)]
    return faults + [f"preload: {name!r} is not a module name" for name in odd]

"""KERN: calls that reach parts of the kernel which no run needs, one call a row."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from sandbox import ExitReason, Result
from tests.attacks.attack import ANY, DENIED, DONE, Attack, Control
from tests.attacks.field import Field
from tests.attacks.syscall_numbers import NUMBERS, X86
from tests.support.synchronous import value_of


@dataclasses.dataclass(frozen=True)
class Call:
    """One system call that is denied inside by name, and what it does outside."""

    id: str
    severity: str
    name: str
    arguments: str = ""
    """Python text, in the program's own words; see ``attack.PRELUDE``."""
    outside: tuple[str, ...] | None = None
    """The outcome outside; ``None`` for a call that needs a privilege or would harm the host."""
    title: str = ""
    inside: tuple[str, ...] = DENIED
    setup: str = ""
    user_namespace: bool = False
    quiet: bool = False
    """Answered in the kernel, so it is not among the violations."""


_REACHES = ("done", "EINVAL", "EFAULT", "EBADF", "ESRCH", "ENODEV", "ENOTSUP", "EPERM", "ENOENT", "EAGAIN")
_SELF_IOV = """
local, remote = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 2)()
target = buffer(8)
local[:] = remote[:] = [ctypes.addressof(target), 8]
"""
_FILE_AND_PIPE = """
source = os.open(os.__file__, os.O_RDONLY)
out, into = os.pipe()
out2, into2 = os.pipe()
os.write(into2, b"x")
vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer(8)), 8)
"""

_SOCKETS = {
    # family, type, protocol: include/linux/socket.h, include/uapi/linux/netlink.h
    ("KERN-11", "H"): {"NETLINK route": (16, 3, 0), "NETLINK xfrm": (16, 3, 6), "NETLINK netfilter": (16, 3, 12)},
    ("KERN-13", "C"): {"VSOCK": (40, 1, 0)},
    ("KERN-14", "H"): {
        "ALG": (38, 5, 0), "KEY": (15, 3, 2), "XDP": (44, 3, 0), "TIPC": (30, 2, 0), "BLUETOOTH": (31, 3, 1),
        "CAN": (29, 3, 1), "SMC": (43, 1, 0), "PACKET": (17, 3, 0), "raw": (2, 3, 1), "MCTP": (45, 2, 0),
        "RDS": (21, 5, 0),
    },
}  # fmt: skip


def _calls() -> Iterator[Call]:
    yield Call("KERN-01", "C", "io_uring_setup", "8, buffer(256)", ("done", "EPERM"))
    yield Call("KERN-01", "C", "io_uring_enter", "0, 1, 1, 0, None, 0", ("ENOTSUP", "EBADF", "EINVAL"))
    yield Call("KERN-01", "C", "io_uring_register", "0, 0, None, 0", _REACHES)
    for command in (0, 5, 10, 18):
        yield Call("KERN-02", "C", "bpf", f"{command}, buffer(128), 128", title=f"bpf command {command}")
    yield Call("KERN-04", "H", "userfaultfd", "1", ("done",))
    yield Call("KERN-05", "H", "perf_event_open", "buffer(128), 0, -1, -1, 0")
    for name, flag in {"user": 0x10000000, "mount": 0x20000, "network": 0x40000000, "pid": 0x20000000}.items():
        outside: tuple[str, ...] = ("done",) if name == "user" else ("done", "EPERM")
        yield Call("KERN-07", "C", "unshare", str(flag), outside, title=f"unshare {name}")
        yield Call("KERN-07", "C", "clone", f"{flag | 17}, 0, 0, 0, 0", title=f"clone {name}")
    yield Call("KERN-08", "C", "setns", "0, 0x10000000")
    yield Call("KERN-10", "H", "clone3", "buffer(88), 8", ("EINVAL",), inside=("ENOSYS",), quiet=True)
    for (identity, severity), families in _SOCKETS.items():
        for name, (family, kind, protocol) in families.items():
            arguments = f"{family}, {kind}, {protocol}"
            outside = ("done",) if name == "NETLINK route" else (*_REACHES, "EAFNOSUPPORT", "EPROTONOSUPPORT")
            yield Call(identity, severity, "socket", arguments, outside, title=f"socket {name}")
    for name, flag in {"READ_IMPLIES_EXEC": 0x0400000, "ADDR_NO_RANDOMIZE": 0x0040000, "query": 0xFFFFFFFF}.items():
        yield Call("KERN-16", "M", "personality", str(flag), ("done",), title=f"personality {name}")
    for name, arguments in {
        "kexec_load": "0, 0, None, 0", "kexec_file_load": "-1, -1, 0, None, 0", "reboot": "0, 0, 0, None",
        "swapon": "b'/x', 0", "swapoff": "b'/x'", "acct": "b'/x'", "init_module": "None, 0, None",
        "finit_module": "-1, None, 0", "delete_module": "b'x', 0", "syslog": "3, buffer(), 4096",
        "settimeofday": "None, None", "clock_settime": "0, None", "sethostname": "b'x', 1",
        "quotactl": "0, None, 0, None",
        "fanotify_init": "0, 0", "vhangup": "", "open_by_handle_at": "-100, buffer(), 0",
        "name_to_handle_at": "-100, b'/', buffer(), buffer(), 0", "add_key": "b'user', b'x', b'y', 1, -4",
    }.items():  # fmt: skip
        yield Call("KERN-17", "C", name, arguments)
    if X86:
        yield Call("KERN-17", "C", "iopl", "3")
        yield Call("KERN-17", "C", "ioperm", "0, 1, 1")
        yield Call("KERN-17", "C", "modify_ldt", "0, buffer(), 16")
    yield Call("KERN-19", "H", "process_vm_readv", "os.getpid(), local, 1, remote, 1, 0", ("done",), setup=_SELF_IOV)
    yield Call("KERN-19", "H", "process_vm_writev", "os.getpid(), local, 1, remote, 1, 0", ("done",), setup=_SELF_IOV)
    yield Call("KERN-19", "H", "ptrace", "0, 0, 0, 0", ("done",))
    yield Call("KERN-19", "H", "kcmp", "os.getpid(), os.getpid(), 0, 0, 0", ("done", "ENOSYS"))
    yield Call("KERN-19", "H", "pidfd_open", "os.getpid(), 0", ("done",))
    yield Call("KERN-19", "H", "pidfd_getfd", "-1, 0, 0", ("EBADF",))
    yield Call("KERN-19", "H", "process_madvise", "-1, None, 0, 0, 0", ("EBADF", "EINVAL", "EFAULT", "done"))
    yield Call("KERN-19", "H", "move_pages", "0, 0, None, None, None, 2", ("done", "ENOSYS", "ENODEV", "EINVAL"))
    yield Call("KERN-19", "H", "migrate_pages", "0, 0, None, None", ("done", "ENOSYS", "EINVAL"))
    yield Call("KERN-19", "H", "process_mrelease", "-1, 0", ("EBADF",))
    yield Call("KERN-20", "M", "seccomp", "2, 0, (ctypes.c_uint32 * 1)(0x7FFF0000)", ("done",), title="seccomp query")
    yield Call("KERN-20", "M", "seccomp", "1, 8, buffer(16)", ("EFAULT", "EINVAL", "EACCES"), title="seccomp listener")
    yield Call("KERN-20", "M", "seccomp", "0, 99, None", ("EINVAL",), title="seccomp strict")
    yield Call("KERN-20", "M", "landlock_create_ruleset", "None, 0, 1", ("done",))
    yield Call("KERN-20", "M", "landlock_restrict_self", "-1, 0", ("EBADF", "EPERM", "EOPNOTSUPP"))
    yield Call("KERN-23", "H", "ioctl", "0, 0x5412, b'x'", ("ENOTTY",), title="ioctl TIOCSTI")
    yield Call("KERN-23", "H", "ioctl", "0, 0x541C, b'x'", ("ENOTTY",), title="ioctl TIOCLINUX")
    yield Call("KERN-23", "H", "ioctl", "0, 0x40086602, buffer()", ("ENOTTY",), title="ioctl FS_IOC_SETFLAGS")
    yield Call("KERN-23", "H", "ioctl", "0, 0x8912, buffer()", ("ENOTTY",), title="ioctl SIOCGIFCONF")
    yield Call("KERN-23", "H", "ioctl", "0, 0xAE00, 0", ("ENOTTY",), title="ioctl KVM_GET_API_VERSION")
    yield Call(
        "KERN-23", "H", "ioctl", "device, 0x40085203, buffer()", ("done", "EPERM", "EINVAL"),
        title="ioctl RNDADDENTROPY", setup="device = os.open('/dev/urandom', os.O_RDWR)",
    )  # fmt: skip
    yield Call("KERN-25", "H", "splice", "source, None, into, None, 8, 0", ("done",), setup=_FILE_AND_PIPE)
    yield Call("KERN-25", "H", "vmsplice", "into, vector, 1, 0", ("done",), setup=_FILE_AND_PIPE)
    yield Call("KERN-25", "H", "tee", "out2, into, 1, 0", ("done",), setup=_FILE_AND_PIPE)
    for name, arguments, outside in (
        ("timer_create", "0, None, buffer(8)", ("done",)),
        ("io_setup", "1, buffer(8)", ("done",)),
        ("mlock", "buffer(), 4096", ("done",)),
        ("mlockall", "1", ("done", "ENOMEM")),
        ("mincore", "0, 0, None", ("done", "EFAULT")),
        ("membarrier", "0, 0, 0", ("done",)),
        ("sched_setattr", "0, None, 0", ("EINVAL",)),
        ("rt_sigqueueinfo", "os.getppid() or 2, 0, buffer(128)", ("done", "EPERM", "EINVAL")),
        ("close_range", "900000, 900001, 0", ("done",)),
        ("openat2", "-100, b'/', buffer(24), 24", ("done",)),
        ("quotactl_fd", "0, 0, 0, None", (*_REACHES, "ENOSYS")),
    ):
        yield Call("KERN-90", "M", name, arguments, outside, title=f"not needed: {name}")


_NO_CONTROL = {
    "KERN-02": "bpf needs a privilege on most hosts, and must not be used on the host that runs the tests",
    "KERN-05": "perf_event_open depends on kernel.perf_event_paranoid",
    "KERN-07": "a raw clone would copy the interpreter; unshare, beside it, is the proof",
    "KERN-08": "setns needs a descriptor of another namespace and a privilege",
    "KERN-17": "outside it would change the host",
}


def _row(call: Call) -> Attack:
    title = call.title or call.name
    number = NUMBERS[call.name]
    arguments = f", {call.arguments}" if call.arguments else ""
    control = None
    if call.outside is not None:
        control = Control(outcomes={"call": call.outside}, user_namespace=call.user_namespace)
    return Attack(
        id=call.id,
        title=title,
        severity=call.severity,
        program=f'{call.setup}\nattempt("call", call, {number}{arguments})',
        outcomes={"call": call.inside},
        violations=() if call.quiet else (call.name,),
        control=control,
        no_control="" if control else _NO_CONTROL[call.id],
    )


_UNKNOWN = """
for number in args:
    attempt(str(number), call, number, 0, 0, 0, 0, 0, 0)
"""


def _names_the_unknown(field: Field, result: Result) -> None:
    """Each number is among the violations, by name or as a number, and their sum is what was tried."""
    assert sum(violation.count for violation in result.violations) == len(_NUMBERS)
    assert "syscall_9999" in {violation.syscall for violation in result.violations}


_NUMBERS = [9999, 99999, *range(463, 1000, 11)]

_OTHER_CONVENTION = """
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex(args))
function = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print(function(), flush=True)
"""


def _numbers_to_try() -> list[int]:
    """All that the table knows but those that would end or copy the process, or are tried elsewhere."""
    left_out = (
        "exit",
        "kill",
        "tkill",
        "tgkill",
        "rt_sigqueueinfo",
        "rt_tgsigqueueinfo",
        "fcntl",
        "ioctl",
        "prctl",
        "clone",
        "fork",
        "vfork",
    )
    return [number for name, number in NUMBERS.items() if name not in left_out]


_FUZZ = f"""
import random
generator = random.Random(args)
calls = {_numbers_to_try()}
ends = time.monotonic() + 2
while time.monotonic() < ends:
    for _ in range(200):
        number = generator.choice(calls)
        odd = (0, 1, 2, 4096, 1 << 20, (1 << 63) - 1, generator.getrandbits(32))
        arguments = [generator.choice(odd) for _ in range(6)]
        libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
print("end", flush=True)
"""


def _kernel_is_well(field: Field, result: Result) -> None:
    """The kernel complained of nothing, as far as its log may be read; denials past the first thousand had to wait."""
    assert sum(violation.count for violation in result.violations) <= 1500
    if os.geteuid() == 0:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            while line := os.read(log, 8192):
                assert not any(word in line for word in (b"BUG:", b"Oops:", b"KASAN:"))
        except (BlockingIOError, BrokenPipeError):
            pass
        finally:
            os.close(log)


def _assert_equal(expected: object, actual: object) -> None:
    assert expected == actual


ROWS = (
    *(_row(call) for call in _calls()),
    Attack(
        id="KERN-10",
        title="threads start although clone3 is denied",
        severity="H",
        program="""
import threading
seen = []
thread = threading.Thread(target=seen.append, args=(1,))
attempt("start", thread.start)
thread.join()
attempt("ran", lambda: seen)
""",
        outcomes=DONE,
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="KERN-22",
        title="numbers that no kernel has yet",
        severity="H",
        program=_UNKNOWN,
        args=lambda _field: _NUMBERS,
        outcomes={"*": ("ENOSYS", "EPERM")},
        check=_names_the_unknown,
        control=None,
        no_control="such a call does not exist outside either",
    ),
    Attack(
        id="KERN-23",
        title="devices that are there",
        severity="H",
        program="""
for name in ("null", "zero", "full", "random", "urandom"):
    attempt(name, lambda: os.read(os.open("/dev/" + name, os.O_RDONLY), 1))
for name in ("kmsg", "mem", "kvm", "fuse", "tty", "ptmx", "pts", "net/tun", "dri/card0", "loop0", "vda", "vsock"):
    attempt(name, os.stat, "/dev/" + name)
""",
        outcomes={**dict.fromkeys(("null", "zero", "full", "random", "urandom"), ("done",)), "*": ("ENOENT",)},
        control=Control(outcomes={"null": ("done",), "zero": ("done",), "*": ANY}),
    ),
    Attack(
        id="KERN-26",
        title="two seconds of random calls",
        severity="M",
        program=_FUZZ,
        args=lambda _field: 1,
        limits={"wall_s": 4.0},
        reasons=tuple(ExitReason),
        check=_kernel_is_well,
        control=None,
        no_control="outside it would call what it pleases on the host",
    ),
    *(
        (
            Attack(
                id="KERN-91",
                title="a call in the x32 convention",
                severity="C",
                program=f"print(libc.syscall(ctypes.c_long({NUMBERS['getpid']} | 0x40000000)), flush=True)",
                reasons=(ExitReason.SIGNALED,),
                check=lambda _field, result: _assert_equal(("SIGSYS", ""), (result.signal, result.logs.stdout)),
                control=None,
                no_control="most kernels are built without x32; the call in the i386 convention is the proof",
            ),
            Attack(
                id="KERN-91",
                title="a call in the i386 convention",
                severity="C",
                program=_OTHER_CONVENTION,
                # mov eax, 20 (getpid of i386); int 0x80; ret
                args=lambda _field: "b814000000cd80c3",
                reasons=(ExitReason.SIGNALED,),
                check=lambda _field, result: _assert_equal(("SIGSYS", ""), (result.signal, result.logs.stdout)),
                control=Control(check=lambda _field, outside: _assert_equal(True, int(outside.printed) > 0)),
            ),
        )
        if X86
        else ()
    ),
    Attack(
        id="KERN-92",
        title="every option of a socket",
        severity="H",
        program="""
pair = socket.socketpair()
for level in (0, 1, 6, 17, 41, 255, 270, 282):
    for option in range(70):
        try:
            pair[0].setsockopt(level, option, bytes(16))
        except PermissionError:
            continue
        except OSError:
            pass
        attempt(f"{level}:{option}", lambda: None)
""",
        outcomes=dict.fromkeys(
            # SO_REUSEADDR, SO_KEEPALIVE, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO; SO_SNDBUF and SO_RCVBUF, not done; TCP's
            ("1:2", "1:9", "1:13", "1:20", "1:21", "1:7", "1:8", "6:1", "6:4", "6:5", "6:6", "6:18"),
            ("done",),
        ),
        violations=("setsockopt",),
        check=lambda _field, result: _assert_equal(12, len(value_of(result))),
        control=Control(
            outcomes={"*": ("done",)}, check=lambda _field, outside: _assert_equal(True, len(outside.value) > 100)
        ),
    ),
    Attack(
        id="KERN-93",
        title="push a shared file out of memory",
        severity="M",
        program="""
import mmap
path = ctypes.__file__
with open(path, "rb") as file:
    attempt("fadvise", os.posix_fadvise, file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
attempt("pageout", mapped.madvise, 21)
""",
        outcomes={"fadvise": ("done",), "pageout": ("EINVAL",)},
        control=Control(outcomes={"fadvise": ("done",), "pageout": ("done", "EINVAL")}),
    ),
    Attack(
        id="KERN-94",
        title="hand every write to the worker by itself",
        severity="M",
        program="""
import fcntl
attempt("O_DIRECT", fcntl.fcntl, 1, fcntl.F_SETFL, os.O_DIRECT)
attempt("O_NONBLOCK", fcntl.fcntl, 1, fcntl.F_SETFL, os.O_NONBLOCK)
attempt("O_APPEND", fcntl.fcntl, 1, fcntl.F_SETFL, os.O_APPEND)
""",
        outcomes={"O_DIRECT": DENIED, "*": ("done", "EPERM")},
        violations=("fcntl",),
        control=Control(outcomes={"O_DIRECT": ("done",), "*": ANY}),
    ),
)

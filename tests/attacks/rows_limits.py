"""MEM, CPU and DISK: more than a run may take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sandbox import ExitReason, Result
from tests.attacks.attack import ANY, DENIED, DONE, Attack, CheckInside, CheckOutside, Control, Outside
from tests.attacks.field import Field
from tests.attacks.syscall_numbers import NUMBERS
from tests.support.synchronous import eventually, value_of

MIB = 1 << 20
_HARD_BY = 1.1
"""A limit of memory is not passed by more than this."""


def _stayed_below(field: Field, result: Result) -> None:
    assert result.usage.memory_peak_mib <= result.limits.memory_mib * _HARD_BY, result.usage


def _not_before(seconds: float) -> CheckInside:
    def check(field: Field, result: Result) -> None:
        """Ended by its limit, which it had reached: nothing else would have ended it."""
        assert result.usage.wall_s >= seconds

    return check


def _burned_a_second(field: Field, result: Result) -> None:
    assert 1.0 <= result.usage.cpu_s <= 2.0, result.usage


def _number(value: dict[str, str], name: str) -> int:
    return int(value[name].partition(": ")[2])


def _shared_memory_kib() -> int:
    """Pages of tmpfs and shared memory on the whole host, proc_meminfo(5)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Shmem:"))


def _disk_is_given_back(field: Field, result: Result) -> None:
    """The workspace's pages are free again. What else this host does meanwhile takes less than ten runs do."""
    assert result.usage.workspace_mib > 50
    _disk_stays_free(field, result)


def _disk_stays_free(field: Field, _result: Result) -> None:
    before_kib = _shared_memory_kib()
    for _ in range(10):
        assert field.box.run("open('big', 'wb').write(bytes(50 << 20))\nresult = 1").usage.workspace_mib >= 50
    assert eventually(lambda: _shared_memory_kib() - before_kib < 250 << 10)


def _assert_equal(expected: object, actual: object) -> None:
    assert expected == actual


_FILL = """
def fill(path, size):
    written = 0
    with open(path, "wb", buffering=0) as file:
        while written < size:
            written += file.write(bytes(1 << 20))
    return written
"""

_RECURSE = """
import ast, copy, json, pickle, re
nested = current = []
for _ in range(args):
    current.append([])
    current = current[0]
attempt("json.loads", json.loads, "[" * args)
attempt("json.dumps", json.dumps, nested)
attempt("pickle", pickle.dumps, nested)
attempt("repr", repr, nested)
attempt("deepcopy", copy.deepcopy, nested)
attempt("literal_eval", ast.literal_eval, "(" * args + ")" * args)
attempt("compile", compile, "-" * args + "1", "x", "eval")
attempt("regular expression", re.compile, "(" * args + ")" * args)
current = None
while nested:  # one level at a time, or freeing it would recurse as well
    nested = nested.pop()
"""

# each next() is a call in C that no version of Python counts; what Python counts ends as RecursionError from 3.13 on
_CRASH_C_STACK = """
import itertools
nested = iter(())
for _ in range(10**6):
    nested = itertools.chain(nested)
next(nested, None)
"""

_THREADS_BURN = """
import hashlib, threading
def burn():
    while True:
        hashlib.sha256(bytes(1 << 20)).digest()
for _ in range(3):
    threading.Thread(target=burn).start()
burn()
"""

_OPEN_EVERYTHING = f"""
import select
opened = []
def exhaust(make):
    while len(opened) < args:
        made = make()
        opened.extend(made if isinstance(made, tuple) else (made,))
attempt("pipe", exhaust, os.pipe)
attempt("eventfd", lambda: os.eventfd(0))
attempt("epoll", select.epoll)
attempt("open", os.open, "/dev/null", os.O_RDONLY)
attempt("inotify", call, {NUMBERS["inotify_init1"]}, 0)
attempt("timerfd", call, {NUMBERS["timerfd_create"]}, 1, 0)
attempt("signalfd", call, {NUMBERS["signalfd4"]}, -1, buffer(8), 8, 0)
attempt("opened", lambda: len(opened))
"""


def _assert_opened(low: int, high: int) -> Callable[[Field, Result | Outside], None]:
    def check(field: Field, ended: Result | Outside) -> None:
        value = ended.value if isinstance(ended, Outside) else value_of(ended)
        assert low <= _number(value, "opened") <= high

    return check


def _assert_wrote(low_mib: float, high_mib: float, name: str = "fill") -> CheckOutside:
    def check(field: Field, ended: Outside) -> None:
        assert low_mib * MIB <= _number(ended.value, name) <= high_mib * MIB

    return check


_HOLD_UNMAPPED = """
import mmap
def hold(mib=args, *, forget):
    \"\"\"Shared memory whose pages are in memory, though no page table entry of this process shows one of them.\"\"\"
    held = mmap.mmap(-1, mib << 20)
    for part in range(0, mib << 20, 1 << 20):
        held[part : part + (1 << 20)] = bytes(1 << 20)
        if forget:
            held.madvise(mmap.MADV_DONTNEED, part, 1 << 20)
    result["held"] = "done"
    return held
"""
_SHMEM_GREW = """
def shmem():
    return next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("Shmem:"))
with_it, held = shmem(), None
attempt("grew", lambda: 1 / (with_it - shmem() > args * 900))
"""


def _buffers_are_of_default_size(value: dict[str, str]) -> None:
    """A pair holds what the kernel's default allows in each direction, and the README says how much that is."""
    default = int(Path("/proc/sys/net/core/wmem_default").read_text(encoding="ascii"))
    assert default == _number(value, "size")
    assert _number(value, "held") <= 16 * default * 1.2  # the last write may go past it


def _assert_takes(field: Field, result: Result, mib: int) -> None:
    """What it used is what a run uses that does nothing, and ``mib`` more: within a tenth of that, and 8 MiB."""
    nothing_mib = field.box.run("result = 1").usage.memory_peak_mib
    assert abs(result.usage.memory_peak_mib - nothing_mib - mib) <= mib / 10 + 8, result.usage


def _buffers_are_larger(value: dict[str, str]) -> None:
    assert _number(value, "size") > int(Path("/proc/sys/net/core/wmem_default").read_text(encoding="ascii"))


MEMORY = (
    Attack(
        id="MEM-01",
        title="one huge allocation that is survived",
        severity="H",
        program="""
attempt("bytes", lambda: len(b"a" * args))
attempt("list", lambda: len([0] * (args // 8)))
attempt("integer", lambda: (1 << (args * 8)).bit_length())
""",
        args=lambda _field: 8 << 30,
        outcomes={"*": ("MemoryError", "OverflowError")},
        check=_stayed_below,
        control=Control(args=lambda _field: 550 << 20, outcomes=DONE),
    ),
    Attack(
        id="MEM-01",
        title="one huge allocation",
        severity="H",
        program="x = b'a' * args",
        args=lambda _field: 8 << 30,
        reasons=(ExitReason.MEMORY_LIMIT,),
        check=_stayed_below,
        control=Control(args=lambda _field: 550 << 20),
    ),
    Attack(
        id="MEM-02",
        title="slow growth in small objects",
        severity="H",
        program="""
kept = []
while len(kept) < args:
    kept.append(bytearray(b"x" * 65536))
attempt("kept", lambda: len(kept))
""",
        args=lambda _field: 1 << 20,
        reasons=(ExitReason.MEMORY_LIMIT,),
        check=_stayed_below,
        control=Control(args=lambda _field: (550 << 20) // 65536, outcomes=DONE),
    ),
    Attack(
        id="MEM-02",
        title="shared anonymous memory",
        severity="H",
        program="""
import mmap
kept = []
while len(kept) < args:
    kept.append(mmap.mmap(-1, 8 << 20))
    for offset in range(0, 8 << 20, 4096):
        kept[-1][offset] = 1
    time.sleep(0.001)
attempt("kept", lambda: len(kept))
""",
        args=lambda _field: 10_000,
        reasons=(ExitReason.MEMORY_LIMIT,),
        check=_stayed_below,
        control=Control(args=lambda _field: 90, outcomes=DONE),
    ),
    *(
        Attack(
            id="MEM-90",
            title=title,
            severity="H",
            program=_HOLD_UNMAPPED + hold,
            args=lambda _field: 150,
            limits={"memory_mib": 64},
            reasons=(ExitReason.MEMORY_LIMIT,),
            check=_stayed_below,
            control=Control(program=_HOLD_UNMAPPED + hold + _SHMEM_GREW, outcomes=DONE),
        )
        for title, hold in {
            "shared memory that is held and not mapped": "held = hold(forget=True)",
            "shared memory in many parts": "held = [hold(4, forget=True) for _ in range(args // 4)]",
        }.items()
    ),
    Attack(
        id="MEM-90",
        title="shared memory within the limit is counted whole",
        severity="H",
        program=_HOLD_UNMAPPED + "held = hold(forget=True)\n",
        args=lambda _field: 150,
        outcomes=DONE,
        check=lambda field, result: _assert_takes(field, result, 150),
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="MEM-91",
        title="shared memory by way of a device",
        severity="H",
        program="""
import mmap
attempt("open", os.open, "/dev/zero", os.O_RDWR)
attempt("write", lambda: open("/dev/zero", "wb").write(b"x"))
def read_only():
    with open("/dev/zero", "rb") as zero:
        kept = mmap.mmap(zero.fileno(), 8 << 20, mmap.MAP_SHARED, mmap.PROT_READ)
        return sum(kept[offset] for offset in range(0, 8 << 20, 4096))
attempt("read only", read_only)
""",
        outcomes={"open": ("EACCES",), "write": ("PermissionError", "EACCES"), "read only": ("done",)},
        check=lambda field, result: _assert_takes(field, result, 0),
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="MEM-92",
        title="buffers of sockets",
        severity="H",
        program="""
pairs = [socket.socketpair() for _ in range(args)]
held = 0
for pair in pairs:
    for one in pair:
        attempt("enlarge", one.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        one.setblocking(False)
        try:
            while True:
                held += one.send(bytes(1 << 16))
        except BlockingIOError:
            pass
attempt("size", one.getsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF)
attempt("held", lambda: held)
""",
        args=lambda _field: 8,
        outcomes=DONE,
        check=lambda _field, result: _buffers_are_of_default_size(value_of(result)),
        control=Control(outcomes=DONE, check=lambda _field, outside: _buffers_are_larger(outside.value)),
    ),
    Attack(
        id="MEM-93",
        title="huge and locked pages",
        severity="H",
        program="""
import mmap
for name, flags in {"huge": 0x40000, "locked": 0x2000, "huge shared": 0x40000 - 1, "locked shared": 0x2000 - 1}.items():
    attempt(name, mmap.mmap, -1, 2 << 20, flags + mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
def lock():
    if libc.mlock(buffer(), 4096):
        raise OSError(ctypes.get_errno(), "mlock")
attempt("mlock", lock)
page = mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for name, advice in {"huge by advice": 14, "collapse": 25, "merge": 12, "cold": 20, "pageout": 21}.items():
    attempt(name, page.madvise, advice)
attempt("dontneed", page.madvise, mmap.MADV_DONTNEED)
""",
        outcomes={
            **dict.fromkeys(("huge", "locked", "huge shared", "locked shared"), DENIED),
            **dict.fromkeys(("huge by advice", "collapse", "merge", "cold", "pageout"), ("EINVAL",)),
            "mlock": DENIED,
            "dontneed": ("done",),
        },
        violations=("mlock", "mmap"),
        control=Control(outcomes={"huge by advice": ("done",), "cold": ("done",), "dontneed": ("done",), "*": ANY}),
    ),
    Attack(
        id="MEM-04",
        title="memfd past the limit of address space",
        severity="H",
        program=f"""
attempt("memfd", os.memfd_create, "x")
attempt("memfd_secret", call, {NUMBERS["memfd_secret"]}, 0)
""",
        outcomes={"*": DENIED},
        violations=("memfd_create", "memfd_secret"),
        control=Control(outcomes={"memfd": ("done",), "*": ANY}),
    ),
    Attack(
        id="MEM-05",
        title="fill every tmpfs",
        severity="H",
        program=_FILL
        + """
for folder in ("/dev/shm", "/tmp", ".", "artifacts"):
    attempt(folder, fill, f"{folder}/{args[1]}", args[0])
""",
        args=lambda field: [100 << 20, "big-" + field.canary[-8:]],
        outcomes={"*": ("ENOSPC", "EFBIG", "ENOENT", "EACCES", "EROFS")},
        check=lambda _field, result: _assert_equal(
            True, result.limits.workspace_mib - 2 <= result.usage.workspace_mib <= result.usage.memory_peak_mib + 2
        ),
        control=Control(
            args=lambda field: [4 << 20, "big-" + field.canary[-8:]],
            outcomes={".": ("done",), "/tmp": ("done",), "*": ANY},
            check=lambda field, _outside: _remove("big-" + field.canary[-8:]),
        ),
    ),
    Attack(
        id="MEM-05",
        title="workspace and memory together",
        severity="H",
        program=_FILL
        + """
attempt("fill", fill, "big", 60 << 20)
kept = [bytearray(b"x" * (1 << 20)) for _ in range(args)]
""",
        args=lambda _field: 440,
        reasons=(ExitReason.MEMORY_LIMIT,),
        check=_stayed_below,
        control=Control(outcomes={"fill": ("done",)}),
    ),
    Attack(
        id="MEM-07",
        title="four processes with a limit each",
        severity="H",
        program="""
def keep():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if len(bytearray(args)) else 1)
    return os.waitpid(pid, 0)[1]
for number in range(4):
    attempt(str(number), keep)
""",
        args=lambda _field: 64 << 20,
        outcomes={"*": DENIED},
        violations=("clone",),
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="MEM-08",
        title="pipe buffers",
        severity="M",
        program="""
import fcntl
attempt("enlarge", lambda: fcntl.fcntl(os.pipe()[1], 1031, 1 << 20))  # F_SETPIPE_SZ
pipes = []
def open_all():
    while len(pipes) < 1000:
        pipes.append(os.pipe())
        os.set_blocking(pipes[-1][1], False)
attempt("open all", open_all)
held = 0
for _, end in pipes:
    try:
        while True:
            held += os.write(end, bytes(65536))
    except BlockingIOError:
        pass
attempt("held", lambda: held)
""",
        outcomes={"enlarge": DENIED, "open all": ("EMFILE",), "held": ("done",)},
        violations=("fcntl",),
        check=lambda _field, result: _assert_equal(
            True, _number(value_of(result), "held") <= result.limits.open_files // 2 * 65536
        ),
        control=Control(outcomes={"enlarge": ("done",), "open all": ("done",), "held": ("done",)}),
    ),
    Attack(
        id="MEM-10",
        title="push cold pages out",
        severity="M",
        program="""
import mmap
kept = []
while True:
    kept.append(mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    kept[-1].write(b"x" * (16 << 20))
    attempt("pageout", kept[-1].madvise, 21)  # MADV_PAGEOUT
""",
        reasons=(ExitReason.MEMORY_LIMIT,),
        check=_stayed_below,
        control=None,
        no_control="without a limit it would take the host's whole memory; MEM-02 is the bounded proof",
    ),
    Attack(
        id="MEM-11",
        title="deep recursion in C",
        severity="M",
        program=_RECURSE,
        args=lambda _field: 100_000,
        reasons=(ExitReason.OK, ExitReason.SIGNALED),
        outcomes={},
        control=Control(
            args=lambda _field: 100_000,
            outcomes={"json.loads": ("RecursionError",), "repr": ("RecursionError",), "*": ANY},
        ),
    ),
    Attack(
        id="MEM-11",
        title="overflow the C stack",
        severity="M",
        program=_CRASH_C_STACK,
        reasons=(ExitReason.SIGNALED, ExitReason.MEMORY_LIMIT),
        check=lambda _field, result: _assert_equal("SIGSEGV", result.signal or "SIGSEGV"),
        control=Control(exit_code=-11),
    ),
    Attack(
        id="MEM-13",
        title="userfaultfd and madvise tricks",
        severity="M",
        program=f"""
import mmap
attempt("userfaultfd", call, {NUMBERS["userfaultfd"]}, 1)
attempt("process_madvise", call, {NUMBERS["process_madvise"]}, -1, None, 0, 0, 0)
page = mmap.mmap(-1, 4096)
attempt("MADV_HWPOISON", page.madvise, 100)
attempt("MADV_SOFT_OFFLINE", page.madvise, 101)
""",
        outcomes={"MADV_HWPOISON": (*DENIED, "EINVAL"), "MADV_SOFT_OFFLINE": (*DENIED, "EINVAL"), "*": DENIED},
        violations=("process_madvise", "userfaultfd"),
        control=Control(outcomes={"userfaultfd": ("done",), "*": ANY}),
    ),
    *(
        Attack(
            id="MEM-14",
            title=f"{library} above the limit",
            severity="M",
            program=program,
            args=lambda _field: 8 << 30,
            reasons=(ExitReason.MEMORY_LIMIT,),
            check=_stayed_below,
            control=Control(args=outside),
        )
        for library, outside, program in (
            ("numpy", lambda _field: 550 << 20, "import numpy\nx = numpy.ones(args // 8)"),
            ("pandas", lambda _field: 300 << 20, "import pandas\nx = pandas.Series([1.0]).repeat(args // 8)"),
            ("duckdb", lambda _field: 550 << 20, """
import duckdb
duckdb.sql(f"SET memory_limit='{args}B'")
query = "SELECT count(*) FROM (SELECT DISTINCT i::VARCHAR || repeat('x', 100) AS s FROM range(?) t(i))"
x = duckdb.execute(query, [args // 300]).fetchall()
"""),
        )
    ),
)  # fmt: skip


def _remove(name: str) -> None:
    for folder in ("/tmp", "/dev/shm"):
        Path(folder, name).unlink(missing_ok=True)


PROCESSOR = (
    Attack(
        id="CPU-01",
        title="loop without end",
        severity="H",
        program="while True:\n    pass",
        limits={"wall_s": 0.5},
        reasons=(ExitReason.WALL_LIMIT,),
        check=_not_before(0.5),
        control=Control(still_running=True, seconds=0.7),
    ),
    Attack(
        id="CPU-02",
        title="a loop in C that ignores signals",
        severity="H",
        program="""
import signal
for number in (signal.SIGTERM, signal.SIGXCPU, signal.SIGALRM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
(7 ** 10**7) ** 9
""",
        limits={"cpu_s": 1.0},
        reasons=(ExitReason.CPU_LIMIT,),
        check=_burned_a_second,
        control=Control(still_running=True, seconds=1.2),
    ),
    *(
        Attack(
            id="CPU-04",
            title=title,
            severity="H",
            program=program,
            limits={"wall_s": 0.5},
            reasons=(ExitReason.WALL_LIMIT,),
            check=_not_before(0.5),
            control=Control(still_running=True, seconds=0.7),
        )
        for title, program in {
            "sleep for ever": "time.sleep(1e9)",
            "read from nobody": "os.read(os.pipe()[0], 1)",
            "deadlock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
            "main thread gone": f"""
import threading
threading.Thread(target=time.sleep, args=(1e6,)).start()
call({NUMBERS["exit"]}, 0)
""",
            "stop itself": f"""
import signal
call({"234" if NUMBERS["getpid"] == 39 else "131"}, os.getpid(), os.getpid(), signal.SIGSTOP)
time.sleep(1e6)
""",
        }.items()
    ),
    Attack(
        id="CPU-05",
        title="threads that burn outside the interpreter lock",
        severity="M",
        program=_THREADS_BURN,
        limits={"cpu_s": 1.0},
        reasons=(ExitReason.CPU_LIMIT,),
        check=_burned_a_second,
        control=Control(still_running=True, seconds=1.2),
    ),
    *(
        Attack(
            id="CPU-07",
            title=title,
            severity="M",
            program=program,  # the end is the interpreter's, and within the limits
            limits={"wall_s": 1.0},
            reasons=(ExitReason.WALL_LIMIT,),
            control=Control(still_running=True, seconds=1.2),
        )
        for title, program in {
            "hang in another thread after the result": """
import threading
threading.Thread(target=time.sleep, args=(600,)).start()
result = 1
""",
            "hang in atexit after the result": """
import atexit
atexit.register(time.sleep, 600)
result = 1
""",
        }.items()
    ),
    Attack(
        id="CPU-08",
        title="collisions of hashes",
        severity="M",
        program="{number * (2**61 - 1): 0 for number in range(200_000)}",
        limits={"wall_s": 0.5},
        reasons=(ExitReason.WALL_LIMIT,),
        check=_not_before(0.5),
        control=Control(still_running=True, seconds=1.2),
    ),
    Attack(
        id="CPU-10",
        title="games with clocks, alarms and limits",
        severity="L",
        program="""
import resource, signal
signal.setitimer(signal.ITIMER_REAL, 1000)
signal.alarm(1000)
for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_NPROC):
    attempt(str(kind), resource.setrlimit, kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
attempt("settime", time.clock_settime, time.CLOCK_REALTIME, 0.0)
print(result, flush=True)
while True:
    pass
""",
        limits={"wall_s": 0.5},
        reasons=(ExitReason.WALL_LIMIT,),
        check=lambda _field, result: _assert_equal(
            (4, 1),
            (
                result.logs.stdout.count("ValueError") + result.logs.stdout.count("EPERM") - 1,
                result.logs.stdout.count("'settime': 'EPERM'"),
            ),
        ),
        control=None,
        no_control="outside it would set the host's clock; CPU-01 is the proof that such a loop goes on",
    ),
)

DISK = (
    Attack(
        id="DISK-01",
        title="a file of 100 GiB",
        severity="H",
        program=_FILL + 'attempt("fill", fill, "big", args)\nattempt("sparse", os.truncate, "big", args)',
        args=lambda _field: 100 << 30,
        outcomes={"fill": ("ENOSPC", "EFBIG"), "sparse": ("EFBIG",)},
        check=_disk_is_given_back,
        control=Control(args=lambda _field: 80 << 20, outcomes=DONE),
    ),
    Attack(
        id="DISK-01",
        title="a full workspace ends it",
        severity="H",
        program=_FILL + 'fill("big", 100 << 30)',
        reasons=(ExitReason.WORKSPACE_LIMIT,),
        check=_disk_is_given_back,
        control=None,
        no_control="the row above has it",
    ),
    Attack(
        id="DISK-02",
        title="a million empty files",
        severity="H",
        program="""
count = 0
def make_all():
    global count
    while count < args:
        os.close(os.open(f"file-{count}", os.O_CREAT))
        count += 1
attempt("make", make_all)
attempt("made", lambda: count)
""",
        args=lambda _field: 1_000_000,
        outcomes={"make": ("ENOSPC",), "made": ("done",)},
        check=lambda _field, result: _assert_equal(
            True, _number(value_of(result), "made") <= result.limits.workspace_files
        ),
        control=Control(args=lambda _field: 4200, outcomes=DONE),
    ),
    Attack(
        id="DISK-04",
        title="fallocate, copy_file_range and clones",
        severity="M",
        program=_FILL
        + """
import fcntl
attempt("fill", fill, "small", 1 << 20)
source, target = os.open("small", os.O_RDONLY), os.open("big", os.O_CREAT | os.O_RDWR)
attempt("fallocate", os.posix_fallocate, target, 0, args)
attempt("copy_file_range", os.copy_file_range, source, target, 1 << 20, 0, 0)
attempt("clone", fcntl.ioctl, target, 0x40049409, source)  # FICLONE
""",
        args=lambda _field: 1 << 30,
        outcomes={"fill": ("done",), "fallocate": ("ENOSPC", "EFBIG"), "copy_file_range": ("ENOSYS",), "clone": DENIED},
        violations=("ioctl",),
        control=Control(args=lambda _field: 80 << 20, outcomes={"fallocate": ("done",), "*": ANY}),
    ),
    Attack(
        id="DISK-05",
        title="a deleted file that stays open",
        severity="M",
        program=_FILL
        + """
kept = open("big", "wb")
attempt("fill", fill, "big", 55 << 20)
os.unlink("big")
""",
        runs=3,
        outcomes=DONE,
        check=_disk_stays_free,  # it is closed at the end, and so gone by then
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="DISK-07",
        title="use up descriptors",
        severity="M",
        program=_OPEN_EVERYTHING,
        args=lambda _field: 400,
        outcomes={
            "pipe": ("EMFILE",),
            "eventfd": ("EMFILE", "done"),
            "open": ("EMFILE", "done"),
            "epoll": ("EMFILE", "done"),
            "inotify": DENIED,
            "timerfd": DENIED,
            "signalfd": DENIED,
            "opened": ("done",),
        },
        violations=("inotify_init1", "signalfd4", "timerfd_create"),
        check=_assert_opened(64, 128),
        control=Control(outcomes={"signalfd": ANY, "*": ("done",)}, check=_assert_opened(400, 401)),
    ),
    Attack(
        id="DISK-08",
        title="dump core",
        severity="M",
        program="""
import resource
print(resource.getrlimit(resource.RLIMIT_CORE), flush=True)
try:
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
except (ValueError, OSError) as error:
    print(type(error).__name__, flush=True)
ctypes.string_at(0)
""",
        reasons=(ExitReason.SIGNALED,),
        check=lambda _field, result: _assert_equal(
            ("SIGSEGV", ["(0, 0)", "ValueError"], ()),
            (
                result.signal,
                result.logs.stdout.replace("PermissionError", "ValueError").split("\n")[:2],
                result.artifacts,
            ),
        ),
        control=Control(exit_code=-11),
    ),
)

ROWS = (*MEMORY, *PROCESSOR, *DISK)

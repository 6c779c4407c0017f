"""Resource limits of the child, see getrlimit(2). Soft and hard limits are equal, so a run cannot raise one.

``RLIMIT_NPROC`` counts threads per user and user namespace (Linux 5.14), so it is this run's own count;
it does nothing for an outer uid of 0, which is why zygotes never run as root.
"""

from __future__ import annotations

import ctypes
import resource

from sandbox.isolation.prepared import Calls

MIB = 1 << 20
STACK_BYTES = 8 * MIB
ADDRESS_SLACK_MIB = 1024
"""Address space, not memory, that allocators and thread stacks reserve beyond what they use."""
CPU_SLACK_S = 1
"""Processor time that the kernel leaves beyond the limit, so that it is the supervisor that ends a run at the limit.

The kernel counts whole seconds, from the start of the process, by samples of the clock tick: it would kill early, and
at a time at which the exact count says less than the limit. It is the backstop for a supervisor that is gone.
"""


_NAMES = {getattr(resource, name): name for name in dir(resource) if name.startswith("RLIMIT_")}
_NAMES[resource.RLIMIT_NOFILE] = "RLIMIT_NOFILE"  # which has an older name, too


def limit_resources(
    calls: Calls, *, cpu_s: int, data_bytes: int, address_space_bytes: int, tasks: int | None, file_bytes: int
) -> None:
    """Apply every limit to the calling process.

    Args:
        cpu_s: processor seconds over all threads; the kernel kills ``CPU_SLACK_S`` past it.
        data_bytes: private writable memory (``RLIMIT_DATA``); past it allocations fail with ENOMEM.
        address_space_bytes: all mappings (``RLIMIT_AS``), the backstop for shared ones.
        tasks: threads and processes together; ``None`` leaves them to the supervisor.
        file_bytes: size of any file written.
    """
    limits = [
        (resource.RLIMIT_CPU, cpu_s + CPU_SLACK_S),
        (resource.RLIMIT_DATA, data_bytes),
        (resource.RLIMIT_AS, address_space_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_STACK, STACK_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NICE, 0),
        (resource.RLIMIT_RTPRIO, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    ]
    if tasks is not None:
        limits.append((resource.RLIMIT_NPROC, tasks))
    for kind, value in limits:
        _set(calls, kind, value)


def _set(calls: Calls, kind: int, value: int) -> None:
    what = name = f"{_NAMES.get(kind, kind)}"
    hard = resource.getrlimit(kind)[1]  # as in whoever makes the calls, which inherits it
    if hard != resource.RLIM_INFINITY and value > hard:
        what = (
            f"{name}: the policy needs {value}, and whoever started the service left a hard limit of {hard}; raise it "
            "there (ulimit -H, or Limit…= of a systemd unit)"
        )
    # struct rlimit64: soft and hard
    calls.call(what, "prlimit64", 0, kind, (ctypes.c_uint64 * 2)(value, value), None)


def limit_cpu(cpu_s: int) -> None:
    """Lower the limit of processor time to that of one request."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s + CPU_SLACK_S, cpu_s + CPU_SLACK_S))


def limit_open_files(calls: Calls, count: int) -> None:
    """Limit open files. The last limit: the kernel also counts descriptors that are being passed over sockets by it."""
    _set(calls, resource.RLIMIT_NOFILE, count)

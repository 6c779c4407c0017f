"""The audited list of system calls matches the compiled filter: the test runs the filter, call by call."""

from __future__ import annotations

import errno
import platform
import struct
from pathlib import Path

import msgspec
import pyseccomp
import pytest

import sandbox
from sandbox import Policy, granted_calls
from sandbox.isolation import seccomp
from sandbox.isolation.syscalls import PARTLY, PARTLY_NETWORK, SIGNALS

ROOT = Path(__file__).resolve().parents[2]
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[platform.machine()]  # include/uapi/linux/audit.h
ALLOW, NOTIFY, ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000  # include/uapi/linux/seccomp.h
ARGUMENTS = ([0] * 6, [(1 << 64) - 1] * 6, [0x55AA55AA55AA55AA] * 6)


def verdict(program: bytes, number: int, arguments: list[int]) -> int:
    """Compute the kernel's answer: classic BPF, as far as libseccomp writes it."""
    data = struct.pack("<iIQ6Q", number, ARCH, 0, *arguments)
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= k
            case 0x05:  # BPF_JMP | BPF_JA
                at += k
            case 0x15 | 0x25 | 0x35 | 0x45:  # BPF_JMP | BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET | BPF_K
                holds = {
                    0x15: accumulator == k,
                    0x25: accumulator > k,
                    0x35: accumulator >= k,
                    0x45: bool(accumulator & k),
                }[operation]
                at += if_true if holds else if_false
            case 0x06:  # BPF_RET | BPF_K
                return k
            case _:
                raise AssertionError(f"an instruction that this does not know: {operation:#x}")


def filter_of(policy: Policy) -> bytes:
    """The filter as the pool has it made."""
    calls = policy.syscalls
    return seccomp.compile_filter(
        processes=calls.profile == "processes", network=bool(policy.network.allow), extra=calls.allow
    )


def calls_here() -> dict[str, int]:
    """Every system call of this architecture: name → number."""
    return {name: number for number in range(600) if (name := seccomp.syscall_name(number))}


def answers(policy: Policy) -> dict[str, set[int]]:
    """Call → the filter's answers to it, over arguments of zeros, of ones and of a pattern."""
    program = filter_of(policy)
    return {
        name: {verdict(program, number, arguments) for arguments in ARGUMENTS} for name, number in calls_here().items()
    }


def with_processes(policy: Policy) -> Policy:
    calls = msgspec.structs.replace(policy.syscalls, profile="processes", allow=("mincore",))
    return msgspec.structs.replace(policy, syscalls=calls)


@pytest.fixture(params=[*sandbox.load_policies(ROOT / "policies"), "with processes and an extra call"])
def audited(request: pytest.FixtureRequest) -> Policy:
    """Each delivered policy, and one that opens what none of them does."""
    policies = sandbox.load_policies(ROOT / "policies")
    return policies.get(request.param) or with_processes(policies["custom_script"])


def test_calls_that_are_listed_as_open_are_open(audited: Policy) -> None:
    """Whatever their arguments."""
    granted = granted_calls(audited)
    listed = {call for group in granted.groups for call in group.calls} | set(granted.extra)
    found = answers(audited)
    assert {} == {call: found[call] for call in listed & set(found) if found[call] != {ALLOW}}


def test_calls_that_are_not_listed_are_closed(audited: Policy) -> None:
    """Denied and reported, or answered with an error as if they were not there."""
    granted = granted_calls(audited)
    listed = {call for group in granted.groups for call in group.calls} | {*granted.extra, *granted.partly}
    handed_over = {"sendmsg", "seccomp"}  # until the child is ready; its last filter closes them
    found = {call: given for call, given in answers(audited).items() if call not in {*listed, *handed_over, "flock"}}
    closed = {NOTIFY, ERRNO | errno.ENOSYS, ERRNO | errno.EOPNOTSUPP}
    assert {ERRNO} == found.pop("fadvise64")  # answered as done, as ANSWERED says, and not done
    assert {} == {call: given for call, given in found.items() if not given <= closed}


def test_calls_that_are_listed_as_partly_open_are_that(audited: Policy) -> None:
    """Some argument is refused, so that the words about them are needed; but what `connect` reaches is no argument."""
    partly = set(granted_calls(audited).partly) - {"connect"}
    found = answers(audited)
    assert set() == {call for call in partly if found[call] == {ALLOW}}


def test_conditions_of_the_filter_are_all_described() -> None:
    """A call that is opened for some arguments has words for the auditor."""
    described = set(PARTLY) | {name for name, _ in seccomp._until_ready(pyseccomp)}
    conditions = [*seccomp._conditions(pyseccomp, processes=False), *seccomp._owners(pyseccomp)]
    assert described == {name for name, _ in conditions} | set(SIGNALS)
    assert set(PARTLY_NETWORK) == {name for name, _ in seccomp._connections(pyseccomp)}

"""The supervisor's report of one run. Only facts that it can prove go into ``exit_reason``."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sandbox.policy.policy import Limits


class ExitReason(enum.StrEnum):
    """Why an attempt ended."""

    OK = "ok"
    """Exit code 0 and one valid response."""
    ERROR = "error"
    """The handler or the script raised; see ``Result.error``."""
    NONZERO_EXIT = "nonzero_exit"
    """It left with another exit code than 0 and no response."""
    NO_RESULT = "no_result"
    """Exit code 0 without a response."""
    INVALID_RESULT = "invalid_result"
    """The response is invalid: not JSON, too deep, too large."""
    WALL_LIMIT = "wall_limit"
    """It ran longer than ``wall_s`` and was killed."""
    CPU_LIMIT = "cpu_limit"
    """It used more than ``cpu_s`` of processor time, over all threads, and was killed."""
    MEMORY_LIMIT = "memory_limit"
    """It needed more than ``memory_mib``: killed, or ended by an allocation that was refused."""
    OUTPUT_LIMIT = "output_limit"
    """It printed more than ``output_kib`` and was killed."""
    WORKSPACE_LIMIT = "workspace_limit"
    """It ended because the workspace was full (bytes or files)."""
    PROCESS_LIMIT = "process_limit"
    """It ended because it could start no further thread or process."""
    SIGNALED = "signaled"
    """A signal that we did not send, e.g. a crash in native code."""
    CANCELLED = "cancelled"
    """It was killed because the caller asked for it."""
    WORKER_LOST = "worker_lost"
    """The worker died and no attempt is left. The engine sets this; the sandbox never does."""


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a run says that it has come. Its own words: nothing is decided by them."""

    fraction: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Of the whole; ``None`` when it does not know."""
    message: Annotated[str, Meta(max_length=200)] | None = None


Stream = Literal["stdout", "stderr"]
OnOutput = Callable[[Stream, bytes], None]
"""Is given what a run prints, as far as it is kept, as it comes: bytes that nobody has looked at. Must not raise."""
OnProgress = Callable[[Progress], None]
"""Is given what a run reports of its progress. Must not raise."""


class EgressRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run's requests to the network, summed up over one host, port and decision."""

    host: str
    """Name or address as asked for, in lower case; empty when the request named none that can be read."""
    port: int
    """0 when there was none."""
    decision: str
    """``allowed``, or why the connection was refused or cut off; ``sandbox.egress.decisions`` lists the words."""
    connections: int
    bytes_in: int
    """Received from the host, heads included."""
    bytes_out: int
    """Sent to the host, heads included."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The resources that one run used."""

    wall_s: float = 0.0
    """From the request's first byte to the death of the whole tree."""
    cpu_s: float = 0.0
    """Processor time, user and system, over all threads and processes, and of checking its response."""
    memory_peak_mib: float = 0.0
    """Highest seen anonymous + shared memory of the tree, the zygote's shared pages included."""
    output_kib: float = 0.0
    """stdout + stderr as printed, cut or not."""
    workspace_mib: float = 0.0
    """The content of the workspace at the end, or when it was full, with files that are open and have no name."""
    workspace_files: int = 0
    processes_peak: int = 0
    """Highest seen number of threads and processes, the main thread included."""
    egress: tuple[EgressRow, ...] = ()
    """Its requests to the network, each with the decision. Empty without egress."""


class RunError(msgspec.Struct, frozen=True, kw_only=True):
    """An exception raised inside the sandbox, as text."""

    type: str
    """The exception's class name, e.g. ``"ZeroDivisionError"``."""
    message: str
    traceback: str | None = None
    """Paths in it are the sandbox's, never the host's."""
    code: str | None = None
    """A stable word for programs, set by handlers' own refusals, e.g. ``"unsupported_format"``."""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One denied system call and how often it was tried."""

    syscall: str
    count: int


class Logs(msgspec.Struct, frozen=True, kw_only=True):
    """The output of the run. Bytes that are not UTF-8 are shown as backslash escapes."""

    stdout: str = ""
    stderr: str = ""
    truncated: bool = False


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the run left in ``artifacts/``."""

    name: str
    size_bytes: int
    sha256: str
    content: bytes


class RefusedArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """Something in ``artifacts/`` that was not taken, and why."""

    name: str
    reason: str


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """Which layers held this run."""

    profile: str
    """``"full"`` or ``"unprivileged"``."""
    start: str
    """``"warm"`` or ``"cold"``."""
    layers: dict[str, str]
    """Layer name → version or extent, e.g. ``{"landlock": "ABI 7"}``."""


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that the supervisor has of one run: its own acts, the kernel's reports, the run's output."""

    exit_reason: ExitReason
    message: str
    """One sentence for people."""
    value: msgspec.Raw | None = None
    """The response: JSON text, checked for syntax and depth, never decoded on our side."""
    error: RunError | None = None
    exit_code: int | None = None
    signal: str | None = None
    """Name of the signal that ended it, e.g. ``"SIGSEGV"``."""
    usage: Usage
    logs: Logs
    violations: tuple[Violation, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    artifacts_refused: tuple[RefusedArtifact, ...] = ()


class Result(RunFacts, frozen=True, kw_only=True):
    """The whole answer of one run: the facts, and the grant under which they came about."""

    isolation: Isolation
    policy: str
    policy_digest: str
    """``sha256:`` and the hex digest of the policy file's bytes."""
    libraries_digest: str = ""
    """Of the set of libraries that the run could import, over all of its files."""
    limits: Limits
    """The limits in force: the policy's, narrowed by the operator and the request."""

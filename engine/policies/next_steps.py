"""Says in words what to do after a run that did not go as its author meant: a limit, a missing file, a null result.

What a run was refused, ``denials`` says. Both add to the message for people; the exit reason is the sandbox's alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from sandbox import ExitReason, Limits, Policy, Result, RunError

_NULL = "`result` is null: the script assigned none, and its `main`, if it has one, returned none"
_AFTER: Mapping[ExitReason, str] = MappingProxyType(
    {
        ExitReason.OUTPUT_LIMIT: "write what is long to a file in artifacts/",
        ExitReason.WORKSPACE_LIMIT: "delete what is not needed any more, or work in parts",
        ExitReason.PROCESS_LIMIT: "have fewer at the same time",
    }
)
_NO_FILES = "a run sees no files of yours: send them as `inputs`, and open them as inputs/NAME"
_READ_ONLY = "write to the working directory, or to artifacts/ what is to be kept"
_NO_ARGV = "nothing is in sys.argv: send arguments as `args`, which is a global of the script"
_NO_ARGS = "the global `args` is None where the request has no `args`"
_MAIN = "the fields of an object `args` become the arguments of `main`"
_NO_NOTEBOOK = "a script is no notebook: assign what is to be seen to `result`, or write it to artifacts/"
_NO_MAGIC = "`!` and `%` are of notebooks; nothing can be installed, and GET /libraries lists what there is"
_EXCEPTIONS = (
    ("FileNotFoundError", r"\[Errno 2\]", "", _NO_FILES),
    ("OSError", r"\[Errno 30\]", "", _READ_ONLY),
    ("IndexError", "", r"sys\.argv", _NO_ARGV),
    ("TypeError", "^'NoneType' object", r"\bargs\b", _NO_ARGS),
    ("TypeError", r"^main\(\) missing", "", _MAIN),
    ("NameError", "^name '(display|get_ipython)'", "", _NO_NOTEBOOK),
    ("SyntaxError", "", r"(?m)^\s*[!%]", _NO_MAGIC),
)
"""Type of an exception, what its message and its traceback hold, and what to do: the first that fits is said."""
_LOOKED_AT = 4096
"""Characters of a message and of a traceback's end, which decide about a hint and nothing else."""


def with_next_step(run: Result, policy: Policy, limits: Limits, granted: Limits) -> Result:
    """The same result, whose message also says what to do next, where that is known.

    Args:
        run: as the sandbox gives it, or with what it was denied.
        policy: under which it ran.
        limits: that were in force.
        granted: what the policy and the operator would have allowed, had the request asked for no less.
    """
    is_script = policy.task_type == "custom_script"
    if run.exit_reason is ExitReason.OK:
        is_empty = run.value is None or bytes(run.value) == b"null"
        step = _NULL if is_script and is_empty and not run.artifacts else ""
    elif run.exit_reason is ExitReason.ERROR:
        step = _after_exception(run.error) if is_script and run.error is not None else ""
    else:
        step = _AFTER.get(run.exit_reason) or _after_limit(run.exit_reason, policy, limits, granted)
    return msgspec.structs.replace(run, message=f"{run.message}; {step}") if step else run


def _after_limit(reason: ExitReason, policy: Policy, limits: Limits, granted: Limits) -> str:
    """More can be asked for if the request, not the policy, was the narrower one."""
    if reason is ExitReason.WALL_LIMIT and limits.wall_s < granted.wall_s:
        return f"ask for more by `timeout_s`, up to {granted.wall_s:g} s here"
    if reason is ExitReason.MEMORY_LIMIT and limits.memory_mib < granted.memory_mib:
        return f"ask for more by `memory_mib`, up to {granted.memory_mib} MiB here"
    if reason in (ExitReason.WALL_LIMIT, ExitReason.MEMORY_LIMIT, ExitReason.CPU_LIMIT):
        return f"do less at a time, or ask the operator for a policy that grants more than {policy.name}"
    return ""


def _after_exception(error: RunError) -> str:
    message, traceback = error.message[:_LOOKED_AT], (error.traceback or "")[-_LOOKED_AT:]
    fitting = (
        step
        for kind, words, line, step in _EXCEPTIONS
        if kind == error.type and re.search(words, message) and re.search(line, traceback)
    )
    return next(fitting, "")

"""The message of a run that failed for want of a grant names the policy's key."""

from __future__ import annotations

import re

import pytest

from engine.model.trail import NOT_DENIED
from engine.policies.denials import with_denials
from engine.policies.diff import keys
from engine.service.auditor import REFUSED
from sandbox import ExitReason, Logs, RunError, Violation, load_policies
from sandbox.egress.decisions import Decision
from tests.support.readme import ROOT
from tests.support.results import run_result

KNOWN = load_policies(ROOT / "policies")
CUSTOM = KNOWN["custom_script"]
LOOKUPS = {
    "urllib": ("URLError", "<urlopen error [Errno -2] Name or service not known>"),
    "without a server": ("gaierror", "[Errno -3] Temporary failure in name resolution"),
    "requests": (
        "ConnectionError",
        "NameResolutionError(\"Failed to resolve 'a.b' ([Errno -2] Name or service not known)\")",
    ),
    "httpx": ("ConnectError", "[Errno -2] Name or service not known"),
}


@pytest.mark.parametrize(("kind", "message"), LOOKUPS.values(), ids=LOOKUPS)
def test_a_lookup_without_network_names_the_key(kind: str, message: str) -> None:
    """No system call is denied for it, so only the run's own words tell."""
    error = RunError(type=kind, message=message, traceback=f"Traceback\n{kind}: {message}\n")
    run = run_result(exit_reason=ExitReason.ERROR, message=f"{kind}: {message}", error=error)
    said = with_denials(run, CUSTOM, KNOWN.values()).message
    assert said.startswith(run.message)
    assert "network.allow" in said
    assert "custom_script_network would grant it" in said


def test_a_lookup_that_the_script_reports_itself_names_the_key() -> None:
    """A script that catches it and leaves with a code has no error but what it prints."""
    logs = Logs(stderr="cannot load: [Errno -2] Name or service not known\n")
    run = run_result(exit_reason=ExitReason.NONZERO_EXIT, message="it left", logs=logs)
    assert "network.allow" in with_denials(run, CUSTOM, KNOWN.values()).message


def test_a_lookup_under_a_network_is_no_denial() -> None:
    """There the name is the fault, not the policy."""
    error = RunError(type="gaierror", message="Name or service not known")
    run = run_result(exit_reason=ExitReason.ERROR, error=error)
    assert run == with_denials(run, KNOWN["custom_script_network"], KNOWN.values())


def test_a_success_says_nothing_of_it() -> None:
    """Whatever the script has printed or tried."""
    logs, violations = Logs(stderr="Name or service not known"), (Violation(syscall="socket", count=1),)
    run = run_result(logs=logs, violations=violations)
    assert run == with_denials(run, CUSTOM, KNOWN.values())


def test_a_denied_call_is_named_once() -> None:
    """Where a socket was denied, the look-up that failed before it is not said as well."""
    error = RunError(type="gaierror", message="Name or service not known")
    run = run_result(exit_reason=ExitReason.ERROR, error=error, violations=(Violation(syscall="socket", count=1),))
    said = with_denials(run, CUSTOM, KNOWN.values()).message
    assert "tried to open a socket" in said
    assert "looked a host name up" not in said


def test_each_refusal_of_the_proxy_is_in_words() -> None:
    """But for those that no policy makes; and what the words name as a key is one."""
    assert {decision.value for decision in Decision} - NOT_DENIED == REFUSED.keys()
    named = {key for words in REFUSED.values() for key in re.findall(r"network\.\w+", words)}
    assert named <= set(keys())

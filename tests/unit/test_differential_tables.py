"""The tables of tests/differential say something that can be checked, and the corpus leaves no module out."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from tests.differential.corpus import load_corpus, load_differences

ROOT = Path(__file__).resolve().parents[2]
CORPUS = {script.id: script for script in load_corpus()}
NOT_PROBED = {
    "antigravity": "opens a browser when it is imported",
    "ensurepip": "installs pip",
    "idlelib": "needs a display",
    "tkinter": "needs a display",
    "turtle": "needs a display",
    "turtledemo": "needs a display",
    "subprocess": "starts processes; the scripts denied-subprocess-* use it",
    "msilib": "Windows",
    "msvcrt": "Windows",
    "nt": "Windows",
    "winreg": "Windows",
    "winsound": "Windows",
    "nis": "asks a server, and is not built everywhere",
    "ossaudiodev": "needs a sound card",
}
"""Module of the standard library → why no script calls it."""


def test_the_corpus_is_large() -> None:
    """A corpus that lost its files would agree with everything."""
    assert len(CORPUS) >= 1000


def test_every_module_of_the_standard_library_is_probed() -> None:
    """A module that a new Python brings gets a probe, or a reason why not."""
    probed = {name.removeprefix("probe-").split(".")[0] for name in CORPUS if name.startswith("probe-")}
    public = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    assert set() == public - probed - NOT_PROBED.keys()


def test_rows_speak_of_scripts_that_exist() -> None:
    """Each pattern of each table matches something, so that no row outlives its script."""
    ids = [*CORPUS, *(f"right-{name}" for name, script in CORPUS.items() if script.right)]
    for table in ("differences", "not_yet"):
        for row in load_differences(table):
            for pattern in row.scripts:
                one = type(row)(scripts=[pattern], differs=[], reason=row.reason)
                assert any(map(one.matches, ids)), f"{table}.toml: {pattern} is no script"


def test_wanted_differences_have_a_reason_and_a_true_key() -> None:
    """A reason is a sentence; a policy key is one that the delivered policy has."""
    policy = tomllib.loads((ROOT / "policies" / "custom_script.toml").read_text(encoding="utf-8"))
    for row in load_differences("differences"):
        assert row.reason.endswith("."), row
        if row.policy:
            section, _, key = row.policy.partition(".")
            assert key in policy[section], row.policy


def test_no_difference_is_wanted_and_a_fault() -> None:
    """What is wanted is not to be fixed."""
    wanted, faults = load_differences("differences"), load_differences("not_yet")
    both = [
        (script, aspect)
        for script in CORPUS
        for row in wanted
        if row.matches(script)
        for aspect in row.differs
        if any(fault.matches(script) and aspect in fault.differs for fault in faults)
    ]
    assert [] == both

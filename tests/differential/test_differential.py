"""Each script of the corpus does in the service what it does under plain Python, but for what the tables say."""

from __future__ import annotations

import json

import pytest

from tests.differential.compare import find_differences, what_is_wrong
from tests.differential.corpus import Script, load_corpus, load_differences
from tests.differential.runs import Both

CORPUS = load_corpus()
WANTED = load_differences("differences")
NOT_YET = load_differences("not_yet")
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("script", CORPUS, ids=[script.id for script in CORPUS])
def test_script_behaves_as_under_plain_python(script: Script, both: Both) -> None:
    """All that differs stands in a table, and all that the tables say differs."""
    rows = [row for row in (*WANTED, *NOT_YET) if row.matches(script.id)]
    tabled = {aspect for row in rows for aspect in row.differs}
    plain, served = both(script)
    found = find_differences(script, plain, served)
    new = "".join(f"\n{aspect}\n{words}" for aspect, words in found.items() if aspect not in tabled)
    assert not new, f"differs, and stands in no table:{new}\n{json.dumps(served.task)[:3000]}"
    gone = tabled - set(found)
    assert not gone, f"no longer differs: take {sorted(gone)} out of the tables: {[row.reason for row in rows]}"


REPORTED = [script for script in CORPUS if script.right]


@pytest.mark.parametrize("script", REPORTED, ids=[script.id for script in REPORTED])
def test_reported_script_is_right(script: Script, both: Both) -> None:
    """What was once reported as wrong is right, by itself and not only by comparison."""
    _, served = both(script)
    wrong = what_is_wrong(served, script.right)
    known = [row.reason for row in NOT_YET if row.matches(f"right-{script.id}")]
    assert bool(wrong) == bool(known), f"{wrong}; known faults: {known}\n{json.dumps(served.task)[:3000]}"

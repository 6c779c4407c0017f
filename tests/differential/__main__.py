"""Says of each script how it differs: ``python -m tests.differential [PATTERN …]``, patterns of ids as of a shell.

For who works on the service or on the corpus. What stands in a table is marked ``wanted`` or ``known fault``.
"""

from __future__ import annotations

import fnmatch
import sys

from tests.differential.compare import find_differences, what_is_wrong
from tests.differential.corpus import load_corpus, load_differences
from tests.differential.runs import run_both


def main(patterns: list[str]) -> None:
    """Run the scripts, print what differs, then the counts."""
    chosen = [
        s for s in load_corpus() if not patterns or any(fnmatch.fnmatchcase(s.id, pattern) for pattern in patterns)
    ]
    tables = {"wanted": load_differences("differences"), "known fault": load_differences("not_yet")}
    counts = {"the same": 0, "wanted": 0, "known fault": 0, "new": 0}
    with run_both(chosen) as both:
        for script in chosen:
            plain, served = both(script)
            found = find_differences(script, plain, served)
            for fault in what_is_wrong(served, script.right):
                print(f"== right-{script.id}: {fault}", flush=True)
            kinds = set()
            for aspect, words in found.items():
                rows = {
                    name
                    for name, table in tables.items()
                    for row in table
                    if row.matches(script.id) and aspect in row.differs
                }
                kind = min(rows, default="new")
                kinds.add(kind)
                print(f"== {script.id}: {aspect}: {kind}\n{words}", flush=True)
            counts["new" if "new" in kinds else min(kinds, default="the same")] += 1
    print(f"\n{len(chosen)} scripts compared: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))


if __name__ == "__main__":
    main(sys.argv[1:])

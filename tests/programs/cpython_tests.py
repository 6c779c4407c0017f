"""CPython's own tests in the service and by plain Python: ``python -m tests.programs.cpython_tests [MODULE …]``.

Without a module: all that ``tests/differential/cpython.toml`` names (``make cpython-test``). A module is the part of
its name behind ``test_``. Prints a line for each, and each difference that the table does not expect; the exit code is
1 then. The service has the delivered policy with more time, so that a slow machine changes nothing.
"""

from __future__ import annotations

import sys

from tests.differential import cpython
from tests.differential.runs import run_both

LONG_S = 540


def main(modules: list[str]) -> int:
    """Run them; 0 if all differences are expected."""
    if not cpython.has_tests():
        print(
            "This interpreter has no Lib/test. On Debian: apt-get install libpython3-testsuite; or use one that has it."
        )
        return 1
    table = cpython.load_table()
    chosen = modules or table.modules
    scripts = {module: cpython.make_script(module) for module in chosen}
    everything: dict[str, str] = {}
    unexpected = tests = 0
    with run_both(scripts.values(), wall_s=LONG_S, at_once=2) as both:
        for number, (module, script) in enumerate(scripts.items(), 1):
            plain, served = both(script)
            differences = cpython.find_differences(module, plain, served)
            new = cpython.judge(differences, table)
            everything |= differences
            unexpected += len(new)
            tests += cpython.as_counts(plain.result)
            count, known = cpython.as_counts(plain.result), len(differences) - len(new)
            print(
                f"{number}/{len(scripts)} {module}: {count} tests, {known} differ as expected, {len(new)} new",
                flush=True,
            )
            for test, error in new.items():
                print(f"  {test}\n    {error}", flush=True)
    idle = cpython.idle_rows(everything, table, chosen)
    for row in idle:
        print(f"no longer differs: {row.tests} {row.error}: {row.reason}")
    print(f"{tests} tests in {len(scripts)} modules; {len(everything)} differ, {unexpected} of them unexpectedly")
    return int(bool(unexpected or idle))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

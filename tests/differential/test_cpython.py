"""Twenty quick modules of CPython's own tests behave in the service as under plain Python (make cpython-test: all)."""

from __future__ import annotations

import pytest

from tests.differential import cpython
from tests.differential.corpus import Script
from tests.differential.runs import Both

TABLE = cpython.load_table()
SCRIPTS = [cpython.make_script(module) for module in TABLE.quick] if cpython.has_tests() else []
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not SCRIPTS, reason="this interpreter has no Lib/test (Debian: libpython3-testsuite)"),
]


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.id for script in SCRIPTS])
def test_module_of_cpython_behaves_as_under_plain_python(script: Script, both: Both) -> None:
    """All that differs is expected, and the module really ran."""
    module = script.id.removeprefix("cpython-")
    plain, served = both(script)
    assert cpython.as_counts(plain.result) > 0
    assert {} == cpython.judge(cpython.find_differences(module, plain, served), TABLE)

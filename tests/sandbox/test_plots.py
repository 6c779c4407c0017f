"""A plot costs the drawing, not the import of matplotlib, which its zygote has loaded."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

from sandbox import ExitReason
from tests.support.synchronous import Sandbox, value_of

SCRIPTS_PYTHON = Path(__file__).resolve().parents[2] / ".libraries" / "scripts" / "bin" / "python"
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.title('x')\nplt.savefig('{}')\n"


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_plot_costs_a_part_of_what_plain_python_needs_for_it(box: Sandbox, tmp_path: Path) -> None:
    """Processor time, both in the same run; no violation, and nothing on stderr of a cache that cannot be written."""
    before = _children_cpu_s()
    source = PLOT.format(tmp_path / "plain.png")
    subprocess.run([SCRIPTS_PYTHON, "-c", source], check=True, env={"HOME": str(tmp_path), "MPLBACKEND": "agg"})
    plain_s = _children_cpu_s() - before

    result = box.run(PLOT.format("artifacts/plot.png"))

    assert (ExitReason.OK, "", ()) == (result.exit_reason, result.logs.stderr, result.violations)
    assert ["plot.png"] == [artifact.name for artifact in result.artifacts]
    assert result.usage.cpu_s < plain_s * 2 / 3  # about 0.45; beside busy neighbours on the same core up to 0.55


def test_matplotlib_of_a_run_keeps_its_files_in_the_home_of_the_run(box: Sandbox) -> None:
    """The folder that the zygote lent it for the import is forgotten."""
    script = """
import matplotlib, os
where = [matplotlib.get_cachedir(), matplotlib.get_configdir()]
result = [[path.startswith(os.path.expanduser('~') + '/') for path in where], 'MPLCONFIGDIR' in os.environ,
          os.access('/', os.W_OK)]
"""
    result = box.run(script)
    assert [[True, True], False, False] == value_of(result)

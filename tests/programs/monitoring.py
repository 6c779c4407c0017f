"""Has Prometheus' own tool try what lies in .github/monitoring/ and what the engine exposes: ``make monitoring-test``.

The structure of these files is tested without it, in ``unit/test_monitoring.py``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry

from engine.telemetry.metrics import ApiMetrics, ServiceState, WorkerMetrics, expose
from sandbox import PoolStats

FOLDER = Path(__file__).resolve().parents[2] / ".github" / "monitoring"
MISSING = "promtool is missing; on Debian and Ubuntu: apt-get install prometheus (no server needs to run)"


def main() -> int:
    """Every check, until one fails; returns the exit code."""
    promtool = shutil.which("promtool")
    if promtool is None:
        print(f"error: {MISSING}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        panels = Path(folder) / "panels.yml"
        panels.write_text(_panels_as_rules())
        checks = [
            ["check", "config", "prometheus.yml"],
            ["test", "rules", "alerts_test.yml"],
            ["check", "rules", str(panels)],
        ]
        tried = [subprocess.run([promtool, *check], cwd=FOLDER, check=False) for check in checks]
    lint = [promtool, "check", "metrics"]
    tried += [subprocess.run(lint, input=text, check=False) for text in _expositions()]
    codes = [process.returncode for process in tried]
    print("monitoring: all well" if not any(codes) else "monitoring: see above")
    return 1 if any(codes) else 0


def _panels_as_rules() -> str:
    """The expressions of the dashboard as rules, which promtool can parse."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions)
    ]
    return yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]})


def _expositions() -> list[bytes]:
    """The metrics that an API and a worker expose, with a sample in each family."""
    api = ApiMetrics(CollectorRegistry(), version="1")
    api.note_state(ServiceState(1, 1, 0.5, {"working": 1}, 9, {"database": True}))
    api.answered("/execute", "POST", 202, 0.001)
    worker = WorkerMetrics(CollectorRegistry(), version="1", slots=1, policies={"p": "custom_script"})
    worker.watch_pools({"p": lambda: PoolStats(**dict.fromkeys(PoolStats.__struct_fields__, 1))})
    worker.claimed("custom_script", 0.001)
    return [expose(registry, "").text for registry in (api.registry, worker.registry)]


if __name__ == "__main__":
    sys.exit(main())

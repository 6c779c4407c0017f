"""``python -m tests.programs.audit_lock``: known vulnerabilities of what requirements.lock names, by pip-audit.

Exit code 1 for a vulnerability. Where the list of them cannot be reached nothing is known, which is said and is no
error: a build without a network must still be possible, and whoever reads its log sees that this was not checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"


def main() -> int:
    """Run it and say what it found."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip",
               "--timeout", "10", "--progress-spinner", "off", "--format", "json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"NOT CHECKED: the list of known vulnerabilities cannot be reached: {done.stderr.strip()[-300:]}")
        return 0
    known = [package for package in packages if "vulns" in package]
    found = [(package["name"], package["version"], vuln["id"]) for package in known for vuln in package["vulns"]]
    print(f"{len(known)} of {len(packages)} packages checked" if known else "NOT CHECKED: no package is known there.")
    for name, version, vulnerability in found:
        print(f"{name} {version}: {vulnerability}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

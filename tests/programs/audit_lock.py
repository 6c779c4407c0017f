"""``python -m tests.programs.audit_lock``: known vulnerabilities of what the locks name, by pip-audit.

Exit code 1 for a vulnerability. Where the list of them cannot be reached nothing is known, which is said and is no
error: a build without a network must still be possible, and whoever reads its log sees that this was not checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-scripts.lock")
"""All others are parts of these, which a test holds."""


def main() -> int:
    """Hold each lock against the list and say what it found."""
    return max(audit(ROOT / name) for name in LOCKS)


def audit(lock: Path) -> int:
    """Hold one lock against the list; 1 if it names a package with a known vulnerability."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip",
               "--timeout", "10", "--progress-spinner", "off", "--format", "json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        why = done.stderr.strip()[-300:]
        print(f"{lock.name}: NOT CHECKED: the list of known vulnerabilities cannot be reached: {why}")
        return 0
    known = [package for package in packages if "vulns" in package]
    found = [(package["name"], package["version"], vuln["id"]) for package in known for vuln in package["vulns"]]
    print(f"{lock.name}: ", end="")
    print(f"{len(known)} of {len(packages)} packages checked" if known else "NOT CHECKED: no package is known there.")
    for name, version, vulnerability in found:
        print(f"{name} {version}: {vulnerability}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

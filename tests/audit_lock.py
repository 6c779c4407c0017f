"""``python -m tests.audit_lock``: known vulnerabilities of what requirements.lock names, by pip-audit.

Exit code 1 for a vulnerability. Where the list of them cannot be reached nothing is known, which is said and is no error:
a build without a network must still be possible, and whoever reads its log sees that this was not checked.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
UNREACHABLE = ("ConnectionError", "Max retries", "Failed to resolve", "timed out", "ServiceError", "Connection refused")


def main() -> int:
    """Run it and say what it found."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip",
               "--timeout", "10", "--progress-spinner", "off"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        print(done.stdout.strip() or "No known vulnerabilities.")
        return 0
    if any(sign in done.stderr for sign in UNREACHABLE):
        print("NOT CHECKED: the list of known vulnerabilities cannot be reached from here.")
        return 0
    print(done.stdout, done.stderr, sep="\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Runs the service on Debian's PostgreSQL, PgBouncer and Redis: ``python -m tests.servers`` (make servers-test).

Needs ``apt-get install postgresql pgbouncer redis-server``. It starts servers of its own and leaves the host's alone.
"""

from __future__ import annotations

import subprocess
import sys

from tests.servers.debian import missing


def main() -> int:
    """The exit code of pytest; 2 when a server is missing."""
    if lacking := missing():
        print(f"missing: apt-get install {' '.join(lacking)}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "pytest", "-q", "tests/servers/on_debian.py", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Which interpreter runs scripts: what the service has for them, the plain runs have, too."""

from __future__ import annotations

import sys


def script_interpreter() -> str:
    """Path of the interpreter whose packages scripts may import."""
    return sys.executable

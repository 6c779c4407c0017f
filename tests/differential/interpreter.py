"""Which interpreter runs scripts: what the service has for them, the plain runs have, too."""

from __future__ import annotations

from tests.support.libraries import FOLDER


def script_interpreter() -> str:
    """Path of the interpreter whose packages scripts may import: that of the set ``scripts``."""
    return str(FOLDER / "scripts" / "bin" / "python")

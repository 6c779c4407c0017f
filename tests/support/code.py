"""A copy of the code that zygotes are shown, for tests that add to it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sandbox import Template


def copy_of_code(template: Template, factory: pytest.TempPathFactory) -> Path:
    """A copy of the template's code, which every user may read."""
    code = factory.mktemp("code") / "code"
    subprocess.run(["cp", "-r", str(template.code), str(code)], check=True)
    for folder in (code, *code.parents[:3]):
        if os.stat(folder).st_uid == os.geteuid() and folder != Path("/tmp"):
            folder.chmod(0o755)
    return code

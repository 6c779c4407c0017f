"""Runs requests through ``handlers.entry.main``, each in a fresh process."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Answer:
    """The value that ``main`` returned, decoded strictly."""

    def __init__(self, kind: str, payload: bytes, printed: bytes, files: dict[str, bytes]) -> None:
        self.kind = kind
        self.files = files
        """Name → content of what it left in ``artifacts/``."""
        self.printed = printed
        self.value: Any = json.loads(payload, parse_constant=_refuse) if payload else None

    def __repr__(self) -> str:
        return f"Answer({self.kind}, {str(self.value)[:2000]})"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


class Entry:
    """A process that forks for each request."""

    def __init__(self) -> None:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-I", str(Path(__file__).with_name("forking_server.py")), str(ROOT)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, request: bytes | dict[str, Any], *, data_mib: int = 0) -> Answer:
        """Answer of ``main``; kind ``exit`` for SystemExit, ``died`` where the process ended without one."""
        raw = request if isinstance(request, bytes) else json.dumps(request).encode()
        with tempfile.TemporaryDirectory() as folder:
            order = {"request": base64.b64encode(raw).decode(), "data_mib": data_mib, "folder": folder}
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            kind, payload, printed = json.loads(self._process.stdout.readline())
            left = sorted(path for path in Path(folder, "artifacts").rglob("*") if path.is_file())
            files = {str(path.relative_to(Path(folder, "artifacts"))): path.read_bytes() for path in left}
        return Answer(kind, base64.b64decode(payload), base64.b64decode(printed), files)

    def run(self, script: str, args: Any = None, *, data_mib: int = 0, **more: Any) -> Answer:
        """A ``custom_script``."""
        parameters = {"script": script, "args": args}
        return self.ask({"task_type": "custom_script", "parameters": parameters, **more}, data_mib=data_mib)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

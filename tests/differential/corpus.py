"""The scripts of the corpus, and what may differ. All of it is data: ``corpus/*.toml``, and two tables beside them."""

from __future__ import annotations

import fnmatch
import sys
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

FOLDER = Path(__file__).resolve().parent
Aspect = Literal["stdout", "stderr", "end", "artifacts", "result", "violations"]


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One script of the corpus."""

    id: str
    code: str
    why: str = ""
    """What it stands for, where its id does not say so."""
    args: Any = msgspec.UNSET
    inputs: dict[str, str] = {}
    calls: str = ""
    """The last line of the plain run: how a person calls what the service calls by itself (``main``)."""
    meaning: str = ""
    """An expression for what ``result`` means as plain JSON, where it is none itself."""
    timeout_s: float | None = None
    right: dict[str, Any] = {}
    """What must hold of the task, whatever plain Python does: field → value; ``…_contains`` → texts."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What the service gets."""
        found: dict[str, Any] = {"script": self.code}
        if self.args is not msgspec.UNSET:
            found["args"] = self.args
        if self.inputs:
            found["inputs"] = {name: {"text": text} for name, text in self.inputs.items()}
        return found


class Difference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of a table: these aspects of these scripts differ, each of each."""

    scripts: list[str]
    """Ids, or patterns of ids as of a shell."""
    differs: list[Aspect]
    reason: str
    policy: str = ""
    """The policy's key that denies it, as ``limits.processes``."""
    since: str = ""
    """The first version of Python of which it speaks, as ``3.13``; else of all."""
    before: str = ""
    """The first version of which it no longer speaks."""

    @property
    def is_of_this_python(self) -> bool:
        """Whether it speaks of the Python that runs the tests, and the scripts."""
        running = sys.version_info[:2]
        begun = not self.since or _version(self.since) <= running
        return begun and (not self.before or running < _version(self.before))

    def matches(self, script_id: str) -> bool:
        """Whether it speaks of this script."""
        return any(fnmatch.fnmatchcase(script_id, pattern) for pattern in self.scripts)


def load_corpus() -> list[Script]:
    """All scripts, by file and place.

    Raises:
        ValueError: an id stands twice, or a field is unknown.
    """
    found: dict[str, Script] = {}
    for path in sorted((FOLDER / "corpus").glob("*.toml")):
        for script in _read(path):
            if script.id in found:
                raise ValueError(f"{path.name}: {script.id} stands twice")
            found[script.id] = script
    return list(found.values())


def _read(path: Path) -> list[Script]:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    probes = content.pop("probes", {})
    scripts = [msgspec.convert({"id": name, **fields}, Script) for name, fields in content.items()]
    return scripts + [make_probe(name, use) for name, use in probes.items()]


def make_probe(module: str, use: str) -> Script:
    """Import a module and print what a real call of it gives; ``use`` is an expression, or lines that print."""
    lines = use if "\n" in use else f"print(*map(ascii, ({use},)))\n"
    return Script(id=f"probe-{module}", code=f"import {module}\n{lines}")


def load_differences(name: str) -> list[Difference]:
    """The rows of ``differences.toml`` (wanted) or ``not_yet.toml`` (known faults) that are of this Python."""
    content = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    rows = msgspec.convert(content.get("difference", []), list[Difference])
    return [row for row in rows if row.is_of_this_python]


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))

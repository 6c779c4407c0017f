"""The bill of materials of the image: ``python -m tests.programs.sbom`` (make sbom) writes ``sbom.cdx.json``.

It is CycloneDX, made by cyclonedx-py of the three locks that the image installs: its own packages, those of handlers
and those of scripts. Which packages of Debian the base has, the base's own bill says. Afterwards each pin of the locks
must be in it, with every hash; else the exit code is 1.

What it installs goes into ``.sbom``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from typing import Any

from tests.support.stack import ROOT
from tests.support.tools import install

WRITTEN = ROOT / "sbom.cdx.json"
INSTALLED = tuple(ROOT / f"requirements-{name}.lock" for name in ("runtime", "handlers", "scripts"))
"""The locks that the Containerfile installs."""


def main() -> int:
    """Write it, and hold it against the locks."""
    programs = install("sbom")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"-r {lock}\n" for lock in INSTALLED))
        file.flush()
        command = [str(programs / "cyclonedx-py"), "requirements", "--pyproject", "pyproject.toml"]
        options = ["--output-reproducible", "--output-file", str(WRITTEN), file.name]
        subprocess.run([*command, *options], cwd=ROOT, check=True)
    wanted = set().union(*(pins(lock.read_text(encoding="utf-8")) for lock in INSTALLED))
    missing = sorted(wanted - components(json.loads(WRITTEN.read_text(encoding="utf-8"))))
    print("\n".join(missing) or f"{WRITTEN.name} has all {len(wanted)} packages of the image, each with its hashes")
    return int(bool(missing))


def pins(lock: str) -> set[str]:
    """Name, version and hashes of each package of a lock, as one line each."""
    return {
        f"{name.lower()} {version} {' '.join(sorted(re.findall(r'sha256:([0-9a-f]{64})', rest)))}"
        for name, version, rest in re.findall(r"^([\w.-]+)(?:\[.*?\])?==([^\s;]+)(.*(?:\n    .*)*)", lock, re.MULTILINE)
    }


def components(document: dict[str, Any]) -> set[str]:
    """The same of each component of a bill."""
    return {
        f"{one['name'].lower()} {one['version']} {' '.join(sorted(hashes_of(one)))}" for one in document["components"]
    }


def hashes_of(component: dict[str, Any]) -> set[str]:
    """The SHA-256 digests that a component or its references name."""
    places = [component, *component.get("externalReferences", ())]
    return {one["content"] for place in places for one in place.get("hashes", ()) if one["alg"] == "SHA-256"}


if __name__ == "__main__":
    sys.exit(main())

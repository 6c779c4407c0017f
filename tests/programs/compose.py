"""compose.yaml as podman-compose understands it: ``python -m tests.programs.compose`` (make compose-test).

podman-compose drops what it does not know, and says nothing. So each key and each item of a list is taken away in turn,
and must be missed: ``up`` and ``down`` without it must ask podman for something else. Podman itself is not needed: in
its place stands a program that writes down what it is asked, and that has what it was asked to make. Docker's own
Compose is tried by ``.github/workflows/image.yml``.

What it installs goes into ``.compose``.
"""

from __future__ import annotations

import concurrent.futures
import copy
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.stack import ROOT
from tests.support.tools import install

PROGRAM = ROOT / ".compose" / "venv" / "bin" / "podman-compose"
PODMAN = """#!/bin/sh
for last in "$@"; do :; done
case "$*" in
  *--version*) echo podman version 5.6.0; exit ;;
  ps\\ *) echo '[]'; exit ;;
  inspect\\ *) exit 1 ;;
  *\\ inspect\\ *|*\\ exists\\ *) [ -e "$MADE/$last" ]; exit ;;
  network\\ create\\ *|volume\\ create\\ *) : > "$MADE/$last" ;;
esac
echo "$*" >> "$ASKED"
"""
"""Stands in for podman: it has no image and no container, and those networks and volumes that it was asked to make."""
ENVIRON = {"PYTHONHASHSEED": "0", "PATH": os.environ["PATH"]}
"""podman-compose keeps what a service waits for in sets: without a seed they come in another order each time."""
HASH = re.compile(r"config-hash=[0-9a-f]+")
"""A label over all that a service has: it differs whether or not the rest is understood."""
Place = tuple[str | int, ...]
AS_BY_DEFAULT: dict[Place, tuple[tuple[str, ...], str]] = {
    ("build", "context"): (("api", "worker", "secrets"), "it is the folder of compose.yaml"),
    ("build", "dockerfile"): (("api", "worker", "secrets"), "it is the first name that podman-compose looks for"),
    ("depends_on", "secrets", "condition"): (("api", "worker"), "PostgreSQL and Valkey, waited for, wait for the same"),
    ("command",): (("secrets",), "an entrypoint of one's own leaves the image's command out"),
}
"""What says what would hold without it, too: of which services, and why."""
SPOILT: dict[str, tuple[Place, Callable[[dict[str, Any]], Any]]] = {
    "copies without a mode": (
        ("services", "worker", "deploy", "replicas"),
        lambda services: services["worker"]["deploy"].pop("mode"),
    ),
    "a cgroup namespace": (
        ("services", "worker", "cgroup"),
        lambda services: services["worker"].update(cgroup="private"),
    ),
    "a place in the order of the out-of-memory killer": (
        ("services", "api", "oom_score_adj"),
        lambda services: services["api"].update(oom_score_adj=-500),
    ),
}
"""What podman-compose drops, and must be found: where it stands, and how it gets there."""


def main() -> int:
    """Exit code 0 when nothing is dropped, and each thing that is dropped was found where it was put in."""
    install("compose")
    document = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="ascii"))
    document = {key: value for key, value in document.items() if not key.startswith("x-")}
    codes, commands = asked(document, down=True)
    wrong = [] if codes == [0, 0] else [f"podman-compose ends with {codes}"]
    if asked(document, down=True) != (codes, commands):
        wrong.append("podman-compose asks for other things the second time: nothing can be compared")
    among = list(places(document))
    wrong += [
        f"podman-compose drops {'.'.join(map(str, place))}"
        for place in dropped(document, among)
        if place[1] not in AS_BY_DEFAULT.get(place[2:], ((), ""))[0]
    ]
    for name, (place, spoil) in SPOILT.items():
        spoilt = copy.deepcopy(document)
        spoil(spoilt["services"])
        wrong += [] if dropped(spoilt, [place]) else [f"not found: {name}"]
    print("\n".join(wrong) or f"podman-compose understands all of {len(among)}; {len(SPOILT)} mistakes were found")
    return int(bool(wrong))


def places(node: Any, above: Place = ()) -> Iterator[Place]:
    """Each key, and each item of a list."""
    if above and not (isinstance(node, dict) and node):
        yield above
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*above, key))


def without(document: dict[str, Any], place: Place) -> dict[str, Any]:
    """A copy in which something is missing, and what would be empty then."""
    less = copy.deepcopy(document)
    nodes: list[Any] = [less]
    for key in place[:-1]:
        nodes.append(nodes[-1][key])
    for node, key in zip(reversed(nodes), reversed(place), strict=True):
        del node[key]
        if node:
            break
    return less


def dropped(document: dict[str, Any], among: list[Place]) -> list[Place]:
    """The places whose absence changes nothing."""
    whole = {down: asked(document, down=down) for down in (False, True)}

    def is_missed(place: Place) -> bool:
        less = without(document, place)
        return any(asked(less, down=down) != whole[down] for down in (False, True))

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        return [place for place, missed in zip(among, threads.map(is_missed, among), strict=True) if not missed]


def asked(document: dict[str, Any], *, down: bool = False) -> tuple[list[int], list[str]]:
    """The exit codes of podman-compose (``up``, then ``down``), and each command that it gave to podman, sorted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for used in ("Containerfile", ".github"):
            (folder / used).symlink_to(ROOT / used)
        (folder / "compose.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        (podman := folder / "podman").write_text(PODMAN)
        podman.chmod(0o755)
        (made := folder / "made").mkdir()
        (log := folder / "asked").touch()
        environ = ENVIRON | {"ASKED": str(log), "MADE": str(made)}
        codes = []
        for what in [["up", "--detach"], *([["down"]] if down else [])]:
            command = [str(PROGRAM), "--podman-path", str(podman), *what]
            codes.append(subprocess.run(command, cwd=folder, env=environ, capture_output=True, check=False).returncode)
        return codes, sorted(HASH.sub("", log.read_text()).replace(name, "").splitlines())


if __name__ == "__main__":
    sys.exit(main())

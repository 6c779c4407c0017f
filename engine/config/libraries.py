"""The libraries that scripts and handlers may import: sets in ``LIBRARIES_DIR``, apart from the engine's own packages.

A set is a virtual environment without pip, in a folder that is named as policies name it (``libraries``). A sandbox
sees the packages of its policy's set and no others. ``install_libraries`` beside this file makes sets.
"""

from __future__ import annotations

import csv
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from engine.config.settings import PROJECT_DIR
from sandbox import HostError, LibrarySet, Policy

LOCKS = MappingProxyType({name: PROJECT_DIR / f"requirements-{name}.lock" for name in ("handlers", "scripts")})
"""The delivered sets, each with the file that names its packages, their versions and digests."""
SET_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_OF_THE_INSTALLATION = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
"""Files of a ``*.dist-info`` that the installer writes, and that say nothing of the package itself."""


def packages_folder(set_folder: Path) -> Path:
    """Where the packages of a set are, for this version of Python."""
    return set_folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def find_sets(folder: Path) -> dict[str, LibrarySet]:
    """Every set of a folder that this version of Python can use: name → packages and digest."""
    found = {path.name: packages_folder(path) for path in _set_folders(folder)}
    return {
        name: LibrarySet(folder=packages, digest=digest_of(packages))
        for name, packages in found.items()
        if packages.is_dir()
    }


def require(folder: Path, policies: tuple[Policy, ...]) -> None:
    """Refuse to go on where a policy names a set that is not there.

    Raises:
        HostError: names the policy, the set, and the fix.
    """
    for policy in policies:
        if not packages_folder(folder / policy.libraries).is_dir():
            raise HostError(f"policy {policy.name} {_lacks(folder, policy.libraries)}")


def _lacks(folder: Path, name: str) -> str:
    there_are = ", ".join(path.name for path in _set_folders(folder)) or "none"
    if (folder / name).is_dir():
        why = f"and the one in LIBRARIES_DIR ({folder}) was made for another Python than {sys.version.split()[0]}"
    else:
        why = f"which is not in LIBRARIES_DIR ({folder}; sets there: {there_are})"
    made = f"`python -m engine libraries add {name} FILE`"
    if name in LOCKS:
        made = "`make install`, or `python -m engine libraries install` with the same LIBRARIES_DIR"
    return (
        f"uses the set of libraries {name!r}, {why}. Fix: {made}; or take the policy out of use with DISABLED_POLICIES."
    )


def digest_of(packages: Path) -> str:
    """SHA-256 over the digests of every file of every package, as the packages' own ``RECORD`` has them.

    Two installations of the same wheels have the same digest, wherever they are.
    """
    lines = sorted(f"{path} {digest}\n" for path, digest, _ in recorded_files(packages))
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def recorded_files(packages: Path) -> Iterator[tuple[str, str, str]]:
    """(path below ``packages``, digest as RECORD has it, name of the ``*.dist-info``) of every file of a set.

    Without what lies outside (programs) and what the installer adds. The format of RECORD: PEP 376, PEP 427.
    """
    for info in sorted(packages.glob("*.dist-info")):
        with (info / "RECORD").open(encoding="utf-8", newline="") as record:
            for path, digest, *_ in csv.reader(record):
                is_added = path.startswith(f"{info.name}/") and path.rpartition("/")[2] in _OF_THE_INSTALLATION
                if not is_added and not path.startswith(("../", "/")) and not path.endswith(".pyc"):
                    yield path, digest, info.name


def _set_folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if SET_NAME.fullmatch(path.name) and path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []

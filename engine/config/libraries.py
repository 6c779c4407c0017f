"""The libraries that scripts and handlers may import: sets in ``LIBRARIES_DIR``, apart from the engine's own packages.

A set is a virtual environment without pip, in a folder that is named as policies name it (``libraries``). A sandbox
sees the packages of its policy's set and no others. ``install_libraries`` beside this file makes sets.
"""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import msgspec

from engine.config.settings import PROJECT_DIR
from sandbox import CACHES, HostError, LibrarySet, Policy

LOCKS = MappingProxyType({name: PROJECT_DIR / f"requirements-{name}.lock" for name in ("handlers", "scripts")})
"""The delivered sets, each with the file that names its packages, their versions and digests."""
SET_NAME = re.compile(r"[a-z][a-z0-9_-]*")
UNPACKED = ".unpacked"
"""Folder beside the packages of a set: what ``install_libraries`` unpacked of their files, to be mapped."""
_OF_THE_INSTALLATION = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
"""Files of a ``*.dist-info`` that the installer writes, and that say nothing of the package itself."""


class LibraryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One package, as it describes itself."""

    name: str
    version: str
    summary: str


class LibrarySetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One set and the packages in it."""

    name: str
    digest: str
    """``sha256:`` and hex, as of ``digest_of``."""
    libraries: tuple[LibraryFacts, ...]
    """By name, without regard to case."""


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


def describe_sets(folder: Path) -> tuple[LibrarySetFacts, ...]:
    """Every set of a folder with the name, version and summary of each package. Nothing of a package is imported."""
    return tuple(
        LibrarySetFacts(name=name, digest=found.digest, libraries=_describe(found.folder, found.digest))
        for name, found in find_sets(folder).items()
    )


@functools.lru_cache(maxsize=8)
def _describe(packages: Path, _digest: str) -> tuple[LibraryFacts, ...]:
    """Read the metadata of a set's packages: half a second of work, done once for what has this digest."""
    found = [
        LibraryFacts(name=one.metadata["Name"], version=one.version, summary=str(one.metadata.json.get("summary", "")))
        for one in importlib.metadata.distributions(path=[str(packages)])
    ]
    return tuple(sorted(found, key=lambda one: one.name.lower()))


def check_set(packages: Path) -> list[str]:
    """Hold every file of a set against its package's ``RECORD``, and find files that no package has.

    Returns:
        a fault in words each; none if all is right.
    """
    faults, known = [], set()
    for path, recorded, package in recorded_files(packages):
        known.add(path)
        try:
            found = _record_digest(packages / path)
        except OSError as error:
            faults.append(f"{path} of {package}: {error.strerror}")
        else:
            if not recorded:
                faults.append(f"{path} of {package}: was installed without a digest")
            elif found != recorded:
                faults.append(f"{path} of {package}: is not what was installed ({found}, must be {recorded})")
    return faults + [f"{path}: belongs to no package" for path in _unknown_files(packages, known)]


def _record_digest(path: Path) -> str:
    """The digest of a file as RECORD writes it: urlsafe base64 without padding, PEP 427."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _unknown_files(packages: Path, known: set[str]) -> list[str]:
    """Files that could be imported and that no RECORD names; compiled ones belong to their source."""
    found = []
    for path in sorted(packages.rglob("*")):
        name = str(path.relative_to(packages))
        is_added = path.parent.suffix == ".dist-info" and path.name in _OF_THE_INSTALLATION
        if path.is_dir() or is_added or name in known or name.startswith((f"{CACHES}/", f"{UNPACKED}/")):
            continue
        source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
        if path.parent.name != "__pycache__" or str(source.relative_to(packages)) not in known:
            found.append(name)
    return found


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
    for package in sorted(info.name for info in packages.glob("*.dist-info")):
        with (packages / package / "RECORD").open(encoding="utf-8", newline="") as record:
            for path, digest, *_ in csv.reader(record):
                is_added = path.startswith(f"{package}/") and path.rpartition("/")[2] in _OF_THE_INSTALLATION
                if not is_added and not path.startswith(("../", "/")) and not path.endswith(".pyc"):
                    yield path, digest, package


def _set_folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if SET_NAME.fullmatch(path.name) and path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []

"""Real files of packages: which, and how the ordinary clients fetch them by name.

Nothing of them is installed or imported; of an sdist, pip asks its build backend for the metadata. npm and apt check
what they fetch against their own indexes. The names are pinned where an index keeps old versions;
Debian's does not, so the report says which files there were.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

PACKAGES = MappingProxyType(
    {
        "sdist": ("pypdf==7.1.1", "python-docx==1.2.0", "csvkit==2.2.0", "agate==1.14.2", "tabula-py==2.10.0"),
        "wheel": ("matplotlib==3.11.2",),
        "npm": ("mammoth@1.13.0", "docx4js@3.3.0", "papaparse@5.7.1", "vega-datasets@3.2.1"),
        "deb": ("graphviz-doc", "bash-doc", "latex2html", "libxml2-doc", "git-doc"),
    }
)
"""Client → what it fetches. Licences: BSD, MIT, EPL, GPL, each in its package; the files stay on this machine."""
MAX_BYTES = 2_000_000


class RealFile(NamedTuple):
    """One file, its package, and its content."""

    package: str
    name: str
    content: bytes


def fetch(folder: Path) -> list[Path]:
    """Every package of PACKAGES that is not in ``folder`` yet, and where each lies.

    Raises:
        RuntimeError: a client could not fetch one; the message has the client's words.
    """
    return [_fetched(kind, package, folder) for kind, packages in PACKAGES.items() for package in packages]


def _fetched(kind: str, package: str, folder: Path) -> Path:
    place = folder / package.replace("/", "-")
    place.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    commands = {
        "sdist": [*pip, "--no-binary", ":all:", package],
        "wheel": [*pip, "--only-binary", ":all:", package],
        "npm": ["npm", "pack", "--silent", package],
        "deb": ["apt-get", "download", "--quiet", package],
    }
    if not any(place.iterdir()):
        done = subprocess.run(commands[kind], cwd=place, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise RuntimeError(f"{kind} could not fetch {package}: {done.stderr.strip()[-500:]}")
    return next(place.iterdir())


def files(archives: list[Path], *endings: str) -> Iterator[RealFile]:
    """The files of these endings, each content once, in the order of the archives."""
    seen = set()
    for archive in archives:
        for name, content in sorted(_members(archive)):
            plain = gzip.decompress(content) if name.endswith(".gz") else content
            digest = hashlib.sha256(plain).digest()
            if name.removesuffix(".gz").lower().endswith(endings) and digest not in seen:
                seen.add(digest)
                yield RealFile(archive.parent.name, Path(name).name.removesuffix(".gz"), plain)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((one.filename, wheel.read(one)) for one in wheel.infolist() if 20 < one.file_size <= MAX_BYTES)
        return
    if archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        unpacked = io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout)
    else:
        unpacked = io.BytesIO(archive.read_bytes())
    with tarfile.open(fileobj=unpacked) as tar:
        for one in tar:
            content = tar.extractfile(one) if one.isfile() and 20 < one.size <= MAX_BYTES else None
            if content is not None:
                yield one.name, content.read()

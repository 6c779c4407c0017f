"""Packages of a Debian suite, from the mirror that apt uses on this machine, unpacked and never installed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def own_suite() -> str:
    """The suite of this machine, such as ``bookworm``.

    Raises:
        LookupError: it is no Debian.
    """
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    if fields.get("ID") != "debian":
        raise LookupError("this test takes kernels and libraries of Debian, and runs on Debian only")
    return fields["VERSION_CODENAME"].strip('"')


def mirror() -> str:
    """The address of the archive that apt uses here.

    Raises:
        LookupError: apt has no lists.
    """
    wanted = ["--format", "$(SITE) $(CODENAME)", "Created-By: Packages", "Origin: Debian"]
    lines = _run(["apt-get", "indextargets", *wanted]).split("\n")
    own = own_suite()
    site = next((line.split()[0] for line in lines if line.endswith(f" {own}")), None)
    if site is None:
        raise LookupError(f"apt has no list of the suite {own}: run apt-get update")
    return site


class Suite:
    """One suite, with lists of its own, so that those of this machine stay as they are."""

    def __init__(self, folder: Path, name: str) -> None:
        """
        Args:
            folder: where lists and unpacked packages lie.
            name: such as ``trixie``.
        """
        self.name = name
        base = folder / "apt" / name
        for part in ("lists/partial", "cache/archives/partial"):
            (base / part).mkdir(parents=True, exist_ok=True)
        sources = base / "sources.list"
        sources.write_text(f"deb [signed-by={KEYS}] {mirror()} {name} main\n", encoding="ascii")
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": base / "lists",
            "Dir::Cache": base / "cache",
            "APT::Sandbox::User": "root",
        }
        self._options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        self._is_fresh = False

    def kernel_package(self) -> str:
        """The package with the newest kernel for the usual PC."""
        lines = self._apt("apt-cache", "depends", "linux-image-amd64").splitlines()
        return next(line.split()[-1] for line in lines if line.strip().startswith("Depends: linux-image-"))

    def unpack(self, into: Path, *names: str) -> None:
        """Unpack the newest version of packages, without those that they depend on."""
        into.mkdir(parents=True, exist_ok=True)
        for name in names:
            with tempfile.TemporaryDirectory(dir=into.parent) as folder:
                self._apt("apt-get", "-q", "download", name, at=folder)
                (archive,) = Path(folder).glob("*.deb")
                _run(["dpkg-deb", "-x", str(archive), str(into)])

    def _apt(self, program: str, *arguments: str, at: str | None = None) -> str:
        if not self._is_fresh:
            self._is_fresh = True
            _run(["apt-get", *self._options, "-qq", "update"])
        return _run([program, *self._options, *arguments], at)


def _run(command: list[str], at: str | None = None) -> str:
    done = subprocess.run(
        command, cwd=at, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, timeout=1800, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:1])} {command[-1]}: {done.stderr.strip()[-800:]}")
    return done.stdout

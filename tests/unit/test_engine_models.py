"""The manifest of the models, and the worker that misses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.model_files import missing, read_manifest, require
from sandbox import HostError, load_policies

ROOT = Path(__file__).resolve().parents[2]


def test_the_manifest_pins_every_wheel_and_file() -> None:
    """Exact versions, digests of full length, no file twice."""
    manifest = read_manifest()
    assert all("==" in wheel.requirement for wheel in manifest.wheels)
    digests = [wheel.sha256 for wheel in manifest.wheels] + [file.sha256 for file in manifest.files]
    assert {64} == set(map(len, digests))
    assert len(manifest.files) == len({file.path for file in manifest.files})


def test_a_worker_without_models_does_not_start(tmp_path: Path) -> None:
    """The error names the policy, each file and the fix, before anything is started."""
    policies = load_policies(ROOT / "policies")
    with pytest.raises(HostError, match="Fix: `make models`") as raised:
        require(tmp_path, tuple(policies.values()))
    for part in ("model.onnx", "tokenizer.json", "MODELS_DIR", str(tmp_path)):
        assert part in str(raised.value)
    require(tmp_path, (policies["data_processing"],))
    assert 4 == len(missing(tmp_path))

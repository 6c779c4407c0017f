"""scripts/ml_inference.py: what its ``main`` answers; tests/sandbox/test_granted_models.py runs it in its sandbox."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.entry_process import ROOT
from tests.support.libraries import FOLDER

TEXTS = ["I love the new office in Berlin.", "The delivery was late.", "Our parcel arrived two days late."]


@pytest.fixture(scope="module")
def script() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("ml_inference_script", ROOT / "scripts" / "ml_inference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def granted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy grants models."""
    monkeypatch.setenv("MODELS_DIR", str(ROOT / "models"))


def test_every_model_is_asked_about_every_text(script: Any) -> None:
    """By default each text has the answer of each model."""
    found = script.main({"texts": TEXTS})
    first = found["results"][0]
    assert [{"sentiment", "topic", "entities", "language"}] * 3 == [set(result) for result in found["results"]]
    assert ("positive", "en", ["Berlin"]) == (
        first["sentiment"]["label"], first["language"]["code"], [name["text"] for name in first["entities"]],
    )  # fmt: skip
    assert [] == found["left_out"]


def test_texts_that_are_alike_come_first(script: Any) -> None:
    """The two about a late delivery are nearer to each other than to the third."""
    assert [1, 2] == script.main({"texts": TEXTS, "models": ["similarity"]})["similarity"][0]["pair"]


def test_texts_are_ranked_by_a_query(script: Any) -> None:
    """The nearest first, each with its place in ``texts``."""
    found = script.main({"texts": TEXTS, "models": ["similarity"], "query": "place of work"})["similarity"]
    assert (0, [0, 1, 2]) == (found[0]["index"], sorted(item["index"] for item in found))


def test_own_categories(script: Any) -> None:
    """``topic`` chooses among the caller's."""
    args = {"texts": TEXTS, "models": ["topic"], "categories": ["shipping", "working place"]}
    found = [result["topic"]["label"] for result in script.main(args)["results"]]
    assert ["working place", "shipping", "shipping"] == found


def test_what_needs_no_granted_model_works_without(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under the default policy of scripts the others answer, and the answer says what was left out."""
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "none"))
    found = script.main({"texts": TEXTS[:1]})
    assert ["topic", "similarity"] == found["left_out"]
    assert {"sentiment", "entities", "language"} == set(found["results"][0])


REFUSED: dict[str, tuple[Any, str]] = {
    "no args": (None, "args must be an object"),
    "no texts": ({"texts": []}, "an array of 1 to 200 texts"),
    "too many texts": ({"texts": ["x"] * 201}, "an array of 1 to 200 texts"),
    "numbers": ({"texts": [1]}, "an array of 1 to 200 texts"),
    "unknown field": ({"texts": ["x"], "model": "y"}, "unknown fields: model"),
    "unknown model": ({"texts": ["x"], "models": ["gpt"]}, "args.models must be an array of sentiment, topic"),
    "one category": ({"texts": ["x"], "categories": ["a"]}, "an array of 2 to 100 texts"),
    "query is a number": ({"texts": ["x"], "query": 1}, "args.query must be a text"),
}


@pytest.mark.parametrize(("args", "message"), REFUSED.values(), ids=REFUSED)
def test_refusal(script: Any, args: Any, message: str) -> None:
    """Wrong args are a ValueError that says what to do."""
    with pytest.raises(ValueError, match=message):
        script.main(args)


def test_a_model_that_is_not_granted_is_refused_with_the_fix(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A request for the encoder under another policy is told which policy to send."""
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "none"))
    with pytest.raises(ValueError, match='send "policy": "custom_script_ml"'):
        script.main({"texts": ["x"], "models": ["topic"]})


def test_models_load_nothing_that_they_never_ask() -> None:
    """Beside the scripts' libraries nltk, which only summaries need, would load scipy and scikit-learn, too."""
    program = "import sys, handlers.ml_inference; print({'nltk', 'scipy', 'sklearn'} & set(sys.modules))"
    command = [str(FOLDER / "scripts" / "bin" / "python"), "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "set()\n") == (done.returncode, done.stdout), done.stderr

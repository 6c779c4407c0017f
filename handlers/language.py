"""Finds the language of a text by py3langid: offline, 140 languages. Its package has the model."""

from __future__ import annotations

import array
import functools
import io
import lzma
from typing import Any

import numpy as np
from py3langid.langid import MODEL_DIR, MODEL_FILE, LanguageIdentifier

MAX_READ_CHARACTERS = 20_000
"""More text makes the answer no better."""
MIN_LETTERS = 3


def detect(text: str) -> dict[str, str | float | None]:
    """The language of a text: ``code`` (ISO 639-1) and ``confidence`` (0 to 1); a null code where it has no words."""
    head = text[:MAX_READ_CHARACTERS]
    if sum(map(str.isalpha, head)) < MIN_LETTERS:
        return {"code": None, "confidence": 0.0}
    code, confidence = _identifier().classify(head)
    return {"code": None if code in ("und", "zxx") else code, "confidence": round(confidence, 4)}


@functools.cache
def _identifier() -> LanguageIdentifier:
    """The model. Loading takes half a second, which a rehearsal spends.

    ``py3langid.modelio.load_model`` does the same by way of a temporary file, and a zygote has nowhere to write one.
    """
    with lzma.open(MODEL_DIR / MODEL_FILE) as packed, np.load(io.BytesIO(packed.read())) as model:
        return LanguageIdentifier(
            model["ptc"],
            model["pc"],
            model["classes"].tolist(),
            _flat(model["nextmove"]),
            model["out_feat"].tolist(),
            norm_probs=True,
            tk_row=_flat(model["nextmove_row"]),
        )


def _flat(numbers: np.ndarray[Any, Any]) -> array.array[int]:
    """The same numbers as an array of the standard library, whose single elements are read faster."""
    return array.array(numbers.dtype.char, numbers.tobytes())

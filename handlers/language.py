"""Finds the language of a text, or says that it does not know: py3langid and fastText's lid.176, both offline.

Each gives every language a probability; the mean of the two counts. One knows what the other takes for something else,
so that of short texts more are right than by either. py3langid's package has its model, ``trained/`` has the other.
"""

from __future__ import annotations

import array
import functools
import io
import lzma
import re
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
from py3langid.langid import MODEL_DIR, MODEL_FILE, LanguageIdentifier

from handlers import markup

FASTTEXT_FILE = Path(__file__).with_name("trained") / "lid.176.ftz"
LANGID_FILE = Path(MODEL_DIR) / MODEL_FILE
MAX_READ_CHARACTERS = 20_000
"""More text makes the answer no better."""
MIN_LETTERS = 3
"""Of the Latin script; one letter of another script says more."""
MIN_CONFIDENCE = 0.33
"""Below it the language is not known. Of short texts of user interfaces, 8 in 10 are above it (tests/quality)."""
_LATIN_END = "\u0370"
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|[\w.+-]{1,64}@[\w.-]+")
"""Addresses of pages and people, and names of users, are of no language."""
_SAME = {"arz": "ar", "ary": "ar", "wuu": "zh", "yue": "zh", "nb": "no", "nn": "no", "als": "de"}
"""Labels of the models → the language of ISO 639-1 that they are a part of."""
_CODE_LENGTH = 2


def detect(text: str) -> dict[str, str | float | None]:
    """The language of a text: ``code`` (ISO 639-1) and ``confidence`` (0 to 1).

    The code is null where the confidence is below 0.33, where the likeliest language has no code in ISO 639-1, and
    where there are no words. Mark-up and addresses are not read.
    """
    head = " ".join(_ADDRESS.sub(" ", markup.see(text[:MAX_READ_CHARACTERS]).text).split()).lower()
    letters = [sign for sign in head if sign.isalpha()]
    if len(letters) < MIN_LETTERS and all(letter < _LATIN_END for letter in letters):
        return {"code": None, "confidence": 0.0}
    shares = _shares(head)
    code = max(shares, key=lambda label: shares[label])
    confidence = round(shares[code], 4)
    known = confidence >= MIN_CONFIDENCE and len(code) == _CODE_LENGTH
    return {"code": code if known else None, "confidence": confidence}


def _shares(head: str) -> dict[str, float]:
    """Language → the mean of its two probabilities."""
    labels, others = _fasttext().predict(head, k=-1)
    found = [(label.removeprefix("__label__"), share) for label, share in zip(labels, others, strict=True)]
    shares: dict[str, float] = {}
    for label, share in (*found, *_identifier().rank(head)):
        language = _SAME.get(label, label)
        shares[language] = shares.get(language, 0.0) + min(float(share), 1.0) / 2
    return shares


@functools.cache
def _fasttext() -> Any:
    return fasttext.load_model(str(FASTTEXT_FILE))


@functools.cache
def _identifier() -> LanguageIdentifier:
    """The model. Loading takes half a second, which a rehearsal spends.

    ``py3langid.modelio.load_model`` does the same by way of a temporary file, and a zygote has nowhere to write one.
    """
    with lzma.open(LANGID_FILE) as packed, np.load(io.BytesIO(packed.read())) as model:
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

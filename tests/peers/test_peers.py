"""What handlers read against what other libraries read, over files that wheels and the tests carry.

Each figure is the share of a peer's words that the handler has too, in whatever order.
"""

from __future__ import annotations

import io
import json
import re
import site
from collections import Counter
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import docx2txt
import mammoth
import msgspec
import numpy as np
import pytest
from bs4 import BeautifulSoup
from inscriptis import get_text
from pdfminer.high_level import extract_text
from PIL import Image
from pypdf import PdfReader
from pypdf.errors import PdfReadError

from handlers import jsonable, pages
from handlers.documents import document_processing
from handlers.images import image_processing
from handlers.parameters.registry import Request
from tests.support import sample_files as files
from tests.support.libraries import FOLDER

FILES = Path(__file__).resolve().parents[1] / "handlers" / "files"
UNREAD = MappingProxyType({("simple3.pdf", "pypdf"): "it has no cross-reference table, which pypdf asks for"})
"""File and peer → the reason for which the peer cannot read it."""


DIFFERENT = MappingProxyType({("simple3.pdf", "pdfminer"): "it puts each sign of vertical text on a line of its own"})
"""File and peer → the reason for which words differ; then the signs are compared."""


def words(text: str) -> Counter[str]:
    """The words of a text, each with how often it stands there."""
    return Counter(re.findall(r"\w+", text))


def agreement(ours: str, theirs: str) -> float:
    """The share of a peer's words that are ours too."""
    wanted = words(theirs)
    return (wanted & words(ours)).total() / max(wanted.total(), 1)


def read(document_type: str, content: bytes) -> str:
    """The text as a task has it."""
    given = {
        "document_type": document_type,
        "content": {"base64": files.base64_of(content)},
        "operation": "extract_text",
    }
    request = Request(task_type="document_processing", parameters=msgspec.Raw(json.dumps(given).encode()))
    return str(json.loads(jsonable.encode(document_processing.run(request)))["text"])


def _by_pypdf(content: bytes) -> str:
    reader = PdfReader(io.BytesIO(content))
    if reader.is_encrypted:
        reader.decrypt("asdfzxcv")
    return "\n".join(page.extract_text() for page in reader.pages)


def _by_pdfminer(content: bytes) -> str:
    password = "asdfzxcv" if b"/Encrypt" in content else ""
    return extract_text(io.BytesIO(content), password=password)


@pytest.mark.parametrize("peer", ["pypdf", "pdfminer"])
@pytest.mark.parametrize("name", sorted(path.name for path in FILES.glob("*.pdf")))
def test_words_of_pdfs_agree(name: str, peer: str) -> None:
    """At least 97 of 100, but for the files that the peer cannot read."""
    content = (FILES / name).read_bytes()
    by_peer = _by_pypdf if peer == "pypdf" else _by_pdfminer
    if (name, peer) in UNREAD:
        with pytest.raises(PdfReadError):
            by_peer(content)
    elif (name, peer) in DIFFERENT:
        assert "".join(read("pdf", content).split()) == "".join(by_peer(content).split())
    else:
        assert agreement(read("pdf", content), by_peer(content)) >= 0.97


@pytest.mark.parametrize("peer", ["mammoth", "docx2txt"])
def test_words_of_word_documents_agree(peer: str) -> None:
    """At least 98 of 100; docx2txt also tells headers and footers, which ours have beside the text."""
    content = files.word()
    theirs = (
        mammoth.extract_raw_text(io.BytesIO(content)).value
        if peer == "mammoth"
        else docx2txt.process(io.BytesIO(content))
    )
    assert agreement(read("docx", content), theirs) >= 0.98


def _pages() -> list[str]:
    """The HTML pages that installed packages carry, and no templates, which are pages of nobody yet."""
    folders = [*site.getsitepackages(), *(str(one) for one in FOLDER.glob("*/lib/python3*/site-packages"))]
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*.html"))
    texts = dict.fromkeys(path.read_text("utf-8", "replace") for path in paths if path.stat().st_size < 200_000)
    return [text for text in texts if words(text) and "{{" not in text and "{%" not in text]


def soup_of(page: str) -> BeautifulSoup:
    """What a reader sees of a page, with a space between cells, which ``get_text`` would join to one word."""
    soup = BeautifulSoup(page, "lxml")
    for hidden in soup(["script", "style", "noscript", "template"]):
        hidden.decompose()
    for cell in soup(["td", "th"]):
        cell.append(" ")
    return soup


@pytest.mark.parametrize("peer", ["bs4", "inscriptis"])
def test_words_of_pages_agree(peer: str) -> None:
    """At least 98 of 100 words over all pages together."""
    found = wanted = 0
    for page in _pages():
        ours = words(pages.text_of(pages.tree(page, is_html=True)))
        soup = soup_of(page)
        theirs = words(soup.get_text() if peer == "bs4" else get_text(str(soup)))
        found += (theirs & ours).total()
        wanted += theirs.total()
    assert wanted > 5_000
    assert found >= 0.98 * wanted


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_pixels_of_images_agree_with_opencv(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """98 of 100 pixels within 3 of 255."""
    monkeypatch.chdir(tmp_path)
    content = files.image(kind, (64, 48))
    given: dict[str, Any] = {"image_path": {"base64": files.base64_of(content)}, "operation": "convert"}
    given["options"] = {"format": "png"}
    image_processing.run(Request(task_type="image_processing", parameters=msgspec.Raw(json.dumps(given).encode())))
    with Image.open(tmp_path / "artifacts" / "image.png") as image:
        ours = np.asarray(image.convert("RGB")).astype(int)
    theirs = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert theirs is not None
    assert (np.abs(ours - theirs[:, :, ::-1]).max(axis=2) <= 3).mean() >= 0.98

"""``make peers``: fetches real files by name, and holds what the handlers read against what peers read of each.

It prints one line a set, and every file below its floor. It fails if such a file stands in no table of
``differences.toml``, or if a row there no longer differs. Without a name it goes through all sets, with names through
those.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import docx2txt
import mammoth
import numpy as np
import pandas as pd
from inscriptis import get_text
from pdfminer.high_level import extract_text
from PIL import Image, ImageCms
from pypdf import PdfReader

from handlers import encodings, pages
from handlers.documents import document_processing
from handlers.failures import Refusal
from handlers.images import image_processing
from tests.peers import sources
from tests.peers.sources import RealFile
from tests.peers.test_peers import soup_of, words
from tests.peers.test_real_files import ask, read_csv, same
from tests.support.sample_files import base64_of

HERE = Path(__file__).parent
MOST = 120
"""Files of a set that are compared."""
SECONDS = 60
"""Of the processor: what all readers may take for one file."""


class UnreadError(Exception):
    """A reader cannot read the file, and says why."""


class Agreed(NamedTuple):
    """How many parts of a file (words, cells, pixels) are ours too, and how many the peer has."""

    same: int
    all_parts: int

    @property
    def share(self) -> float:
        """The first of the second; all of nothing."""
        return self.same / self.all_parts if self.all_parts else 1.0


class Peers(NamedTuple):
    """A set of files: which, how many of 100 parts must agree, and how to compare one with each peer."""

    endings: tuple[str, ...]
    parts: str
    floor: float
    compare: Callable[[RealFile], dict[str, Agreed]]


# ---- one file -------------------------------------------------------------------------------------------------------


def of_words(ours: Callable[[], str], theirs: dict[str, Callable[[], str]]) -> dict[str, Agreed]:
    """Peer → how many of its words are ours. A peer that fails, or finds no word, says nothing."""
    found = {}
    for peer, read in theirs.items():
        with contextlib.suppress(Exception):
            if read_text := read().strip():
                found[peer] = unicodedata.normalize("NFKC", read_text)  # pdfminer keeps ligatures, we spell them out
    if not found:
        raise UnreadError("no peer reads a word of it")
    text = unicodedata.normalize("NFKC", ours())
    ours_by_word = words(text)
    return {
        peer: Agreed((words(theirs) & ours_by_word).total(), words(theirs).total()) for peer, theirs in found.items()
    }


def document(kind: str, content: bytes) -> str:
    """All text that the answer has, also that which stands beside the text."""
    given = {"document_type": kind, "content": {"base64": base64_of(content)}, "operation": "extract_text"}
    if kind == "pdf":
        given["ocr"] = "never"
    answer = ask("document_processing", document_processing.run, **given)
    beside = {
        key: answer[key] for key in ("headers", "footers", "notes", "form_fields", "annotations") if key in answer
    }
    return str(answer["text"]) + json.dumps(beside, ensure_ascii=False)


def compare_pdf(file: RealFile) -> dict[str, Agreed]:
    """With pdfminer.six and pypdf."""
    return of_words(
        lambda: document("pdf", file.content),
        {
            "pdfminer": lambda: extract_text(io.BytesIO(file.content)),
            "pypdf": lambda: "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(file.content)).pages),
        },
    )


def compare_docx(file: RealFile) -> dict[str, Agreed]:
    """With mammoth and docx2txt."""
    return of_words(
        lambda: document("docx", file.content),
        {
            "mammoth": lambda: mammoth.extract_raw_text(io.BytesIO(file.content)).value,
            "docx2txt": lambda: docx2txt.process(io.BytesIO(file.content)),
        },
    )


def compare_page(file: RealFile) -> dict[str, Agreed]:
    """With BeautifulSoup and inscriptis, over the text that our detector makes of the bytes."""
    decoded = encodings.decode(file.content, markup=True)
    if decoded is None:
        raise UnreadError("it is no text")
    text = decoded.text
    return of_words(
        lambda: pages.text_of(pages.tree(text, is_html=True)),
        {"bs4": lambda: soup_of(text).get_text(), "inscriptis": lambda: get_text(str(soup_of(text)))},
    )


def compare_csv(file: RealFile) -> dict[str, Agreed]:
    """With pandas, by the delimiter and the encoding that we found."""
    try:
        ours, delimiter = read_csv(file.content)
    except Refusal as refusal:
        raise UnreadError(str(refusal)) from None
    decoded = encodings.decode(file.content)
    assert decoded is not None
    try:
        table = pd.read_csv(io.StringIO(decoded.text), sep=delimiter, index_col=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise UnreadError(f"pandas: {error}") from None
    theirs = table.astype(object).to_numpy().tolist()
    if len(ours) != len(theirs):
        return {"pandas": Agreed(0, table.size)}
    pairs = [pair for left, right in zip(ours, theirs, strict=True) for pair in zip(left, right, strict=False)]
    return {"pandas": Agreed(sum(same(*pair) for pair in pairs), len(pairs))}


def compare_image(file: RealFile) -> dict[str, Agreed]:
    """With OpenCV and ImageMagick: pixels within 3 of 255, of those that can be seen."""
    opencv = _by_opencv(file.content)
    source = {"base64": base64_of(file.content)}
    output = {"name": hashlib.sha256(file.content).hexdigest()}
    ask(
        "image_processing",
        image_processing.run,
        image_path=source,
        operation="convert",
        options={"format": "png"},
        output=output,
    )
    with Image.open(Path("artifacts", f"{output['name']}.png")) as image:
        ours = np.asarray(image.convert("RGBA")).astype(int)
    found = {"opencv": _agreed(ours, opencv)}
    if found["opencv"].share < 1:
        found["imagemagick"] = _agreed(ours, _by_imagemagick(file.content, ours.shape))
    return found


def _agreed(ours: Any, theirs: Any) -> Agreed:
    if ours.shape != theirs.shape:
        return Agreed(0, theirs.shape[0] * theirs.shape[1])
    seen = (ours[:, :, 3] > 0) | (theirs[:, :, 3] > 0)
    near = np.abs(ours - theirs).max(axis=2) <= 3
    return Agreed(int(near[seen].sum()), int(seen.sum()))


def has_imagemagick() -> bool:
    """Whether ``convert`` is ImageMagick's: Debian's package imagemagick."""
    program = shutil.which("convert")
    said = subprocess.run([program, "-version"], capture_output=True, check=False).stdout if program else b""
    return said.startswith(b"Version: ImageMagick")


def _by_imagemagick(content: bytes, shape: tuple[int, int, int]) -> Any:
    """RGBA of the first frame, turned as EXIF says, its colours by its profile those of a monitor."""
    with tempfile.NamedTemporaryFile(suffix=".icc") as monitor:
        monitor.write(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
        monitor.flush()
        command = ["convert", "-[0]", "-auto-orient", "-profile", monitor.name, "-depth", "8", "rgba:-"]
        done = subprocess.run(command, input=content, capture_output=True, check=False)
    if len(done.stdout) != shape[0] * shape[1] * 4:
        return np.zeros((1, 1, 4), int)
    return np.frombuffer(done.stdout, np.uint8).reshape(shape).astype(int)


def _by_opencv(content: bytes) -> Any:
    """RGBA, turned as EXIF says where the image has no transparency."""
    data = np.frombuffer(content, np.uint8)
    whole = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if whole is None or whole.dtype != np.uint8:
        raise UnreadError("OpenCV cannot read it, or not as eight bits")
    if whole.ndim == 3 and whole.shape[2] == 4:
        return whole[:, :, [2, 1, 0, 3]].astype(int)
    colours = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert colours is not None
    return np.dstack([colours[:, :, ::-1], np.full(colours.shape[:2], 255)]).astype(int)


SETS = MappingProxyType(
    {
        "pdf": Peers((".pdf",), "words", 0.97, compare_pdf),
        "docx": Peers((".docx", ".docm", ".dotx"), "words", 0.98, compare_docx),
        "page": Peers((".html", ".htm"), "words", 0.98, compare_page),
        "csv": Peers((".csv",), "cells", 0.98, compare_csv),
        "image": Peers(
            (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"), "pixels", 0.98, compare_image
        ),
    }
)


# ---- all of them ----------------------------------------------------------------------------------------------------


def main(names: list[str]) -> int:
    """0 if every file agrees with a peer, or stands in the table; 2 if a peer is missing."""
    if "image" in (names or SETS) and not has_imagemagick():
        print("images are compared with ImageMagick, too, which is not installed: apt-get install imagemagick")
        return 2
    logging.disable()
    warnings.simplefilter("ignore")
    archives = sources.fetch(Path(os.environ.get("PEERS_DIR", ".data/peers")).absolute())
    known = tomllib.loads((HERE / "differences.toml").read_text(encoding="utf-8"))
    wrong = 0
    for name in names or SETS:
        wrong += report(name, archives, known.get(name, {}))
    return min(wrong, 1)


def report(name: str, archives: list[Path], known: dict[str, str]) -> int:
    """Compare a set and print its line; how many files differ without a reason, or have one and agree."""
    peers = SETS[name]
    agree, differ, unread, best = 0, {}, {}, []
    for file in evenly(list(sources.files(archives, *peers.endings))):
        where = f"{file.package}: {file.name}"
        try:
            with at_most(SECONDS):
                shares = peers.compare(file)
        except UnreadError as reason:
            unread[where] = str(reason)
        except Refusal as refusal:
            differ[where] = f"refused: {refusal}"
        except Exception as error:
            differ[where] = f"{type(error).__name__}: {error}"
        else:
            best.append(max(shares.values(), key=lambda one: one.share))
            if best[-1].share >= peers.floor:
                agree += 1
            else:
                differ[where] = str({peer: round(one.share, 3) for peer, one in shares.items()})
    compared = agree + len(differ)
    parts = Agreed(sum(one.same for one in best), sum(one.all_parts for one in best))
    print(
        f"{name}: {compared + len(unread)} files, {compared} compared, {agree} agree ({agree / max(compared, 1):.1%}), "
        f"{len(differ)} differ; {parts.share:.2%} of {parts.all_parts:,} {peers.parts}",
        flush=True,
    )
    for where, what in sorted(unread.items()):
        print(f"    not compared: {where}: {what[:160]}")
    for where, what in sorted(differ.items()):
        print(f"    {'known' if where in known else 'NEW'}: {where}: {what[:300]}")
    gone = sorted(known.keys() - differ.keys())
    print("".join(f"    differs no longer: {where}\n" for where in gone), end="", flush=True)
    return len(differ.keys() - known.keys()) + len(gone)


def evenly(found: list[RealFile]) -> list[RealFile]:
    """MOST of them, as many of each package as there are, the same ones each time."""
    chosen = []
    packages = {file.package: [one for one in found if one.package == file.package] for file in found}
    share = MOST
    for number, own in enumerate(sorted(packages.values(), key=len)):
        take = own[: share // (len(packages) - number)]
        share -= len(take)
        chosen += take
    return chosen


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Within this time.

    Raises:
        TimeoutError: the time is over.
    """

    def end(*_: Any) -> None:
        raise TimeoutError(f"it takes more than {seconds} s")

    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    home = Path.cwd()
    os.environ.setdefault("PEERS_DIR", str(home / ".data" / "peers"))
    with tempfile.TemporaryDirectory() as workspace, contextlib.chdir(workspace):
        code = main(sys.argv[1:])
    raise SystemExit(code)

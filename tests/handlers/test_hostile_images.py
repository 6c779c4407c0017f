"""Images of the awkward kind, made byte by byte, and what a user would take instead: OpenCV, Pillow, numpy."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageSequence

from tests.handlers.test_image_processing import make, process, refusal


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace of the test's own."""
    monkeypatch.chdir(tmp_path)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    size: tuple[int, int], bits: int, colour: int, rows: list[bytes], *more: tuple[bytes, bytes], **how: int
) -> bytes:
    """A PNG of rows as they are packed, each without a filter."""
    head = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, how.get("interlace", 0))
    parts = [(b"IHDR", head), *more, (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def saved(image: Image.Image, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def tiff(pixels: Any) -> bytes:
    done, content = cv2.imencode(".tiff", pixels)
    assert done
    return content.tobytes()


COLOURS = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
DEEP = struct.pack(">9H", 0x1234, 0x5678, 0x9ABC, 0x1235, 0x5678, 0x9ABC, 0xFFFF, 0, 0)
OPAQUE, RED, GREEN = 255, (255, 0, 0), (0, 255, 0)
PIXELS: dict[str, tuple[bytes, list[tuple[int, ...]]]] = {
    "16 bits, one colour invisible": (
        png((3, 1), 16, 2, [DEEP], (b"tRNS", DEEP[:6])),
        [(18, 86, 154, 0), (18, 86, 154, OPAQUE), (255, 0, 0, OPAQUE)],
    ),
    "16 bits, a colour that is not there": (
        png((2, 1), 16, 2, [DEEP[6:]], (b"tRNS", struct.pack(">3H", 0x12, 0x56, 0x9A))),
        [(18, 86, 154, OPAQUE), (255, 0, 0, OPAQUE)],
    ),
    "16 bits of gray": (
        png((2, 1), 16, 0, [struct.pack(">2H", 0x1234, 0x1235)], (b"tRNS", b"\x12\x34")),
        [(18, 18, 18, 0), (18, 18, 18, OPAQUE)],
    ),
    "one bit of gray": (png((2, 1), 1, 0, [b"\x80"], (b"tRNS", b"\0\1")), [(255, 255, 255, 0), (0, 0, 0, OPAQUE)]),
    "a palette with less opacity": (
        png((3, 1), 8, 3, [b"\0\1\2"], (b"PLTE", COLOURS), (b"tRNS", b"\0\x80")),
        [(*RED, 0), (*GREEN, 128), (0, 0, 255, OPAQUE)],
    ),
    "a palette of one bit": (
        png((2, 1), 1, 3, [b"\x40"], (b"PLTE", COLOURS[:6]), (b"tRNS", b"\0")), [(*RED, 0), (*GREEN, OPAQUE)],
    ),
    "16 bits of gray and opacity": (png((1, 1), 16, 4, [b"\x80\0\x40\0"]), [(128, 128, 128, 64)]),
    "16 bits of colours and opacity": (png((1, 1), 16, 6, [b"\x80\0\0\0\xff\xff\x40\0"]), [(128, 0, 255, 64)]),
    "a TIFF of 16 bits": (tiff(np.full((1, 1, 3), 0x8000, np.uint16)), [(128, 128, 128, OPAQUE)]),
    "a TIFF whose zero is white": (saved(Image.new("1", (1, 1), 1), "TIFF", tiffinfo={262: 0}), [(0, 0, 0, OPAQUE)]),
    "inks in a TIFF": (saved(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), [(*RED, OPAQUE)]),
    "inks in a JPEG of Adobe": (
        saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95), [(254, 0, 0, OPAQUE)]
    ),
    "a BMP that says nothing of opacity": (
        saved(Image.new("RGB", (1, 1), "red"), "BMP"), [(*RED, OPAQUE)]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "pixels"), PIXELS.values(), ids=PIXELS)
def test_each_pixel_is_what_the_file_says(content: bytes, pixels: list[tuple[int, ...]]) -> None:
    """Colour and opacity, to two of 255."""
    found = np.asarray(make(content, "convert", {"format": "png"}).convert("RGBA"))[0][: len(pixels)].astype(int)
    assert np.abs(found - np.array(pixels)).max() <= 2, found


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_an_image_is_turned_as_its_exif_says(kind: str, turn: int) -> None:
    """As OpenCV turns a JPEG: where the red corner comes to lie."""
    image = Image.new("RGB", (32, 48))
    image.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x112] = turn
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    made = np.asarray(make(saved(image, kind, exif=exif, **options), "convert", {"format": "png"}).convert("RGB"))
    theirs = cv2.imdecode(np.frombuffer(saved(image, "JPEG", exif=exif, quality=95), np.uint8), cv2.IMREAD_COLOR)
    assert theirs is not None
    assert made.shape == theirs.shape
    assert ((made[:, :, 0] > 128) == (theirs[:, :, 2] > 128)).mean() > 0.97


NOISE = Image.effect_noise((64, 64), 90).convert("RGB")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_an_image_that_is_cut_off_is_refused(kind: str, share: float) -> None:
    """Never filled up with gray."""
    content = saved(NOISE, kind)
    assert "corrupt_image" == refusal(content[: int(len(content) * share)], "convert", {"format": "png"}).code


def interlaced(size: int, passes: int) -> bytes:
    """A gray PNG of ones, with the pixels of its first passes."""
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [b"\1" * len(range(x, size, dx)) for x, y, dx, dy in steps[:passes] for _ in range(y, size, dy) if x < size]
    return png((size, size), 8, 0, rows, interlace=1)


MISSING = {
    "two of four rows": png((4, 4), 8, 2, [b"\1" * 12] * 2),
    "the last row": png((4, 4), 8, 6, [b"\1" * 16] * 3),
    "bits of a palette": png((9, 3), 1, 3, [b"\xff\xff"] * 2, (b"PLTE", COLOURS[:6])),
    "the last pass": interlaced(8, 6),
    "the last passes of an odd size": interlaced(7, 4),
}


@pytest.mark.parametrize("content", MISSING.values(), ids=MISSING)
def test_rows_that_are_missing_are_not_black(content: bytes) -> None:
    """The packed pixels end well, but too early: OpenCV refuses such a file or fills it up, Pillow says nothing."""
    found = refusal(content, "convert", {"format": "png"})
    assert ("corrupt_image", True) == (found.code, "missing" in str(found))


BLACK = {
    "black": png((4, 4), 8, 2, [bytes(12)] * 4), "black below": png((2, 2), 8, 0, [b"\1\1", b"\0\0"]),
    "whole and interlaced": interlaced(8, 7), "of one pixel": png((1, 1), 1, 0, [b"\0"]),
    "of odd size, interlaced": interlaced(5, 7), "invisible": png((2, 2), 8, 6, [bytes(8)] * 2),
}  # fmt: skip


@pytest.mark.parametrize("content", BLACK.values(), ids=BLACK)
def test_rows_that_are_black_are_not_missing(content: bytes) -> None:
    """They are counted."""
    made = make(content, "convert", {"format": "png"})
    with Image.open(io.BytesIO(content)) as whole:
        assert whole.convert("RGBA").tobytes() == made.convert("RGBA").tobytes()


def test_frames_of_several_sizes_are_not_cut_to_one() -> None:
    """Pages of a TIFF have sizes of their own; those of an animation have not."""
    pages = [Image.new("L", size, 9) for size in ((8, 8), (4, 12))]
    content = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    every = {"output": {"animation": True}}
    assert "one_frame_only" == refusal(content, "convert", {"format": "gif"}, **every).code
    same = [{"operation": "resize", "width": 5, "height": 5, "mode": "exact"},
            {"operation": "convert", "format": "gif"}]  # fmt: skip
    assert 1 <= process(content, "pipeline", {"steps": same}, **every)["output"]["frames"] <= 2
    whole = process(content, "convert", {"format": "tiff"}, output={"animation": True, "name": "whole"})
    with Image.open(f"artifacts/{whole['output']['artifact']}") as made:
        made.seek(1)
        assert (4, 12) == made.size


def test_frames_are_those_of_the_file_that_comes_out() -> None:
    """Two that are alike become one, which is shown for as long as both."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "red", "blue")]
    content = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    found = process(content, "convert", {"format": "png"}, output={"animation": True})["output"]
    with Image.open(f"artifacts/{found['artifact']}") as made:
        times = [frame.info["duration"] for frame in ImageSequence.Iterator(made)]
    assert (len(times), 300) == (found["frames"], sum(times))


@pytest.mark.parametrize("profile", [b"junk" * 40, ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()])
def test_a_profile_that_does_not_fit_changes_nothing(profile: bytes) -> None:
    """Colours stay, as where there is none."""
    content = saved(Image.new("RGB", (8, 8), (200, 50, 50)), "PNG", icc_profile=profile)
    assert (200, 50, 50) == make(content, "convert", {"format": "png"}).convert("RGB").getpixel((0, 0))


SIZES = {"60,000 by 60,000": (60_000, 60_000), "one row of two billion": (2**31 - 1, 1)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_an_image_that_says_to_be_huge_is_refused(size: tuple[int, int]) -> None:
    """By its header."""
    assert "image_too_large" == refusal(png(size, 8, 0, [b"\0"]), "analyze").code

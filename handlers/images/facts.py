"""Describes an image: colours, histogram, EXIF, hash. All values are safe to put into JSON."""

from __future__ import annotations

import math
from typing import Any

from PIL import ExifTags, Image, ImageStat

from handlers.documents.reading import clean
from handlers.images.filters import seen
from handlers.parameters.image_options import Analyze

MAX_TAGS = 200
MAX_VALUE_CHARACTERS = 500
MAX_NUMBERS = 16
"""Of one tag; longer lists are left out, as are bytes that are no text."""
_CHANNELS = ("red", "green", "blue")
_SAMPLE_SIDE = 256
_HASH_SIDE = 8
_FOLDERS = {ExifTags.IFD.Exif: ExifTags.TAGS, ExifTags.IFD.GPSInfo: ExifTags.GPSTAGS}


def describe(image: Image.Image, upright: Image.Image, options: Analyze) -> dict[str, Any]:
    """Facts of an image, of its first frame if it has several. Colours are of the pixels that are seen.

    Args:
        image: as it was opened, its first frame loaded.
        upright: the same in eight bits a channel, turned as its EXIF orientation says.
    """
    exif, dpi = _exif(image), image.info.get("dpi")
    mask = seen(upright)
    share = 1.0 if mask is None else ImageStat.Stat(mask).mean[0] / 255
    colours = upright if upright.mode == "RGB" else upright.convert("RGB")
    means = ImageStat.Stat(colours, mask).mean if share else None
    gray = ImageStat.Stat(colours.convert("L"), mask).mean if share else None
    return {
        "has_alpha": image.has_transparency_data,
        "has_color_profile": bool(image.info.get("icc_profile")),
        "dpi": [_number(value) for value in dpi] if isinstance(dpi, tuple) else None,
        "seen_share": round(share, 4),
        "mean": {name: round(mean, 2) for name, mean in zip(_CHANNELS, means, strict=True)} if means else None,
        "brightness": round(gray[0] / 255, 4) if gray else None,
        "dominant_colors": _dominant(upright, options.colors),
        "histogram": _histogram(colours, mask, options.bins),
        "perceptual_hash": {"algorithm": "dhash", "bits": _HASH_SIDE**2, "hex": difference_hash(_on_white(upright))},
        "exif": exif,
    }


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    behind = Image.new("RGBA", image.size, "white")
    behind.alpha_composite(image)
    return behind.convert("RGB")


def difference_hash(image: Image.Image) -> str:
    """64 bits in hexadecimal: whether each of 8 x 8 areas is brighter than the one to its right.

    Similar images differ in few bits. Source: Neal Krawetz, "Kind of Like That", 2013.
    """
    small = image.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.LANCZOS)
    pixels = small.tobytes()
    width = _HASH_SIDE + 1
    bits = 0
    for index in range(len(pixels)):
        if index % width != _HASH_SIDE:
            bits = bits << 1 | (pixels[index] > pixels[index + 1])
    return f"{bits:016x}"


def _dominant(image: Image.Image, count: int) -> list[dict[str, Any]]:
    """The most common colours of what is seen of a small copy, the greatest share first."""
    small = image.copy()
    small.thumbnail((_SAMPLE_SIDE, _SAMPLE_SIDE), Image.Resampling.BOX)
    mask = seen(small)
    small = small.convert("RGB")
    if mask is not None:
        pixels, is_seen = small.tobytes(), mask.tobytes()
        kept = b"".join(pixels[3 * place : 3 * place + 3] for place in range(len(is_seen)) if is_seen[place])
        if not kept:
            return []
        small = Image.frombytes("RGB", (len(kept) // 3, 1), kept)
    reduced = small.quantize(count, method=Image.Quantize.MEDIANCUT)
    palette = reduced.getpalette() or []
    found = sorted(reduced.getcolors() or [], reverse=True)
    whole = small.width * small.height
    return [
        {"hex": "#" + bytes(palette[3 * index : 3 * index + 3]).hex(), "share": round(times / whole, 4)}
        for times, index in found
        if isinstance(index, int)
    ]


def _histogram(image: Image.Image, mask: Image.Image | None, bins: int) -> dict[str, Any]:
    counts = image.histogram(mask)
    width = 256 // bins
    channels = {
        name: [sum(counts[start : start + width]) for start in range(256 * channel, 256 * (channel + 1), width)]
        for channel, name in enumerate(_CHANNELS)
    }
    return {"bins": bins, **channels}


def _exif(image: Image.Image) -> dict[str, Any]:
    """EXIF tags by name; those that are unknown, binary or long are left out."""
    whole = image.getexif()
    found = _named(dict(whole), ExifTags.TAGS)
    for folder, names in _FOLDERS.items():
        found |= _named(whole.get_ifd(folder), names)
    return dict(list(found.items())[:MAX_TAGS])


def _named(tags: dict[int, Any], names: dict[int, str]) -> dict[str, Any]:
    values = ((names[tag], _plain(value)) for tag, value in tags.items() if tag in names)
    return {name: value for name, value in values if value is not None}


def _plain(value: Any) -> Any:
    """A value as JSON has it; None where JSON has no such value."""
    if isinstance(value, bytes):
        try:
            value = value.decode("ascii").strip("\0 ")
        except UnicodeDecodeError:
            return None
    if isinstance(value, str):
        return clean(value)[:MAX_VALUE_CHARACTERS]
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value] if len(value) <= MAX_NUMBERS else None
    return _number(value)


def _number(value: Any) -> int | float | None:
    """A number as JSON has it; None where it is none. Pillow's fractions may have a denominator of zero."""
    if isinstance(value, bool | int):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return round(number, 8) if math.isfinite(number) else None

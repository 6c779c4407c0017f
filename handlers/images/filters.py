"""The filters: each changes the pixels that are seen, and leaves what is seen through them as it is.

A pixel that is wholly transparent has a colour in the file that nobody sees. It gives nothing to its neighbours, and
counts in no mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from PIL import Image, ImageEnhance, ImageFilter, ImageOps, ImageStat

_SEPIA = (0.393, 0.769, 0.189, 0, 0.349, 0.686, 0.168, 0, 0.272, 0.534, 0.131, 0)
"""Rows of red, green and blue, as in the W3C's Filter Effects."""

Act = Callable[[Image.Image], Image.Image]


def seen(image: Image.Image) -> Image.Image | None:
    """A mask of the pixels that are not wholly transparent; None if all are seen."""
    if image.mode != "RGBA":
        return None
    alpha = image.getchannel("A")
    if alpha.getextrema()[0] > 0:  # type: ignore[operator]  # of one channel: two numbers
        return None
    return alpha.point(lambda value: 255 if value else 0)


def _weighted(image: Image.Image, act: Act) -> Image.Image:
    """A filter that mixes neighbours: colours count by how much of them is seen."""
    return act(image.convert("RGBa")).convert("RGBA") if image.mode == "RGBA" else act(image)


def _sharpened(image: Image.Image, percent: float) -> Image.Image:
    """Away from the mean of what is seen around each pixel."""
    if image.mode != "RGBA":
        return image.filter(ImageFilter.UnsharpMask(percent=round(percent)))
    around = _weighted(image, lambda own: own.filter(ImageFilter.GaussianBlur(2))).convert("RGB")
    return _on_colours(lambda own: Image.blend(around, own, 1 + percent / 100), image)


def _on_colours(act: Act, image: Image.Image, *, behind: bool = False) -> Image.Image:
    """A filter of colours, which leaves the alpha channel as it is; where it compares neighbours, over black."""
    if image.mode != "RGBA":
        return act(image)
    colours = image.convert("RGB")
    if behind:
        black = Image.new("RGBA", image.size, "black")
        black.alpha_composite(image)
        colours = black.convert("RGB")
    made = act(colours)
    made = made if made.mode == "RGB" else made.convert("RGB")
    made.putalpha(image.getchannel("A"))
    return made


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    """As ImageEnhance does it, but around the mean of what is seen."""
    mask = seen(image)
    if mask is None:
        return ImageEnhance.Contrast(image).enhance(factor)
    gray = image.convert("RGB").convert("L")
    mean = int(ImageStat.Stat(gray, mask).mean[0] + 0.5) if mask.getbbox() else 0
    return _on_colours(lambda own: Image.blend(Image.new("RGB", own.size, (mean,) * 3), own, factor), image)


def _autocontrast(image: Image.Image) -> Image.Image:
    mask = seen(image)
    if mask is not None and not mask.getbbox():
        return image
    return _on_colours(lambda own: ImageOps.autocontrast(own, mask=mask), image)


def _sepia(image: Image.Image) -> Image.Image:
    return image.convert("RGB").convert("RGB", _SEPIA)


FILTERS: Mapping[str, Callable[[Image.Image, float], Image.Image]] = MappingProxyType(
    {
        "blur": lambda image, radius: _weighted(image, lambda own: own.filter(ImageFilter.GaussianBlur(radius))),
        "sharpen": _sharpened,
        "smooth": lambda image, _: _weighted(image, lambda own: own.filter(ImageFilter.SMOOTH)),
        "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
        "contrast": _contrast,
        "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
        "edge": lambda image, _: _on_colours(lambda own: own.filter(ImageFilter.FIND_EDGES), image, behind=True),
        "emboss": lambda image, _: _on_colours(lambda own: own.filter(ImageFilter.EMBOSS), image, behind=True),
        "grayscale": lambda image, _: _on_colours(ImageOps.grayscale, image),
        "invert": lambda image, _: _on_colours(ImageOps.invert, image),
        "autocontrast": lambda image, _: _autocontrast(image),
        "sepia": lambda image, _: _on_colours(_sepia, image),
    }
)
"""Name of a filter → the function that does it, given the image and the amount."""

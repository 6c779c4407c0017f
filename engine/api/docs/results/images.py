"""Results of image_processing, one type per operation."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from engine.api.docs.results.documents import OcrFacts


class ImageFacts(msgspec.Struct, kw_only=True):
    """The image that was given."""

    format: str
    width: int
    height: int
    mode: str
    frames: int
    size_bytes: int


class NewImage(ImageFacts, kw_only=True):
    """The image that was made."""

    artifact: str
    frames_total: int
    base64: Annotated[str | None, Meta(description="The image itself, if it is at most `output.inline_kib` long.")]


class ImageArtifact(msgspec.Struct, kw_only=True):
    """The file of an image that was made."""

    name: str
    media_type: str
    size_bytes: int


class ImageResult(msgspec.Struct, kw_only=True, tag_field="operation"):
    """What every operation over an image answers."""

    input: ImageFacts


class MadeImage(ImageResult, kw_only=True):
    """What every operation that makes an image answers."""

    output: NewImage
    artifacts: list[ImageArtifact]


class ResizedImage(MadeImage, kw_only=True, tag="resize"):
    """An image of another size."""


class CroppedImage(MadeImage, kw_only=True, tag="crop"):
    """A part of an image."""


class FilteredImage(MadeImage, kw_only=True, tag="filter"):
    """An image after a filter."""


class ConvertedImage(MadeImage, kw_only=True, tag="convert"):
    """An image in another format."""


class ThumbnailImage(MadeImage, kw_only=True, tag="thumbnail"):
    """A small image."""


class PipelineImage(MadeImage, kw_only=True, tag="pipeline"):
    """An image after several steps."""


class ColorMeans(msgspec.Struct, kw_only=True):
    """0 to 255."""

    red: float
    green: float
    blue: float


class DominantColor(msgspec.Struct, kw_only=True):
    """A colour, and how much of the image has it."""

    hex: str
    share: float


class ColorHistogram(msgspec.Struct, kw_only=True):
    """How many pixels lie in each range of a colour."""

    bins: int
    red: list[int]
    green: list[int]
    blue: list[int]


class PerceptualHash(msgspec.Struct, kw_only=True):
    """Similar images differ in few bits."""

    algorithm: str
    bits: int
    hex: str


class AnalyzedImage(ImageResult, kw_only=True, tag="analyze"):
    """Facts of an image."""

    has_alpha: bool
    has_color_profile: bool
    dpi: list[float | None] | None
    seen_share: float
    mean: ColorMeans | None
    brightness: float | None
    dominant_colors: list[DominantColor]
    histogram: ColorHistogram | None
    perceptual_hash: PerceptualHash
    exif: dict[str, Any]


class ReadLine(msgspec.Struct, kw_only=True):
    """A line that was read, and its four corners in pixels."""

    text: str
    confidence: float
    box: list[list[int]]


class ReadImage(ImageResult, kw_only=True, tag="ocr"):
    """The text of a picture."""

    text: str
    ocr: OcrFacts
    lines: list[ReadLine]
    lines_total: int

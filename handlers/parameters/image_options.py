"""The options of each operation of ``image_processing``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_SIDE = 16384
"""Pixels."""
MAX_STEPS = 20

Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Offset = Annotated[int, Meta(ge=0, le=MAX_SIDE)]
Format = Literal["png", "jpeg", "webp", "gif", "bmp", "tiff", "avif"]
_AMOUNTS: Mapping[str, tuple[float, float, float | None]] = MappingProxyType(
    {
        "blur": (0.1, 100, 2),
        "sharpen": (1, 500, 150),
        "brightness": (0, 10, None),
        "contrast": (0, 10, None),
        "saturation": (0, 10, None),
    }
)
"""Filter → least and greatest amount, and the default (None: it must be given)."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="operation"):
    """Options of one operation. In a pipeline each step names its ``operation``; elsewhere the parameters do."""


class Resize(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resize"):
    """Changes the size."""

    width: Annotated[
        Side | None, Meta(description="Width in pixels; unless given, it follows the height.", examples=[640])
    ] = None
    height: Annotated[
        Side | None, Meta(description="Height in pixels; unless given, it follows the width.", examples=[480])
    ] = None
    mode: Annotated[
        Literal["fit", "fill", "exact"],
        Meta(
            description="`fit`: the greatest size within width and height, proportions kept. `fill`: fills both, the "
            "excess is cut off evenly. `exact`: stretched to both.",
            examples=["fit"],
        ),
    ] = "fit"
    resampling: Annotated[
        Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"],
        Meta(description="How pixels are computed; `lanczos` is the best and slowest.", examples=["lanczos"]),
    ] = "lanczos"

    def __post_init__(self) -> None:
        if self.width is None and self.height is None:
            raise ValueError("Needs `width` or `height`")
        if self.mode != "fit" and (self.width is None or self.height is None):
            raise ValueError(f"`{self.mode}` needs both `width` and `height`")


class Crop(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="crop"):
    """Cuts out a part of the image."""

    width: Annotated[Side, Meta(description="Width of the part in pixels.", examples=[320])]
    height: Annotated[Side, Meta(description="Height of the part in pixels.", examples=[240])]
    left: Annotated[
        Offset | None, Meta(description="Pixels from the left edge; centred unless given.", examples=[10])
    ] = None
    top: Annotated[
        Offset | None, Meta(description="Pixels from the top edge; centred unless given.", examples=[10])
    ] = None


class Filter(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="filter"):
    """Changes the pixels and keeps the size."""

    name: Annotated[
        Literal[
            "blur", "sharpen", "smooth", "edge", "emboss", "grayscale", "sepia", "invert", "autocontrast",
            "brightness", "contrast", "saturation",
        ],
        Meta(description="Name of the filter.", examples=["blur"]),
    ]  # fmt: skip
    amount: Annotated[
        float | None,
        Meta(
            description="`blur`: radius in pixels, 0.1 to 100 (2 unless given). `sharpen`: percent, 1 to 500 (150 "
            "unless given). `brightness`, `contrast`, `saturation`: a factor, 0 to 10, 1 changes nothing; must be "
            "given. The others take none.",
            examples=[2.5],
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.name not in _AMOUNTS:
            if self.amount is not None:
                raise ValueError(f"`{self.name}` takes no `amount`")
            return
        least, greatest, default = _AMOUNTS[self.name]
        if self.amount is None and default is None:
            raise ValueError(f"`{self.name}` needs an `amount`, {least:g} to {greatest:g}")
        if self.amount is not None and not least <= self.amount <= greatest:
            raise ValueError(f"`amount` of `{self.name}` must be {least:g} to {greatest:g}")

    @property
    def strength(self) -> float:
        """The amount, given or by default; 0 for filters that take none."""
        return self.amount if self.amount is not None else _AMOUNTS.get(self.name, (0, 0, 0))[2] or 0.0


class Convert(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="convert"):
    """Changes the file format."""

    format: Annotated[Format, Meta(description="Format of the output.", examples=["webp"])]
    quality: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | None,
        Meta(description="Quality of jpeg, webp and avif, 1 to 100; 85 unless given.", examples=[85]),
    ] = None
    lossless: Annotated[bool, Meta(description="For webp: keep every pixel as it is.", examples=[True])] = False
    background: Annotated[
        Annotated[str, Meta(pattern="^#[0-9a-fA-F]{6}$")],
        Meta(description="Colour behind transparent pixels, for formats that have none.", examples=["#ffffff"]),
    ] = "#ffffff"

    def __post_init__(self) -> None:
        if self.quality is not None and (self.format not in ("jpeg", "webp", "avif") or self.lossless):
            raise ValueError("`quality` is of jpeg, of avif, and of webp that is not lossless")
        if self.lossless and self.format != "webp":
            raise ValueError("`lossless` is of webp only; png, bmp and tiff always are")


class Thumbnail(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="thumbnail"):
    """Makes a small copy, never larger than the image."""

    size: Annotated[
        Annotated[int, Meta(ge=1, le=2048)], Meta(description="Longest side in pixels.", examples=[256])
    ] = 256


class Analyze(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="analyze"):
    """Describes an image."""

    colors: Annotated[
        Annotated[int, Meta(ge=1, le=16)], Meta(description="Number of dominant colours.", examples=[5])
    ] = 5
    bins: Annotated[
        Literal[8, 16, 32, 64, 128, 256], Meta(description="Bins of each channel's histogram.", examples=[32])
    ] = 32


class Ocr(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ocr"):
    """Reads the text in an image."""


Step = Resize | Crop | Filter | Convert | Thumbnail


class Pipeline(Options, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="pipeline"):
    """Does several steps in one task, each on the output of the one before."""

    steps: Annotated[
        list[Step],
        Meta(
            min_length=1,
            max_length=MAX_STEPS,
            description="The options of each step, with its `operation` among them.",
            examples=[[{"operation": "resize", "width": 640}, {"operation": "convert", "format": "webp"}]],
        ),
    ]


OPTIONS: Mapping[str, type[Options]] = MappingProxyType(
    {
        "resize": Resize,
        "crop": Crop,
        "filter": Filter,
        "analyze": Analyze,
        "ocr": Ocr,
        "convert": Convert,
        "thumbnail": Thumbnail,
        "pipeline": Pipeline,
    }
)
"""Operation → type of its options."""


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the output image is handed over."""

    name: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$(?!\n)")],
        Meta(description="Name of the artifact, without its ending.", examples=["logo"]),
    ] = "image"
    inline_kib: Annotated[
        Annotated[int, Meta(ge=0, le=1024)],
        Meta(
            description="An image of at most so many KiB is also in the result, as base64; 0 for never.", examples=[64]
        ),
    ] = 64
    animation: Annotated[
        bool,
        Meta(
            description="Take all frames of a gif, webp, png, avif or tiff along, not only the first. The answer says "
            "how many there were.",
            examples=[True],
        ),
    ] = False
    keep_metadata: Annotated[
        bool,
        Meta(description="Keep EXIF and the colour profile. Otherwise only the pixels are kept.", examples=[False]),
    ] = False

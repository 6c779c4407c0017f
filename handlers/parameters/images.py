"""The parameters of ``image_processing``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from handlers.parameters.decode import decode_json
from handlers.parameters.files import InputFile, InputPath
from handlers.parameters.image_options import OPTIONS, Options, Output


class ImageProcessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resizes, crops, filters, converts, analyzes or reads an image."""

    image_path: Annotated[
        InputPath | InputFile,
        Meta(
            description="The image. As a string: a path below FILES_DIR, always. As an object: `base64`, `file_id` or "
            "`path`. PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF and HEIC are read; the content says which it is, not the "
            "name.",
            examples=["photos/logo.png", {"file_id": "file_0123456789abcdef0123456789abcdef"}],
        ),
    ]
    operation: Annotated[
        Literal["resize", "crop", "filter", "analyze", "convert", "thumbnail", "pipeline", "ocr"],
        Meta(
            description="What to do. `pipeline` does several steps one after the other; `ocr` reads text.",
            examples=["resize"],
        ),
    ]
    options: Annotated[
        msgspec.Raw,
        Meta(
            description="Options of the operation; any others are refused.",
            examples=[{"width": 640, "height": 480, "mode": "fit"}, {"name": "blur", "amount": 2}],
        ),
    ] = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    output: Annotated[
        Output,
        Meta(
            description="How the output image is handed over; not with `analyze` and `ocr`.",
            examples=[{"name": "logo"}],
        ),
    ] = Output()

    def __post_init__(self) -> None:
        if isinstance(self.image_path, InputFile) and self.image_path.text is not None:
            raise ValueError("An image is not text; use `base64`, `file_id` or `path` - at `$.image_path.text`")
        if self.operation in ("analyze", "ocr") and self.output != Output():
            raise ValueError(f"`{self.operation}` makes no image, so it takes no `output` - at `$.output`")
        image_options(self)


def image_options(parameters: ImageProcessing) -> Options:
    """The options of an ``image_processing`` task, of its operation's type.

    Raises:
        ValueError: they are invalid; says where, relative to the parameters.
    """
    try:
        options: Options = decode_json(parameters.options, OPTIONS[parameters.operation])
        fields = decode_json(parameters.options, dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise ValueError(f"{message} - at `$.options{place or '`'}") from None
    if "operation" in fields:  # the tag, which only the steps of a pipeline have
        raise ValueError("Object contains unknown field `operation` - at `$.options`")
    return options

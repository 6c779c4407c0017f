"""Resizes, crops, filters, converts and analyzes images with Pillow.

Pillow registers more than forty openers, one of which starts Ghostscript; six are allowed here, and no other
decoder is loaded. Size and frames are checked from the header, before a pixel is decoded. The output is a new file of
pixels: metadata is left out unless it is asked for.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

import PIL.BmpImagePlugin
import PIL.GifImagePlugin
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import PIL.TiffImagePlugin
import PIL.WebPImagePlugin  # noqa: F401 like those above it: loaded here, so that nothing is later
from PIL import ExifTags, Image, ImageCms, ImageEnhance, ImageFilter, ImageOps, UnidentifiedImageError

from handlers import inputs, progress
from handlers.data.decoding import decode_parameters
from handlers.documents.reading import looks_like
from handlers.failures import Refusal
from handlers.images.facts import describe
from handlers.parameters.files import InputFile
from handlers.parameters.image_options import (
    Analyze,
    Convert,
    Crop,
    Filter,
    Format,
    Options,
    Output,
    Pipeline,
    Resize,
    Step,
    Thumbnail,
)
from handlers.parameters.images import ImageProcessing, image_options
from handlers.parameters.registry import Request

FORMATS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "PNG": ("png", "image/png"),
        "JPEG": ("jpg", "image/jpeg"),
        "WEBP": ("webp", "image/webp"),
        "GIF": ("gif", "image/gif"),
        "BMP": ("bmp", "image/bmp"),
        "TIFF": ("tiff", "image/tiff"),
    }
)
"""Pillow's name of a format that is read and written → ending and media type."""

MAX_BYTES = 64 << 20
MAX_PIXELS = 50_000_000
"""Of an image that is read, made on the way or written: 200 MB with four channels."""
MAX_FRAMES = 1000
DEFAULT_QUALITY = 85
ARTIFACTS_FOLDER = "artifacts"
"""Of the workspace, which is the working directory."""

_WITHOUT_ALPHA = ("JPEG", "BMP")
_MAX_SIDES: Mapping[str, int] = MappingProxyType({"WEBP": 16383, "JPEG": 65500, "GIF": 65535})
_OF_THE_FILE = (
    *range(254, 260), 262, 266, *range(273, 285), *range(317, 321), *range(322, 326), 338, 339, 347, 513, 514,
)  # fmt: skip
"""Tags of TIFF that say how its own pixels are laid out, not what the picture is."""
_SEPIA = (0.393, 0.769, 0.189, 0, 0.349, 0.686, 0.168, 0, 0.272, 0.534, 0.131, 0)
"""Rows of red, green and blue, as in the W3C's Filter Effects."""


def run(request: Request) -> dict[str, Any]:
    """Do one ``image_processing`` task.

    Raises:
        Refusal: the image cannot be found or read, is too large, or the options do not fit it.
    """
    parameters: ImageProcessing = decode_parameters("image_processing", request.parameters)
    options = image_options(parameters)
    source = parameters.image_path
    content = inputs.read(source if isinstance(source, InputFile) else InputFile(path=source), max_bytes=MAX_BYTES)
    with _pillow_refuses(), _open(content) as image:
        found = {"operation": parameters.operation, "input": _facts(image, len(content))}
        if isinstance(options, Analyze):
            return {**found, **describe(image, _upright(image), options)}
        return {**found, **_make(image, options, parameters.output)}


def rehearse() -> None:
    """Take a small image through every operation, before there is a task. Starts no thread, writes no file."""
    for name in FORMATS:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(buffer, format=name)
        with _open(buffer.getvalue()) as image:
            describe(image, _upright(image), Analyze())
            for step in (Resize(width=4), Crop(width=4, height=4), Filter(name="blur"), Thumbnail(size=2)):
                _apply(_upright(image), step)


# ---- in ---------------------------------------------------------------------------------------------------------


def _open(content: bytes) -> Image.Image:
    """The image of a content; only its header has been read."""
    try:
        image = Image.open(io.BytesIO(content), formats=tuple(FORMATS))
    except UnidentifiedImageError:
        kind = looks_like(content)
        if kind is not None and kind.endswith("image"):
            raise Refusal("corrupt_image", f"The content begins like {kind} but is broken; save it again.") from None
        raise Refusal(
            "unsupported_format",
            f"The content is none of {', '.join(FORMATS)}{'; it looks like ' + kind if kind else ''}; convert it.",
        ) from None
    _check_pixels(*image.size)
    if _has_frame(image, MAX_FRAMES):
        raise Refusal("too_many_frames", f"The image has more than {MAX_FRAMES} frames; send fewer.")
    return image


def _has_frame(image: Image.Image, number: int) -> bool:
    """Whether there is a frame of this number, the first is 0. None is decoded."""
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1) > number
    try:  # Pillow counts all of a TIFF's in a time that grows with their square, and miscounts after a leap
        for frame in range(1, number + 1):
            image.seek(frame)
    except EOFError:
        image.seek(0)
        return False
    return True


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Refusal(
            "image_too_large",
            f"An image of {width} x {height} pixels is too large; at most {MAX_PIXELS // 10**6} million are taken.",
        )


@contextlib.contextmanager
def _pillow_refuses() -> Iterator[None]:
    """Turn whatever Pillow raises over broken input into a refusal, and set its own limit of pixels to ours."""
    greatest, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that is odd, which nobody would read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Refusal, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refusal("image_too_large", f"The image has more than {MAX_PIXELS // 10**6} million pixels.") from None
    except OSError as error:
        if error.errno is not None:  # the system's, such as a full workspace
            raise
        raise Refusal("corrupt_image", f"The image is broken or cut off ({error}); save it again.") from None
    except (SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise Refusal("corrupt_image", f"The image is broken ({type(error).__name__}: {error}).") from None
    finally:
        Image.MAX_IMAGE_PIXELS = greatest


def _facts(image: Image.Image, size_bytes: int) -> dict[str, Any]:
    return {
        "format": _format(image), "width": image.width, "height": image.height, "mode": image.mode,
        "frames": getattr(image, "n_frames", 1), "size_bytes": size_bytes,
    }  # fmt: skip


def _format(image: Image.Image) -> Format:
    """One of ``FORMATS`` in small letters. A JPEG that holds a second picture is MPO to Pillow."""
    return cast("Format", "jpeg" if image.format == "MPO" else str(image.format).lower())


# ---- operations -------------------------------------------------------------------------------------------------


def _make(image: Image.Image, options: Options, output: Output) -> dict[str, Any]:
    """Take the first frame through the steps and save it."""
    steps = options.steps if isinstance(options, Pipeline) else [options]
    saving = Convert(format=_format(image))
    made = _upright(image)
    metadata = _metadata(image) if output.keep_metadata else {}
    if "icc_profile" not in metadata:
        made = _to_srgb(made, image.info.get("icc_profile"))
    image.close()  # its pixels, up to 200 MB, are no longer needed
    for step in progress.through(steps, len(steps), "steps"):
        if isinstance(step, Convert):
            saving = step
        else:
            made = _apply(made, step)
    return _save(made, saving, output, metadata)


def _upright(image: Image.Image) -> Image.Image:
    """A copy of the first frame with eight bits a channel (L, RGB or RGBA), turned as its EXIF orientation says."""
    image.seek(0)
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("L", "RGB", "RGBA"):
        return upright
    if upright.mode == "F" or upright.mode.startswith("I"):
        return _eight_bits(upright)
    if upright.has_transparency_data:
        return upright.convert("RGBA")
    return upright.convert("L" if upright.mode == "1" else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Levels of gray from 16 bits, or from whatever range wider pixels have."""
    wide = image.convert("I" if image.mode.startswith("I") else "F")
    least, greatest = (float(cast("float", end)) for end in wide.getextrema())
    if image.mode.startswith("I") and least >= 0 and greatest < 1 << 16:
        least, greatest = 0, (1 << 16) - 1
    scale = 255 / (greatest - least) if greatest > least else 0
    return wide.convert("F").point(lambda value: value * scale - least * scale).convert("L")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB, the colours that every viewer assumes where a file has no profile."""
    if not profile or image.mode == "L":
        return image
    try:
        made = ImageCms.profileToProfile(image, io.BytesIO(profile), _srgb(), outputMode=image.mode)
    except ImageCms.PyCMSError:
        return image  # the profile is broken, or for other channels: then there is none
    return made if made is not None else image


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _apply(image: Image.Image, step: Step | Options) -> Image.Image:
    if isinstance(step, Resize):
        return _resize(image, step)
    if isinstance(step, Crop):
        return _crop(image, step)
    if isinstance(step, Thumbnail):
        return _shrunk(image, step.size)
    if isinstance(step, Filter):
        return FILTERS[step.name](image, step.strength)
    raise TypeError(f"{type(step).__name__} is no step that changes pixels")


def _resize(image: Image.Image, step: Resize) -> Image.Image:
    resampling = Image.Resampling[step.resampling.upper()]
    if step.mode == "fit" or step.width is None or step.height is None:
        factor = min(side / own for side, own in zip((step.width, step.height), image.size, strict=True) if side)
        size = (max(round(image.width * factor), 1), max(round(image.height * factor), 1))
    else:
        size = (step.width, step.height)
    _check_pixels(*size)
    if step.mode == "fill":
        return ImageOps.fit(image, size, method=resampling)
    return image.resize(size, resampling)


def _crop(image: Image.Image, step: Crop) -> Image.Image:
    left = (image.width - step.width) // 2 if step.left is None else step.left
    top = (image.height - step.height) // 2 if step.top is None else step.top
    box = (left, top, left + step.width, top + step.height)
    if left < 0 or top < 0 or box[2] > image.width or box[3] > image.height:
        raise Refusal(
            "crop_outside_image",
            f"The part ({box[0]}, {box[1]}) to ({box[2]}, {box[3]}) is not within the image of {image.width} x "
            f"{image.height} pixels; an orientation that EXIF asks for is applied before.",
        )
    return image.crop(box)


def _shrunk(image: Image.Image, size: int) -> Image.Image:
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


def _on_colours(act: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image, float], Image.Image]:
    """A filter of colours, which leaves the alpha channel as it is."""

    def apply(image: Image.Image, _strength: float) -> Image.Image:
        if image.mode != "RGBA":
            return act(image)
        made = act(image.convert("RGB"))
        made = made if made.mode == "RGB" else made.convert("RGB")
        made.putalpha(image.getchannel("A"))
        return made

    return apply


def _sepia(image: Image.Image) -> Image.Image:
    return image.convert("RGB").convert("RGB", _SEPIA)


FILTERS: Mapping[str, Callable[[Image.Image, float], Image.Image]] = MappingProxyType(
    {
        "blur": lambda image, radius: image.filter(ImageFilter.GaussianBlur(radius)),
        "sharpen": lambda image, percent: image.filter(ImageFilter.UnsharpMask(percent=round(percent))),
        "smooth": lambda image, _: image.filter(ImageFilter.SMOOTH),
        "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
        "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
        "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
        "edge": _on_colours(lambda image: image.filter(ImageFilter.FIND_EDGES)),
        "emboss": _on_colours(lambda image: image.filter(ImageFilter.EMBOSS)),
        "grayscale": _on_colours(ImageOps.grayscale),
        "invert": _on_colours(ImageOps.invert),
        "autocontrast": _on_colours(ImageOps.autocontrast),
        "sepia": _on_colours(_sepia),
    }
)
"""Name of a filter → the function that does it, given the image and the amount."""


# ---- out --------------------------------------------------------------------------------------------------------


def _save(image: Image.Image, saving: Convert, output: Output, metadata: dict[str, Any]) -> dict[str, Any]:
    name = saving.format.upper()
    ending, media_type = FORMATS[name]
    file_name = f"{output.name}.{ending}"
    content = _encoded(image, name, saving, metadata)
    os.makedirs(ARTIFACTS_FOLDER, exist_ok=True)
    with open(os.path.join(ARTIFACTS_FOLDER, file_name), "xb") as file:
        file.write(content)
    is_small = len(content) <= output.inline_kib << 10
    return {
        "output": {
            "format": saving.format, "width": image.width, "height": image.height, "mode": image.mode,
            "size_bytes": len(content), "artifact": file_name,
            "base64": base64.b64encode(content).decode() if is_small else None,
        },
        "artifacts": [{"name": file_name, "media_type": media_type, "size_bytes": len(content)}],
    }  # fmt: skip


def _encoded(image: Image.Image, name: str, saving: Convert, metadata: dict[str, Any]) -> bytes:
    if max(image.size) > _MAX_SIDES.get(name, MAX_PIXELS):
        raise Refusal(
            "image_too_large",
            f"A {saving.format} cannot be {image.width} x {image.height} pixels; its sides end at {_MAX_SIDES[name]}.",
        )
    if image.mode == "RGBA" and name in _WITHOUT_ALPHA:
        behind = Image.new("RGBA", image.size, saving.background)
        behind.alpha_composite(image)
        image = behind.convert("RGB")
    options: dict[str, Any] = {}
    if name == "JPEG" or (name == "WEBP" and not saving.lossless):
        options["quality"] = saving.quality or DEFAULT_QUALITY
    if name == "WEBP":
        options["lossless"] = saving.lossless
    if name == "TIFF":
        options["compression"] = "tiff_lzw"
    if image.mode == "L":
        metadata = {key: value for key, value in metadata.items() if key != "icc_profile"}  # it is for three channels
    image.info = {}  # where some formats would look for more to write
    buffer = io.BytesIO()
    image.save(buffer, format=name, **options, **metadata)
    return buffer.getvalue()


def _metadata(image: Image.Image) -> dict[str, Any]:
    """Build the arguments of ``save``. The orientation was applied, and is left out so that it is not applied again."""
    exif = image.getexif()
    for tag in (ExifTags.Base.Orientation, *_OF_THE_FILE):
        exif.pop(tag, None)
    kept: dict[str, Any] = {"exif": exif.tobytes()} if exif else {}
    if image.info.get("icc_profile") and image.mode in ("RGB", "RGBA", "P"):
        kept["icc_profile"] = image.info["icc_profile"]
    return kept

"""Resizes, crops, filters, converts and analyzes images with Pillow.

Pillow registers more than forty openers, one of which starts Ghostscript; eight are allowed here, and no other
decoder is loaded. Size and frames are checked from the header, before a pixel is decoded. The output is a new file of
pixels: metadata is left out unless it is asked for.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, cast

import PIL.AvifImagePlugin
import PIL.BmpImagePlugin
import PIL.GifImagePlugin
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import PIL.TiffImagePlugin
import PIL.WebPImagePlugin  # noqa: F401 like those above it: loaded here, so that nothing is later
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from handlers import inputs, ocr, progress
from handlers.data.decoding import decode_parameters
from handlers.documents.reading import looks_like
from handlers.failures import Refusal
from handlers.images.facts import describe
from handlers.images.filters import FILTERS
from handlers.parameters.files import InputFile
from handlers.parameters.image_options import (
    Analyze,
    Convert,
    Crop,
    Filter,
    Format,
    Ocr,
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
        "AVIF": ("avif", "image/avif"),
    }
)
"""Pillow's name of a format that is read and written → ending and media type."""

HEIF = "HEIF"
"""Read only, and written as JPEG: the photos of telephones (.heic)."""

MAX_BYTES = 64 << 20
MAX_PIXELS = 50_000_000
"""Of an image that is read, made on the way or written: 200 MB with four channels."""
_GRAY_BITS = MappingProxyType({"L;2": 2, "L;4": 4, "L": 8})
"""How Pillow names the pixels of a gray PNG → bits of each. It makes pixels of one bit a mode of their own."""
MAX_FRAMES = 1000
MAX_LINES = 5000
"""Of text in a picture."""
DEFAULT_QUALITY = 85
ARTIFACTS_FOLDER = "artifacts"
"""Of the workspace, which is the working directory."""

_WITHOUT_ALPHA = ("JPEG", "BMP")
_WITH_FRAMES = ("PNG", "WEBP", "GIF", "TIFF", "AVIF")
_MAX_SIDES: Mapping[str, int] = MappingProxyType({"WEBP": 16383, "JPEG": 65500, "GIF": 65535, "AVIF": 65535})
_CHANNELS = MappingProxyType({0: 1, 2: 3, 3: 1, 4: 2, 6: 4})
"""Sort of colours of a PNG → numbers a pixel: PNG, 11.2.1."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: its first column and row, and the steps between them: PNG, 8.2."""
_NAMES: Mapping[str, str] = MappingProxyType({"MPO": "jpeg", HEIF: "heic"})
_OF_THE_FILE = (
    *range(254, 260), 262, 266, *range(273, 285), *range(317, 321), *range(322, 326), 338, 339, 347, 513, 514,
)  # fmt: skip
"""Tags of TIFF that say how its own pixels are laid out, not what the picture is."""


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
        if isinstance(options, Ocr):
            return {**found, **_read(_upright(image))}
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


def _read(image: Image.Image) -> dict[str, Any]:
    """The text that a picture shows, over white where it is transparent; marked as read by OCR."""
    if image.mode == "RGBA":
        behind = Image.new("RGBA", image.size, "white")
        behind.alpha_composite(image)
        image = behind.convert("RGB")
    lines = ocr.read(image)
    return {
        "text": "\n".join(line.text for line in lines),
        "ocr": {"lines": len(lines), "confidence": ocr.confidence(lines)},
        "lines": [line._asdict() for line in lines[:MAX_LINES]],
        "lines_total": len(lines),
    }


# ---- in ---------------------------------------------------------------------------------------------------------


def _open(content: bytes) -> Image.Image:
    """The image of a content; only its header has been read."""
    formats = [*FORMATS]
    if _is_heif(content):
        import pi_heif  # noqa: PLC0415 few images need it

        pi_heif.register_heif_opener(thumbnails=False)
        formats = [HEIF]
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
    except UnidentifiedImageError:
        kind = looks_like(content)
        if kind is not None and kind.endswith("image"):
            raise Refusal(
                "corrupt_image",
                f"The content begins like {kind} but is broken, or of a sort that is not read, such as a TIFF with "
                "fractions for colours; save it again, as PNG.",
            ) from None
        raise Refusal(
            "unsupported_format",
            f"The content is none of {', '.join((*FORMATS, 'HEIC'))}"
            f"{'; it looks like ' + kind if kind else ''}; convert it.",
        ) from None
    _check_pixels(*image.size)
    if _has_frame(image, MAX_FRAMES):
        raise Refusal("too_many_frames", f"The image has more than {MAX_FRAMES} frames; send fewer.")
    return image


def _is_heif(content: bytes) -> bool:
    """Whether a file of ISO base media (ISO 14496-12) says that it holds pictures in HEVC."""
    if content[4:8] != b"ftyp" or b"avif" in content[8:64]:
        return False
    return content[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


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


def _format(image: Image.Image) -> Format | Literal["heic"]:
    """One of ``FORMATS`` in small letters, or heic. A JPEG that holds a second picture is MPO to Pillow."""
    return cast("Format | Literal['heic']", _NAMES.get(str(image.format), str(image.format).lower()))


# ---- operations -------------------------------------------------------------------------------------------------


def _make(image: Image.Image, options: Options, output: Output) -> dict[str, Any]:
    """Take the first frame, or all where that is asked for, through the steps and save them."""
    steps = options.steps if isinstance(options, Pipeline) else [options]
    own = _format(image)
    saving = Convert(format="jpeg" if own == "heic" else own)
    taken = range(getattr(image, "n_frames", 1) if output.animation else 1)
    if len(taken) * image.width * image.height > MAX_PIXELS:
        raise Refusal(
            "image_too_large", f"All {len(taken)} frames have more than {MAX_PIXELS // 10**6} million pixels."
        )
    frames, shown_ms = [], []
    for number in taken:
        frames.append(_upright(image, number))
        shown_ms.append(round(image.info.get("duration") or 0))
    metadata = _metadata(image) if output.keep_metadata else {}
    if "icc_profile" not in metadata:
        frames = [_to_srgb(frame, image.info.get("icc_profile")) for frame in frames]
    repeats = image.info.get("loop")
    total = getattr(image, "n_frames", 1)
    image.close()  # its pixels, up to 200 MB, are no longer needed
    for step in progress.through(steps, len(steps), "steps"):
        if isinstance(step, Convert):
            saving = step
        else:
            frames = [_apply(frame, step) for frame in frames]
    timing = {"duration": shown_ms} if len(frames) > 1 else {}
    if timing and repeats is not None:
        timing["loop"] = repeats
    found = _save(frames, saving, output, metadata, timing)
    return {**found, "output": {**found["output"], "frames_total": total}}


def _upright(image: Image.Image, frame: int = 0) -> Image.Image:
    """A copy of a frame with eight bits a channel (L, RGB or RGBA), turned as its EXIF orientation says."""
    image.seek(frame)
    _read_unseen_gray(image)
    seen, source = _seen_of_deep(image), getattr(image, "fp", None)  # which Pillow forgets
    image.load()
    if isinstance(source, io.BytesIO):
        _refuse_missing_rows(image, source)
    if seen is not None:
        image = image.convert("RGBA")
        image.putalpha(seen)
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "RGBA":
        return upright
    if upright.mode == "F" or upright.mode.startswith("I"):
        return _eight_bits(upright)
    if upright.has_transparency_data:
        return upright.convert("RGBA")
    if upright.mode in ("L", "RGB"):
        return upright
    if upright.mode == "CMYK":
        return _from_inks(upright)
    return upright.convert("L" if upright.mode == "1" else "RGB")


def _read_unseen_gray(image: Image.Image) -> None:
    """Have the level of gray that a PNG makes invisible count in eight bits, as its pixels will.

    The file names it in as many bits as its own pixels have; higher bits do not count (PNG, 11.3.2.1). Pillow spreads
    the pixels and leaves the number as it stands.
    """
    unseen = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or not isinstance(unseen, int) or not image.tile:
        return
    bits = _GRAY_BITS.get(str(image.tile[0].args))
    if bits:
        most = (1 << bits) - 1
        image.info["transparency"] = (unseen & most) * 255 // most


def _seen_of_deep(image: Image.Image) -> Image.Image | None:
    """Of a PNG with 16 bits a channel, one of whose colours is invisible: white where another one is; else None.

    Pillow keeps the upper half of each channel, and the colour in 16 bits, which then is no colour of any pixel. The
    lower halves are read beside the upper ones.
    """
    unseen = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or not isinstance(unseen, tuple) or not image.tile:
        return None
    if str(image.tile[0].args) != "RGB;16B":
        return None
    seen = Image.new("L", image.size, 0)
    content = cast("io.BytesIO", image.fp).getvalue()
    for order, shift in (("RGB;16B", 8), ("RGB;16L", 0)):
        with Image.open(io.BytesIO(content), formats=["PNG"]) as half:
            half.tile = [tile._replace(args=order) for tile in half.tile]
            half.load()
            for channel, level in zip(half.split(), unseen, strict=True):
                own = level >> shift & 0xFF
                seen = ImageChops.lighter(seen, channel.point([0 if value == own else 255 for value in range(256)]))
    image.info.pop("transparency")
    return seen


def _refuse_missing_rows(image: Image.Image, source: io.BytesIO) -> None:
    """Refuse a PNG whose packed pixels end before its last rows, which Pillow leaves black.

    Raises:
        Refusal: there are fewer than the header says.
    """
    if not isinstance(image, PngImagePlugin.PngImageFile) or getattr(image, "n_frames", 1) > 1 or image.height < 1:
        return
    last = image.crop((0, max(image.height - 2, 0), image.width, image.height))
    if any(last.crop((0, row, image.width, row + 1)).getbbox(alpha_only=False) is None for row in range(last.height)):
        _count_rows(source.getvalue())


def _count_rows(content: bytes) -> None:
    """Unpack the pixels of a PNG without keeping them, and refuse it if there are too few.

    Raises:
        Refusal: there are.
    """
    width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    depth = bits * _CHANNELS.get(colour, 1)
    passes = _PASSES if interlace else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes if x < width and y < height]
    needed = sum(rows * (1 + -(-columns * depth // 8)) for columns, rows in sizes)
    decoder, found, place = zlib.decompressobj(), 0, 8
    while place + 8 <= len(content) and not decoder.eof:
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        packed = content[place + 8 : place + 8 + size] if kind == b"IDAT" else b""
        while packed:
            found += len(decoder.decompress(packed, 1 << 20))
            packed = decoder.unconsumed_tail
        place += 12 + size
    if found < needed:
        raise Refusal("corrupt_image", "The image is cut off: rows of pixels are missing at its end; save it again.")


def _from_inks(image: Image.Image) -> Image.Image:
    """Colours of printing inks by their profile; without one, or with a broken one, by their amounts alone."""
    profile = image.info.get("icc_profile")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError):
            made = ImageCms.profileToProfile(image, io.BytesIO(profile), _srgb(), outputMode="RGB")
            if made is not None:
                made.info.pop("icc_profile", None)
                return made
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Levels of gray from 16 bits, or from whatever range wider pixels have."""
    wide = image.convert("I" if image.mode.startswith("I") else "F")
    least, greatest = (float(cast("float", end)) for end in wide.getextrema())
    if image.mode.startswith("I") and least >= 0 and greatest < 1 << 16:
        least, greatest = 0, (1 << 16) - 1
    scale = 255 / (greatest - least) if greatest > least else 0
    gray = wide.convert("F").point(lambda value: value * scale - least * scale).convert("L")
    unseen = image.info.get("transparency")
    if not isinstance(unseen, int):
        return gray
    mask = wide.convert("F").point(lambda value: value * 1.0 - unseen)  # zero where nothing is seen
    seen = ImageChops.lighter(_sign(mask, 1), _sign(mask, -1))
    made = gray.convert("RGBA")
    made.putalpha(seen)
    return made


def _sign(image: Image.Image, sign: int) -> Image.Image:
    """White where a number is above zero (or below it, for -1), else black."""
    return image.point(lambda value: value * (255.0 * sign) + 0).convert("L")


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


# ---- out --------------------------------------------------------------------------------------------------------


def _save(
    frames: list[Image.Image], saving: Convert, output: Output, metadata: dict[str, Any], timing: dict[str, Any]
) -> dict[str, Any]:
    image = frames[0]
    name = saving.format.upper()
    ending, media_type = FORMATS[name]
    file_name = f"{output.name}.{ending}"
    content = _encoded(frames, name, saving, metadata, timing)
    os.makedirs(ARTIFACTS_FOLDER, exist_ok=True)
    with open(os.path.join(ARTIFACTS_FOLDER, file_name), "xb") as file:
        file.write(content)
    is_small = len(content) <= output.inline_kib << 10
    return {
        "output": {
            "format": saving.format, "width": image.width, "height": image.height, "mode": image.mode,
            "size_bytes": len(content), "artifact": file_name, "frames": _count_frames(content, len(frames)),
            "base64": base64.b64encode(content).decode() if is_small else None,
        },
        "artifacts": [{"name": file_name, "media_type": media_type, "size_bytes": len(content)}],
    }  # fmt: skip


def _count_frames(content: bytes, saved: int) -> int:
    """How many frames a new file has: Pillow makes one of neighbours that are alike, shown for as long as both."""
    if saved == 1:
        return 1
    with Image.open(io.BytesIO(content), formats=list(FORMATS)) as image:
        return int(getattr(image, "n_frames", 1))


def _encoded(
    frames: list[Image.Image], name: str, saving: Convert, metadata: dict[str, Any], timing: dict[str, Any]
) -> bytes:
    image = frames[0]
    if max(image.size) > _MAX_SIDES.get(name, MAX_PIXELS):
        raise Refusal(
            "image_too_large",
            f"A {saving.format} cannot be {image.width} x {image.height} pixels; its sides end at {_MAX_SIDES[name]}.",
        )
    if len(frames) > 1 and name not in _WITH_FRAMES:
        raise Refusal("one_frame_only", f"A {saving.format} has one frame; leave `animation` out, or choose webp.")
    if name != "TIFF" and len({frame.size for frame in frames}) > 1:
        raise Refusal(
            "one_frame_only",
            f"The frames differ in size, and those of a {saving.format} cannot: parts of them would be cut off. Leave "
            "`animation` out, choose tiff, or resize them to one size.",
        )
    if name in _WITHOUT_ALPHA:
        frames = [_over(frame, saving.background) for frame in frames]
    if image.mode == "L":
        metadata = {key: value for key, value in metadata.items() if key != "icc_profile"}  # it is for three channels
    for frame in frames:
        frame.info = {}  # where some formats would look for more to write
    options = _options_of(name, saving)
    if len(frames) > 1:
        options |= {"save_all": True, "append_images": frames[1:], **timing}
        if name == "GIF":
            options["disposal"] = 2  # each frame is whole
    buffer = io.BytesIO()
    frames[0].save(buffer, format=name, **options, **metadata)
    return buffer.getvalue()


def _options_of(name: str, saving: Convert) -> dict[str, Any]:
    """The arguments of ``save`` for a format."""
    options: dict[str, Any] = {}
    if name in ("JPEG", "AVIF") or (name == "WEBP" and not saving.lossless):
        options["quality"] = saving.quality or DEFAULT_QUALITY
    if name == "WEBP":
        options["lossless"] = saving.lossless
    if name == "TIFF":
        options["compression"] = "tiff_lzw"
    if name == "AVIF":
        options["max_threads"] = 2
    return options


def _over(image: Image.Image, background: str) -> Image.Image:
    """The image as it looks on a colour, for a format without transparency."""
    if image.mode != "RGBA":
        return image
    behind = Image.new("RGBA", image.size, background)
    behind.alpha_composite(image)
    return behind.convert("RGB")


def _metadata(image: Image.Image) -> dict[str, Any]:
    """Build the arguments of ``save``. The orientation was applied, and is left out so that it is not applied again."""
    exif = image.getexif()
    for tag in (ExifTags.Base.Orientation, *_OF_THE_FILE):
        exif.pop(tag, None)
    kept: dict[str, Any] = {"exif": exif.tobytes()} if exif else {}
    if image.info.get("icc_profile") and image.mode in ("RGB", "RGBA", "P"):
        kept["icc_profile"] = image.info["icc_profile"]
    return kept

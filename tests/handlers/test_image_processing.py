"""image_processing: what each operation makes of each sort of image, and what does not get out or in."""

from __future__ import annotations

import base64
import io
import itertools
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from handlers import jsonable
from handlers.failures import Refusal
from handlers.images import facts as image_facts
from handlers.images import image_processing
from handlers.images.filters import FILTERS
from handlers.parameters.image_options import OPTIONS
from handlers.parameters.images import ImageProcessing
from handlers.parameters.registry import Request
from tests.support import sample_files as files
from tests.support.entry_process import ROOT

FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def process(content: bytes, operation: str, options: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The answer as JSON has it."""
    parameters = {
        "image_path": {"base64": files.base64_of(content)}, "operation": operation, "options": options or {}, **more,
    }  # fmt: skip
    request = Request(task_type="image_processing", parameters=msgspec.Raw(json.dumps(parameters).encode()))
    found: dict[str, Any] = json.loads(jsonable.encode(image_processing.run(request)))
    return found


def make(*arguments: Any, **more: Any) -> Image.Image:
    """The image that comes out; its artifact is gone afterwards."""
    found = process(*arguments, **more)
    path = Path("artifacts", found["output"]["artifact"])
    content = path.read_bytes()
    path.unlink()
    assert content == base64.b64decode(found["output"]["base64"])
    image = Image.open(io.BytesIO(content))
    image.load()
    assert (image.format or "").lower() == found["output"]["format"]
    return image


def refusal(*arguments: Any, **more: Any) -> Refusal:
    """With what it is refused."""
    with pytest.raises(Refusal) as raised:
        process(*arguments, **more)
    return raised.value


# ---- operations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"width": 20}, (20, 10)),
        ({"height": 5}, (10, 5)),
        ({"width": 80, "height": 80}, (80, 40)),
        ({"width": 10, "height": 10, "mode": "fill"}, (10, 10)),
        ({"width": 3, "height": 17, "mode": "exact"}, (3, 17)),
        ({"width": 1}, (1, 1)),
    ],
)
def test_resize(options: dict[str, Any], size: tuple[int, int]) -> None:
    """A side that is left out follows; no side becomes nothing."""
    assert size == make(files.image(), "resize", options).size


def test_fill_cuts_both_sides_evenly() -> None:
    """The middle of the image stays in the middle."""
    image = Image.new("RGB", (30, 10), "red")
    image.paste("lime", (10, 0, 20, 10))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    made = make(buffer.getvalue(), "resize", {"width": 10, "height": 10, "mode": "fill", "resampling": "nearest"})
    assert [(100, (0, 255, 0))] == made.getcolors()


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_resampling(name: str) -> None:
    """Each of them is Pillow's."""
    expected = files.picture().resize((20, 10), Image.Resampling[name.upper()])
    assert expected.tobytes() == make(files.image(), "resize", {"width": 20, "resampling": name}).tobytes()


def test_crop() -> None:
    """The very pixels; in the middle unless said otherwise."""
    assert files.picture().crop((1, 2, 5, 7)).tobytes() == (
        make(files.image(), "crop", {"left": 1, "top": 2, "width": 4, "height": 5}).tobytes()
    )
    assert files.picture().crop((15, 5, 25, 15)).tobytes() == (
        make(files.image(), "crop", {"width": 10, "height": 10}).tobytes()
    )


OUTSIDE = [
    {"width": 41, "height": 1}, {"left": 31, "width": 10, "height": 1}, {"top": 20, "width": 1, "height": 1},
    {"width": 16384, "height": 16384},
]  # fmt: skip


@pytest.mark.parametrize("options", OUTSIDE, ids=str)
def test_crop_outside(options: dict[str, int]) -> None:
    """It is not filled up with black."""
    found = refusal(files.image(), "crop", options)
    assert "crop_outside_image" == found.code
    assert "40 x 20" in str(found)


def test_thumbnail_never_enlarges() -> None:
    """The longest side is what is asked for, at most."""
    assert (10, 5) == make(files.image(), "thumbnail", {"size": 10}).size
    assert (40, 20) == make(files.image(), "thumbnail").size


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("name", FILTERS)
def test_filter(name: str, mode: str) -> None:
    """Each filter takes each mode, keeps its size and its alpha channel's presence."""
    needs = {"amount": 1.5} if name in ("brightness", "contrast", "saturation") else {}
    made = make(files.image(mode=mode), "filter", {"name": name, **needs})
    assert (40, 20) == made.size
    assert (mode == "RGBA") == (made.mode == "RGBA")


def test_invert_inverts() -> None:
    """And grayscale is gray: filters are what they are called."""
    inverted = make(files.image(), "filter", {"name": "invert"})
    assert bytes(255 - value for value in files.picture().tobytes()) == inverted.tobytes()
    gray = make(files.image(), "filter", {"name": "grayscale"})
    assert files.picture().convert("L").tobytes() == gray.convert("L").tobytes()
    dark = make(files.image(), "filter", {"name": "brightness", "amount": 0})
    assert [(800, (0, 0, 0))] == dark.getcolors()


@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_convert(mode: str, target: str) -> None:
    """Every mode of a PNG to every format."""
    made = make(files.image(mode=mode), "convert", {"format": target})
    assert (target.upper(), (40, 20)) == (made.format, made.size)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "F", "I"])
def test_modes_of_a_tiff(mode: str) -> None:
    """They come out as a picture of eight bits."""
    buffer = io.BytesIO()
    wide = files.picture(mode="L").convert("F").point(lambda value: value * 300 - 5000)
    (wide.convert(mode) if mode in ("F", "I") else files.picture().convert(mode)).save(buffer, "TIFF")
    made = make(buffer.getvalue(), "convert", {"format": "png"})
    assert ("L" if mode in ("F", "I") else "RGB") == made.mode
    assert 200 < max(made.convert("L").tobytes()) - min(made.convert("L").tobytes())


def test_sixteen_bits_become_eight() -> None:
    """By their upper half; nothing is cut off at 255."""
    deep = Image.frombytes("I;16", (2, 1), (65535).to_bytes(2, "little") + (32768).to_bytes(2, "little"))
    buffer = io.BytesIO()
    deep.save(buffer, "PNG")
    assert b"\xff\x7f" == make(buffer.getvalue(), "convert", {"format": "png"}).tobytes()
    assert 0.7 < process(buffer.getvalue(), "analyze")["brightness"] < 0.8


def test_transparency_gets_a_background() -> None:
    """In formats that have none."""
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(buffer, "PNG")
    made = make(buffer.getvalue(), "convert", {"format": "bmp", "background": "#0080ff"})
    assert [(16, (0, 128, 255))] == made.getcolors()
    assert [(16, (0, 0, 0, 0))] == make(buffer.getvalue(), "convert", {"format": "tiff"}).getcolors()


def test_quality_and_lossless() -> None:
    """Less quality is less bytes; lossless keeps each pixel."""
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(noise, "PNG")
    sizes = []
    for quality in (10, 90):
        process(noise.getvalue(), "convert", {"format": "jpeg", "quality": quality}, output={"name": f"q{quality}"})
        sizes.append(Path(f"artifacts/q{quality}.jpg").stat().st_size)
    assert sizes[0] * 2 < sizes[1]
    kept = make(noise.getvalue(), "convert", {"format": "webp", "lossless": True})
    assert Image.open(noise).convert("RGB").tobytes() == kept.convert("RGB").tobytes()


def test_pipeline_goes_step_by_step() -> None:
    """Each on what the one before it made; the last format holds."""
    steps = [
        {"operation": "crop", "width": 20, "height": 20},
        {"operation": "resize", "width": 10},
        {"operation": "convert", "format": "gif"},
        {"operation": "filter", "name": "invert"},
        {"operation": "thumbnail", "size": 5},
        {"operation": "convert", "format": "bmp"},
    ]
    made = make(files.image(), "pipeline", {"steps": steps})
    assert ("BMP", (5, 5)) == (made.format, made.size)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_format_stays_unless_converted(kind: str) -> None:
    """Told by content."""
    assert kind == make(files.image(kind), "resize", {"width": 10}).format


def test_only_the_first_frame_is_used() -> None:
    """The answer says how many there were."""
    found = process(files.frames("GIF", 5), "convert", {"format": "png"})
    assert 5 == found["input"]["frames"]
    with Image.open("artifacts/image.png") as image:
        assert 1 == getattr(image, "n_frames", 1)


def test_a_picture_within_a_jpeg_is_no_other_format() -> None:
    """Phones put a second picture behind the first; Pillow calls that MPO."""
    buffer = io.BytesIO()
    files.picture().save(buffer, "MPO", save_all=True, append_images=[files.picture()])
    found = process(buffer.getvalue(), "resize", {"width": 10})
    assert ("jpeg", 2, "image.jpg") == (
        found["input"]["format"],
        found["input"]["frames"],
        found["artifacts"][0]["name"],
    )


# ---- output -----------------------------------------------------------------------------------------------------


def test_artifact_and_inline() -> None:
    """The file is an artifact, by name, media type and size; small ones are inline too."""
    found = process(files.image(), "resize", {"width": 10}, output={"name": "small"})
    content = Path("artifacts/small.png").read_bytes()
    assert [{"name": "small.png", "media_type": "image/png", "size_bytes": len(content)}] == found["artifacts"]
    assert content == base64.b64decode(found["output"]["base64"])


def test_large_or_unwanted_images_are_not_inline() -> None:
    """They are artifacts only."""
    assert process(files.image(), "thumbnail", output={"inline_kib": 0})["output"]["base64"] is None
    noise = io.BytesIO()
    Image.effect_noise((256, 256), 80).convert("RGB").save(noise, "PNG")
    found = process(noise.getvalue(), "convert", {"format": "bmp"}, output={"name": "large"})
    assert (None, 196662) == (found["output"]["base64"], found["artifacts"][0]["size_bytes"])


def test_an_artifact_overwrites_nothing(workspace: Path) -> None:
    """Whatever lies there already, or what it links to."""
    (workspace / "artifacts").mkdir()
    (workspace / "other").write_bytes(b"kept")
    (workspace / "artifacts" / "image.png").symlink_to(workspace / "other")
    with pytest.raises(FileExistsError):
        process(files.image(), "thumbnail")
    assert b"kept" == (workspace / "other").read_bytes()


# ---- metadata ---------------------------------------------------------------------------------------------------


def with_secrets(kind: str) -> bytes:
    """An image with something to hide wherever its format has room."""
    exif = Image.Exif()
    exif[0x010F] = "canary-maker"
    exif[0x013B] = "canary-artist"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "canary-text")
    text.add_itxt("XML:com.adobe.xmp", "<x>canary-xmp</x>")
    of_format: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": text, "exif": exif},
        "JPEG": {"comment": b"canary-comment", "exif": exif, "xmp": b"<x>canary-xmp</x>"},
        "WEBP": {"exif": exif, "xmp": b"<x>canary-xmp</x>"},
        "GIF": {"comment": b"canary-comment"},
        "TIFF": {"tiffinfo": {270: "canary-description", 271: "canary-maker", 700: b"<x>canary-xmp</x>"}},
    }
    return files.image(kind, **of_format[kind])


@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "gif", "tiff", "bmp"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_no_metadata_gets_out(kind: str, target: str) -> None:
    """Neither EXIF nor XMP, comments or texts, into whatever format."""
    content = with_secrets(kind)
    assert b"canary" in content
    process(content, "convert", {"format": target})
    (made,) = Path("artifacts").iterdir()
    assert b"canary" not in made.read_bytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_metadata_is_kept_when_asked_for(kind: str) -> None:
    """EXIF by any path; the size that TIFF notes there is the new one."""
    made = make(with_secrets(kind), "resize", {"width": 10}, output={"keep_metadata": True})
    assert "canary-maker" == made.getexif()[0x010F]
    assert (10, 5) == made.size


def test_orientation_is_applied_and_then_forgotten() -> None:
    """Otherwise it would be applied twice."""
    made = make(files.photo(), "convert", {"format": "jpeg", "quality": 95}, output={"keep_metadata": True})
    assert (20, 40) == made.size
    assert 0x0112 not in made.getexif()
    assert "canary-maker" == made.getexif()[0x010F]


def test_colours_survive_the_loss_of_their_profile() -> None:
    """They are worked out anew for sRGB."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = files.image("PNG", icc_profile=profile)
    same = make(content, "convert", {"format": "png"})
    assert "icc_profile" not in same.info
    assert max(abs(a - b) for a, b in zip(files.picture().tobytes(), same.tobytes(), strict=True)) <= 1
    kept = make(content, "convert", {"format": "png"}, output={"keep_metadata": True})
    assert profile == kept.info["icc_profile"]
    broken = make(files.image("PNG", icc_profile=b"nonsense"), "convert", {"format": "png"})
    assert files.picture().tobytes() == broken.tobytes()


# ---- analyze ----------------------------------------------------------------------------------------------------


def test_analyze_a_plain_image() -> None:
    """One colour is all there is."""
    buffer = io.BytesIO()
    Image.new("RGB", (10, 10), "#102030").save(buffer, "PNG", dpi=(300, 300))
    found = process(buffer.getvalue(), "analyze", {"colors": 3, "bins": 8})
    assert [{"hex": "#102030", "share": 1.0}] == found["dominant_colors"]
    assert {"red": 16, "green": 32, "blue": 48} == found["mean"]
    assert ([100] + [0] * 7, [0, 100] + [0] * 6) == (found["histogram"]["red"], found["histogram"]["green"])
    assert pytest.approx([300, 300], abs=0.1) == found["dpi"]
    assert (False, False, {}) == (found["has_alpha"], found["has_color_profile"], found["exif"])


def test_dominant_colours_are_those_that_there_are() -> None:
    """The greatest share first."""
    image = Image.new("RGB", (100, 100), "red")
    image.paste("blue", (0, 0, 30, 100))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert [{"hex": "#ff0000", "share": 0.7}, {"hex": "#0000ff", "share": 0.3}] == (
        process(buffer.getvalue(), "analyze", {"colors": 2})["dominant_colors"]
    )


def test_exif_is_told_as_json() -> None:
    """Tags by name, fractions as numbers, the place too."""
    found = process(files.photo(), "analyze")["exif"]
    assert ("canary-maker", 6) == (found["Make"], found["Orientation"])
    assert (["N", [52.0, 31.0, 12.0]]) == [found["GPSLatitudeRef"], found["GPSLatitude"]]


def test_hostile_exif_is_left_out() -> None:
    """Fractions of nothing, bytes, long lists and long texts cannot spoil a result."""
    exif = Image.Exif()
    exif[0x010F] = "x" * 20_000
    exif[0x011A] = TiffImagePlugin.IFDRational(1, 0)
    exif[0x9C9B] = bytes(range(256))
    exif[0x0102] = tuple(range(1000))
    exif[0x0131] = "a\x00b\x1b[31m"
    found = process(files.image("JPEG", exif=exif), "analyze")["exif"]
    assert image_facts.MAX_VALUE_CHARACTERS == len(found["Make"])
    assert "\x1b" not in json.dumps(found)
    assert {"XPTitle", "BitsPerSample"} & set(found) == set()
    assert found.get("XResolution") is None


def test_alike_images_have_alike_hashes() -> None:
    """A few bits differ after JPEG and another size; many for another image."""

    def bits(content: bytes) -> int:
        return int(process(content, "analyze")["perceptual_hash"]["hex"], 16)

    one = Image.effect_mandelbrot((200, 150), (-2, -1.2, 0.8, 1.2), 50).convert("RGB")
    variants = []
    for kind, image in (("PNG", one), ("JPEG", one.resize((120, 90))), ("PNG", one.rotate(180))):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        variants.append(bits(buffer.getvalue()))
    assert (variants[0] ^ variants[1]).bit_count() <= 4
    assert (variants[0] ^ variants[2]).bit_count() >= 12


# ---- what does not get in ---------------------------------------------------------------------------------------

OTHERS = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "eps in a binary envelope": b"\xc5\xd0\xd3\xc6" + bytes(30),
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(40),
    "emf": b"\x01\x00\x00\x00" + bytes(36) + b" EMF" + bytes(40),
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
    "ppm": b"P6 1 1 255\n\0\0\0",
    "psd": b"8BPS\x00\x01" + bytes(40),
    "ico": b"\0\0\1\0\1\0" + bytes(40),
    "tga": b"\0\0\2" + bytes(9) + b"\1\0\1\0\x18\0" + bytes(3),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
    "pdf": files.pdf(1),
    "html": b"<html>",
    "nothing": b"",
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_another_format(content: bytes) -> None:
    """Formats are an allow-list, by content."""
    assert "unsupported_format" == refusal(content, "analyze").code


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_a_cut_image(kind: str, kept: float) -> None:
    """It is no image, whatever could still be shown of it."""
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(noise, kind)
    content = noise.getvalue()[: int(len(noise.getvalue()) * kept)]
    assert "corrupt_image" == refusal(content, "resize", {"width": 8}).code


@pytest.mark.parametrize("size", [(50_000, 50_000), (8000, 7000), (2**31 - 1, 1), (1, 2**31 - 1)], ids=str)
def test_too_many_pixels(size: tuple[int, int]) -> None:
    """By the header; there are no pixels in it."""
    assert "image_too_large" == refusal(files.png_header(*size), "analyze").code


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_too_many_frames(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted before one is decoded."""
    monkeypatch.setattr(image_processing, "MAX_FRAMES", 10)
    assert 10 == process(files.frames(kind, 10), "analyze")["input"]["frames"]
    assert "too_many_frames" == refusal(files.frames(kind, 11), "analyze").code


TOO_LARGE = [
    {"width": 16384, "height": 16384, "mode": "exact"}, {"width": 16384, "height": 8192, "mode": "fill"},
    {"width": 12_000},
]  # fmt: skip


@pytest.mark.parametrize("options", TOO_LARGE, ids=str)
def test_too_large_a_target(options: dict[str, Any]) -> None:
    """No more pixels are made than may be read."""
    assert "image_too_large" == refusal(files.image(), "resize", options).code


def test_sides_that_a_format_does_not_have() -> None:
    """Told before the encoder fails."""
    wide = {"operation": "resize", "width": 16384, "height": 1, "mode": "exact"}
    steps = [wide, {"operation": "convert", "format": "webp"}]
    found = refusal(files.image(), "pipeline", {"steps": steps})
    assert "image_too_large" == found.code
    assert "16383" in str(found)


def test_no_other_decoder_is_loaded() -> None:
    """Not even by content of its own format; nor anything of Pillow that runs programs, evaluates or shows."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from handlers import entry\n"
        "import json, base64\n"
        "entry.find_hook('rehearse', 'image_processing')()\n"
        "for content in json.loads(sys.argv[2]):\n"
        "    entry.main(json.dumps({'task_type': 'image_processing', 'parameters': {'image_path': {'base64': content},"
        " 'operation': 'analyze'}}).encode())\n"
        "print(json.dumps(sorted(name for name in sys.modules if name.startswith('PIL.'))))"
    )
    contents = json.dumps([files.base64_of(content) for content in OTHERS.values()])
    command = [sys.executable, "-I", "-c", script, str(ROOT), contents]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    loaded = set(json.loads(done.stdout))
    plugins = {name.removeprefix("PIL.").removesuffix("ImagePlugin") for name in loaded if name.endswith("ImagePlugin")}
    assert {
        "Avif",
        "Bmp",
        "Gif",
        "Jpeg",
        "Png",
        "Tiff",
        "WebP",
        "Ppm",
    } >= plugins  # Ppm is one that Image.open always loads
    assert set() == loaded & {"PIL.ImageMath", "PIL.ImageShow", "PIL.ImageGrab", "PIL.ImageFont", "PIL.ImageTk"}


# ---- parameters -------------------------------------------------------------------------------------------------

WRONG = {
    "no size": ({"operation": "resize"}, "`$.options`"),
    "one side to fill": ({"operation": "resize", "options": {"width": 4, "mode": "fill"}}, "`$.options`"),
    "no pixels": ({"operation": "resize", "options": {"width": 0}}, "`$.options.width`"),
    "fewer than none": ({"operation": "resize", "options": {"width": -1}}, "`$.options.width`"),
    "a thousand million": ({"operation": "resize", "options": {"width": 10**9}}, "`$.options.width`"),
    "a number that is no integer": ({"operation": "resize", "options": {"width": 1e308}}, "`$.options.width`"),
    "another operation's": ({"operation": "resize", "options": {"width": 1, "left": 1}}, "unknown field `left`"),
    "a tag": ({"operation": "resize", "options": {"operation": "resize", "width": 1}}, "unknown field `operation`"),
    "a huge crop": ({"operation": "crop", "options": {"width": 10**9, "height": 1}}, "`$.options.width`"),
    "a huge radius": ({"operation": "filter", "options": {"name": "blur", "amount": 1e9}}, "`amount` of `blur`"),
    "no radius": ({"operation": "filter", "options": {"name": "blur", "amount": 0}}, "`amount` of `blur`"),
    "an amount of none": ({"operation": "filter", "options": {"name": "edge", "amount": 1}}, "takes no `amount`"),
    "no amount": ({"operation": "filter", "options": {"name": "contrast"}}, "needs an `amount`"),
    "another format": ({"operation": "convert", "options": {"format": "eps"}}, "`$.options.format`"),
    "quality of a png": ({"operation": "convert", "options": {"format": "png", "quality": 9}}, "`quality` is of jpeg"),
    "a pipeline in itself": (
        {"operation": "pipeline", "options": {"steps": [{"operation": "pipeline", "steps": []}]}},
        "`$.options.steps[0].operation`",
    ),
    "too many steps": (
        {"operation": "pipeline", "options": {"steps": [{"operation": "thumbnail"}] * 21}}, "`$.options.steps`",
    ),
    "a wrong step": (
        {"operation": "pipeline",
         "options": {"steps": [{"operation": "thumbnail"}, {"operation": "resize", "width": 0}]}},
        "`$.options.steps[1].width`",
    ),
    "options of another type": ({"operation": "resize", "options": [1]}, "`$.options`"),
    "another operation": ({"operation": "draw"}, "`$.operation`"),
    "a name with a folder": ({"operation": "thumbnail", "output": {"name": "../x"}}, "`$.output.name`"),
    "a name with an ending": ({"operation": "thumbnail", "output": {"name": "x.svg"}}, "`$.output.name`"),
    "an output of nothing": ({"operation": "analyze", "output": {"name": "x"}}, "`$.output`"),
    "a text as an image": ({"operation": "analyze", "image_path": {"text": "x"}}, "`$.image_path.text`"),
    "an absolute path": ({"operation": "analyze", "image_path": "/etc/passwd"}, "`$.image_path`"),
    "an address": ({"operation": "analyze", "image_path": "http://127.0.0.1/x.png"}, "`$.image_path`"),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "place"), WRONG.values(), ids=WRONG)
def test_wrong_parameters(wrong: dict[str, Any], place: str) -> None:
    """Refused before an image is looked at, with the place."""
    from handlers.parameters import registry as parameters  # noqa: PLC0415 beside its one use

    with pytest.raises(msgspec.ValidationError) as raised:
        parameters.decode("image_processing", json.dumps({"image_path": "a.png", **wrong}).encode())
    assert place in str(raised.value)


def test_each_operation_has_its_options() -> None:
    """None is forgotten, in either list."""
    (operations,) = [
        msgspec.inspect.type_info(field.type).type.values  # type: ignore[attr-defined]
        for field in msgspec.structs.fields(ImageProcessing)
        if field.name == "operation"
    ]
    assert set(operations) == set(OPTIONS)


# ---- what is seen -----------------------------------------------------------------------------------------------

KEPT = Path(__file__).resolve().parent / "files"


@pytest.mark.parametrize(("bits", "unseen", "invisible"), [
    (1, 0, [0]), (1, 1, [1]), (1, 255, [1]), (2, 0, [0]), (2, 3, [3]), (2, 255, [3]), (4, 7, [7]), (4, 15, [15]),
    (4, 23, [7]), (8, 7, [7]), (8, 255, [255]), (8, 263, [7]), (16, 7, [7]), (16, 65535, [65535]),
])  # fmt: skip
def test_a_level_of_gray_that_is_not_seen(bits: int, unseen: int, invisible: list[int]) -> None:
    """It is named in the file's own bits, of which the lowest count (PNG, 11.3.2.1); every other level is seen."""
    levels = sorted({0, 1, 3, 7, 15, 254, 255, 65534, 65535} & set(range(1 << bits)))
    made = make(files.gray_png(bits, levels, unseen), "convert", {"format": "png"}).convert("RGBA")
    alphas = list(made.getchannel("A").tobytes())
    assert invisible == [level for level, alpha in zip(levels, alphas, strict=True) if alpha == 0]
    assert {0, 255} == set(alphas)


@pytest.mark.parametrize("name", ["l_trns", "rgb_trns"])
@pytest.mark.parametrize("target", ["png", "webp", "gif", "tiff", "avif"])
def test_one_transparent_colour_stays_transparent(name: str, target: str) -> None:
    """Of gray and of RGB, which a PNG names in its tRNS."""
    with make((KEPT / f"{name}.png").read_bytes(), "convert", {"format": target}) as image:
        assert image.convert("RGBA").getchannel("A").getextrema()[0] == 0


def test_one_transparent_gray_of_sixteen_bits() -> None:
    """Only that one, not those beside it."""
    gray = Image.new("I;16", (3, 1))
    for place, value in enumerate((999, 1000, 1001)):
        gray.putpixel((place, 0), value)
    content = io.BytesIO()
    gray.save(content, "PNG", transparency=1000)
    with make(content.getvalue(), "convert", {"format": "png"}) as image:
        assert [255, 0, 255] == list(image.convert("RGBA").getchannel("A").tobytes())


def half_seen() -> bytes:
    """Green where it is seen, red where nobody sees it."""
    made = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    made.paste((10, 200, 30, 255), (0, 0, 32, 64))
    content = io.BytesIO()
    made.save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize("name", ["blur", "sharpen", "smooth"])
def test_what_is_not_seen_gives_its_neighbours_no_colour(name: str) -> None:
    """On both sides of the edge the colour is the one that is seen."""
    with make(half_seen(), "filter", {"name": name}) as image:
        for x in (30, 31, 32, 33):
            pixel = image.convert("RGBA").getpixel((x, 32))
            assert isinstance(pixel, tuple)
            if pixel[3] > 20:
                assert all(abs(a - b) <= 6 for a, b in zip(pixel, (10, 200, 30), strict=False)), (x, pixel)


@pytest.mark.parametrize("name", ["contrast", "autocontrast"])
def test_what_is_not_seen_counts_in_no_mean(name: str) -> None:
    """The same comes out whatever colour nobody sees."""
    amount = {"amount": 1.5} if name == "contrast" else {}
    seen = []
    for hidden in ((255, 0, 0, 0), (0, 0, 0, 0)):
        made = Image.linear_gradient("L").convert("RGBA")
        made.paste(hidden, (0, 0, 128, 256))
        content = io.BytesIO()
        made.save(content, "PNG")
        with make(content.getvalue(), "filter", {"name": name, **amount}) as image:
            seen.append(image.crop((128, 0, 256, 256)).tobytes())
    assert seen[0] == seen[1]


def test_what_is_not_seen_is_not_analyzed() -> None:
    """Neither in the mean nor in histogram and colours."""
    found = process(half_seen(), "analyze")
    assert (0.5, {"red": 10, "green": 200, "blue": 30}) == (found["seen_share"], found["mean"])
    assert [{"hex": "#0ac81e", "share": 1.0}] == found["dominant_colors"]
    assert 64 * 32 == sum(found["histogram"]["red"])


def test_an_image_of_nothing_has_no_colours() -> None:
    """Null, not black."""
    content = io.BytesIO()
    Image.new("RGBA", (4, 4)).save(content, "PNG")
    found = process(content.getvalue(), "analyze")
    assert (None, None, [], 0) == tuple(found[n] for n in ("mean", "brightness", "dominant_colors", "seen_share"))


# ---- frames -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["GIF", "WEBP", "AVIF"])
@pytest.mark.parametrize("target", ["gif", "webp", "png", "avif", "tiff"])
def test_an_animation_stays_one_when_asked_for(source: str, target: str) -> None:
    """Every frame is taken through the steps; otherwise the answer says how many there were."""
    options = {"steps": [{"operation": "resize", "width": 16}, {"operation": "convert", "format": target}]}
    content = io.BytesIO()
    colours = [Image.new("RGB", (32, 32), (80 * n, 255 - 80 * n, 99)) for n in range(4)]
    colours[0].save(content, source, save_all=True, append_images=colours[1:], duration=70)
    found = process(content.getvalue(), "pipeline", options, output={"animation": True})
    assert (4, 4, 16) == tuple(found["output"][name] for name in ("frames", "frames_total", "width"))
    with Image.open(io.BytesIO(base64.b64decode(found["output"]["base64"]))) as image:
        assert 4 == getattr(image, "n_frames", 1)
        image.load()
        assert target == "tiff" or image.info["duration"] == 70
    alone = process(content.getvalue(), "convert", {"format": target}, output={"name": "alone"})["output"]
    assert (1, 4) == (alone["frames"], alone["frames_total"])


def test_a_format_of_one_frame_is_no_animation() -> None:
    """It is refused, not cut."""
    content = files.frames("GIF", 4)
    assert "one_frame_only" == refusal(content, "convert", {"format": "jpeg"}, output={"animation": True}).code


# ---- printing inks ----------------------------------------------------------------------------------------------


def ink_profile() -> bytes:
    """An ICC profile (ICC.1:2001) of inks that are all gray: lightness falls with each of the four alike."""
    corners = b"".join(bytes([255 - 63 * sum(bits), 128, 128]) for bits in itertools.product((0, 1), repeat=4))
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    table += ramp * 4 + corners + ramp * 3
    tags = {
        b"A2B0": table + b"\0" * (-len(table) % 4),
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
    }
    directory, body = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        directory += name + struct.pack(">2I", 128 + 4 + 12 * len(tags) + len(body), len(tag))
        body += tag
    whole = 128 + len(directory) + len(body)
    head = struct.pack(">I4sI4s4s4s", whole, b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + directory + body


def test_inks_are_read_by_their_profile() -> None:
    """Cyan of this profile is gray; without a profile it is blue and green."""
    cyan, pixels = Image.new("CMYK", (8, 8), (255, 0, 0, 0)), []
    for more in ({"icc_profile": ink_profile()}, {}):
        content = io.BytesIO()
        cyan.save(content, "TIFF", **more)
        with make(content.getvalue(), "convert", {"format": "png"}) as image:
            pixels.append(image.convert("RGB").getpixel((4, 4)))
    assert pixels[0] != pixels[1] == (0, 255, 255)
    assert isinstance(pixels[0], tuple)
    assert max(pixels[0]) - min(pixels[0]) <= 3

"""document_processing and image_processing through the real sandbox, each operation on real files."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image, ImageDraw, ImageFont

from sandbox import ExitReason, Host, Result, Template, load_policies
from tests.support import sample_files as files
from tests.support.synchronous import Sandbox

ROOT = Path(__file__).resolve().parents[2]


class Handler:
    """Runs tasks of one type under the policy that is delivered."""

    def __init__(self, task_type: str, host: Host, template: Template) -> None:
        self.task_type = task_type
        self.box = Sandbox(load_policies(ROOT / "policies")[task_type], host, template, ready=1)

    def run(self, parameters: dict[str, Any], inputs: dict[str, bytes] | None = None) -> Result:
        """One task as it ended."""
        request = json.dumps({"task_type": self.task_type, "parameters": parameters}).encode()
        result: Result = self.box.do(self.box.pool.run(request, inputs=inputs))
        return result

    def value(self, parameters: dict[str, Any], inputs: dict[str, bytes] | None = None) -> dict[str, Any]:
        """The result of a task that ends well."""
        result = self.run(parameters, inputs)
        assert result.value is not None, result
        assert () == result.violations
        return dict(msgspec.json.decode(result.value))

    def code(self, parameters: dict[str, Any]) -> str | None:
        """The code with which a task is refused."""
        result = self.run(parameters)
        assert ExitReason.ERROR is result.exit_reason, result
        assert result.error is not None
        assert "/app/" not in result.error.message
        return result.error.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the operator offers as FILES_DIR."""
    made = tmp_path_factory.mktemp("files")
    for path in (made, *made.parents):
        if path.name.startswith(("pytest-", "files")):
            path.chmod(0o755)
    (made / "reports").mkdir(mode=0o755)
    (made / "reports" / "may.pdf").write_bytes(files.pdf())
    (made / "photo.jpg").write_bytes(files.photo())
    (made / "link.pdf").symlink_to("reports/may.pdf")
    for path in made.rglob("*.*"):
        if not path.is_symlink():
            path.chmod(0o644)
    (made / "secret.pdf").write_bytes(files.pdf())
    (made / "secret.pdf").chmod(0o000)  # for the owner, too, whom the runs of an unprivileged worker are
    return made


@pytest.fixture(scope="module")
def seeing(template: Template, folder: Path) -> Template:
    """A template with the operator's files."""
    return msgspec.structs.replace(template, places=template.places | {"inputs": folder})


@pytest.fixture(scope="module")
def documents(host: Host, seeing: Template) -> Iterator[Handler]:
    """document_processing."""
    handler = Handler("document_processing", host, seeing)
    with contextlib.closing(handler.box):
        yield handler


@pytest.fixture(scope="module")
def images(host: Host, seeing: Template) -> Iterator[Handler]:
    """image_processing."""
    handler = Handler("image_processing", host, seeing)
    with contextlib.closing(handler.box):
        yield handler


# -- documents

DOCUMENTS = {
    "pdf": files.base64_of(files.pdf()),
    "docx": files.base64_of(files.word()),
    "txt": "\n\n".join([" ".join(files.STORY[:3]), " ".join(files.STORY[3:])]),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_text_comes_out_whole(documents: Handler, kind: str) -> None:
    """Every sentence of it, by page or paragraph; tables of docx too."""
    value = documents.value({"document_type": kind, "content": DOCUMENTS[kind], "operation": "extract_text"})
    flowing = " ".join(value["text"].split())
    assert [sentence for sentence in files.STORY if sentence not in flowing] == []
    assert False is value["truncated"]
    if kind == "pdf":
        assert ["Page 1 begins.", "Page 2 begins."] == [page["text"][:14] for page in value["pages"]]
    if kind == "docx":
        assert "left" in json.dumps(value["tables"])


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_is_analyzed(documents: Handler, kind: str) -> None:
    """Counts and language of all; metadata, headings and images where the type has them."""
    value = documents.value({"document_type": kind, "content": DOCUMENTS[kind], "operation": "analyze"})
    assert "en" == value["language"]["code"]
    assert value["words"] > 50
    text = json.dumps(value)
    if kind == "pdf":
        assert (2, "A story", "Ada") == (value["pages"], value["metadata"]["title"], value["metadata"]["author"])
        assert "Part 1" in text
    if kind == "docx":
        assert "A story" == value["metadata"]["title"]
        assert "Beginning" in text


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_summary_is_as_long_as_asked_and_made_of_its_sentences(documents: Handler, kind: str) -> None:
    """Extractive: nothing is made up."""
    value = documents.value(
        {"document_type": kind, "content": DOCUMENTS[kind], "operation": "summarize", "sentences": 2}
    )
    assert 2 == len(value["sentences"])
    whole = [*files.STORY, "Page 1 begins.", "Page 2 begins."]
    assert [] == [sentence for sentence in value["sentences"] if sentence not in whole]


def test_east_asian_text_needs_no_font_of_the_host(documents: Handler) -> None:
    """The sandbox has none; pdfium finds ours."""
    content = files.base64_of((ROOT / "tests" / "handlers" / "files" / "simple3.pdf").read_bytes())
    found = documents.value({"document_type": "pdf", "content": content, "operation": "extract_text"})
    assert "あいうえおあいうえお" in found["text"]


def test_text_in_pictures_is_read(documents: Handler, images: Handler) -> None:
    """Of a scanned page and of an image, within the limits of the delivered policies."""
    picture = Image.new("L", (1000, 300), 255)
    ImageDraw.Draw(picture).text((60, 80), "Platform 7", fill=0, font=ImageFont.load_default(110))
    made = {kind: io.BytesIO() for kind in ("PDF", "PNG")}
    for kind, content in made.items():
        picture.save(content, kind)
    scan = files.base64_of(made["PDF"].getvalue())
    found = documents.value({"document_type": "pdf", "content": scan, "operation": "extract_text"})
    assert ("Platform 7", 1) == (found["text"], found["pages"][0]["ocr"]["lines"])
    seen = images.value({"image_path": {"base64": files.base64_of(made["PNG"].getvalue())}, "operation": "ocr"})
    assert ("Platform 7", 1) == (seen["text"], seen["lines_total"])


def test_a_document_may_be_a_path_an_upload_or_a_text(documents: Handler) -> None:
    """The same document in each way gives the same."""
    inline = documents.value({"document_type": "pdf", "content": DOCUMENTS["pdf"], "operation": "extract_text"})
    for content in ("reports/may.pdf", "/inputs/reports/may.pdf", {"path": "reports/may.pdf"}):
        assert inline == documents.value({"document_type": "pdf", "content": content, "operation": "extract_text"})
    file_id = "file_" + "ab" * 16
    parameters = {"document_type": "pdf", "content": {"file_id": file_id}, "operation": "extract_text"}
    assert inline == documents.value(parameters, {file_id: files.pdf()})
    named = {"document_type": "txt", "content": {"text": "notes.txt"}, "operation": "extract_text"}
    assert "notes.txt" == documents.value(named)["text"]


def test_an_encrypted_pdf_opens_with_its_password_only(documents: Handler) -> None:
    """And says that it is encrypted otherwise."""
    locked = {
        "document_type": "pdf",
        "content": files.base64_of(files.pdf(password="correct horse", may_copy=True)),
        "operation": "extract_text",
    }
    for more in ({}, {"password": "wrong"}):
        assert "encrypted_document" == documents.code(locked | more)
    assert "Ada Lovelace" in documents.value(locked | {"password": "correct horse"})["text"]


REFUSED = {
    "ambiguous": ("txt", "report.txt", "ambiguous_content"),
    "ambiguous absolute": ("txt", "/etc/passwd", "ambiguous_content"),
    "missing": ("pdf", "missing.pdf", "file_not_found"),
    "no upload": ("pdf", {"file_id": "file_" + "0" * 32}, "file_not_found"),
    "link": ("pdf", "link.pdf", "not_a_file"),
    "folder": ("pdf", {"path": "reports"}, "not_a_file"),
    "not for runs": ("pdf", "secret.pdf", "file_not_readable"),
    "not base64": ("pdf", "????", "invalid_base64"),
    "docx as pdf": ("pdf", DOCUMENTS["docx"], "wrong_document_type"),
    "pdf as docx": ("docx", DOCUMENTS["pdf"], "wrong_document_type"),
    "pdf as txt": ("txt", {"base64": DOCUMENTS["pdf"]}, "wrong_document_type"),
    "broken pdf": ("pdf", files.base64_of(b"%PDF-1.7\n" + b"x" * 100), "corrupt_document"),
    "cut docx": ("docx", files.base64_of(files.word()[:-200]), "corrupt_document"),
    "docx without a body": (
        "docx", files.base64_of(files.repacked(files.word(), {"word/document.xml": None})), "corrupt_document",
    ),
    "zip bomb": (
        "docx", files.base64_of(files.repacked(files.word(), {"word/media/bomb.bin": bytes(300 << 20)})),
        "document_too_large",
    ),
    "external entity": (
        "docx",
        files.base64_of(
            files.word_with(
                "<w:p><w:r><w:t>&a;</w:t></w:r></w:p>",
                before='<!DOCTYPE x [<!ENTITY a SYSTEM "file:///app/handlers/entry.py">]>',
            )
        ),
        "corrupt_document",
    ),
}  # fmt: skip


@pytest.mark.privilege("one of the files may be read by root only")
@pytest.mark.parametrize(("kind", "content", "code"), REFUSED.values(), ids=REFUSED)
def test_a_document_that_cannot_be_read_is_refused_with_a_code(
    documents: Handler, kind: str, content: Any, code: str
) -> None:
    """A sentence that says what to do, never a traceback of ours and never another file's content."""
    assert code == documents.code({"document_type": kind, "content": content, "operation": "extract_text"})


@pytest.mark.parametrize(
    ("kind", "more", "code"),
    [
        ("pdf", {"pages": "3"}, "no_such_page"),
        ("txt", {"encoding": "ascii"}, "wrong_encoding"),
        ("txt", {"operation": "summarize"}, "no_text"),
    ],
)
def test_what_a_document_does_not_have_is_refused(
    documents: Handler, kind: str, more: dict[str, Any], code: str
) -> None:
    """A page, an encoding, a sentence."""
    content = {"base64": DOCUMENTS["pdf"] if kind == "pdf" else files.base64_of("…".encode())}
    assert code == documents.code({"document_type": kind, "content": content, "operation": "extract_text"} | more)


@pytest.mark.parametrize("path", ["../x.pdf", "/etc/passwd.pdf", "a//b.pdf", "a\\b.pdf", "./a.pdf", ""])
def test_a_path_that_could_leave_the_folder_is_refused_by_its_form(documents: Handler, path: str) -> None:
    """Before anything opens it."""
    parameters = {"document_type": "pdf", "content": {"path": path}, "operation": "extract_text"}
    assert "invalid_parameters" == documents.code(parameters)


# -- images


def inline(kind: str = "PNG", **options: Any) -> dict[str, str]:
    """The sample picture as an input."""
    return {"base64": files.base64_of(files.image(kind, **options))}


def opened(value: dict[str, Any]) -> Image.Image:
    """The image that came out, from its inline form."""
    image = Image.open(io.BytesIO(base64.b64decode(value["output"]["base64"])))
    image.load()
    return image


@pytest.mark.parametrize(
    ("operation", "options", "size"),
    [
        ("resize", {"width": 20}, (20, 10)),
        ("resize", {"width": 10, "height": 10, "mode": "fit"}, (10, 5)),
        ("resize", {"width": 10, "height": 10, "mode": "fill", "resampling": "nearest"}, (10, 10)),
        ("resize", {"width": 7, "height": 9, "mode": "exact"}, (7, 9)),
        ("crop", {"width": 10, "height": 5, "left": 3, "top": 2}, (10, 5)),
        ("thumbnail", {"size": 8}, (8, 4)),
        ("convert", {"format": "webp", "lossless": True}, (40, 20)),
        ("filter", {"name": "blur", "amount": 1.5}, (40, 20)),
        ("pipeline", {"steps": [
            {"operation": "crop", "width": 20, "height": 20}, {"operation": "filter", "name": "sepia"},
            {"operation": "thumbnail", "size": 5}, {"operation": "convert", "format": "jpeg"},
        ]}, (5, 5)),
    ],
)  # fmt: skip
def test_an_operation_gives_an_image_of_the_size_asked_for(
    images: Handler, operation: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    """As an artifact and, because it is small, inline: the same bytes."""
    result = images.run({"image_path": inline(), "operation": operation, "options": options})
    assert result.value is not None, result
    value = msgspec.json.decode(result.value)
    assert size == opened(value).size
    (artifact,) = result.artifacts
    assert artifact.content == base64.b64decode(value["output"]["base64"])
    assert [artifact.name] == [one["name"] for one in value["artifacts"]]
    assert () == result.violations


@pytest.mark.parametrize(
    "name",
    ["blur", "sharpen", "smooth", "edge", "emboss", "grayscale", "sepia", "invert", "autocontrast", "brightness",
     "contrast", "saturation"],
)  # fmt: skip
def test_a_filter_changes_pixels_and_keeps_transparency(images: Handler, name: str) -> None:
    """Every one of them, on an image with an alpha channel."""
    amount = {"amount": 1.7} if name in ("brightness", "contrast", "saturation") else {}
    parameters = {
        "image_path": inline(mode="RGBA"),
        "operation": "filter",
        "options": {"name": name, **amount},
    }
    after, before = opened(images.value(parameters)), files.picture(mode="RGBA")
    assert before.size == after.size
    if name != "smooth":  # which leaves even gradients as they are
        assert before.convert("RGB").tobytes() != after.convert("RGB").tobytes()
    if name not in ("blur", "sharpen", "smooth"):
        assert before.getchannel("A").tobytes() == after.getchannel("A").tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_format_is_told_by_content(images: Handler, kind: str) -> None:
    """And analyzed."""
    value = images.value({"image_path": inline(kind), "operation": "analyze"})
    assert (kind.lower(), 40, 20) == tuple(value["input"][name] for name in ("format", "width", "height"))
    assert 16 == len(value["perceptual_hash"]["hex"])
    assert 40 * 20 == sum(value["histogram"]["red"])
    assert 0.99 < sum(colour["share"] for colour in value["dominant_colors"]) < 1.01


def test_an_image_may_be_a_path_or_an_upload(images: Handler) -> None:
    """The same picture in each way gives the same."""
    parameters = {"operation": "analyze"}
    inline_value = images.value(parameters | {"image_path": {"base64": files.base64_of(files.photo())}})
    for path in ("photo.jpg", "/inputs/photo.jpg", {"path": "photo.jpg"}):
        assert inline_value == images.value(parameters | {"image_path": path})
    file_id = "file_" + "cd" * 16
    uploaded = images.value(parameters | {"image_path": {"file_id": file_id}}, {file_id: files.photo()})
    assert inline_value == uploaded


def test_metadata_stays_behind_unless_asked_for(images: Handler) -> None:
    """A photo's place and maker are found by analyze, and are in no image that comes out; it is turned upright."""
    assert "canary-maker" == images.value({"image_path": "photo.jpg", "operation": "analyze"})["exif"]["Make"]
    parameters = {"image_path": "photo.jpg", "operation": "resize", "options": {"width": 10}}
    stripped = images.value(parameters)
    assert (10, 20) == opened(stripped).size
    assert b"canary" not in base64.b64decode(stripped["output"]["base64"])
    kept = images.value(parameters | {"output": {"keep_metadata": True}})
    assert b"canary-maker" in base64.b64decode(kept["output"]["base64"])


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (files.png_header(100_000, 100_000), "image_too_large"),
        (files.png_header(50_000, 2_000), "image_too_large"),
        (files.image("PNG")[:-60], "corrupt_image"),
        (files.frames("GIF", 1001), "too_many_frames"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "unsupported_format"),
        (files.pdf(), "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (b"", "unsupported_format"),
    ],
    ids=["pixel bomb", "wide bomb", "cut off", "frame bomb", "postscript", "pdf", "svg", "empty"],
)
def test_an_image_that_cannot_be_read_is_refused_with_a_code(images: Handler, content: bytes, code: str) -> None:
    """Bombs before a pixel is decoded, other formats before their decoder is loaded."""
    assert code == images.code({"image_path": {"base64": files.base64_of(content)}, "operation": "analyze"})


@pytest.mark.parametrize(
    ("operation", "options"),
    [
        ("resize", {}),
        ("resize", {"width": 0}),
        ("resize", {"width": 10, "colour": "red"}),
        ("crop", {"width": 10}),
        ("filter", {"name": "nonsense"}),
        ("filter", {"name": "invert", "amount": 2}),
        ("filter", {"name": "blur", "amount": 1e9}),
        ("convert", {"format": "eps"}),
        ("pipeline", {"steps": []}),
        ("pipeline", {"steps": [{"operation": "analyze"}]}),
        ("rotate", {}),
    ],
)
def test_options_that_do_not_fit_are_refused(images: Handler, operation: str, options: dict[str, Any]) -> None:
    """By the type of the operation's options."""
    parameters = {"image_path": inline(), "operation": operation, "options": options}
    assert "invalid_parameters" == images.code(parameters)


def test_a_crop_outside_the_image_is_refused(images: Handler) -> None:
    """With the sizes."""
    parameters = {"image_path": inline(), "operation": "crop", "options": {"width": 41, "height": 5}}
    assert "crop_outside_image" == images.code(parameters)


def test_a_result_too_large_to_make_is_refused(images: Handler) -> None:
    """Before memory is taken for it."""
    parameters = {
        "image_path": inline(),
        "operation": "resize",
        "options": {"width": 16_000, "height": 16_000, "mode": "exact"},
    }
    assert "image_too_large" == images.code(parameters)

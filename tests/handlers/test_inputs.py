"""Files that go in: each of the four ways, and what is never opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handlers import inputs
from handlers.failures import Refusal
from handlers.parameters import registry as parameters
from handlers.parameters.files import InputFile

FILE_ID = "file_0123456789abcdef0123456789abcdef"
MAX_BYTES = 1 << 16


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's folder of files, with a secret beside it and a workspace of the run's own."""
    (tmp_path / "secret.txt").write_bytes(b"canary")
    (tmp_path / "files" / "sub").mkdir(parents=True)
    (tmp_path / "files" / "a.txt").write_bytes(b"in the folder")
    (tmp_path / "files" / "sub" / "é b.txt").write_bytes(b"below it")
    (tmp_path / "work" / "inputs").mkdir(parents=True)
    (tmp_path / "work" / "inputs" / FILE_ID).write_bytes(b"uploaded")
    monkeypatch.setenv("INPUTS_DIR", str(tmp_path / "files"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "files"


def read(**file: Any) -> bytes:
    """A file as a request gives it."""
    given = msgspec.json.decode(msgspec.json.encode(file), type=InputFile)
    return inputs.read(given, max_bytes=MAX_BYTES)


WAYS = {
    "text": ({"text": "grün"}, "grün".encode()),
    "base64": ({"base64": "Z3LDvG4="}, "grün".encode()),
    "base64 in lines": ({"base64": "Z3LD\r\nvG4=\n"}, "grün".encode()),
    "nothing as base64": ({"base64": ""}, b""),
    "path": ({"path": "a.txt"}, b"in the folder"),
    "path as it is seen inside": ({"path": "/inputs/a.txt"}, b"in the folder"),
    "path with a folder, a blank and an accent": ({"path": "sub/é b.txt"}, b"below it"),
    "uploaded file": ({"file_id": FILE_ID}, b"uploaded"),
}


@pytest.mark.parametrize(("file", "expected"), WAYS.values(), ids=WAYS)
def test_a_file_is_read(folder: Path, file: dict[str, str], expected: bytes) -> None:
    """Whichever way it is given."""
    assert expected == read(**file)


NO_PATH = ["/etc/passwd", "../secret.txt", "sub/../../secret.txt", "..", ".", "./a.txt", "sub/./x", "sub//x", "sub/",
           "/", "", "/inputs/", "/inputs/../secret.txt", "/inputs//etc/passwd", "sub\\x", "a\0b", "a\n", "a\x7f",
           "http://127.0.0.1/a.txt", "file:///etc/passwd", "x" * 513]  # fmt: skip


@pytest.mark.parametrize("path", NO_PATH)
def test_a_path_that_leads_elsewhere_is_no_parameter(folder: Path, path: str) -> None:
    """It is refused before a handler sees it, with what a path must be."""
    with pytest.raises(msgspec.ValidationError) as raised:
        read(path=path)
    assert "`$.path`" in str(raised.value)


@pytest.mark.parametrize("path", ["..a", "a..b/c", "...", "~/x", "C:", "inputs/x"])
def test_a_path_that_only_looks_odd_is_one(folder: Path, path: str) -> None:
    """It names a file below the folder, which is not there."""
    with pytest.raises(Refusal) as raised:
        read(path=path)
    assert "file_not_found" == raised.value.code


@pytest.mark.parametrize("file_id", ["file_", "file_" + "0" * 31, "file_" + "0" * 33, "file_" + "A" * 32,
                                     "../" + FILE_ID, FILE_ID + "\n", FILE_ID + "/.."])  # fmt: skip
def test_a_file_id_of_another_form_is_no_parameter(folder: Path, file_id: str) -> None:
    """So it can be joined to a folder."""
    with pytest.raises(msgspec.ValidationError):
        read(file_id=file_id)


@pytest.mark.parametrize("file", [{}, {"text": "a", "path": "a"}, {"text": None}, {"url": "x"}], ids=str)
def test_a_file_is_given_in_one_way(file: dict[str, Any]) -> None:
    """None and two are refused, and so is any other field."""
    with pytest.raises(msgspec.ValidationError):
        read(**file)


def test_links_are_not_followed(folder: Path) -> None:
    """Neither to a file nor through a folder, wherever they point."""
    (folder / "link.txt").symlink_to("../secret.txt")
    (folder / "inner.txt").symlink_to("a.txt")
    (folder / "up").symlink_to("..")
    (folder / "root").symlink_to("/")
    for path in ("link.txt", "inner.txt", "up/secret.txt", "root/etc/passwd", "up"):
        with pytest.raises(Refusal) as raised:
            read(path=path)
        assert "not_a_file" == raised.value.code


def test_what_is_no_regular_file_is_not_read_and_not_waited_for(folder: Path) -> None:
    """A FIFO without a writer would block for ever."""
    os.mkfifo(folder / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    for path in ("fifo", "socket", "sub", "a.txt/x"):
        with pytest.raises(Refusal) as raised:
            read(path=path)
        assert "not_a_file" == raised.value.code
    listener.close()


REFUSED = {
    "no such file": ({"path": "none.txt"}, "file_not_found"),
    "no such folder": ({"path": "none/a.txt"}, "file_not_found"),
    "too long a name": ({"path": "x" * 300}, "file_not_found"),
    "no such upload": ({"file_id": "file_" + "0" * 32}, "file_not_found"),
    "other characters": ({"base64": "Z3LDvG4*"}, "invalid_base64"),
    "an address of data": ({"base64": "data:text/plain;base64,Z3LDvG4="}, "invalid_base64"),
    "the alphabet for addresses": ({"base64": "_-8="}, "invalid_base64"),
    "no padding": ({"base64": "Z3LDvG4"}, "invalid_base64"),
    "more after the padding": ({"base64": "Z3LDvG4=Z3LD"}, "invalid_base64"),
    "letters beyond ASCII": ({"base64": "Z3LDé"}, "invalid_base64"),
    "too large a text": ({"text": "x" * (MAX_BYTES + 1)}, "file_too_large"),
    "too large a base64": ({"base64": "QUJD" * (MAX_BYTES // 3 + 1)}, "file_too_large"),
    "far too large a base64": ({"base64": "QUJD" * MAX_BYTES}, "file_too_large"),
}


@pytest.mark.parametrize(("file", "code"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused(folder: Path, file: dict[str, str], code: str) -> None:
    """With a stable code."""
    with pytest.raises(Refusal) as raised:
        read(**file)
    assert code == raised.value.code


def test_a_large_file_is_not_read(folder: Path) -> None:
    """Its size is looked at first: this one has holes of 1 TiB."""
    with open(folder / "large", "wb") as file:
        os.truncate(file.fileno(), 1 << 40)
    with pytest.raises(Refusal) as raised:
        read(path="large")
    assert "file_too_large" == raised.value.code


def test_without_a_folder_of_files_a_path_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that the operator sets."""
    monkeypatch.setenv("INPUTS_DIR", str(folder / "none"))
    with pytest.raises(Refusal, match="FILES_DIR") as raised:
        read(path="a.txt")
    assert "no_inputs_folder" == raised.value.code


def test_without_uploads_a_file_id_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was put into the workspace."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refusal, match="upload") as raised:
        read(file_id=FILE_ID)
    assert "file_not_found" == raised.value.code


def test_uploaded_files_of_a_task_are_found_in_its_parameters() -> None:
    """Each once, wherever a file may be named."""
    raw = msgspec.json.encode({"document_type": "pdf", "operation": "analyze", "content": {"file_id": FILE_ID}})
    assert (FILE_ID,) == parameters.file_ids(parameters.decode("document_processing", raw))

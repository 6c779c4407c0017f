"""A file as a task names it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Annotated

import msgspec
from msgspec import Meta

from handlers.parameters.patterns import (
    FILE_ID,
    INPUT_PATH,
    MAX_NAME_BYTES,
    MAX_PATH_CHARACTERS,
    PATH,
)

InputPath = Annotated[str, Meta(pattern=PATH, max_length=MAX_PATH_CHARACTERS)]
"""Path of a file below the operator's ``FILES_DIR``; ``/inputs/x`` is the same as ``x``."""

InputName = Annotated[str, Meta(pattern=INPUT_PATH, max_length=MAX_PATH_CHARACTERS)]
"""Name of a file below ``inputs`` of the workspace, with its folders; ``check_names`` bounds the bytes of each part."""

FileId = Annotated[str, Meta(pattern=FILE_ID)]


class InputFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file, given in exactly one of four ways."""

    text: Annotated[str | None, Meta(description="Its content, as text.", examples=["to be or not to be"])] = None
    base64: Annotated[str | None, Meta(description="Its content, in base64.", examples=["aGVsbG8="])] = None
    file_id: Annotated[
        FileId | None, Meta(description="Id of an uploaded file.", examples=["file_0123456789abcdef0123456789abcdef"])
    ] = None
    path: Annotated[
        InputPath | None,
        Meta(description="Path of a file below the operator's FILES_DIR.", examples=["reports/may.pdf"]),
    ] = None

    def __post_init__(self) -> None:
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        if len(given) != 1:
            found = ", ".join(f"`{name}`" for name in given) or "none"
            raise ValueError(f"A file has exactly one of `text`, `base64`, `file_id`, `path`; here it has {found}")


def check_names(files: Mapping[str, InputFile]) -> None:
    """Check that a file system takes the files, all together, by their names.

    Raises:
        ValueError: a part of a name is too long in UTF-8, or a file is where another one needs a folder.
    """
    uploaded = {file.file_id for file in files.values()}  # each lies in ``inputs`` by its id at first
    for name in files:
        *folders, _ = parts = name.split("/")
        if (longest := max(parts, key=lambda part: len(part.encode()))) and len(longest.encode()) > MAX_NAME_BYTES:
            raise ValueError(
                f"Each part of a file's name has at most {MAX_NAME_BYTES} bytes in UTF-8; `{longest[:20]}…` has "
                f"{len(longest.encode())}"
            )
        for folder in accumulate(folders, "{}/{}".format):
            if folder in files or folder in uploaded:
                raise ValueError(f"`{folder}` is a file, and `{name}` needs a folder of that name")


def is_path(content: str) -> bool:
    """Whether the content of a pdf or docx, given as a string, is a path: base64 has no dot, a file's name has one."""
    return "." in content

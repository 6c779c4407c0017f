"""A file as a task names it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from handlers.parameters.patterns import (
    FILE_ID,
    INPUT_NAME,
    MAX_NAME_BYTES,
    MAX_PATH_CHARACTERS,
    PATH,
)

InputPath = Annotated[str, Meta(pattern=PATH, max_length=MAX_PATH_CHARACTERS)]
"""Path of a file below the operator's ``FILES_DIR``; ``/inputs/x`` is the same as ``x``."""

InputName = Annotated[str, Meta(pattern=INPUT_NAME, max_length=MAX_NAME_BYTES)]
"""Name of a file in the workspace; ``check_names`` bounds its bytes."""

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


def check_names(names: Iterable[str]) -> None:
    """Check that a file system takes the names.

    Raises:
        ValueError: one of them is too long in UTF-8.
    """
    for name in names:
        if (size := len(name.encode())) > MAX_NAME_BYTES:
            raise ValueError(f"A file's name has at most {MAX_NAME_BYTES} bytes in UTF-8; `{name[:20]}…` has {size}")


def is_path(content: str) -> bool:
    """Whether the content of a pdf or docx, given as a string, is a path: base64 has no dot, a file's name has one."""
    return "." in content

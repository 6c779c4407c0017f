"""A file as a task names it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from handlers.parameters.patterns import (
    FILE_ID,
    INPUT_NAME,
    MAX_PATH_CHARACTERS,
    PATH,
)

InputPath = Annotated[str, Meta(pattern=PATH, max_length=MAX_PATH_CHARACTERS)]
"""Path of a file below the operator's ``FILES_DIR``; ``/inputs/x`` is the same as ``x``."""

InputName = Annotated[str, Meta(pattern=INPUT_NAME, max_length=128)]
"""Name of a file in the workspace."""

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


def is_path(content: str) -> bool:
    """Whether the content of a pdf or docx, given as a string, is a path: base64 has no dot, a file's name has one."""
    return "." in content

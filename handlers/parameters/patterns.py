"""The patterns of parameters, and what to say instead of them."""

from __future__ import annotations

from types import MappingProxyType

MAX_PATH_CHARACTERS = 512

UPLOADS_FOLDER = "inputs"
"""Folder of the workspace, which is the working directory, for the files that a task names."""

INPUTS_FOLDER = "/inputs"
"""Where a run sees the operator's ``FILES_DIR``. A path may begin with it."""

_PATH_PART = r"(?!\.\.?(/|$))[^/\\\x00-\x1f\x7f]+"

PATH = rf"^(/inputs/)?{_PATH_PART}(/{_PATH_PART})*$(?!\n)"

TABLE_NAME = r"^[a-z_][a-z0-9_]{0,62}$(?!\n)"

MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)"

# as browsers and people write them; no separator, no control character, nothing invisible that turns the direction of
# what follows (Unicode's bidirectional controls) or has no width, which lets one name look like another
_INPUT_NAME = (
    r"[^/\\\x00-\x20\x7f-\xa0.\-\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
    r"[^/\\\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]{0,254}"
)
INPUT_PATH = rf"^{_INPUT_NAME}(/{_INPUT_NAME})*$(?!\n)"
MAX_NAME_BYTES = 255
"""Of a file's name in UTF-8: NAME_MAX of limits.h."""

FILE_ID = r"^file_[0-9a-f]{32}$(?!\n)"

URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\x00-\x20\x7f\\@/?#]+([/?#][^\x00-\x20\x7f\\]*)?$(?!\n)"

PAGES = r"^[1-9][0-9]{0,6}(-[1-9][0-9]{0,6})?(,[1-9][0-9]{0,6}(-[1-9][0-9]{0,6})?)*$(?!\n)"

IN_WORDS = MappingProxyType(
    {
        PATH: "a path must be relative to FILES_DIR, such as `reports/may.pdf`, "
        "without `.`, `..`, `\\` and control characters",
        FILE_ID: "a file_id is `file_` and 32 hexadecimal digits, as the upload returned it",
        URL: "a url must begin with http:// or https://, and hold no user name, space or backslash",
        INPUT_PATH: "a file's name, such as `report (1).csv`, or its path, such as `pkg/mod.py`: no part of it is "
        "empty, longer than 255 characters, begins with a dot, hyphen or space, or holds a \\, a control or an "
        "invisible character",
        TABLE_NAME: "a table is named by small letters, digits and _, and begins with no digit",
        MODEL_NAME: "a model is named by letters, digits and . _ - that begin with a letter or digit",
        PAGES: "pages are numbers and ranges, such as `1-3,7`",
    }
)
"""Pattern → what to say instead of it."""


def in_words(message: str) -> str:
    """Replace a pattern, which says little to people, by what it asks for."""
    for pattern, words in IN_WORDS.items():
        message = message.replace(f"Expected `str` matching regex {pattern!r}", words)
    return message

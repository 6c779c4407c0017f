"""The parameters of ``custom_script``."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from handlers.parameters.files import InputFile, InputName

SCRIPT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.py")
"""A ``script`` that matches this as a whole names a file of the scripts directory; any other is Python source."""


MAX_SCRIPT_CHARACTERS = 1 << 20


class CustomScript(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs a Python script, or one of the named scripts."""

    script: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_SCRIPT_CHARACTERS,
            description="Python source, or the name of a file in the scripts directory (letters, digits, `_` and `-`, "
            "then `.py`). The result is what the script assigns to `result`, or what its `main(args)` returns.",
            examples=["result = sum(args)", "data_analysis.py"],
        ),
    ]
    args: Annotated[
        msgspec.Raw,
        Meta(
            description="Any JSON value; the script finds it in its global `args`.",
            examples=[[1, 2, 3], {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"}],
        ),
    ] = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    inputs: Annotated[
        dict[InputName, InputFile],
        Meta(
            max_length=64,
            description="Files that the script finds as `inputs/NAME` in its working directory. Files that it writes "
            "to `artifacts/` are kept with the task.",
            examples=[{"table.csv": {"text": "x,y\n1,2\n"}}],
        ),
    ] = {}

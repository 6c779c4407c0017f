"""The parameters of ``custom_script``."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from handlers.parameters.files import InputFile, InputName, check_names

SCRIPT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.py")
"""A ``script`` that matches this as a whole names a file of the scripts directory; any other is Python source."""


MAX_SCRIPT_CHARACTERS = 1 << 20


RULE = (
    "A script runs as `python script.py` runs it, with its input in the global `args` (None where there is none).",
    "Its result is the global `result`, unless that is None; else what its `main` returns; else null.",
    "`main` is called for it only if it has not called `main` itself; a coroutine is run to its end.",
    "A `main` of several parameters gets an object's fields by name, of one all of `args`; without, defaults hold.",
    "`sys.exit(0)` is a success, another code or words a failure; threads, `atexit` and open files are seen to.",
)
"""How a script begins and ends, in five sentences for who sends one; handlers/README.md has the details."""


class CustomScript(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs a Python script, or one of the named scripts."""

    script: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_SCRIPT_CHARACTERS,
            description="Python source, or the name of a file in the scripts directory (letters, digits, `_` and `-`, "
            "then `.py`). " + " ".join(RULE),
            examples=["result = sum(args)", "data_analysis.py"],
        ),
    ]
    args: Annotated[
        msgspec.Raw | msgspec.UnsetType,
        Meta(
            description="Any JSON value; the script finds it in its global `args`. Without it that is None, and the "
            "defaults of `main` hold; null is a value like any other.",
            examples=[[1, 2, 3], {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"}],
        ),
    ] = msgspec.UNSET
    inputs: Annotated[
        dict[InputName, InputFile],
        Meta(
            max_length=64,
            description="Files that the script finds as `inputs/NAME` in its working directory. A name may hold "
            "folders, and the script can import what ends in `.py`: `pkg/mod.py` is `pkg.mod`. Files that it writes "
            "to `artifacts/` are kept with the task.",
            examples=[
                {"table.csv": {"text": "x,y\n1,2\n"}},
                {"pkg/__init__.py": {"text": ""}, "pkg/mod.py": {"text": "def double(x):\n    return 2 * x\n"}},
            ],
        ),
    ] = {}

    def __post_init__(self) -> None:
        check_names(self.inputs)

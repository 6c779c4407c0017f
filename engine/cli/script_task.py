"""Makes the body of ``POST /execute`` out of a script file, for ``run`` and ``tasks submit``: both send the same."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any

import msgspec
import typer

from engine.model.errors import EngineError
from handlers.parameters.script import SCRIPT_NAME

Args = Annotated[str | None, typer.Option("--args", help="JSON that the script finds in its global `args`.")]
Files = Annotated[
    list[str] | None,
    typer.Option("--file", help="A file that the script finds in `inputs/`; may be given several times."),
]
PolicyName = Annotated[str | None, typer.Option("--policy", help="Run the script under this policy.")]
TimeoutS = Annotated[float | None, typer.Option("--timeout", help="Longest wall time of the script in seconds.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="A label, as NAME=VALUE; several times for several.")]


class ScriptFileError(EngineError):
    """A script file, or an option about it, that cannot become a task; the message is for people."""


class ScriptOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a command about the script that it sends; ``None`` and ``()`` where they are not given."""

    args: str | None = None
    files: Sequence[str] = ()
    policy: str | None = None
    timeout_s: float | None = None
    labels: Sequence[str] = ()

    def refuse(self) -> None:
        """Refuse options that stand beside a task in JSON, which has fields for all of them.

        Raises:
            ScriptFileError: one is given.
        """
        options = {"args": "args", "files": "file", "policy": "policy", "timeout_s": "timeout", "labels": "label"}
        given = [f"--{option}" for name, option in options.items() if getattr(self, name) not in (None, ())]
        if given:
            raise ScriptFileError(f"{', '.join(given)}: only for a script; a task in JSON has fields for them")


def script_body(path: str, options: ScriptOptions) -> bytes:
    """The task that runs a script file, as the body of ``POST /execute``.

    Raises:
        ScriptFileError: the file is no text, or an option cannot be read.
        OSError: a file cannot be read.
    """
    parameters: dict[str, Any] = {"script": _read_source(path)}
    if options.args is not None:
        parameters["args"] = _read_json(options.args)
    if options.files:
        parameters["inputs"] = _read_files(options.files)
    body: dict[str, Any] = {"task_type": "custom_script", "parameters": parameters}
    if options.policy is not None:
        body["policy"] = options.policy
    if options.timeout_s is not None:
        body["timeout_s"] = options.timeout_s
    if options.labels:
        body["labels"] = _read_labels(options.labels)
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:  # a name or a label, as the terminal gave it
        raise ScriptFileError("an option or the script holds bytes or half characters that are not UTF-8") from None


def _read_source(path: str) -> str:
    """In the encoding that its first lines declare (PEP 263), as Python reads it."""
    try:
        source = importlib.util.decode_source(Path(path).read_bytes())
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise ScriptFileError(f"{path}: is no Python source: {error}") from None
    # a source such as `hello.py`, an expression, would name one of the service's scripts
    return f"{source}\n" if SCRIPT_NAME.fullmatch(source) else source


def _read_json(text: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ScriptFileError(f"--args: is no JSON: {error}; write a text as '\"text\"', with its quotes") from None
    return msgspec.Raw(text.encode())


def _read_files(paths: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in paths:
        if (name := _input_name(path)) in found:
            raise ScriptFileError(f"--file {path}: another file is `inputs/{name}` already")
        found[name] = {"base64": base64.b64encode(Path(path).read_bytes()).decode("ascii")}
    return found


def _input_name(path: str) -> str:
    """The folders of a path are kept where it leads down from here, so that a project stays together."""
    pure = PurePath(path)
    return pure.name if pure.is_absolute() or ".." in pure.parts else pure.as_posix()


def _read_labels(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or name in found:
            why = "is there twice" if sign else "is not NAME=VALUE"
            raise ScriptFileError(f"--label {text}: {why}")
        found[name] = value
    return found

"""The named scripts: which exist, and what is in one. A client's text never becomes a path.

A name is looked up in a listing of the scripts folder; the file is then opened by that name within the opened folder,
without following links, and its bytes are read once. Whoever swaps the file meanwhile changes nothing.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from engine.model.errors import EngineError
from engine.model.result import Script
from handlers.parameters.script import SCRIPT_NAME

SCRIPT_BYTES = 1 << 20
OUR_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say something of this process or host, and nothing of the script."""


class ScriptError(EngineError):
    """A named script that cannot be run; the message is for the client."""


class NamedScript(msgspec.Struct, frozen=True, kw_only=True):
    """A named script as read."""

    source: str
    script: Script


def list_scripts(folder: Path) -> list[str]:
    """The names of the scripts in a folder: regular files only, no links.

    Raises:
        OSError: this process is short of descriptors or memory.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if SCRIPT_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            )
    except OSError as error:
        if error.errno in OUR_OWN:
            raise
        return []


class ScriptFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a named script, read without running it."""

    name: str
    description: str
    """First line of its docstring."""
    text: str
    """The whole docstring."""
    args: Any
    """JSON Schema of ``args``; null when the script says nothing."""
    sha256: str


def describe_scripts(folder: Path) -> list[ScriptFacts]:
    """Every named script, with what it says of itself. Its text is parsed and nothing of it is run.

    A script that cannot be read, or is no Python, is listed with nothing said of it.
    """
    return [_describe(folder, name) for name in list_scripts(folder)]


def _describe(folder: Path, name: str) -> ScriptFacts:
    try:
        found = read_script(folder, name)
        module = ast.parse(found.source)
    except (ScriptError, SyntaxError, ValueError, RecursionError):
        return ScriptFacts(name=name, description="", text="", args=None, sha256="")
    text = ast.get_docstring(module) or ""
    schema = next((_literal(one.value) for one in module.body if _assigns_args(one)), None)
    first = text.partition("\n")[0]
    return ScriptFacts(name=name, description=first, text=text, args=schema, sha256=found.script.sha256)


def _assigns_args(statement: ast.stmt) -> TypeGuard[ast.Assign | ast.AnnAssign]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    return any(isinstance(target, ast.Name) and target.id == "ARGS" for target in targets)


def _literal(value: ast.expr | None) -> Any:
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:
        return None


def read_script(folder: Path, name: str) -> NamedScript:
    """Read a named script.

    Raises:
        ScriptError: there is none of this name, or it is not a regular UTF-8 file of at most 1 MiB.
        OSError: this process is short of descriptors or memory.
    """
    if name not in list_scripts(folder):
        raise ScriptError(f"there is no script {name}")
    try:
        source = _read(folder, name)
        text = source.decode("utf-8")
    except OSError as error:
        if error.errno in OUR_OWN:
            raise
        raise ScriptError(f"the script {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScriptError(f"the script {name} is not UTF-8") from error
    return NamedScript(source=text, script=Script(name=name, sha256=hashlib.sha256(source).hexdigest()))


def _read(folder: Path, name: str) -> bytes:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ScriptError(f"the script {name} is not a regular file")
        source = file.read(SCRIPT_BYTES + 1)
    if len(source) > SCRIPT_BYTES:
        raise ScriptError(f"the script {name} is longer than {SCRIPT_BYTES} bytes")
    return source

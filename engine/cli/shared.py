"""The commands' shared parts: settings, sentences for errors, and how they print."""
# ruff: noqa: PLC0415  a command should not load what only the others need: --help takes 0.2 s, Litestar 0.5 s

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from engine.config.load import load_settings
from engine.config.settings import Settings
from engine.model.errors import EngineError
from engine.telemetry.logs import configure_logs, log_uncaught
from sandbox import SandboxError

PIPED_COLUMNS = 200
"""Of a table for a pipe."""
BORDERS = 3
"""Of one column: a line and two blanks."""
FEWEST_COLUMNS = 20
"""In which words are wrapped."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_TASK_HELP = 'A file with {"task_type": ..., "parameters": ...}; - reads it from stdin.'
TaskOrScript = Annotated[str, typer.Argument(help=f"A script, NAME.py. Or: {_TASK_HELP}")]
TaskOrScriptFile = Annotated[str | None, typer.Argument(help=f"A script, NAME.py. Or: {_TASK_HELP}")]


def load(overrides: dict[str, str] | None = None) -> Settings:
    """The settings of this process. Sets its logs up on the way.

    Args:
        overrides: variables that a command's options set.
    Raises:
        SettingsError: a variable is missing or invalid; it names them all.
    """
    os.environ.update(overrides or {})
    loaded = load_settings(os.environ)
    configure_logs(level=loaded.log_level, log_format=loaded.log_format)
    log_uncaught()
    return loaded


def note_in_audit_log(settings: Settings, event: str, entry: dict[str, Any]) -> None:
    """Have the audit log name what a command did, and who ran it; nothing where AUDIT_LOG is not set.

    Raises:
        AuditError: the log cannot be written.
    """
    from engine.telemetry.audit import AuditLog

    if settings.audit_log is not None:
        with contextlib.closing(AuditLog(settings.audit_log)) as audit:
            audit.note(event, {"uid": os.getuid(), "host": os.uname().nodename} | entry)


def load_with_servers() -> Settings:
    """The settings of a process that needs PostgreSQL and Redis.

    Raises:
        SettingsError: as ``load``; or DATABASE_URL or REDIS_URL is not set.
    """
    loaded = load()
    _ = loaded.servers
    return loaded


def read_body(file: str) -> bytes:
    """The bytes of a file, or of stdin for ``-``."""
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def print_version(is_asked: bool) -> None:
    """Print the version and end, if that is asked for."""
    if is_asked:
        from engine.model.versions import find_version

        version = find_version()
        print(f"unityai-worker {version.number}" + (f" ({version.note})" if version.note else ""))
        raise typer.Exit


def version_option(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """The words before the name of a command."""


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Turn what users and operators can fix into sentences on stderr and exit code 1."""
    try:
        yield
    except EngineError as error:
        fail(error.sentences)
    except SandboxError as error:
        fail([str(error)])
    except OSError as error:
        fail([_of_file(error) if error.filename else str(error)])


def _of_file(error: OSError) -> str:
    """What is wrong with a file; of one that is missing, where it was looked for."""
    name = str(error.filename)
    is_relative = isinstance(error, FileNotFoundError) and not os.path.isabs(name)
    return f"{name}: {error.strerror}" + (f"; looked for in {os.getcwd()}" if is_relative else "")


def fail(lines: Iterable[str]) -> None:
    """Print what is wrong, a line each, and end with exit code 1."""
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    raise typer.Exit(1)


def print_either(value: Any, as_json: bool, print_for_people: Callable[[Any], None]) -> None:
    """Print a value as JSON, or for people."""
    (print_json if as_json else print_for_people)(value)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.flush()


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table as wide as the terminal, or where its words do not fit side by side each row below the other.

    The first column, which names the row, is whole; nothing is cut, and no word is broken. For a pipe rows have one
    line each.
    """
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS)
    if _width_of_words(head, rows) > console.width:
        _print_below_each_other(head, rows, console.width)
        return
    columns = [Column(name, no_wrap=number == 0, overflow="fold") for number, name in enumerate(head)]
    table = Table(*columns, show_lines=len(rows) > 8)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _width_of_words(head: list[str], rows: list[list[str]]) -> int:
    """The columns that a table takes at least: of its first column whole texts, of each other its longest word."""
    from rich.text import Text

    width = 1
    for number, cells in enumerate(zip(head, *rows, strict=True)):
        texts = [Text.from_markup(cell).plain for cell in cells]
        words = texts if number == 0 else [word for text in texts for word in text.split()]
        width += max(map(len, words), default=0) + BORDERS
    return width


def _print_below_each_other(head: list[str], rows: list[list[str]], width: int) -> None:
    """Print each row as its name, with the other values below it."""
    from rich.text import Text

    label = max(map(len, head)) + 4
    for row in rows:
        name, *others = (Text.from_markup(cell).plain for cell in row)
        print(name)
        for title, value in zip(head[1:], others, strict=True):
            if value:
                print_field(f"  {title}", value, label=label, width=width)


def print_field(title: str, value: str, *, label: int, width: int | None = None) -> None:
    """Print a value beside its title; on a terminal its further lines begin below its first, and no word is broken."""
    first = f"{title:<{label}}"
    columns = width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    if columns is None or columns < label + FEWEST_COLUMNS:
        print(first + value)
        return
    print(
        textwrap.fill(
            value,
            columns,
            initial_indent=first,
            subsequent_indent=" " * label,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )

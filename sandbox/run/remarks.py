"""What is said of an end beside its reason, as parts of the message for people. Nothing is decided here.

Names come from the run: they are shown in printable characters, and few of them.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_NAMES = 5
MAX_LAST_WORDS = 300


def of_a_kill(waits_for: Sequence[str], left_open: Sequence[str]) -> str:
    """What a run that we killed still had to do.

    Args:
        waits_for: what its end waited for, in its own words: names of threads, or ``atexit``.
        left_open: paths of the files that it had open for writing.
    """
    parts = []
    if waits_for:
        parts.append(f"the script itself had ended and its result was there; the run waited for: {_list(waits_for)}")
    if left_open:
        parts.append(f"still open for writing, so perhaps not whole: {_list(left_open)}")
    return "".join(f"; {part}" for part in parts)


def of_last_words(stderr: str) -> str:
    """The last line of what was printed to stderr by a run that left with a code and no more."""
    lines = stderr.strip().splitlines()
    return f"; the last line on stderr: {_printable(lines[-1][:MAX_LAST_WORDS])}" if lines else ""


def of_strays(folders: Sequence[str]) -> str:
    """Folders that look as if their files were meant to be kept."""
    if not folders:
        return ""
    return f"; not kept, because only the folder artifacts/ of the first working directory is: {_list(folders)}"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(_printable(name[:100]) for name in names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)

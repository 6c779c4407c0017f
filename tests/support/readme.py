"""The project's Markdown as data: its files, its code blocks, and the requests that its examples make."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "localhost:8001"
"""Where every example expects the service."""
_DIFFERS = {"task_id", "created_at", "started_at", "finished_at", "usage", "layers", "sha256"}
_NO_WAY = ("connection_failed", "dns_failed", "timeout")
_SKIPPED = {
    ".venv",
    ".libraries",
    ".git",
    ".data",
    "models",
    "node_modules",
    ".clients",
    ".compose",
    ".sbom",
    ".pytest_cache",
}
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of code."""

    page: str
    """Path of its file, from the project's folder."""
    line: int
    language: str
    text: str
    start: int
    """Where its text stands in the page."""
    section: str
    """The heading above it."""

    @property
    def where(self) -> str:
        """Page and line, for the name of a test."""
        return f"{self.page}:{self.line}"


class Example(NamedTuple):
    """A ``curl`` command that a page shows, with the answer that the page shows below it."""

    where: str
    method: str
    target: str
    headers: dict[str, str]
    body: str | None
    picks: str | None
    """The field that ``| jq .FIELD`` picks from the answer."""
    shown: Block | None
    """The JSON that the page shows as the answer."""

    @property
    def request(self) -> dict[str, Any]:
        """The JSON that it sends."""
        return dict(json.loads(self.body or "{}"))

    def send(self, client: httpx.Client) -> Any:
        """The whole answer. Where the example names a key (``$KEY``), it is the client's own."""
        own = {name: value for name, value in self.headers.items() if "$KEY" not in value}
        return client.request(self.method, self.target, headers=own, content=self.body).json()


def pages() -> list[str]:
    """Every Markdown file of the project."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(str(path) for path in found if _SKIPPED.isdisjoint(path.parts))


def read_page(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The code blocks of a page, or those in one language."""
    text = read_page(page)
    found = [
        Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 1,
            language=match["language"],
            text=match["text"],
            start=match.start("text"),
            section=_HEADING.findall(_FENCE.sub("", text[: match.start()]))[-1],
        )
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if language in (None, block.language)]


def examples(page: str) -> Iterator[Example]:
    """The requests of a page's ``sh`` blocks, each with the ``json`` block that stands right after its own block."""
    found = blocks(page)
    text = read_page(page)
    for block, following in zip(found, [*found, None][1:], strict=True):
        if block.language == "sh" and is_requests_only(block):
            commands = curl_commands(block)
            end = block.start + len(block.text)
            follows = (
                following and following.language == "json" and text[end : following.start].split() == ["```", "```json"]
            )
            for number, command in enumerate(commands):
                is_last = number == len(commands) - 1
                name = block.where if len(commands) == 1 else f"{block.where}-{number}"
                yield _example(name, command, following if is_last and follows else None)


def is_requests_only(block: Block) -> bool:
    """Whether a ``sh`` block does nothing but ask the service by ``curl``."""
    return all(command[0] == "curl" for command in _commands(block.text))


def curl_commands(block: Block) -> list[list[str]]:
    """The ``curl`` commands of a ``sh`` block, as words."""
    return [command for command in _commands(block.text) if command[0] == "curl"]


def format_json(value: Any, *, width: int = 118, column: int = 0, indent: int = 1, after: int = 0) -> str:
    """JSON in few lines: short members share a line, and what takes several lines has these for itself.

    Args:
        value: anything that JSON has.
        width: of a line.
        column: where its first line begins.
        indent: where its further lines begin.
        after: characters that must fit behind it.
    """
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or column + len(flat) + after <= width:
        return flat
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(value)
    members = list(value.values()) if isinstance(value, dict) else value
    text, at, is_alone = "{["[isinstance(value, list)], column + 1, False
    for number, (name, member) in enumerate(zip(names, members, strict=True)):
        comma = "," if number < len(members) - 1 else "}]"[isinstance(value, list)]
        size = len(name) + len(json.dumps(member, ensure_ascii=False)) + len(comma)
        if number and (is_alone or at + 1 + size + after > width):
            text, at = f"{text}\n{' ' * indent}", indent
        elif number:
            text, at = f"{text} ", at + 1
        inside = len(comma) + (after if number == len(members) - 1 else 0)
        shown = _format_member(name, member, width=width, column=at, indent=indent + 1, after=inside)
        text, is_alone = text + shown + comma, "\n" in shown
        at = len(text) - text.rfind("\n") - 1 if "\n" in text else column + len(text)
    return text


def _format_member(name: str, value: Any, *, width: int, column: int, indent: int, after: int) -> str:
    """A member with its name. A value that is too long for the rest of the line, and has no parts, gets the next."""
    shown = format_json(value, width=width, column=column + len(name), indent=indent, after=after)
    fits = column + len(name) + len(shown.partition("\n")[0]) + after <= width
    return f"{name}{shown}" if fits or not name else f"{name.rstrip()}\n{' ' * indent}{shown}"


def comparable(answer: Any) -> Any:
    """An answer without what differs from run to run: times, ids, hashes, what was used, and the kernel's layers."""
    if isinstance(answer, list):
        return [comparable(value) for value in answer]
    if not isinstance(answer, dict):
        return re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", answer) if isinstance(answer, str) else answer
    return {name: _form(value) if name in _DIFFERS else comparable(value) for name, value in answer.items()}


def _form(value: Any) -> Any:
    """Only which names and what types of values there are."""
    if isinstance(value, dict):
        return {name: _form(inner) for name, inner in value.items()}
    return [_form(inner) for inner in value] if isinstance(value, list) else type(value).__name__


def without_way(answer: Any) -> bool:
    """Whether a task ended because no network leads to its host."""
    if not isinstance(answer, dict) or answer.get("exit_reason") != "error":
        return False
    return answer["error"]["code"] in _NO_WAY or "ProxyError" in answer["error"]["type"]


def _commands(text: str) -> list[list[str]]:
    """The commands of a shell script whose lines do no more than name a program and its arguments."""
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars="\n")
    lexer.whitespace, lexer.whitespace_split = " \t", True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) == {"\n"}:
            found.append([])
        else:
            found[-1].append(word)
    return [command for command in found if command]


def _example(where: str, command: list[str], shown: Block | None) -> Example:
    parser = argparse.ArgumentParser(prog="curl", exit_on_error=False)
    parser.add_argument("target")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d")
    parser.add_argument("-X", default=None)
    bar = command.index("|") if "|" in command else len(command)
    given = parser.parse_args(command[1:bar])
    match command[bar:]:
        case []:
            picks = None
        case ["|", "jq", field] if re.fullmatch(r"\.\w+", field):
            picks = field[1:]
        case rest:
            raise ValueError(f"{where}: {' '.join(rest)}: only | jq .FIELD is understood here")
    headers = dict(header.split(": ", 1) for header in given.H)
    method = given.X or ("POST" if given.d else "GET")
    return Example(where, method, given.target.removeprefix(ADDRESS), headers, given.d, picks, shown)

"""The project's Markdown: its tables are the engine's own, its links lead somewhere, its lines fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.config.load import markdown_tables
from engine.model.status import TASK_TYPES, Status
from sandbox import ExitReason
from tests.attacks.table import ROWS
from tests.support.readme import ROOT, blocks, pages, read_page

LANGUAGES = ("sh", "python", "javascript", "json", "text", "toml", "diff")
LINE = 120
README_LINES = 150
AVOIDED = ("box", "jail", "judge", "verdict", "submission", "executor", "runner", "manager", "helper", "util", "mend")
"""Words that the glossary has another word for."""
WORDS = (
    "task", "task_type", "parameters", "handler", "attempt", "job", "policy", "limits", "workspace", "inputs",
    "artifacts", "zygote", "child", "supervisor", "violation", "usage", "result", "status", "exit_reason",
)  # fmt: skip
"""One for each thing, everywhere: in code, API, documentation and metrics."""
TOUR_FILES = 15
_LINK = re.compile(r"\]\((?P<target>[^)\s]*)\)")
_HEADING = re.compile(r"^#+ (?P<title>.*)$", re.MULTILINE)


def _prose(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", read_page(page), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: str) -> set[str]:
    """List the anchors of its headings, by GitHub's rule."""
    titles = [re.sub(r"[`*]|\]\(.*?\)|\[", "", found["title"]) for found in _HEADING.finditer(_prose(page))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_settings_table_is_the_one_that_the_engine_prints() -> None:
    """A variable that is added, or whose default changes, must change the page of settings."""
    text = read_page("engine/config/README.md")
    found = re.findall(r"^<!-- settings: [^\n]* -->\n(.*?)\n<!-- /settings -->$", text, re.DOTALL | re.MULTILINE)
    assert [markdown_tables()] == found
    assert 1 == text.count("<!-- settings: ")


def test_every_package_has_a_readme() -> None:
    """A newcomer finds what each folder is."""
    names = ("engine", "sandbox", "handlers", "scripts", "policies", "tests", "engine/api", "engine/config")
    assert [] == [name for name in names if not (ROOT / name / "README.md").is_file()]


def test_the_readme_is_short() -> None:
    """It fits a few screens; the rest stands beside what it describes."""
    assert len(read_page("README.md").splitlines()) <= README_LINES


@pytest.mark.parametrize("page", pages())
def test_lines_fit(page: str) -> None:
    """No line outside a table is longer than a line of code may be, but for those that a program reads: JSON."""
    lines = enumerate(read_page(page).splitlines(), 1)
    assert [] == [
        f"{page}:{number}"
        for number, line in lines
        if len(line) > LINE and not line.lstrip().startswith(("|", '{"date":'))
    ]


@pytest.mark.parametrize("page", pages())
def test_links_resolve(page: str) -> None:
    """Every link within the project leads to a file, and to a heading where it names one."""
    broken = []
    for target in (found["target"] for found in _LINK.finditer(_prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in _anchors(str(file.resolve().relative_to(ROOT)))):
            broken.append(target)
    assert [] == broken


@pytest.mark.parametrize("page", pages())
def test_blocks_name_their_language(page: str) -> None:
    """Every runnable block is marked as such, so that a test runs it."""
    assert [] == [block.where for block in blocks(page) if block.language not in LANGUAGES]


@pytest.mark.parametrize("page", pages())
def test_pages_keep_to_the_glossary(page: str) -> None:
    """One word per thing, and none of those that it replaces. Names in code may be others' names."""
    words = set(re.findall(r"[a-z]+", re.sub(r"`[^`]*`", "", _prose(page)).lower()))
    assert [] == [word for word in AVOIDED if not words.isdisjoint((word, f"{word}s", f"{word}ed"))]


def test_the_readme_explains_every_word() -> None:
    """The table of words has all of them, and as many meanings as words in each row."""
    rows = read_page("README.md").partition("| word | meaning |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert sorted(WORDS) == sorted(word for words, _ in cells for word in words.split(", "))
    assert [] == [words for words, meanings in cells if words.count(",") != meanings.count(";")]


def test_the_tour_is_short() -> None:
    """From ``POST /execute`` to the result: few files, each entered once."""
    tour = read_page("engine/README.md").partition("## The tour")[2].partition("\n## ")[0]
    files = re.findall(r"^\d+\. \[[^]]*\]\(([^)]*)\): ", tour, re.MULTILINE)
    assert 1 < len(files) <= TOUR_FILES
    assert sorted(set(files)) == sorted(files)


def test_the_interface_page_has_every_word_of_an_answer() -> None:
    """Every exit reason has its row, and every status and task type is named."""
    text = read_page("engine/api/README.md")
    assert [] == [reason for reason in ExitReason if f"| `{reason}` |" not in text]
    assert [] == [word for word in (*Status, *TASK_TYPES) if f"`{word}`" not in text]


def test_promise_of_the_sandbox_names_tests_that_there_are() -> None:
    """Each row of the table names at least one file or row of attacks, and each that it names exists."""
    _, _, rest = read_page("sandbox/README.md").partition("## Promises, and the test that holds each\n")
    rows = [line.split("|") for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    ids = {row.id for row in ROWS}
    known = ids | {one.partition("-")[0] for one in ids}
    assert len(rows) > 20
    for _, promise, held_by, _ in rows:
        files, attacks = re.findall(r"`([^`]+)`", held_by), re.findall(r"\b[A-Z]{2,4}(?:-\d\d)?\b", held_by)
        assert files or attacks, promise
        assert [] == [file for file in files if not (ROOT / file).is_file()], promise
        assert set() == set(attacks) - known, promise


def test_pages_are_found() -> None:
    """The tests above look at something."""
    assert {"README.md", "CONTRIBUTING.md", ".github/deploy/README.md", "engine/api/README.md"} <= set(pages())
    assert all(Path(ROOT / page).is_file() for page in pages())

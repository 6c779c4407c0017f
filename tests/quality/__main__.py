"""``python -m tests.quality``: fetches the labelled texts, measures, and writes the table of README.md here.

With ``--samples`` it draws the small samples anew that ``test_quality`` measures.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from tests.quality import measure, sources
from tests.quality.measure import Figure
from tests.support.entry_process import ROOT

HERE = Path(__file__).parent
SAMPLES = HERE / "samples"
README = HERE / "README.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
PER_SOURCE, PER_LANGUAGE = 60, 5
CATALOGUES = {
    "Django": ("django==5.2.19", r"locale/([A-Za-z_]+)/LC_MESSAGES/django\.po$"),
    "Sphinx": ("sphinx==9.0.4", r"locale/([A-Za-z_]+)/LC_MESSAGES/sphinx\.po$"),
}
LANGUAGES = frozenset(
    [
        "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi", "hr", "hu", "id",
        "it", "ja", "ko", "lt", "lv", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sr", "sv", "th", "tr", "uk",
        "vi", "zh",
    ]
)  # fmt: skip
"""Those of the world's largest and of Europe's official ones that the catalogues have."""


def main() -> None:
    """Measure all, or draw the samples."""
    os.environ["MODELS_DIR"] = str(ROOT / "models")
    if "--samples" in sys.argv:
        draw()
        return
    lines = ["| what | n | here | instead |", "|---|--:|--:|--:|"]
    for figure in (*of_sentiment(), *of_topics(), measure.of_names(sources.tweets_with_names())):
        print(figure, flush=True)
        lines.append(str(figure))
    lines += ["", "| language of texts of at most 30 characters | n | answered | of these right | py3langid alone |",
              "|---|--:|--:|--:|--:|"]  # fmt: skip
    for name in CATALOGUES:
        lines += of_languages(name, interface(name))
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


def of_sentiment() -> list[Figure]:
    """Of each source the part that is for tests."""
    rows = [row for row in sources.rated() if row.for_test]
    return [
        figure
        for source in sources.RATED
        for figure in measure.of_sentiment([row for row in rows if row.source == source], source)
    ]


def of_topics() -> list[Figure]:
    """One-line descriptions of Debian's packages, whose maintainers chose the section."""
    rows = [(row[0], row[1]) for row in json.loads((SAMPLES / "topics.json").read_text(encoding="utf-8"))]
    return [measure.of_topics(rows, "15 sections of Debian")]


def interface(name: str) -> list[tuple[str, str]]:
    """(language, text) of a catalogue."""
    texts = sources.interface_texts(*CATALOGUES[name])
    return [(language, text) for language, found in sorted(texts.items()) if language in LANGUAGES for text in found]


def of_languages(name: str, rows: list[tuple[str, str]]) -> list[str]:
    """Lines for all languages and for English."""
    lines = []
    for about, part in ((name, rows), (f"{name}, English", [row for row in rows if row[0] == "en"])):
        given, right = measure.answered(part, measure.answer_of)
        _, alone = measure.answered(part, measure.by_langid)
        lines.append(f"| {about} | {len(part):,} | {given:.1%} | {right:.1%} | {alone:.1%} |")
        print(lines[-1], flush=True)
    return lines


def draw() -> None:
    """Write rated.json and interface.json. The other two come from a Debian system's list of packages."""
    chance = random.Random(16)
    rows = [row for row in sources.rated() if row.for_test]
    rated = [
        row
        for source in sources.RATED
        for row in chance.sample([row for row in rows if row.source == source], PER_SOURCE)
    ]
    write("rated.json", [list(row) for row in rated])
    drawn = []
    for name in CATALOGUES:
        found = interface(name)
        for language in sorted({row[0] for row in found}):
            texts = [row for row in found if row[0] == language]
            drawn += chance.sample(texts, min(PER_LANGUAGE, len(texts)))
    write("interface.json", [list(row) for row in drawn])


def write(name: str, rows: list[list[object]]) -> None:
    """One row a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (SAMPLES / name).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()

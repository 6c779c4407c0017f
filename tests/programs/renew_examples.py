"""Asks a real service the requests of the project's Markdown again, and writes down what it answers.

``python -m tests.programs.renew_examples``; look at what has changed before you commit it. Of a request whose host no
network leads to, only what does not depend on the run's end is renewed.
"""

from __future__ import annotations

import json
from typing import Any

import httpx

from engine.dev.demo import own_service
from tests.support.readme import ROOT, Example, comparable, examples, format_json, pages, read_page, without_way

KEPT_OF_AN_END = ("status", "exit_reason", "exit_code", "result", "error", "message", "usage")


def main() -> None:
    """Renew every page that shows an answer."""
    with own_service() as url, httpx.Client(base_url=url, timeout=90) as client:
        for page in pages():
            text = read_page(page)
            for example in reversed(list(examples(page))):  # from the end, so that the places before it stay
                if example.shown:
                    start = example.shown.start
                    text = text[:start] + renew(example, client) + text[start + len(example.shown.text) :]
            (ROOT / page).write_text(text, encoding="utf-8")


def renew(example: Example, client: httpx.Client) -> str:
    """The text of the block that shows an example's answer. It stays as it is where only times and ids differ."""
    old: Any = json.loads(example.shown.text) if example.shown else None
    answer = example.send(client)
    if without_way(answer):
        kept = {} if example.picks else {name: old[name] for name in KEPT_OF_AN_END if name in old}
        answer = answer | kept if kept else {example.picks: old}
    new = answer[example.picks] if example.picks else answer
    same = example.shown is not None and comparable(old) == comparable(new)
    return example.shown.text if same and example.shown else f"{format_json(new)}\n"


if __name__ == "__main__":
    main()

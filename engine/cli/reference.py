"""``python -m engine settings`` and ``metrics``: the tables that the code itself is made from."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.shared import print_table
from engine.config.load import variables

AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown, as in the README.")]


def settings(markdown: AsMarkdown = False) -> None:
    """List every environment variable: its default, what is allowed, its effect."""
    rows = [[v.env, v.default, v.allowed, v.effect] for v in variables()]
    head = ["variable", "default", "allowed", "effect"]
    if markdown:
        print("\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]))
    else:
        print_table(head, rows)


def metrics(markdown: AsMarkdown = False) -> None:
    """List every metric: its type, its labels, which process has it, what it means."""
    from engine.telemetry.metric_families import describe_families, markdown_table

    if markdown:
        print(markdown_table())
    else:
        print_table(["metric", "type", "labels", "from", "meaning"], describe_families())

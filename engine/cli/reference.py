"""``python -m engine settings`` and ``metrics``: the tables that the code itself is made from."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.shared import print_table
from engine.config.load import describe_variables, markdown_tables

AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown, as the project's pages have it.")]


def settings(markdown: AsMarkdown = False) -> None:
    """List every environment variable: default, allowed values, effect."""
    if markdown:
        print(markdown_tables())
    else:
        print_table(["variable", "default", "allowed", "effect"], describe_variables())


def metrics(markdown: AsMarkdown = False) -> None:
    """List every metric: its type, its labels, which process has it, what it means."""
    from engine.telemetry.metric_families import describe_families, markdown_table

    if markdown:
        print(markdown_table())
    else:
        print_table(["metric", "type", "labels", "from", "meaning"], describe_families())

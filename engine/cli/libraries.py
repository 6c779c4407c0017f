"""``python -m engine libraries ...``: what scripts and handlers may import."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import typer

from engine.cli.shared import load, sentences

app = typer.Typer(help="Libraries that scripts and handlers may import: sets in LIBRARIES_DIR.", no_args_is_help=True)


@app.callback()
def libraries() -> None:
    """Sets of libraries in LIBRARIES_DIR, which policies name."""


@app.command()
def install() -> None:
    """Make the delivered sets, handlers and scripts: what their locks name, digests checked."""
    with sentences():
        folder = load().libraries_dir
        from engine.config.install_libraries import install as make_sets

        make_sets(folder, lambda line: print(line, flush=True))

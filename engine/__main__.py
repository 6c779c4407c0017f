"""The command line: the names of the commands. What a command does stands in ``engine/cli``."""

from __future__ import annotations

import typer

from engine.cli import (
    audit,
    develop,
    doctor,
    files,
    keys,
    libraries,
    loadtest,
    local,
    mcp,
    policies,
    reference,
    serve,
    tasks,
)
from engine.cli.shared import version_option

app = typer.Typer(
    help="Runs code that nobody has read: an HTTP service with a durable queue and a single-use sandbox per task.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.callback()(version_option)

app.command()(serve.api)
app.command()(serve.worker)
app.command()(local.run)
app.command()(local.check)
app.command()(doctor.doctor)
app.command()(local.models)
app.command()(reference.settings)
app.command()(reference.metrics)
app.command()(tasks.top)
app.add_typer(tasks.app, name="tasks")
app.add_typer(files.app, name="files")
app.add_typer(files.callbacks_app, name="callbacks")
app.add_typer(keys.app, name="keys")
app.add_typer(policies.app, name="policies")
app.add_typer(audit.app, name="audit")
app.add_typer(libraries.app, name="libraries")
app.command()(mcp.mcp)
app.command()(develop.up)
app.command()(develop.demo)
app.command()(develop.bench)
app.command()(loadtest.loadtest)


def main() -> None:
    """Run the command that the arguments name."""
    app()


if __name__ == "__main__":
    main()

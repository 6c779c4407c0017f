"""The command ``top``: the queue, the workers, and the tasks that run or ended last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from engine.cli.shared import BORDERS
from engine.telemetry.logs import escape_controls

if TYPE_CHECKING:
    from engine.cli.client import ServiceClient

RECENT = 15
COLOURS = {"queued": "yellow", "running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "magenta"}


def look(client: ServiceClient) -> dict[str, Any]:
    """The values that ``top`` shows.

    Raises:
        ServiceError: the service does not answer, or refuses.
    """
    running = client.get("/tasks", {"status": "running", "limit": RECENT})["tasks"]
    recent = client.get("/tasks", {"limit": RECENT})["tasks"]
    return {"health": client.health(), "running": running, "recent": recent}


def frame(seen: dict[str, Any]) -> Group:
    """One frame of ``top``: the queue, the workers, the running tasks and the newest ones."""
    health, queue = seen["health"], seen["health"]["queue"]
    oldest = queue["oldest_wait_s"]
    head = Text.assemble(
        (health["status"], "bold green" if health["status"] == "ok" else "bold red"),
        f"  waiting {_shown(queue['queued'])}  running {_shown(queue['running'])}  free slots {queue['free_slots']}",
        f"  oldest wait {oldest:.1f} s" if oldest else "",
        f"  {datetime.now(UTC):%H:%M:%S} UTC",
    )
    return Group(
        Panel(head),
        _workers(health["workers"]),
        tasks_table(seen["running"], title="running"),
        tasks_table(seen["recent"], title="newest"),
    )


class FittingTable:
    """A table with as many columns as fit: no id and no word is cut.

    What matters most stays. Columns of any length are folded.
    """

    def __init__(
        self, columns: dict[str, list[Text]], by_importance: Sequence[str], folded: str, *, title: str | None = None
    ) -> None:
        """
        Args:
            columns: name → cells, in the order in which they are shown.
            by_importance: their names, the one first that is always shown.
            folded: the column of any length.
            title: above the table.
        """
        self._columns, self._by_importance, self._folded = columns, by_importance, folded
        self._title = title

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's own protocol: the table for a console of so many columns."""
        names = self._fitting(options.max_width)
        table = Table(
            *(Column(name, no_wrap=name != self._folded, overflow="fold") for name in names), title=self._title
        )
        for row in zip(*(self._columns[name] for name in names), strict=True):
            table.add_row(*row)
        yield table

    def _fitting(self, width: int) -> list[str]:
        chosen, used = set(), 1
        for name in self._by_importance:
            cells = [len(name), *(cell.cell_len for cell in self._columns[name])]
            wants = BORDERS + (FOLDED_LEAST if name == self._folded else max(cells))
            if used + wants <= width or name == self._by_importance[0]:
                chosen.add(name)
                used += wants
        return [name for name in self._columns if name in chosen]


def tasks_table(tasks: list[dict[str, Any]], *, title: str | None = None) -> FittingTable:
    """A table of tasks, as ``GET /tasks`` lists them, one in each row."""
    columns = {name: [Text(show(task)) for task in tasks] for name, show in COLUMNS.items()}
    for cell, task in zip(columns["status"], tasks, strict=True):
        cell.stylize(COLOURS.get(task["status"], ""))
    return FittingTable(columns, BY_IMPORTANCE, "labels", title=title)


def _workers(workers: list[dict[str, Any]]) -> FittingTable:
    shown: dict[str, Callable[[dict[str, Any]], str]] = {
        "worker": lambda worker: str(worker["pid"]),
        "host": lambda worker: escape_controls(worker["host"]),
        "state": lambda worker: worker["state"],
        "running": lambda worker: str(worker["running"]),
        "slots": lambda worker: str(worker["slots"]),
        "ready": lambda worker: " ".join(f"{name}:{count}" for name, count in worker["ready"].items()),
        "profile": lambda worker: worker["isolation"]["profile"],
    }
    columns = {name: [Text(show(worker)) for worker in workers] for name, show in shown.items()}
    return FittingTable(columns, WORKERS_BY_IMPORTANCE, "ready", title="workers")


def _labels(task: dict[str, Any]) -> str:
    return escape_controls(", ".join(f"{name}={value}" for name, value in task["labels"].items()))


def _seconds(task: dict[str, Any]) -> str:
    """How long it has run, or ran at last."""
    if not task["started_at"]:
        return ""
    started = datetime.fromisoformat(task["started_at"])
    ended = datetime.fromisoformat(task["finished_at"]) if task["finished_at"] else datetime.now(UTC)
    return f"{max(0.0, (ended - started).total_seconds()):.2f}"


COLUMNS: MappingProxyType[str, Callable[[dict[str, Any]], str]] = MappingProxyType(
    {
        "task": lambda task: task["task_id"],
        "type": lambda task: task["task_type"],
        "status": lambda task: task["status"],
        "ended by": lambda task: task["exit_reason"] or "",
        "priority": lambda task: task["priority"],
        "attempts": lambda task: str(task["attempts"]),
        "accepted": lambda task: task["created_at"][:19].replace("T", " "),
        "seconds": _seconds,
        "labels": _labels,
    }
)
"""Name of a column of tasks → what it shows of one."""
BY_IMPORTANCE = ("task", "status", "ended by", "type", "seconds", "accepted", "labels", "attempts", "priority")
WORKERS_BY_IMPORTANCE = ("worker", "state", "running", "slots", "ready", "host", "profile")
FOLDED_LEAST = 24
"""Columns in which texts of any length are folded."""


def _shown(count: int | None) -> str:
    return "?" if count is None else str(count)

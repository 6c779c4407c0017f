"""The command ``top``: the queue, the workers, and the tasks that run or ended last."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

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
        f"   waiting {_shown(queue['queued'])}   running {_shown(queue['running'])}   free slots {queue['free_slots']}",
        f"   oldest wait {oldest:.1f} s" if oldest else "",
        f"   {datetime.now(UTC):%H:%M:%S} UTC",
    )
    return Group(
        Panel(head),
        _workers(health["workers"]),
        tasks_table(seen["running"], title="running"),
        tasks_table(seen["recent"], title="newest"),
    )


def tasks_table(tasks: list[dict[str, Any]], *, title: str | None = None) -> Table:
    """A table of tasks, one in each row."""
    table = Table(
        "task", "type", "status", "ended by", "priority", "attempts", "accepted", "seconds", "labels", title=title
    )
    for task in tasks:
        status = task["status"]
        labels = ", ".join(f"{name}={value}" for name, value in task["labels"].items())
        table.add_row(
            task["task_id"],
            task["task_type"],
            Text(status, style=COLOURS.get(status, "")),
            task["exit_reason"] or "",
            task["priority"],
            str(task["attempts"]),
            task["created_at"][:19].replace("T", " "),
            _seconds(task),
            escape(escape_controls(labels)),
        )
    return table


def _workers(workers: list[dict[str, Any]]) -> Table:
    table = Table("worker", "host", "state", "running", "slots", "ready", "profile", title="workers")
    for worker in workers:
        ready = ", ".join(f"{name} {count}" for name, count in worker["ready"].items())
        table.add_row(
            str(worker["pid"]), worker["host"], worker["state"], str(worker["running"]), str(worker["slots"]), ready,
            worker["isolation"]["profile"],
        )  # fmt: skip
    return table


def _seconds(task: dict[str, Any]) -> str:
    """How long it has run, or ran at last."""
    if not task["started_at"]:
        return ""
    started = datetime.fromisoformat(task["started_at"])
    ended = datetime.fromisoformat(task["finished_at"]) if task["finished_at"] else datetime.now(UTC)
    return f"{max(0.0, (ended - started).total_seconds()):.2f}"


def _shown(count: int | None) -> str:
    return "?" if count is None else str(count)

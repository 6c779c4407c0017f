"""Dashboard and alert rules name only what there is. ``make monitoring-test`` has Prometheus' own tool try them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.telemetry.metric_families import API_FAMILIES, WORKER_FAMILIES
from engine.telemetry.metrics import CALLBACK_OUTCOMES, EGRESS_DECISIONS, PROCESS_METRICS, SYSCALLS
from sandbox import ExitReason

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "monitoring"
OF_PROMETHEUS = {"job", "instance"}
FOREIGN = {"up": set[str](), **{name: set[str]() for name in PROCESS_METRICS}}
VALUES = {
    "exit_reason": {reason.value for reason in ExitReason},
    "status": {"queued", "running", "2xx", "3xx", "4xx", "5xx", "none"},
    "state": {"working", "draining", "silent"},
    "dependency": {"database", "redis"},
    "decision": set(EGRESS_DECISIONS),
    "outcome": set(CALLBACK_OUTCOMES),
    "syscall": SYSCALLS | {"other"},
}
WORDS = {"and", "or", "unless", "on", "ignoring", "bool"}


def series() -> dict[str, set[str]]:
    """Each series that there can be, and its labels."""
    found = dict(FOREIGN)
    for family in (*API_FAMILIES, *WORKER_FAMILIES):
        if family.kind == "histogram":
            found |= {f"{family.name}_{part}": set(family.labels) for part in ("sum", "count")}
            found[f"{family.name}_bucket"] = {*family.labels, "le"}
        else:
            found[family.name] = set(family.labels)
    return found


def faults(expression: str) -> list[str]:
    """List the names in an expression that do not exist."""
    known, wrong = series(), []
    for name, selector in re.findall(r"([a-z_]+)\{(.*?)\}", expression):
        for label, sort, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"(.*?)"', selector):
            if label not in known.get(name, set()) | OF_PROMETHEUS:
                wrong.append(f"{name} has no label {label}")
            elif sort in ("=", "!=") and label in VALUES and value not in VALUES[label]:
                wrong.append(f"{label} is never {value}")
    bare = re.sub(r'"[^"]*"|\{.*?\}|\[.*?\]', "", expression)
    labels = {label for group in re.findall(r"\b(?:by|without)\s*\((.*?)\)", bare) for label in group.split(",")}
    bare = re.sub(r"\b(?:by|without)\s*\(.*?\)", "", bare)
    named = {name for name in re.findall(r"\b[a-z_][a-z0-9_]*\b(?!\s*\()", bare) if name not in WORDS}
    wrong += [f"there is no metric {name}" for name in named - known.keys()]
    grouped = OF_PROMETHEUS.union(*(known.get(name, set()) for name in named))
    wrong += [f"nothing in it has the label {label.strip()}" for label in labels if label.strip() not in grouped]
    return wrong or ([] if named else ["names no metric"])


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return list(json.loads((FOLDER / "dashboard.json").read_text())["panels"])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alert_names_what_there_is(rule: dict[str, Any]) -> None:
    """Metrics, labels and their values exist; who is woken reads what happened and what to do."""
    assert [] == faults(rule["expr"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "action"} == set(rule["annotations"])
    templated = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    kept = set(re.findall(r"by \((.*?)\)", rule["expr"]))
    assert templated <= kept if "sum" in rule["expr"] else templated <= OF_PROMETHEUS | {"policy"}


def test_alerts_have_names_of_their_own() -> None:
    """Two rules of one name would be silenced together."""
    names = [rule["alert"] for rule in rules()]
    assert sorted(set(names)) == sorted(names)


def test_each_alert_is_tried_out() -> None:
    """``alerts_test.yml``, which promtool runs, has a case in which each rule fires."""
    tried = (FOLDER / "alerts_test.yml").read_text()
    assert [] == [rule["alert"] for rule in rules() if f'alertname="{rule["alert"]}"' not in tried]


@pytest.mark.parametrize("panel", [panel for panel in panels() if panel["type"] != "row"], ids=lambda at: at["title"])
def test_panel_names_what_there_is(panel: dict[str, Any]) -> None:
    """Each panel asks for metrics that exist, and its legend for labels that its expression keeps."""
    assert panel["targets"]
    for target in panel["targets"]:
        assert [] == faults(target["expr"])
        kept = {label.strip() for group in re.findall(r"by \((.*?)\)", target["expr"]) for label in group.split(",")}
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept | OF_PROMETHEUS


def test_every_metric_is_shown_or_watched() -> None:
    """A metric that nobody looks at is not worth its cost."""
    asked = " ".join([rule["expr"] for rule in rules()] + [t["expr"] for p in panels() for t in p.get("targets", ())])
    assert [] == [family.name for family in (*API_FAMILIES, *WORKER_FAMILIES) if family.name not in asked]


def test_panels_lie_side_by_side() -> None:
    """Ids are different, and no panel covers another."""
    ids = [panel["id"] for panel in panels()]
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels())
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert (len(set(ids)), len(set(cells)), True) == (len(ids), len(cells), max(x for x, _ in cells) < 24)


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("rate(unityai_tasks_done_total[5m])", "there is no metric unityai_tasks_done_total"),
        ('unityai_workers{status="silent"}', "unityai_workers has no label status"),
        ('unityai_workers{state="asleep"}', "state is never asleep"),
        ("sum by (tenant) (unityai_pool_ready)", "nothing in it has the label tenant"),
        ("unityai_task_queue_seconds > 1", "there is no metric unityai_task_queue_seconds"),
        ("vector(1)", "names no metric"),
    ],
)
def test_faults_are_found(expression: str, fault: str) -> None:
    """The test above can fail."""
    assert [fault] == faults(expression)


def test_scrape_configuration_has_the_jobs_that_rules_name() -> None:
    """Rules and dashboard select by job."""
    jobs = [job["job_name"] for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]]
    assert ["unityai-api", "unityai-worker"] == jobs


def test_rules_are_looked_at_as_often_as_the_quickest_alert_needs() -> None:
    """An alert that waits for 30 s fires after 30 s: looked at each minute, which is the default, it would be late."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]
    every_s = seconds(config["evaluation_interval"])
    assert every_s <= min(seconds(rule["for"]) for rule in rules() if "for" in rule) / 2
    assert every_s == seconds(yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["evaluation_interval"])


def seconds(duration: str) -> int:
    """A duration as Prometheus writes it, of one unit."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]

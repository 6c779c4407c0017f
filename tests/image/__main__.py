"""Builds the image and tries it in containers: ``python -m tests.image``, which ``make image-test`` calls.

Needs root and Debian's podman, runc, catatonit and debootstrap; no Docker, no image registry. What happens:

1. A base is made by debootstrap, and the image is built on it as anybody would. pip finds its index by this machine's
   own settings, which the build is handed as a secret.
2. Under each of three seccomp profiles (Podman's default, ours, what Docker's default comes to) an API and a worker
   are started from it as they are delivered (uid 1000, no capability, read-only root, secrets in files), and real
   tasks go through them.
3. Tests of the sandbox run in the same image under the same profiles, as uid 1000.

Everything lies in one folder, which is removed at the end; with ``--keep FOLDER`` it stays, and the next run builds
only what has changed. What this cannot show stands in tests/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.image.podman import Containers, Profile, profiles
from tests.image.service_in_containers import try_service

ROOT = Path(__file__).resolve().parents[2]

TOOLS = ("podman", "runc", "catatonit", "debootstrap")
SUITES = {
    # The kernel's part is the same under all three; what differs is which way the sandbox takes. So the whole of it
    # once, and of the others what tells them apart.
    "podman": [
        "tests/sandbox/test_lock_down.py",
        "tests/sandbox/test_exit_reasons.py",
        "tests/sandbox/test_harvest.py",
    ],
    "full": ["tests/sandbox", "tests/attacks"],
    "docker": ["tests/sandbox/test_unprivileged.py"],
}
LEFT_OUT = {
    "podman": {
        "test_identity_and_place": "runs see the container's name there",
    },
    "full": {
        "test_attack_succeeds_outside": "outside of the sandbox is inside of the container, which stops some, too",
        "test_unprivileged": "its own profile has its own turn",
        "test_no_namespace_can_be_entered": "the container refuses setns first, so that it is no violation",
        "test_names_of_denied_calls_are_few": "and calls that do not exist",
        "KERN-22": "likewise",
        "(test_ordinary_work_meets_no_denied_call and standard)": "Python 3.11.2 of the base has no filters in tarfile",
        "test_no_namespace_can_be_made": "/proc/sys is read-only: the second layer behind the filter is left out",
        "test_count_of_namespaces_that_is_zero_is_named": "likewise, so that no count can be set",
        "test_chroot_is_named": "the container refuses chroot",
        "test_the_start_does_not_grow_with_the_libraries": "no library can be loaded from /tmp, where they would be",
        "FD-10": "the project lies at /app, as the code does in the sandbox: finding that name proves nothing",
    },
    "docker": {
        "test_the_worker_is_an_ordinary_user": "a host that refuses nothing is not to be had there",
        "test_full_is_missed_where_capabilities_are_kept_back": "likewise",
        "test_auto_takes_full_where_it_can": "likewise",
        "(test_an_attack_outside_succeeds and trace)": "the container refuses pidfd_getfd itself",
    },
}


def main() -> int:
    """Everything in its order; the number of things that were not as they should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep images and layers there for the next run")
    keep = parser.parse_args().keep
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        print(f"needs root, and: apt-get install {' '.join(missing or TOOLS)}", file=sys.stderr)
        return 2
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="image-test-")))
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        containers = stack.enter_context(contextlib.closing(Containers(folder)))
        faults = build(containers)
        for profile in profiles(folder):
            faults += [f"{profile.name}: {fault}" for fault in try_service(containers, profile)]
            faults += [f"{profile.name}: {fault}" for fault in run_tests(containers, profile)]
    print("\n".join(["", *faults]) if faults else "\nall as it should be")
    return len(faults)


def build(containers: Containers) -> list[str]:
    """The image, and what is wrong with what is in it."""
    started = time.monotonic()
    containers.make_base()
    containers.build(ROOT, ROOT / "Containerfile", containers.IMAGE, {"BASE": containers.BASE})
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(ROOT / "requirements.lock", context)
        recipe = Path(__file__).with_name("Containerfile")
        containers.build(Path(context), recipe, containers.TESTS, {"IMAGE": containers.IMAGE})
    print(f"built in {time.monotonic() - started:.0f} s, {containers.size_mib(containers.IMAGE)} MiB", flush=True)
    return inspect(containers)


def inspect(containers: Containers) -> list[str]:
    """Files that the image has and must not have, or the other way round."""
    shell = "for name in gcc cc g++ clang ld as make pip pytest ruff; do command -v $name; done; "
    shell += (
        "python -m pip --version; ls /app; id -u; find / -xdev -perm /6000 -user 1000; find /app -writable -not -type l"
    )
    said = containers.run([containers.IMAGE, "-c", shell], "--entrypoint", "sh", "--user", "1000").stdout.split("\n")
    locks = ["requirements-handlers.lock", "requirements-scripts.lock"]  # `engine libraries add` begins with them
    expected = ["engine", "handlers", "models", "models.toml", "policies", *locks, "sandbox", "scripts", "1000", ""]
    return [] if said == expected else [f"the image holds {said}, expected {expected}"]


def run_tests(containers: Containers, profile: Profile) -> list[str]:
    """Tests of the sandbox in the image, as its user."""
    left_out = " or ".join(LEFT_OUT[profile.name])
    command = ["-m", "pytest", "-p", "no:cacheprovider", "-q", "-k", f"not ({left_out})", *SUITES[profile.name]]
    mounted = ("tests", "pyproject.toml", ".github")
    mounts = [option for name in mounted for option in ("--volume", f"{ROOT / name}:/app/{name}:ro")]
    variables = {"ENVIRONMENT": "", "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/examples", **profile.for_tests}
    given = [option for name, value in variables.items() for option in ("--env", f"{name}={value}")]
    options = [*mounts, *given, *profile.options, "--network", "none", "--entrypoint", "python"]
    ran = subprocess.run(containers.command([containers.TESTS, *command], *options), check=False)
    return [] if ran.returncode == 0 else [f"tests of the sandbox ended with {ran.returncode}"]


if __name__ == "__main__":
    sys.exit(min(main(), 1))

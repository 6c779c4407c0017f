"""Podman with a store of its own, and the seccomp profiles that containers are tried under."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.support import container_seccomp

PODMAN_DEFAULT = Path("/usr/share/containers/seccomp.json")
INCLUDE = "python3,python3-venv,ca-certificates"
RELEASE = "bookworm"
PROFILE_INSIDE = "/container-seccomp.json"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A seccomp profile of a container, and the isolation that must work under it."""

    name: str
    isolation: str
    file: Path
    settings: dict[str, str] = {}
    """The options that the service needs there beside the usual."""

    @property
    def options(self) -> list[str]:
        """Of ``podman run``; the file is mounted, too, for tests that must know it."""
        mount = f"{self.file}:{PROFILE_INSIDE}:ro"
        return ["--security-opt", f"seccomp={self.file}", "--volume", mount]

    @property
    def for_tests(self) -> dict[str, str]:
        """The variable by which tests learn what the container itself refuses."""
        return {container_seccomp.VARIABLE: PROFILE_INSIDE}


def profiles(folder: Path) -> list[Profile]:
    """The three that there are: see .github/deploy/README.md."""
    docker = folder / "docker-default.json"
    docker.write_text(json.dumps(container_seccomp.read_docker_default()), encoding="ascii")
    without_network = {"DISABLED_POLICIES": "web_scraping,custom_script_network"}
    return [
        Profile(name="podman", isolation="full", file=PODMAN_DEFAULT),
        Profile(name="full", isolation="full", file=container_seccomp.FULL),
        Profile(name="docker", isolation="unprivileged", file=docker, settings=without_network),
    ]


class Containers:
    """Podman as root, on plain folders and without systemd; nothing of it lies outside of ``folder``."""

    BASE = "localhost/image-test-base"
    IMAGE = "localhost/unityai-python-worker"
    TESTS = "localhost/image-test-tests"
    # The root is read-only, and /tmp as restricted as compose.yaml has it.
    AS_DELIVERED = (
        "--no-healthcheck", "--rm", "--init", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--pids-limit", "4096",
        "--tmpfs", "/tmp:rw,noexec,nosuid,nodev,size=2g,mode=1777",
    )  # fmt: skip
    BUILD_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
    LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._podman = [
            "podman", "--root", str(folder / "store"), "--runroot", str(folder / "run"),
            "--tmpdir", str(folder / "tmp"), "--runtime", "runc", "--storage-driver", "vfs",
            "--cgroup-manager", "cgroupfs", "--events-backend", "file",
        ]  # fmt: skip

    def podman(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """One podman command."""
        return subprocess.run([*self._podman, *arguments], text=True, **options)  # noqa: PLW1510 the caller says

    def make_base(self) -> None:
        """A minimal Debian with Python, as an image; made once."""
        if self.podman("image", "exists", self.BASE, check=False).returncode == 0:
            return
        root = self._folder / "base"
        shutil.rmtree(root, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={INCLUDE}", RELEASE, str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for name in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
            shutil.rmtree(root / name, ignore_errors=True)
        archive = self._folder / "base.tar"
        subprocess.run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."], check=True)
        self.podman("import", "--quiet", str(archive), self.BASE, check=True, stdout=subprocess.DEVNULL)
        archive.unlink()
        shutil.rmtree(root)

    def build(self, context: Path, recipe: Path, tag: str, arguments: Mapping[str, str]) -> None:
        """An image, from the layers that are there as far as they are the same.

        Raises:
            RuntimeError: it cannot be built; what was said last is in it.
        """
        settings, volumes = pip_settings(self._folder / "pip.conf")
        given = [option for name, value in arguments.items() for option in ("--build-arg", f"{name}={value}")]
        mounts = [option for path in volumes for option in ("--volume", f"{path}:{path}:ro")]
        built = self.podman(
            "build", "--quiet", "--layers", "--format", "docker", "--isolation", "chroot", *self.BUILD_LIMITS, *given,
            *mounts, "--secret", f"id=pip.conf,src={settings}", "--tag", tag, "--file", str(recipe), str(context),
            check=False, capture_output=True,
        )  # fmt: skip
        if built.returncode:
            raise RuntimeError(f"{recipe} cannot be built: {built.stderr[-4000:]}")

    def command(self, arguments: Sequence[str], *options: str) -> list[str]:
        """``podman run`` as the service is meant to be run, with further options."""
        return [*self._podman, "run", *self.AS_DELIVERED, *self.LIMITS, *options, *arguments]

    def run(self, arguments: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        return subprocess.run(self.command(arguments, *options), text=True, capture_output=True, check=False)

    def health_check(self, image: str) -> list[str]:
        """The command of the image's HEALTHCHECK. Podman needs systemd to repeat it; it is tried by itself here."""
        form = "{{json .HealthCheck.Test}}"
        shown = self.podman("image", "inspect", "--format", form, image, check=True, stdout=subprocess.PIPE)
        return list(json.loads(shown.stdout)[1:])

    def size_mib(self, image: str) -> int:
        """The size of an image on disk."""
        shown = self.podman("image", "inspect", "--format", "{{.Size}}", image, check=True, stdout=subprocess.PIPE)
        return int(shown.stdout) >> 20

    def close(self) -> None:
        """No container is left."""
        self.podman("rm", "--all", "--force", "--time", "0", check=False, stdout=subprocess.DEVNULL)
        self.podman("image", "prune", "--force", check=False, stdout=subprocess.DEVNULL)


def pip_settings(file: Path) -> tuple[Path, list[str]]:
    """This machine's settings of pip as one file, and what they name on its disk, which a build must see."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], text=True, capture_output=True, check=True)
    settings: dict[str, str] = {}
    for line in sorted(
        listed.stdout.splitlines(), reverse=True
    ):  # `:env:.NAME` comes last, and counts most, as for pip
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in ("global", ":env:", "install", "download"):
            settings[key] = value.strip("'").replace("\\n", "\n    ")
    file.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()), encoding="utf-8")
    file.chmod(0o600)
    words = [
        urllib.parse.unquote(word.removeprefix("file://")) for value in settings.values() for word in value.split()
    ]
    paths = {word for word in words if word.startswith("/") and Path(word).exists()}
    return file, sorted({str(Path(path).parent) if Path(path).name == "simple" else path for path in paths})

"""Fixtures that the sandbox's tests and the attacks share."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck

import sandbox
from tests.support.libraries import library_sets
from tests.support.synchronous import Sandbox

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Have hypothesis judge no test by the clock, and httpx read the certificates of the world once.

    On a busy machine making examples is slow, too. Reading the certificates takes 20 ms of processor time, and each of
    some thousand clients that tests make would do so, none of which needs them.
    """
    ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]  # same calls
    hypothesis.settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis.settings.load_profile("any-speed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the file in which ``tests.programs.suite`` wants to find the tests that failed."""
    parser.addoption("--failed-to", help="file that gets the id of each test that fails, a line each")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write down the tests that failed, where somebody asked for them."""
    file = terminalreporter.config.getoption("--failed-to")
    if file is not None:
        reports = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
        ids = dict.fromkeys(report.nodeid for report in reports)
        Path(file).write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A mark that needs a reason has one."""
    for item in items:
        for mark in (*item.iter_markers("privilege"), *item.iter_markers("slow")):
            if [str] != [type(argument) for argument in mark.args]:
                raise pytest.UsageError(f"{item.nodeid}: the mark {mark.name} needs a reason, in a sentence")


def pytest_collection_finish() -> None:
    """What was imported for the tests lives as long as they do: a collector that looks at it takes a sixth of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def host() -> sandbox.Host:
    """The layers that this host really offers."""
    return sandbox.probe_host()


@pytest.fixture(scope="session")
def policy() -> sandbox.Policy:
    """The policy as it is delivered, for requests that name pandas."""
    return sandbox.load_policies(ROOT / "policies")["custom_script"].loaded_with(1)


@pytest.fixture(scope="session")
def light_policy(policy: sandbox.Policy) -> sandbox.Policy:
    """The same grant with little loaded beforehand, for tests that start zygotes."""
    import msgspec  # noqa: PLC0415 of the sandbox's own imports, so surely there

    return msgspec.structs.replace(policy, preload=("handlers.custom_script",))


@pytest.fixture(scope="session")
def template() -> Iterator[sandbox.Template]:
    """A copy of the code, so that a test may compare it before and after."""
    folder = Path(tempfile.mkdtemp(prefix="code-"))
    folder.chmod(0o755)
    for name in ("handlers", "sandbox", "scripts"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    places = {"scripts": folder / "scripts", "models": ROOT / "models"}
    yield sandbox.Template(
        code=folder, entry="handlers.entry:main", libraries=library_sets(), places=places, uid=60999, gid=60999
    )
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shared_box(policy: sandbox.Policy, host: sandbox.Host, template: sandbox.Template) -> Iterator[Sandbox]:
    """One pool for all tests that do not break it."""
    box = Sandbox(policy, host, template)
    yield box
    box.close()


@pytest.fixture
def box(shared_box: Sandbox) -> Sandbox:
    """The shared pool, full and at rest."""
    assert shared_box.settle()
    return shared_box


@pytest.fixture
def make_box(
    light_policy: sandbox.Policy, host: sandbox.Host, template: sandbox.Template
) -> Iterator[Callable[..., Sandbox]]:
    """Makes pools of a test's own, and ends them."""
    made: list[Sandbox] = []

    def make(policy: sandbox.Policy = light_policy, **arguments: Any) -> Sandbox:
        made.append(Sandbox(policy, host, template, **arguments))
        return made[-1]

    yield make
    for box in made:
        box.close()


@pytest.fixture(scope="session")
def is_root() -> bool:
    """Whether the tests run with root's privileges; tests adapt to it, none is left out."""
    return os.geteuid() == 0

"""The field on which the attacks are run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.attacks.attack", "tests.attacks.field")

from sandbox import Host, Policy, Template  # noqa: E402 after the line above
from tests.attacks.field import Field, Secrets  # noqa: E402 after the line above
from tests.support.synchronous import Sandbox  # noqa: E402 after the line above


@pytest.fixture(scope="session")
def planted() -> Iterator[Secrets]:
    """Secrets in place before the zygote starts: in a file, in the environment, behind an open descriptor."""
    secrets = Secrets()
    yield secrets
    secrets.close()


@pytest.fixture(scope="session")
def field(planted: Secrets, attacked_box: Sandbox, template: Template) -> Iterator[Field]:
    """Listeners and victims around a pool that was started beside the secrets."""
    field = Field(attacked_box, template, planted)
    yield field
    field.close()


@pytest.fixture(scope="session")
def attacked_box(planted: Secrets, policy: Policy, host: Host, template: Template) -> Iterator[Sandbox]:
    """A pool of the attacks' own."""
    box = Sandbox(policy, host, template)
    yield box
    box.close()

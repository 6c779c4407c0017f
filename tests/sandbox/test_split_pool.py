"""``preload_if_named``: who names a module finds it loaded; who does not gets a lighter child, under the same grant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox import ExitReason, Pool, Result, SplitPool
from tests.support.synchronous import descendants, value_of

ROOT = Path(__file__).resolve().parents[2]
LOADED = 'import sys; result = "pan" "das" in sys.modules'


@pytest.fixture(scope="module")
def answers(host: sandbox.Host, template: sandbox.Template) -> Iterator[dict[str, Result]]:
    """The answers to three scripts under the shipped policy."""
    policy = sandbox.load_policies(ROOT / "policies")["custom_script"]
    scripts = {
        "names none": LOADED,
        "names it": f"{LOADED}  # pandas",
        "imports it without its name": '__import__("pan" "das").DataFrame({"a": [1]}); result = "fine"',
    }

    async def ask() -> dict[str, Result]:
        async with sandbox.make_pool(policy, host, template, ready=1) as pool:
            assert isinstance(pool, SplitPool)
            assert 2 == pool.stats().ready == pool.stats().wanted == len(pool.ready_pids())
            return {name: await pool.run(_request(script)) for name, script in scripts.items()}

    before = descendants()
    yield asyncio.run(ask())
    assert before == descendants()


def test_who_names_a_module_finds_it_loaded(answers: dict[str, Result]) -> None:
    """The text alone decides, and it decides about speed alone."""
    assert (False, True) == (value_of(answers["names none"]), value_of(answers["names it"]))


def test_both_kinds_have_one_grant(answers: dict[str, Result]) -> None:
    """Policy, digest, limits and layers are the same."""
    small, large = answers["names none"], answers["names it"]
    assert small.policy_digest == large.policy_digest
    assert (small.policy, small.limits, small.isolation) == (large.policy, large.limits, large.isolation)


def test_what_is_not_loaded_can_be_imported(answers: dict[str, Result]) -> None:
    """A script that hides the name only waits for its import."""
    answer = answers["imports it without its name"]
    assert (ExitReason.OK, "fine") == (answer.exit_reason, value_of(answer))


def test_no_second_zygote_where_none_is_kept_ready(host: sandbox.Host, template: sandbox.Template) -> None:
    """``engine run`` starts one zygote for its one request; so does a policy that names no such module."""
    delivered = sandbox.load_policies(ROOT / "policies")
    for chosen, ready in ((delivered["custom_script"], 0), (delivered["custom_script_network"], 2)):
        assert isinstance(sandbox.make_pool(chosen, host, template, ready=ready), Pool)


def _request(script: str) -> bytes:
    return json.dumps({"task_type": "custom_script", "parameters": {"script": script}}).encode()

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
LOADED = 'import sys; result = ["pan" "das" in sys.modules, "mat" "plotlib" in sys.modules]'


@pytest.fixture(scope="module")
def answers(host: sandbox.Host, template: sandbox.Template) -> Iterator[dict[str, Result]]:
    """The answers to four scripts under the shipped policy."""
    policy = sandbox.load_policies(ROOT / "policies")["custom_script"]
    scripts = {
        "names none": LOADED,
        "names pandas": f"{LOADED}  # pandas",
        "names both": f"{LOADED}  # pandas, matplotlib",
        "imports it without its name": '__import__("pan" "das").DataFrame({"a": [1]}); result = "fine"',
    }

    async def ask() -> dict[str, Result]:
        async with sandbox.make_pool(policy, host, template, ready=1) as pool:
            assert isinstance(pool, SplitPool)
            assert 2 == pool.stats().ready == pool.stats().wanted == len(pool.ready_pids())
            found = {name: await pool.run(_request(script)) for name, script in scripts.items()}
            assert 3 == pool.stats().wanted  # the largest has started with its first request
            return found

    before = descendants()
    yield asyncio.run(ask())
    assert before == descendants()


def test_who_names_a_module_finds_it_loaded(answers: dict[str, Result]) -> None:
    """The text alone decides, and it decides about speed alone."""
    loaded = {name: value_of(answers[name]) for name in ("names none", "names pandas", "names both")}
    assert {"names none": [False, False], "names pandas": [True, False], "names both": [True, True]} == loaded


def test_who_names_less_carries_less(answers: dict[str, Result]) -> None:
    """What a zygote has loaded counts towards the memory of its children."""
    small, middle, large = (
        answers[name].usage.memory_peak_mib for name in ("names none", "names pandas", "names both")
    )
    assert small + 10 < middle < large - 10


def test_all_have_one_grant(answers: dict[str, Result]) -> None:
    """Policy, digest, limits and layers are the same."""
    small, *others = answers.values()
    for other in others:
        assert small.policy_digest == other.policy_digest
        assert (small.policy, small.limits, small.isolation) == (other.policy, other.limits, other.isolation)


def test_what_is_not_loaded_can_be_imported(answers: dict[str, Result]) -> None:
    """A script that hides the name only waits for its import."""
    answer = answers["imports it without its name"]
    assert (ExitReason.OK, "fine") == (answer.exit_reason, value_of(answer))


def test_no_second_zygote_where_none_is_kept_ready(host: sandbox.Host, template: sandbox.Template) -> None:
    """``engine run`` starts one zygote for its one request, with what that names and no more."""
    policy = sandbox.load_policies(ROOT / "policies")["custom_script"]

    async def ask() -> tuple[Result, int, int]:
        before = len(descendants())
        async with sandbox.make_pool(policy, host, template, ready=0) as pool:
            at_first = len(descendants()) - before
            answer = await pool.run(_request(f"{LOADED}  # pandas"))
            return answer, at_first, pool.stats().spawned

    answer, at_first, spawned = asyncio.run(ask())
    assert ([True, False], 0, 1) == (value_of(answer), at_first, spawned)


def test_one_pool_where_no_group_is(host: sandbox.Host, template: sandbox.Template) -> None:
    """A policy that names no module for some requests has one zygote."""
    chosen = sandbox.load_policies(ROOT / "policies")["custom_script_network"]
    assert isinstance(sandbox.make_pool(chosen, host, template, ready=2), Pool)


def _request(script: str) -> bytes:
    return json.dumps({"task_type": "custom_script", "parameters": {"script": script}}).encode()

"""``engine doctor``: each part that a service needs, and the fix where one is not as it must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config.keys import add_key, make_key
from engine.dev.embedded import Embedded
from engine.model.principal import Scope
from tests.support.command_line import engine
from tests.support.stack import free_port


def findings(**environ: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and what was found of each part."""
    done = engine("doctor", "--json", stdin=b"", **environ)
    assert b"Traceback" not in done.stderr, done.stderr
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)}


def test_all_is_well(servers: Embedded, tmp_path: Path) -> None:
    """Nothing has a fix, and the exit code is 0."""
    add_key(tmp_path / "keys.toml", make_key("acme", [Scope.READ]))
    code, found = findings(
        DATABASE_URL=str(servers.urls.database),
        REDIS_URL=str(servers.urls.redis),
        API_KEYS_FILE=str(tmp_path / "keys.toml"),
    )
    assert {"database", "clock", "redis", "keys", "disk", "isolation"} == found.keys()
    assert (0, {}) == (code, {name: one for name, one in found.items() if one["fix"] is not None})
    assert found["keys"]["detail"].startswith("1 in ")


def test_each_fault_has_its_fix(tmp_path: Path) -> None:
    """Servers that are away, and keys that are broken; no password is shown."""
    (tmp_path / "keys.toml").write_text("[keys.x]\n")
    (tmp_path / "keys.toml").chmod(0o600)
    nobody = f"127.0.0.1:{free_port()}"
    code, found = findings(
        DATABASE_URL=f"postgresql://me:hidden@{nobody}/none",
        REDIS_URL=f"redis://:hidden@{nobody}/0",
        API_KEYS_FILE=str(tmp_path / "keys.toml"),
    )
    assert 1 == code
    for name, words in (("database", "DATABASE_URL"), ("redis", "REDIS_URL"), ("keys", "keys new")):
        assert words in found[name]["fix"], found[name]
    assert "hidden" not in json.dumps(found)


def test_a_database_that_does_not_exist_is_named(servers: Embedded) -> None:
    """PostgreSQL answers that there is none; the fix says what to look at."""
    url = str(servers.urls.database).replace("/postgres?", "/nothing_here?")
    _, found = findings(DATABASE_URL=url)
    assert "nothing_here" in found["database"]["detail"]


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL"])
def test_what_is_not_set_is_said(variable: str) -> None:
    """With the command that starts servers of its own."""
    code, found = findings()
    assert 1 == code
    assert variable in {one["detail"].partition(" ")[0] for one in found.values()}

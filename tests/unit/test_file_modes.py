"""Files that decide who gets in are refused where every user of the host can read or change them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import file_modes
from engine.config.file_modes import find_wide_mode
from engine.config.keys import KeysError, add_key, make_key, read_keys
from engine.config.load import load_settings
from engine.config.settings import SettingsError
from engine.model.principal import Scope


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, as pytest's own are not."""
    found = Path(tempfile.mkdtemp(dir="/tmp"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


def secret_file(folder: Path, mode: int) -> Path:
    path = folder / "secret"
    path.write_text("redis://:hunter2@cache\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666, 0o602, 0o777])
def test_secret_that_others_can_use_stops_the_start(folder: Path, mode: int) -> None:
    """With the variable, the mode and the fix, and without the secret."""
    path = secret_file(folder, mode)
    with pytest.raises(SettingsError) as refused:
        load_settings({"REDIS_URL_FILE": str(path)})
    (fault,) = refused.value.faults
    assert fault.startswith(f"REDIS_URL_FILE '{path}': every user of this host can ")
    assert f"(mode {mode:04o}): `chmod o-" in fault
    assert "hunter2" not in fault


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640, 0o660])
def test_secret_of_user_and_group_is_taken(folder: Path, mode: int) -> None:
    """The group is how root hands a secret to a service's user; so does Kubernetes, by fsGroup."""
    assert load_settings({"REDIS_URL_FILE": str(secret_file(folder, mode))}).redis_url == "redis://:hunter2@cache"


def test_fix_is_the_fix(folder: Path) -> None:
    """After the command in the message nothing is wrong any more."""
    path = secret_file(folder, 0o666)
    for _ in range(2):
        sentence = find_wide_mode(path, secret=True)
        assert sentence is not None
        change, named = sentence.split("`")[1].removeprefix("chmod ").split()
        assert named == str(path)
        path.chmod(path.stat().st_mode & ~{"o-w": 0o002, "o-r": 0o004}[change])
    assert find_wide_mode(path, secret=True) is None


def test_folder_that_others_cannot_enter_guards_its_files(folder: Path) -> None:
    """Whatever their mode, and however deep they lie."""
    (below := folder / "private" / "below").mkdir(parents=True)
    path = secret_file(below, 0o666)
    assert find_wide_mode(path, secret=True) is not None
    (folder / "private").chmod(0o700)
    assert find_wide_mode(path, secret=True) is None


@pytest.mark.parametrize(("mode", "refused"), [(0o777, True), (0o1777, False), (0o775, False)])
def test_folder_in_which_others_can_replace_the_file(folder: Path, mode: int, refused: bool) -> None:
    """As good as the file; with the sticky bit, as /tmp has it, only the owner may."""
    (own := folder / "own" / "below").mkdir(parents=True)
    path = secret_file(own, 0o600)
    (folder / "own").chmod(mode)
    assert (f"`chmod o-w {folder / 'own'}`" in str(find_wide_mode(path, secret=True))) == refused


def test_link_is_as_open_as_what_it_points_to(folder: Path) -> None:
    """As Kubernetes' secrets are links to the file in force."""
    (link := folder / "link").symlink_to(secret_file(folder, 0o644))
    assert find_wide_mode(link, secret=True) is not None
    link.resolve().chmod(0o440)
    assert find_wide_mode(link, secret=True) is None


def test_secret_of_a_container_engine_may_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker mounts secrets with 0444 below /run/secrets; one that others can write is refused there, too."""
    assert Path("/run/secrets") in file_modes.GIVEN_BY_CONTAINER_ENGINES
    monkeypatch.setattr(file_modes, "GIVEN_BY_CONTAINER_ENGINES", (folder,))
    assert find_wide_mode(secret_file(folder, 0o444), secret=True) is None
    assert find_wide_mode(secret_file(folder, 0o446), secret=True) is not None


def test_pipe_has_no_mode(folder: Path) -> None:
    """`REDIS_URL_FILE=<(pass show redis)` is taken."""
    os.mkfifo(path := folder / "pipe", 0o666)
    path.chmod(0o666)
    assert find_wide_mode(path, secret=True) is None


@pytest.mark.parametrize(("mode", "refused"), [(0o666, True), (0o602, True), (0o644, False), (0o600, False)])
def test_keys_that_others_can_write(folder: Path, mode: int, refused: bool) -> None:
    """Who writes a hash into the file has a key; who reads one has nothing."""
    path = folder / "keys.toml"
    add_key(path, make_key("a", [Scope.READ]))
    path.chmod(mode)
    if not refused:
        assert 1 == len(read_keys(path))
        return
    with pytest.raises(KeysError, match=rf"every user of this host can write to it \(mode {mode:04o}\): `chmod o-w "):
        read_keys(path)
    with pytest.raises(KeysError, match="every user of this host can write to it"):
        add_key(path, make_key("b", [Scope.READ]))

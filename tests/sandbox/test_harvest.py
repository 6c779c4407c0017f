"""Artifacts: what a run leaves is taken or refused by name; nothing else is ever read, and nothing makes us wait."""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandbox import ExitReason, Policy, Result
from sandbox.run import harvest as harvesting
from sandbox.run import watch as watching
from sandbox.run.harvest import harvest
from tests.support.synchronous import BUSY, Sandbox, inventory, value_of

pytestmark = pytest.mark.privilege(
    "root reads what a run leaves whatever its mode; an ordinary worker has the run's own rights"
)

MakeBox = Callable[..., Sandbox]
MIB = 1 << 20


# -- what a run leaves


@pytest.fixture
def canary() -> Iterator[Path]:
    """A file of the host that everybody may read, in a folder that everybody may enter, with a secret in it."""
    folder = Path("/tmp", f"canary-{secrets.token_hex(8)}")
    folder.mkdir(mode=0o755)
    file = folder / "secret"
    file.write_text(f"canary {secrets.token_hex(16)}", encoding="ascii")
    file.chmod(0o644)
    yield file
    file.unlink()
    folder.rmdir()


def taken(result: Result) -> dict[str, bytes]:
    """Name → content."""
    return {artifact.name: artifact.content for artifact in result.artifacts}


def refused(result: Result) -> dict[str, str]:
    """Name → reason."""
    return {artifact.name: artifact.reason for artifact in result.artifacts_refused}


def test_plain_nested_and_empty_files_are_taken(box: Sandbox) -> None:
    """By name, in order, with the size and the digest of the very content."""
    script = """
import os
os.makedirs("artifacts/a/b")
for name, content in args.items():
    open("artifacts/" + name, "w").write(content)
"""
    files = {"z.txt": "last", "a/b/c.csv": "1,2\n", "a/empty": "", "plain": "x" * 100_000, ".hidden": "h"}
    result = box.run(script, files)
    assert ExitReason.OK == result.exit_reason
    assert {name: text.encode() for name, text in files.items()} == taken(result)
    assert sorted(files) == [artifact.name for artifact in result.artifacts]
    for artifact in result.artifacts:
        assert len(artifact.content) == artifact.size_bytes
        assert hashlib.sha256(artifact.content).hexdigest() == artifact.sha256
    assert () == result.artifacts_refused


def test_binary_content_is_taken_as_it_is(box: Sandbox) -> None:
    """Every byte value, in its place."""
    result = box.run("open('artifacts/b', 'wb').write(bytes(range(256)) * 17)")
    assert {"b": bytes(range(256)) * 17} == taken(result)


def test_files_beside_the_folder_are_not_artifacts(box: Sandbox) -> None:
    """The rest of the workspace is the run's own."""
    result = box.run("open('artifacts-not', 'w').write('x'); open('tmp/artifacts', 'w').write('x')")
    assert ({}, {}) == (taken(result), refused(result))


@pytest.mark.parametrize(
    ("script", "reason", "limits"),
    [
        ("1 / 0", ExitReason.ERROR, {}),
        ("raise SystemExit(3)", ExitReason.NONZERO_EXIT, {}),
        ("import os; os._exit(0)", ExitReason.NO_RESULT, {}),
        ("import ctypes; ctypes.string_at(0)", ExitReason.SIGNALED, {}),
        ("while True: pass", ExitReason.WALL_LIMIT, {"wall_s": 1.0}),
        ("while True: print('x' * 4096)", ExitReason.OUTPUT_LIMIT, {}),
        ("x = [bytearray(b'x' * (16 << 20)) for _ in range(64)]", ExitReason.MEMORY_LIMIT, {}),
        ("result = 'x' * (9 << 20)", ExitReason.INVALID_RESULT, {}),
    ],
    ids=lambda value: value.value if isinstance(value, ExitReason) else "",
)
def test_artifacts_are_kept_however_the_run_ends(
    box: Sandbox, script: str, reason: ExitReason, limits: dict[str, Any]
) -> None:
    """Files written before the end are kept."""
    result = box.run("with open('artifacts/kept', 'w') as file: file.write('kept')\n" + script, **limits)
    assert reason == result.exit_reason
    assert {"kept": b"kept"} == taken(result)


def test_artifacts_of_a_cancelled_run_are_kept(box: Sandbox) -> None:
    """Asked to stop, it still hands over what it had."""
    script = "with open('artifacts/kept', 'w') as file: file.write('kept')\n" + BUSY + "while True: pass"
    _, result = box.while_running(script, lambda _pid: None, then="cancel")
    assert (ExitReason.CANCELLED, {"kept": b"kept"}) == (result.exit_reason, taken(result))


def test_a_full_workspace_still_gives_its_artifacts(box: Sandbox) -> None:
    """The run ends for want of room; what fits is handed over."""
    script = (
        "open('artifacts/kept', 'w').write('kept')\nwith open('fill', 'wb') as file:\n    while True:\n"
        "        file.write(bytes(1 << 20))\n        open(str(file.tell()), 'wb').write(bytes(1 << 20))"
    )
    result = box.run(script)
    assert (ExitReason.WORKSPACE_LIMIT, {"kept": b"kept"}) == (result.exit_reason, taken(result))


LINKS = {
    "a file of the host": "{canary}",
    "a file beside it": "/work/other",
    "a relative path out": "../other",
    "a path above the root": "../../../../../../../../{canary}",
    "a folder": "/work/tmp",
    "nothing": "/nowhere",
    "itself": "link",
    "the worker's environment": "/proc/self/environ",
    "the descriptors": "/proc/self/fd/0",
}


@pytest.mark.parametrize("target", LINKS.values(), ids=LINKS)
def test_a_symbolic_link_is_refused(box: Sandbox, canary: Path, target: str) -> None:
    """Whatever it points to, it is named and not followed; the plain file beside it is taken."""
    script = """
import os
open("/work/other", "w").write("other secret")
os.symlink(args, "artifacts/link")
open("artifacts/plain", "w").write("x")
"""
    result = box.run(script, target.format(canary=canary))
    assert {"plain": b"x"} == taken(result)
    assert {"link": "a symbolic link is not followed"} == refused(result)
    for secret in (canary.read_bytes(), b"other secret"):
        assert secret not in msgspec.msgpack.encode(result)


def test_a_linked_folder_is_not_entered(box: Sandbox, canary: Path) -> None:
    """A link instead of a folder, at any depth, gives nothing of what is behind it."""
    script = """
import os
os.makedirs("other"); open("other/secret", "w").write("other secret")
os.makedirs("artifacts/real")
os.symlink("/work/other", "artifacts/inside")
os.symlink(args, "artifacts/real/outside")
os.symlink("..", "artifacts/real/up")
"""
    result = box.run(script, str(canary.parent))
    assert {} == taken(result)
    assert {"inside", "real/outside", "real/up"} == set(refused(result))
    for secret in (canary.read_bytes(), b"other secret"):
        assert secret not in msgspec.msgpack.encode(result)


REPLACEMENTS = {
    "link to the host": "os.symlink(args, 'artifacts')",
    "link to another folder": "os.symlink('other', 'artifacts')",
    "link to itself": "os.symlink('artifacts', 'artifacts')",
    "file": "open('artifacts', 'w').write('other secret')",
    "nothing": "pass",
}


@pytest.mark.parametrize("replacement", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_a_replaced_folder_gives_nothing(box: Sandbox, canary: Path, replacement: str) -> None:
    """Without a real folder of that name there are no artifacts, and that is no failure."""
    script = f"""
import os
os.mkdir("other"); open("other/secret", "w").write("other secret")
os.rmdir("artifacts")
{replacement}
result = 1
"""
    result = box.run(script, str(canary.parent))
    assert (1, {}) == (value_of(result), taken(result))
    for secret in (canary.read_bytes(), b"other secret"):
        assert secret not in msgspec.msgpack.encode(result)


def test_a_folder_made_anew_is_the_folder(box: Sandbox) -> None:
    """Removed and made again, or another one renamed to it: its files are artifacts."""
    result = box.run("import os\nos.mkdir('new'); open('new/f', 'w').write('x')\nos.rename('new', 'artifacts')")
    assert {"f": b"x"} == taken(result)


def test_a_run_without_its_own_tmp_keeps_its_artifacts(box: Sandbox) -> None:
    """It may remove ``tmp``; what lies in ``artifacts`` is still taken."""
    result = box.run("import os\nos.rmdir('tmp')\nopen('artifacts/f', 'w').write('x')")
    assert {"f": b"x"} == taken(result)


def test_no_fifo_socket_or_device_can_be_made(box: Sandbox) -> None:
    """Each is denied inside, so that the harvest never meets one from a run."""
    script = """
import errno, os, socket, stat
result = {}
def attempt(name, act, *arguments):
    try:
        act(*arguments)
        result[name] = "done"
    except OSError as error:
        result[name] = errno.errorcode[error.errno]
attempt("fifo", os.mkfifo, "artifacts/fifo")
attempt("character", os.mknod, "artifacts/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
attempt("block", os.mknod, "artifacts/disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
attempt("socket file", os.mknod, "artifacts/socket", stat.S_IFSOCK | 0o666)
attempt("socket", socket.socket, socket.AF_UNIX)
attempt("bind", lambda: socket.socketpair()[0].bind("artifacts/bound"))
open("artifacts/plain", "w").close()
"""
    result = box.run(script)
    assert dict.fromkeys(value_of(result), "EPERM") == value_of(result)
    assert ({"plain": b""}, {}) == (taken(result), refused(result))


def with_a_process(policy: Policy) -> Policy:
    """The same grant with the profile that allows processes."""
    limits = msgspec.structs.replace(policy.limits, processes=1)
    syscalls = msgspec.structs.replace(policy.syscalls, profile="processes")
    return msgspec.structs.replace(policy, limits=limits, syscalls=syscalls)


def test_a_hard_link_is_refused(make_box: MakeBox, light_policy: Policy) -> None:
    """Where a policy lets a run give a file two names, neither is read: what it is, only its maker knows."""
    box = make_box(with_a_process(light_policy))
    script = """
import os
open("outside", "w").write("x")
os.link("outside", "artifacts/first")
open("artifacts/plain", "w").write("y")
"""
    result = box.run(script)
    assert {"plain": b"y"} == taken(result)
    assert {"first": "it has more than one name (a hard link)"} == refused(result)


def test_a_hard_link_to_a_file_outside_cannot_be_made(make_box: MakeBox, light_policy: Policy) -> None:
    """Not even where links are allowed: other mounts, and Landlock."""
    box = make_box(with_a_process(light_policy))
    script = """
import errno, os
try:
    os.link(os.__file__, "artifacts/os.py")
    result = "done"
except OSError as error:
    result = errno.errorcode[error.errno]
"""
    result = box.run(script)
    assert value_of(result) in ("EXDEV", "EACCES", "EPERM")
    assert {} == taken(result)


def test_a_sparse_giant_is_refused_by_its_size(box: Sandbox) -> None:
    """A file that takes no room counts with what reading it would give."""
    script = "os = __import__('os')\nos.truncate(os.open('artifacts/giant', os.O_CREAT | os.O_RDWR), 64 << 20)"
    result = box.run(script, artifacts_mib=32)
    assert {} == taken(result)
    assert {"giant": f"{64 * MIB} bytes, more than is left of artifacts_mib ({32 * MIB} bytes)"} == refused(result)


def test_all_artifacts_together_are_bounded(box: Sandbox) -> None:
    """In the order of their names each takes of what is left; a smaller one may still fit."""
    script = "for name, size in args.items(): open('artifacts/' + name, 'wb').write(bytes(size))"
    sizes = {"a": MIB, "b": MIB // 2, "c": MIB, "d": MIB // 2, "e": 1, "f": 0}
    result = box.run(script, sizes, artifacts_mib=2)
    assert ["a", "b", "d", "f"] == list(taken(result))
    assert {"c", "e"} == set(refused(result))
    assert sum(artifact.size_bytes for artifact in result.artifacts) == 2 * MIB


def test_no_artifacts_where_the_limit_is_nothing(box: Sandbox) -> None:
    """Zero MiB is none but empty ones, not all."""
    result = box.run("open('artifacts/a', 'w').write('x'); open('artifacts/b', 'w')", artifacts_mib=0)
    assert ({"b": b""}, ["a"]) == (taken(result), list(refused(result)))


def test_more_files_than_are_taken(box: Sandbox) -> None:
    """The first by name are taken, the others named, and not all of those either."""
    result = box.run("for i in range(400): open(f'artifacts/{i:03}', 'w').write('x')")
    assert [f"{i:03}" for i in range(harvesting.MAX_FILES)] == list(taken(result))
    assert {f"{i:03}": "more than 256 files" for i in range(256, 256 + harvesting.MAX_REFUSALS)} == refused(result)


def test_more_entries_than_are_looked_at(make_box: MakeBox, light_policy: Policy) -> None:
    """A folder of thousands ends the walk with one sentence."""
    limits = msgspec.structs.replace(light_policy.limits, workspace_files=8192)
    box = make_box(msgspec.structs.replace(light_policy, limits=limits))
    script = (
        "import os\nos.mkdir('artifacts/b')\nfor i in range(3): open(f'artifacts/a{i}', 'w')\n"
        "for i in range(5000): os.mkdir(f'artifacts/b/{i}')"
    )
    result = box.run(script)
    assert ["a0", "a1", "a2"] == list(taken(result))
    assert ["…"] == list(refused(result))
    assert refused(result)["…"].startswith("the rest: more than 4096 entries")


@pytest.mark.parametrize("depth", [7, 8, 1000])
def test_a_deep_tree_ends_at_a_depth(box: Sandbox, depth: int) -> None:
    """Files down to the eighth level are taken, what is below is named, and no depth breaks anything."""
    script = """
import os
os.chdir("artifacts")
for _ in range(args):
    os.mkdir("d"); os.chdir("d")
    open("f", "w").write("x")
result = 1
"""
    result = box.run(script, depth)
    assert 1 == value_of(result)
    assert sorted("d/" * level + "f" for level in range(1, min(depth, 7) + 1)) == list(taken(result))
    expected = {} if depth < 8 else {"d/" * 7 + "d": "folders deeper than 8 levels are not read"}
    assert expected == refused(result)


GOOD_NAMES = [
    "-rf",
    "..x",
    "...",
    "~",
    "a b",
    " ",
    "$(id)",
    "'\";|&",
    "ü",
    "日本語.txt",
    "😀",
    "con",
    "x" * 255,
    "%2e%2e",
]
BAD_NAMES = {
    "newline": b"a\nb",
    "carriage return": b"a\rb",
    "tabulator": b"a\tb",
    "escape": b"\x1b[31mred",
    "delete": b"\x7f",
    "not UTF-8": b"\xff",
    "half a character": b"a\xc3",
    "a surrogate": b"\xed\xa0\x80",
    "C1 control": "a\x9bb".encode(),
    "line separator": "a\u2028b".encode(),
    "paragraph separator": "a\u2029b".encode(),
    "backslash": b"a\\..\\b",
    "the other direction": "a\u202egpj.exe".encode(),
    "an isolate": "a\u2066b".encode(),
    "an Arabic mark": "a\u061cb".encode(),
    "a zero-width space": "a\u200bb".encode(),
    "a joiner": "a\u200db".encode(),
    "a byte order mark": "\ufeffa".encode(),
    "a soft hyphen": "a\u00adb".encode(),
    "a word joiner": "a\u2060b".encode(),
    "a filler": "\u3164".encode(),
    "a grapheme joiner": "a\u034fb".encode(),
    "a variation": "a\ufe0f".encode(),
    "a tag": "a\U000e0041".encode(),
}


def test_odd_but_harmless_names_are_taken(box: Sandbox) -> None:
    """A name is a name, whatever a shell would make of it."""
    script = "for name in args: open('artifacts/' + name, 'w').write(name)"
    result = box.run(script, GOOD_NAMES)
    assert {name: name.encode() for name in GOOD_NAMES} == taken(result)


def make_named(kind: str) -> str:
    """A script that makes a file, or a folder with a file in it, of a name given as latin-1."""
    path = {"file": "name", "folder": "name + b'/f'"}[kind]
    return (
        f"import os\nname = b'artifacts/' + args.encode('latin-1')\n{'os.mkdir(name)' if kind == 'folder' else ''}\n"
        f"open({path}, 'w').write('hostile')\nopen('artifacts/good', 'w').write('x')\nresult = 1"
    )


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_hostile_name_is_refused(box: Sandbox, name: bytes, kind: str) -> None:
    """Of a file or of a folder: what is in it is not taken, the run is told so, and the good file is there."""
    result = box.run(make_named(kind), name.decode("latin-1"))
    assert 1 == value_of(result)
    assert {"good": b"x"} == taken(result)
    assert {"the name has control, bidirectional or invisible characters, a backslash, or is not UTF-8"} == set(
        refused(result).values()
    )
    assert b"hostile" not in msgspec.msgpack.encode(result)


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_refused_name_can_be_shown(box: Sandbox, name: bytes) -> None:
    """It is text that every encoder takes and that does nothing on a terminal or in a log."""
    result = box.run(make_named("file"), name.decode("latin-1"))
    (shown,) = refused(result)
    assert [refused(result)] == [msgspec.json.decode(msgspec.json.encode(refused(result)))]
    assert shown.isprintable()


def test_a_path_that_is_too_long_is_refused(box: Sandbox) -> None:
    """Five long names one in the other are more than anybody may have to store."""
    script = (
        "import os\nos.chdir('artifacts')\nfor _ in range(5):\n    os.mkdir('x' * 255); os.chdir('x' * 255)\n"
        "    open('f', 'w').write('y')"
    )
    result = box.run(script)
    assert ["/".join(["x" * 255] * level) + "/f" for level in (1, 2, 3)] == list(taken(result))
    assert ["the path is longer than 1024 bytes"] * 2 == [one.reason for one in result.artifacts_refused]


MODES = {
    "a file": ("open('artifacts/x', 'w').write('x'); os.chmod('artifacts/x', 0)", "x", "x"),
    "a folder": (
        "os.mkdir('artifacts/d'); open('artifacts/d/x', 'w').write('x'); os.chmod('artifacts/d', 0)", "d/x", "d"
    ),
    "a folder that can only be listed": (
        "os.mkdir('artifacts/d'); open('artifacts/d/x', 'w').write('x'); os.chmod('artifacts/d', 0o400)", "d/x", "d/x"
    ),
    "a folder that can only be entered": (
        "os.mkdir('artifacts/d'); open('artifacts/d/x', 'w').write('x'); os.chmod('artifacts/d', 0o100)", "d/x", "d"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "name", "named"), MODES.values(), ids=MODES)
def test_modes_that_keep_everybody_out(box: Sandbox, is_root: bool, script: str, name: str, named: str) -> None:
    """Root reads it all the same, an ordinary worker says what it could not read; neither fails."""
    result = box.run(f"import os\n{script}\nopen('artifacts/good', 'w').write('y')\nresult = 1")
    assert 1 == value_of(result)
    assert b"y" == taken(result)["good"]
    assert ({name} if is_root else set()) == set(taken(result)) - {"good"}
    if not is_root:
        (reason,) = refused(result).values()
        assert ({named}, True) == (set(refused(result)), "Permission denied" in reason)


@pytest.mark.parametrize("mode", [0, 0o100, 0o200, 0o400])
def test_the_folder_itself_keeps_everybody_out(box: Sandbox, is_root: bool, mode: int) -> None:
    """Root reads it all the same, an ordinary worker takes nothing; neither fails."""
    script = "import os\nopen('artifacts/x', 'w').write('x')\nos.chmod('artifacts', args)\nresult = 1"
    result = box.run(script, mode)
    assert 1 == value_of(result)
    assert ({"x": b"x"} if is_root else {}) == taken(result)


def test_hundreds_of_refusals_leave_nothing_open(box: Sandbox) -> None:
    """No descriptor more, whatever was refused on the way."""
    script = """
import os
for i in range(100):
    os.symlink("/", f"artifacts/link{i}")
    os.makedirs(f"artifacts/folder{i}/x")
    open(f"artifacts/folder{i}/x/f", "w").write("x")
"""
    before = inventory()
    for _ in range(3):
        assert 100 == len(box.run(script).artifacts)
    assert box.settle()
    assert before == inventory()


# -- what is harvested at once, and not in a thread


@pytest.mark.parametrize(
    ("make", "is_little"),
    [
        pytest.param("pathlib.Path('artifacts/a.csv').write_text('x')", True, id="a small file"),
        pytest.param("[pathlib.Path(f'artifacts/{i}').touch() for i in range(7)]", True, id="seven of them"),
        pytest.param("[pathlib.Path(f'artifacts/{i}').touch() for i in range(8)]", False, id="eight of them"),
        pytest.param(
            "pathlib.Path('artifacts/a').touch()\n[os.link('artifacts/a', f'artifacts/{i}') for i in range(99)]",
            False,
            id="one by a hundred names",
        ),
        pytest.param("open('artifacts/hole', 'wb').truncate(1 << 24)", False, id="a hole, which takes no room"),
        pytest.param("os.mkdir('artifacts/folder')", False, id="a folder"),
        pytest.param(
            "pathlib.Path('artifacts/a').touch()\n[os.makedirs(f'{i}/artifacts') for i in range(9)]",
            False,
            id="much beside a small file",
        ),
        pytest.param("os.symlink('a', 'artifacts/link')", False, id="a link"),
        pytest.param("os.rmdir('artifacts')", False, id="nothing"),
    ],
)
def test_only_few_and_small_files_are_harvested_at_once(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, make: str, is_little: bool
) -> None:
    """By what the supervisor sees of a run's own folder; all others are read in a thread, beside other runs."""
    monkeypatch.setattr(watching, "is_empty", lambda _: False)
    in_threads: list[bool] = []

    def noting_where(*given: Any, **named: Any) -> Any:
        in_threads.append(threading.current_thread().name != "sandbox loop")
        return harvest(*given, **named)

    monkeypatch.setattr(watching, "harvest", noting_where)
    result = box.run(f"import os, pathlib\npathlib.Path('kept').write_text('room')\n{make}\nresult = 1")
    assert ExitReason.OK is result.exit_reason
    assert [not is_little] == in_threads


# -- the harvest itself, on what no run can make


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[int]:
    """Descriptor of a workspace on this host, with ``artifacts`` in it."""
    (tmp_path / "artifacts").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def gather(workspace: int, max_bytes: int = MIB) -> tuple[dict[str, bytes], dict[str, str]]:
    """Harvest in a thread that must end: a harvest that waits for something is a failure, not a hang of the tests."""
    found: list[harvesting.Harvest] = []
    thread = threading.Thread(target=lambda: found.append(harvest(workspace, max_bytes=max_bytes)), daemon=True)
    thread.start()
    thread.join(30)
    assert found, "the harvest waits or has failed"
    taken_, refused_ = found[0]
    return {one.name: one.content for one in taken_}, {one.name: one.reason for one in refused_}


def test_a_fifo_does_not_block(workspace: int, tmp_path: Path) -> None:
    """Nobody will ever open its other end."""
    os.mkfifo(tmp_path / "artifacts/fifo")
    (tmp_path / "artifacts/plain").write_bytes(b"x")
    assert ({"plain": b"x"}, {"fifo": "not a regular file"}) == gather(workspace)


def test_a_fifo_with_a_writer_is_not_read(workspace: int, tmp_path: Path) -> None:
    """Not even when there is something in it."""
    os.mkfifo(tmp_path / "artifacts/fifo")
    fd = os.open(tmp_path / "artifacts/fifo", os.O_RDWR)
    os.write(fd, b"waiting")
    assert ({}, {"fifo": "not a regular file"}) == gather(workspace)
    assert b"waiting" == os.read(fd, 100)
    os.close(fd)


def test_a_socket_is_refused(workspace: int, tmp_path: Path) -> None:
    """And nobody is connected to."""
    with socket.socket(socket.AF_UNIX) as listener:
        fd = os.open(tmp_path, os.O_PATH)
        listener.bind(f"/proc/self/fd/{fd}/artifacts/socket")  # the path itself may be too long for an address
        os.close(fd)
        listener.listen()
        listener.setblocking(False)
        assert ({}, {"socket": "not a regular file"}) == gather(workspace)
        with pytest.raises(BlockingIOError):
            listener.accept()


DEVICES = {"null": (1, 3), "zero": (1, 5), "terminal": (5, 0)}


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_is_refused(workspace: int, tmp_path: Path, is_root: bool, name: str) -> None:
    """Reading /dev/zero would never end. Only root can make one; for others the kernel's refusal is the proof."""
    path = tmp_path / "artifacts/device"
    if not is_root:
        with pytest.raises(PermissionError):
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*DEVICES[name]))
        return
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*DEVICES[name]))
    assert ({}, {"device": "not a regular file"}) == gather(workspace)


def test_hard_links_are_refused(workspace: int, tmp_path: Path, canary: Path) -> None:
    """To a file of the host, or to one another: no content comes out, and the link count is not ours to change."""
    own = tmp_path / "own"
    own.write_text("own secret", encoding="ascii")
    os.link(own, tmp_path / "artifacts/a")
    os.link(own, tmp_path / "artifacts/b")
    expected = dict.fromkeys("ab", "it has more than one name (a hard link)")
    assert ({}, expected) == gather(workspace)
    assert 3 == own.stat().st_nlink


def test_no_link_is_followed_and_no_target_touched(workspace: int, tmp_path: Path, canary: Path) -> None:
    """FS-10, FS-11: what it points to keeps content, mode, owner and times; even its time of last reading."""
    target = tmp_path / "target"
    target.write_text("precious", encoding="ascii")
    os.utime(target, (1, 1))
    before = target.stat()
    os.symlink(target, tmp_path / "artifacts/file")
    os.symlink(tmp_path, tmp_path / "artifacts/folder")
    os.symlink(canary, tmp_path / "artifacts/canary")
    assert {} == gather(workspace)[0]
    assert before == target.stat()
    assert "precious" == target.read_text(encoding="ascii")


@pytest.mark.parametrize("name", ["artifacts", "artifacts/d"])
def test_a_link_with_a_folders_name_is_not_entered(workspace: int, tmp_path: Path, canary: Path, name: str) -> None:
    """FS-13: neither at the top nor below; a name that would be followed with a slash behind it is not, either."""
    path = tmp_path / name
    if path.is_dir():
        path.rmdir()
    path.symlink_to(f"{canary.parent}/")
    assert {} == gather(workspace)[0]


RENAME_EXCHANGE = 2  # include/uapi/linux/fs.h


def test_a_folder_swapped_for_a_link_meanwhile(workspace: int, tmp_path: Path, canary: Path) -> None:
    """FS-13: however the swap falls between look and open, nothing of the link's target is read."""
    folder, link = tmp_path / "artifacts/d", tmp_path / "link"
    folder.mkdir()
    for number in range(20):
        (folder / f"secret{number}").write_bytes(b"own")
    (folder / canary.name).write_bytes(b"own")
    link.symlink_to(canary.parent)
    libc, stop, swaps = ctypes.CDLL(None), threading.Event(), 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            assert 0 == libc.renameat2(-100, bytes(folder), -100, bytes(link), RENAME_EXCHANGE)
            swaps += 1

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen = [gather(workspace) for _ in range(300)]
    finally:
        stop.set()
        swapper.join()
    assert swaps > 300
    assert {b"own"} >= {content for contents, _ in seen for content in contents.values()}


def test_a_file_swapped_for_a_link_or_a_fifo_meanwhile(workspace: int, tmp_path: Path, canary: Path) -> None:
    """FS-13, FS-17: one name that is a file, a link, a FIFO in turn: the file's content or none, and no waiting."""
    name, link, fifo = tmp_path / "artifacts/f", tmp_path / "link", tmp_path / "fifo"
    name.write_bytes(b"own")
    link.symlink_to(canary)
    os.mkfifo(fifo)
    libc, stop = ctypes.CDLL(None), threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for other in (link, fifo):
                assert 0 == libc.renameat2(-100, bytes(name), -100, bytes(other), RENAME_EXCHANGE)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen = [gather(workspace) for _ in range(300)]
    finally:
        stop.set()
        swapper.join()
    assert {b"own"} >= {content for contents, _ in seen for content in contents.values()}


def test_the_walk_has_an_end_in_time(workspace: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the seconds are over the rest is named, what was read is kept."""
    for number in range(5):
        (tmp_path / f"artifacts/{number}").write_bytes(b"x")
    moments = iter([0.0, 1.0, 2.0, harvesting.MAX_S + 1, harvesting.MAX_S + 2])
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    contents, reasons = gather(workspace)
    assert ["0", "1"] == list(contents)
    assert "more than 5 s" in reasons["…"]


def test_a_workspace_that_is_gone_gives_nothing(workspace: int, tmp_path: Path) -> None:
    """Removed under the descriptor: nothing there, no failure."""
    (tmp_path / "artifacts").rmdir()
    tmp_path.rmdir()
    try:
        assert ({}, {}) == gather(workspace)
    finally:
        tmp_path.mkdir()

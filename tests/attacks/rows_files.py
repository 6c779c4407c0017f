"""FS: read, write and leave the file system that a run is shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from sandbox import Result
from sandbox.isolation import mounts
from tests.attacks.attack import ABSENT, ANY, DENIED, DONE, READ_ONLY, Attack, Control, Outside
from tests.attacks.field import Field
from tests.attacks.syscall_numbers import NUMBERS, X86
from tests.support.synchronous import value_of

ROOT = Path(__file__).resolve().parents[2]

_READ_ALL = """
for path in args["paths"]:
    attempt(path, read, path)
    link = "link-" + str(len(result))
    os.symlink(path, link)
    attempt(path + " by a symbolic link", read, link)
    attempt(path + " by a descriptor", lambda: os.read(os.open(path, os.O_RDONLY), 4096))
    attempt(path + " by walking up", read, "../../../../../../../.." + path)
"""


def _brings_the_secret(field: Field, outside: Outside) -> None:
    """Outside the very secret came back."""
    assert field.canary in json.dumps(outside.value)


_SPOIL = """
for folder in args["folders"]:
    attempt(folder + ": new file", lambda: open(folder + "/planted.py", "w").write("x"))
    attempt(folder + ": new folder", os.mkdir, folder + "/planted")
    attempt(folder + ": new symbolic link", os.symlink, "/work", folder + "/link")
for path in args["files"]:
    attempt(path + ": append", lambda: open(path, "a").write("x"))
    attempt(path + ": overwrite", lambda: os.write(os.open(path, os.O_WRONLY), b"x"))
    attempt(path + ": rename over", lambda: (open("mine", "w").close(), os.rename("mine", path)))
    attempt(path + ": rename away", lambda: (os.rename(path, path + "~"), os.rename(path + "~", path)))
    attempt(path + ": unlink", os.unlink, path)
"""


def _inside_trees(field: Field) -> dict[str, list[str]]:
    """Everything that is shown inside, and the host's own paths, which are not."""
    folders = ["/", "/etc", "/usr", "/lib", "/dev", "/python/bin", "/app", "/app/handlers", "/scripts",
               "/python/site-packages", str(field.folder), str(field.template.code)]  # fmt: skip
    files = ["/app/handlers/entry.py", "/scripts/data_analysis.py", "/python/bin/python3", str(field.planted.file),
             "/python/site-packages/msgspec/__init__.py", "/etc/passwd"]  # fmt: skip
    return {"folders": folders, "files": files}


def _throw_away_tree(field: Field) -> object:
    tree = field.throw_away()
    return {"folders": [str(tree), str(tree / "sub")], "files": [str(tree / "file.py")]}


def _throw_away_file(field: Field) -> object:
    return [str(field.throw_away() / "file.py")]


def _shown_files(field: Field) -> object:
    return _inside_trees(field)["files"]


_WALK_OUT = """
import stat
os.chdir("/")
top = os.open("/", os.O_PATH)
for _ in range(40):
    os.chdir("..")
for name in args["names"]:
    attempt(name + " from the top", read, name)
    attempt(name + " from a descriptor", lambda: os.read(os.open("../../" + name, os.O_RDONLY, dir_fd=top), 99))
    attempt(name + " by /proc/self/cwd", read, "/proc/self/cwd/../../" + name)
    attempt(name + " by /proc/self/root", read, "/proc/self/root/" + name)
for fd in range(4):
    attempt(f"descriptor {fd}", lambda: os.listdir(f"/proc/self/fd/{fd}/../.."))
assert os.stat("/").st_ino == os.stat("/..").st_ino
"""

_ARTIFACTS = """
os.makedirs("artifacts", exist_ok=True)
os.chdir("artifacts")
open("good.txt", "w").write("good")
os.symlink(args["secret"], "secret")
os.symlink("/scripts/data_analysis.py", "shown")
os.symlink(args["folder"], "folder")
os.makedirs("deep/" * 12)
open("deep/" * 12 + "file", "w").close()
for name in ("secret", "folder/.env"):
    attempt(name, read, name)
"""

_LINKS = f"""
for path in args:
    attempt(path + " link", os.link, path, "linked-" + str(len(result)))
    name = "s" + str(len(result))
    os.symlink(path, name)
    attempt(path + " link of what a symbolic link names", call, {NUMBERS["linkat"]},
        -100, name.encode(), -100, b"t" + name.encode(), 0x400)  # AT_SYMLINK_FOLLOW
"""

_TRUNCATE = """
for path in args:
    attempt(path + " truncate", os.truncate, path, 0)
    attempt(path + " O_TRUNC", os.open, path, os.O_RDONLY | os.O_TRUNC)
    attempt(path + " O_CREAT", os.open, path, os.O_RDWR | os.O_CREAT)
"""

_NODES = """
import stat
attempt("fifo", os.mkfifo, "fifo")
attempt("socket", os.mknod, "socket", stat.S_IFSOCK | 0o600)
attempt("character device", os.mknod, "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
attempt("block device", os.mknod, "disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
"""

_METADATA = """
for path in args:
    attempt(path + " chmod", os.chmod, path, 0o777)
    attempt(path + " utime", os.utime, path, (0, 0))
    attempt(path + " chown", os.chown, path, os.getuid(), os.getgid())
    attempt(path + " setxattr", os.setxattr, path, "user.x", b"1")
    attempt(path + " fchmod", lambda: os.fchmod(os.open(path, os.O_RDONLY), 0o777))
"""

_MOUNTS = f"""
def mount(source, target, kind, flags):
    return call({NUMBERS["mount"]}, source, target, kind, flags, None)
os.mkdir("here")
attempt("tmpfs", mount, b"x", b"here", b"tmpfs", 0)
attempt("bind", mount, b"/", b"here", None, 4096 | 16384)
attempt("proc", mount, b"proc", b"here", b"proc", 0)
attempt("remount", mount, None, b"/", None, 32 | 4096)
attempt("umount", call, {NUMBERS["umount2"]}, b"here", 2)
attempt("open_tree", call, {NUMBERS["open_tree"]}, -100, b"/", 0)
attempt("fsopen", call, {NUMBERS["fsopen"]}, b"tmpfs", 0)
attempt("mount_setattr", call, {NUMBERS["mount_setattr"]}, -100, b"here", 0, buffer(32), 32)
attempt("move_mount", call, {NUMBERS["move_mount"]}, -100, b"here", -100, b"/", 0)
"""

_PROC_WRITES = """
for path in args:
    attempt(path, lambda: os.write(os.open(path, os.O_WRONLY), b"0"))
"""

_LEAVE = """
for number, folder in enumerate(("/tmp", "/dev/shm", "/var/tmp", ".", "artifacts")):
    path = f"{folder}/{args}-{number}"
    attempt(folder + " look", read, path)
    attempt(folder + " leave", lambda: (os.makedirs(folder, exist_ok=True), open(path, "w").write("from before")))
"""

_HOSTILE_NAMES = r"""
for name in ("a\nb", b"\xff\xfe", "n" * 255, "-rf", "..name", " ", "\x1b[31m", "a\\b", "$(x)", "*"):
    attempt(ascii(name), lambda: open(name, "w").close())
attempt("NUL", open, "a\0b", "w")
attempt("too long", open, "n" * 256, "w")
depth = 0
try:
    while depth < args:
        os.mkdir("d")
        os.chdir("d")
        depth += 1
except OSError as error:
    assert error.errno == errno.ENOSPC, error
attempt("depth", lambda: depth)
"""


def _is_full_of_folders(field: Field, result: Result) -> None:
    """The deep tree was ended by the quota of inodes."""
    assert result.limits.workspace_files - 64 <= result.usage.workspace_files <= result.limits.workspace_files


def _remove_left(field: Field) -> None:
    for folder in ("/tmp", "/dev/shm", "/var/tmp"):
        for path in Path(folder).glob(f"left-{field.canary[-8:]}-*"):
            path.unlink()


def _takes_only_the_plain_file(field: Field, result: Result) -> None:
    """Each artifact that was not a plain file of the run's own was refused, by name and with a reason."""
    assert ["good.txt"] == [artifact.name for artifact in result.artifacts]
    refused = {artifact.name for artifact in result.artifacts_refused}
    assert {"secret", "shown", "folder"} <= refused, result.artifacts_refused


def _assert_no_artifacts(result: Result) -> None:
    assert () == result.artifacts


def _assert_hostile_names_are_refused(result: Result) -> None:
    """A name is taken as it is or not at all, and a file larger than the limit is not read."""
    assert ["..."] == [artifact.name for artifact in result.artifacts]
    assert 5 == len(result.artifacts_refused), result.artifacts_refused


def _with_folder_descriptor(field: Field) -> object:
    """Open one that a careless worker would hand on; closed with the field."""
    field.keep_open(str(field.folder), inheritable=True)
    return "../" * 20 + str(field.planted.file)[1:]


def _has_an_etc_of_its_own(result: Result) -> None:
    """Nothing there is the host's."""
    value = value_of(result)
    for name, content in mounts.ETC.items():
        assert value.get(name, f"done: {content.encode()!r}") == f"done: {content.encode()!r}"
    assert sorted([*mounts.ETC, "localtime"]) == sorted(ast.literal_eval(value["etc"].removeprefix("done: ")))


def _assert_in(part: str, whole: str) -> None:
    assert part in whole


def _assert_deeper(outside: Outside, depth: int) -> None:
    assert int(outside.value["depth"].partition(": ")[2]) > depth


ROWS = (
    Attack(
        id="FS-01",
        title="read host secrets",
        severity="C",
        program=_READ_ALL,
        args=lambda field: {
            "paths": [
                str(field.planted.file),
                *(str(field.folder / "home" / name) for name in (".ssh/id_rsa", ".env")),
                "/etc/shadow",
                "/etc/fstab",
                "/root/.ssh/id_rsa",
                "/root/.aws/credentials",
                "/proc/self/environ",
                "/proc/1/environ",
                "/var/run/secrets/kubernetes.io/serviceaccount/token",
                "/sys/class/dmi/id/product_uuid",
            ]
        },
        outcomes={"*": ABSENT},
        control=Control(
            args=lambda field: {"paths": [str(field.planted.file), str(field.folder / "home/.ssh/id_rsa")]},
            outcomes=DONE,
            check=_brings_the_secret,
        ),
    ),
    Attack(
        id="FS-02",
        title="read the engine and its settings",
        severity="C",
        program=_READ_ALL,
        args=lambda field: {
            "paths": sorted(
                {
                    str(field.folder / "home/.env"),
                    *(str(ROOT / name) for name in ("pyproject.toml", ".env", "engine")),
                    str(field.template.code / "handlers/entry.py"),
                    "/app/engine/__init__.py",
                    "/app/engine/config/settings.py",
                    "/app/.env",
                    "/app/pyproject.toml",
                    "/app/policies/custom_script.toml",
                    "/app/tests/conftest.py",
                }
            )
        },
        outcomes={"*": ABSENT},
        control=Control(
            args=lambda field: {"paths": [str(field.folder / "home/.env"), str(ROOT / "pyproject.toml")]},
            outcomes=DONE,
            check=_brings_the_secret,
        ),
    ),
    Attack(
        id="FS-04",
        title="write to the shown trees",
        severity="C",
        program=_SPOIL,
        args=_inside_trees,
        outcomes={"*": (*READ_ONLY, "EXDEV", "EISDIR", "ENOTDIR", "EEXIST", "EBUSY")},
        control=Control(args=_throw_away_tree, outcomes=DONE),
    ),
    Attack(
        id="FS-05",
        title="write in the workspace works",
        severity="-",
        program=_SPOIL,
        args=lambda _field: {"folders": ["/work", "/work/tmp", "/work/artifacts"], "files": []},
        outcomes=DONE,
        control=Control(args=_throw_away_tree, outcomes=DONE),
    ),
    Attack(
        id="FS-07",
        title="walk out through parents and descriptors",
        severity="C",
        program=_WALK_OUT,
        args=lambda field: {"names": [str(field.planted.file)[1:], "etc/shadow", "root/.ssh/id_rsa"]},
        outcomes={"*": ABSENT},
        control=Control(
            args=lambda field: {"names": [str(field.planted.file)[1:]]},
            outcomes={"*": ("done",), **{f"descriptor {fd}": ("ENOENT", "ENOTDIR", "done") for fd in range(4)}},
            check=_brings_the_secret,
        ),
    ),
    Attack(
        id="FS-08",
        title="chroot and pivot_root",
        severity="C",
        program=f"""
os.makedirs("new/old")
saved = os.open("/", os.O_PATH)
attempt("chroot", os.chroot, "new")
attempt("chroot by number", call, {NUMBERS["chroot"]}, b"new")
attempt("fchdir and chroot", lambda: (os.fchdir(saved), os.chroot(".")))
attempt("pivot_root", call, {NUMBERS["pivot_root"]}, b"new", b"new/old")
""",
        outcomes={"*": DENIED},
        violations=("chroot", "pivot_root"),
        control=Control(
            user_namespace=True,
            outcomes={"chroot": ("done",), "*": ("done", "EINVAL", "EBUSY", "ENOENT")},
        ),
    ),
    Attack(
        id="FS-10",
        title="artifacts that are links",
        severity="C",
        program=_ARTIFACTS,
        args=lambda field: {"secret": str(field.planted.file), "folder": str(field.folder / "home")},
        check=_takes_only_the_plain_file,
        control=Control(
            args=lambda field: {"secret": str(field.planted.file), "folder": str(field.folder / "home")},
            check=_brings_the_secret,
        ),
    ),
    Attack(
        id="FS-11",
        title="artifacts whose mode and owner the host must not set",
        severity="C",
        program="""
os.makedirs("artifacts", exist_ok=True)
for number, path in enumerate(args):
    attempt(path, os.symlink, path, f"artifacts/link-{number}")
attempt("the folder itself", lambda: (os.rename("artifacts", "gone"), os.symlink("/", "artifacts")))
""",
        args=lambda field: ["/etc/passwd", str(field.planted.file), str(field.folder / "home")],
        outcomes=DONE,
        check=lambda _field, result: _assert_no_artifacts(result),
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="FS-13",
        title="artifacts with hostile names",
        severity="C",
        program="""
os.chdir("artifacts") if os.path.isdir("artifacts") else None
for name in ("a\\nb", b"\\xff", "a\\\\b", "\\x1b[31m", "..."):
    attempt(ascii(name), lambda: open(name, "w").write("x"))
attempt("sparse", lambda: os.truncate(os.open("sparse", os.O_CREAT | os.O_WRONLY), 60 << 20))
""".replace("\\\\", "\\"),
        outcomes=DONE,
        check=lambda _field, result: _assert_hostile_names_are_refused(result),
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="FS-90",
        title="artifacts whose names mislead",
        severity="M",
        program="""
os.chdir("artifacts") if os.path.isdir("artifacts") else None
for name in ("a\\u202egpj.exe", "a\\u200bb", "\\ufeffa", "a\\u2066b", "\\u3164"):
    attempt(ascii(name), lambda: open(name, "w").write("x"))
open("...", "w").write("x")
""",
        outcomes=DONE,
        check=lambda _field, result: _assert_hostile_names_are_refused(result),
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="FS-14",
        title="hard link to a shown file",
        severity="H",
        program=_LINKS,
        args=_shown_files,
        outcomes={"*": ("EXDEV", *READ_ONLY)},  # another file system, which is read-only besides
        control=Control(args=_throw_away_file, outcomes=DONE),
    ),
    Attack(
        id="FS-90",
        title="read the users of the host",
        severity="M",
        program="for name in ('passwd', 'group', 'hosts', 'os-release'): attempt(name, read, '/etc/' + name)\n"
        "attempt('etc', os.listdir, '/etc')",
        outcomes=DONE,
        check=lambda _field, result: _has_an_etc_of_its_own(result),
        control=Control(
            outcomes={"os-release": ANY, "*": ("done",)},
            check=lambda _field, outside: _assert_in("root:x:0:0:root:/root", outside.value["passwd"]),
        ),
    ),
    Attack(
        id="FS-91",
        title="a file with endless names",
        severity="M",
        program="""
def link_often():
    open("f", "w").close()
    for number in range(args):
        os.link("f", f"name-{number}")
attempt("links", link_often)
attempt("names", lambda: os.stat("f").st_nlink)
""",
        args=lambda _field: 10_000,
        outcomes={"links": ("ENOSPC",), "names": ("done",)},  # each name counts towards workspace_files
        control=Control(args=lambda _field: 5000, outcomes=DONE),
    ),
    Attack(
        id="FS-92",
        title="link what is open and has no name",
        severity="M",
        program=f"""
open("f", "w").close()
kept = os.open("f", os.O_RDONLY)
os.unlink("f")
attempt("empty path", call, {NUMBERS["linkat"]}, kept, b"", -100, b"again", 0x1000)
""",
        outcomes={"*": DENIED},
        violations=("linkat",),
        control=Control(outcomes={"*": ("ENOENT",)}),  # of root alone; and what is deleted stays so
    ),
    Attack(
        id="FS-93",
        title="give files to others",
        severity="H",
        program="""
open("f", "w").close()
attempt("to oneself", os.chown, "f", os.getuid(), os.getgid())
attempt("to nobody else", os.chown, "f", -1, -1)
for user, group in ((0, -1), (-1, 0), (65534, 65534), (os.getuid() + 1, os.getgid())):
    attempt(f"chown {user} {group}", os.chown, "f", user, group)
    attempt(f"lchown {user} {group}", os.lchown, "f", user, group)
    attempt(f"fchown {user} {group}", lambda: os.fchown(os.open("f", os.O_RDONLY), user, group))
""",
        outcomes={"to oneself": ("done",), "to nobody else": ("done",), "*": DENIED},
        violations=("chown", "fchown", "lchown") if X86 else ("fchown", "fchownat"),
        control=Control(outcomes={"to oneself": ("done",), "to nobody else": ("done",), "*": ("done", "EPERM")}),
    ),
    Attack(
        id="FS-16",
        title="truncate a shown file",
        severity="H",
        program=_TRUNCATE,
        args=_shown_files,
        outcomes={"*": READ_ONLY},
        control=Control(args=_throw_away_file, outcomes=DONE),
    ),
    Attack(
        id="FS-17",
        title="make devices and fifos",
        severity="H",
        program=_NODES,
        outcomes={"*": DENIED},
        violations=("mknodat",),
        control=Control(outcomes={"fifo": ("done",), "socket": ("done",), "*": ("done", "EPERM")}),
    ),
    Attack(
        id="FS-19",
        title="use an inherited folder descriptor",
        severity="C",
        program="""
import stat
for fd in range(1024):
    try:
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
    except OSError:
        continue
    if is_folder or fd < 4:
        attempt(f"descriptor {fd}", lambda: os.read(os.open(args, os.O_RDONLY, dir_fd=fd), 4096))
""",
        args=lambda field: "../" * 20 + str(field.planted.file)[1:],
        outcomes={f"descriptor {fd}": ("ENOTDIR",) for fd in range(4)},
        control=Control(
            inherit=True,
            args=_with_folder_descriptor,
            outcomes={"*": ("done", "ENOTDIR", "ENOENT")},
            check=_brings_the_secret,
        ),
    ),
    Attack(
        id="FS-20",
        title="change mode, times, owner or attributes of shown files",
        severity="H",
        program=_METADATA,
        args=lambda field: [*_inside_trees(field)["files"], "/dev/null", "/scripts", "/app"],
        outcomes={"*": (*READ_ONLY, "ENOTSUP", "EISDIR")},
        control=Control(
            args=_throw_away_file,
            outcomes={"*": ("done", "ENOTSUP")},
        ),
    ),
    Attack(
        id="FS-22",
        title="mount, unmount and remount",
        severity="C",
        program=_MOUNTS,
        outcomes={"*": DENIED},
        violations=("fsopen", "mount", "mount_setattr", "move_mount", "open_tree", "umount2"),
        control=Control(
            user_namespace=True,
            outcomes={
                "tmpfs": ("done",),
                "bind": ("done",),
                "umount": ("done",),
                "open_tree": ("done",),
                "fsopen": ("done",),
                "*": ("done", "EPERM", "EINVAL", "ELOOP"),
            },
        ),
    ),
    Attack(
        id="FS-23",
        title="write to files of proc",
        severity="C",
        program=_PROC_WRITES,
        args=lambda _field: [
            "/proc/self/oom_score_adj",
            "/proc/self/mem",
            "/proc/self/uid_map",
            "/proc/sys/kernel/core_pattern",
            "/proc/sys/vm/drop_caches",
            "/proc/sysrq-trigger",
            "/sys/power/state",
            "/sys/kernel/mm/ksm/run",
        ],
        outcomes={"*": ("ENOENT",)},
        control=Control(args=lambda _field: ["/proc/self/oom_score_adj"], outcomes=DONE),
    ),
    Attack(
        id="FS-25",
        title="leave files for the next run",
        severity="C",
        program=_LEAVE,
        args=lambda field: "left-" + field.canary[-8:],
        runs=2,
        outcomes={
            **{f"{name} look": ("ENOENT",) for name in ("/tmp", "/dev/shm", "/var/tmp", ".", "artifacts")},
            "*": ("done", *READ_ONLY),
        },
        control=Control(
            runs=2,
            args=lambda field: "left-" + field.canary[-8:],
            outcomes={". look": ("done",), "artifacts look": ("done",), "/tmp look": ("done",), "*": ("done", *ABSENT)},
            check=lambda field, _outside: _remove_left(field),
        ),
    ),
    Attack(
        id="FS-26",
        title="hostile names and a tree 10000 deep",
        severity="M",
        program=_HOSTILE_NAMES,
        args=lambda _field: 10_000,
        outcomes={"NUL": ("ValueError",), "too long": ("ENAMETOOLONG",), "*": ("done",)},
        check=_is_full_of_folders,
        control=Control(
            args=lambda _field: 5000,
            outcomes={"NUL": ("ValueError",), "too long": ("ENAMETOOLONG",), "*": ("done",)},
            check=lambda _field, outside: _assert_deeper(outside, 4096),
        ),
    ),
)

"""Makes sets of libraries: uv or pip installs what a lock names, digests checked; then everything is compiled.

uv fetches the wheels where it is there (`make install`), for it is several times as fast; pip does where it is not, or
where uv fails: pip reads settings that uv does not, such as an index in ``pip.conf``. A set is made beside its place
and then renamed, so that nobody ever sees half of one. Its files are readable by every user, because sandboxes run as
another.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import filecmp
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.config.libraries import LOCKS, SET_NAME, UNPACKED, packages_folder
from engine.model.errors import EngineError
from sandbox import CACHES

LOCK_NAME = "requirements.lock"
"""In a set: the lock that it was made from. It is written last."""
OWN_NAME = "requirements.txt"
"""In a set: the operator's own file, if it has one."""
_PIP = ("install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-input")
# Copied: a hard link would let whoever writes to uv's cache change what sandboxes import.
_UV = ("install", "--quiet", "--link-mode", "copy")
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)
"""Two sets on two file systems, or one that knows no such links: then each keeps its own file."""
# By hash and unchecked: a sandbox cannot write what it compiles, and copies have other times. Tests are not imported.
_COMPILE = ("-I", "-m", "compileall", "-q", "-q", "-j0", "--invalidation-mode", "unchecked-hash", "-x", "/tests?/")
_FONT_LIST = """
import os, sys
os.environ["MPLCONFIGDIR"] = sys.argv[1]
import matplotlib.font_manager as fonts
find = fonts.findSystemFonts
fonts.findSystemFonts = lambda paths=None, fontext="ttf": find(paths, fontext) if paths else []  # none of this host
fonts.json_dump(fonts.FontManager(), os.path.join(sys.argv[1], f"fontlist-v{fonts.FontManager.__version__}.json"))
"""
_UNPACK = """
import io, lzma, os, sys
import numpy
from py3langid.langid import MODEL_DIR, MODEL_FILE
with lzma.open(os.path.join(MODEL_DIR, MODEL_FILE)) as packed, numpy.load(io.BytesIO(packed.read())) as model:
    for name in model.files:
        numpy.save(os.path.join(sys.argv[1], name + ".npy"), model[name])
"""

TELL_S = 10.0
"""Between two lines of progress."""
Say = Callable[[str], None]
"""Is told what happens, in a line each."""


class LibrariesError(EngineError):
    """A set of libraries cannot be made. The message says why."""


def install(folder: Path, say: Say) -> None:
    """Make each delivered set that is not there, or was made from another lock.

    Raises:
        LibrariesError: neither uv nor pip could install one; or the folder is a link to another checkout's, whose
            sets differ.
        OSError: the folder cannot be written.
    """
    stale = [name for name, lock in LOCKS.items() if not is_current(folder / name, lock)]
    if stale and folder.is_symlink():
        raise LibrariesError(
            f"{folder} is a link to {os.readlink(folder)}, another checkout's, where {' and '.join(stale)} differ from "
            "the locks here. Fix: run `make install` there; or remove the link, and run it here"
        )
    if folder.is_symlink():
        return
    with _alone(folder):
        stale = [name for name in stale if not is_current(folder / name, LOCKS[name])]  # another one may have made it
        for found in folder.glob("[!.]*/bin/python"):  # sets from before there was such a thing
            _unpack_model(found, packages_folder(found.parents[1]))
        with ThreadPoolExecutor() as both:
            list(both.map(lambda name: make_set(folder, name, LOCKS[name], say), stale))
        share_files(folder)


def add(folder: Path, name: str, file: Path, base: str, say: Say) -> None:
    """Make a set that has, beside the packages of a delivered one, what a requirements file names.

    The packages of the delivered set keep their versions. A file in which requirements have ``--hash`` is held to them.

    Args:
        name: of the set; one of a delivered set is made anew, with the file's packages in it.
        base: the delivered set to begin with.
    Raises:
        LibrariesError: the name or the base cannot be; neither uv nor pip could install it.
        OSError: the file cannot be read, or the folder cannot be written.
    """
    base = name if name in LOCKS else base
    if not SET_NAME.fullmatch(name):
        raise LibrariesError(f"{name}: a set is named by small letters, digits, _ and -, a letter first")
    if base not in LOCKS:
        raise LibrariesError(f"{base}: there is no such set to begin with; delivered are {', '.join(LOCKS)}")
    file.read_bytes()  # before anything is made
    with _alone(folder):
        make_set(folder, name, LOCKS[base], say, own=file)
        share_files(folder)


def share_files(folder: Path) -> int:
    """Make files that are the same in several sets one file (link(2)): it takes room once, on disk and in memory.

    Zygotes of policies with different sets then map the same pages of a library. Only files at the same place within
    their sets, with the same bytes and mode, are made one. The sets stay as they are for whoever reads them, also
    meanwhile.

    Returns:
        How many files are another's now that were not before.
    Raises:
        OSError: the folder cannot be written.
    """
    shared = 0
    first: dict[Path, Path] = {}
    for place in sorted(folder.glob("[!.]*/lib")):
        for path in place.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            original = first.setdefault(path.relative_to(place), path)
            if original is not path and not path.samefile(original) and _are_alike(original, path):
                link = path.with_name(f".{path.name}.shared")
                link.unlink(missing_ok=True)  # one that was stopped before it was renamed
                try:
                    os.link(original, link)
                except OSError as error:
                    if error.errno in _NO_LINK:
                        continue
                    raise
                link.rename(path)
                shared += 1
    return shared


def _are_alike(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes, mode and owner."""
    facts = [(found.st_size, found.st_mode, found.st_uid, found.st_gid) for found in (one.stat(), other.stat())]
    return facts[0] == facts[1] and filecmp.cmp(one, other, shallow=False)


def is_current(set_folder: Path, lock: Path) -> bool:
    """Whether a set is there, for this version of Python, and was made from this very lock."""
    try:
        return packages_folder(set_folder).is_dir() and (set_folder / LOCK_NAME).read_bytes() == lock.read_bytes()
    except FileNotFoundError:
        return False


def make_set(folder: Path, name: str, lock: Path, say: Say, *, own: Path | None = None) -> None:
    """Make one set and put it in its place, whole or not at all.

    Args:
        own: the operator's requirements; those that the set had before unless given.
    Raises:
        LibrariesError: neither uv nor pip could install it, or what was installed does not run.
    """
    before = folder / name / OWN_NAME
    own = own or (before if before.exists() else None)
    new = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    try:
        new.chmod(0o755)
        _run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(new)])
        started_s, count = time.monotonic(), sum("==" in line for line in lock.read_text(encoding="ascii").splitlines())
        say(f"libraries {name}: installing {count} packages ...")
        python = new / "bin" / "python"
        with _telling(say, lambda: f"libraries {name}: {_installed(new)} of {count} packages"):
            _install(python, ["--require-hashes", "--requirement", str(lock)], say)
        if own:
            shutil.copyfile(own, new / OWN_NAME)
            _install_own(python, new, lock, say)
        say(f"libraries {name}: compiling ...")
        with _telling(say, lambda: f"libraries {name}: still compiling"):
            _run([str(python), *_COMPILE, str(packages_folder(new))])
        _make_font_list(python, packages_folder(new))
        _unpack_model(python, packages_folder(new))
        _remove_programs(new / "bin")
        shutil.copyfile(lock, new / LOCK_NAME)
        _put(new, folder / name)
        say(f"libraries {name}: ready after {time.monotonic() - started_s:.0f} s")
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def _telling(say: Say, what: Callable[[], str]) -> Iterator[None]:
    """Say how far something is, again and again, for whoever wonders whether it goes on."""
    started_s, done = time.monotonic(), threading.Event()

    def tell() -> None:
        while not done.wait(TELL_S):
            say(f"{what()}, {time.monotonic() - started_s:.0f} s")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _installed(new: Path) -> int:
    """How many packages lie in a set that is being made; uv puts them there at its end, after it has fetched them."""
    return sum(1 for _ in packages_folder(new).glob("*.dist-info"))


def _install(python: Path, wanted: list[str], say: Say) -> None:
    """Install into the environment of this interpreter, by uv if that can, else by pip."""
    if importlib.util.find_spec("uv"):
        try:
            return _run([sys.executable, "-m", "uv", "pip", *_UV, "--python", str(python), *wanted])
        except LibrariesError as error:
            say(f"uv could not, so pip tries: {str(error).partition(': ')[2]}")
    return _run([sys.executable, "-m", "pip", "--python", str(python), *_PIP, *wanted])


def _install_own(python: Path, new: Path, lock: Path, say: Say) -> None:
    """Install the operator's requirements; what the lock has named stays in its version."""
    lines = [line for line in lock.read_text(encoding="ascii").splitlines() if "==" in line]
    pins = [line.partition(" --hash")[0].rstrip(" \\") for line in lines]
    constraints = new / "constraints.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in pins), encoding="ascii")
    own = ["--constraint", str(constraints), "--requirement", str(new / OWN_NAME)]
    _install(python, own, say)
    constraints.unlink()


def _make_font_list(python: Path, packages: Path) -> None:
    """Let matplotlib find its fonts without looking for them: that takes a second, and starts a program."""
    if (packages / "matplotlib").is_dir():
        cache = packages / CACHES / "matplotlib"
        cache.mkdir(parents=True)
        for made in (cache.parent, cache):
            made.chmod(0o755)
        _run([str(python), "-I", "-c", _FONT_LIST, str(cache)])


def _unpack_model(python: Path, packages: Path) -> None:
    """Unpack py3langid's model, so that zygotes map its file: each would unpack it for itself, 70 MiB in half a second.

    Does nothing where the set has no such package, or has it unpacked.
    """
    place = packages / UNPACKED / "py3langid"
    if place.is_dir() or not (packages / "py3langid").is_dir():
        return
    place.parent.mkdir(exist_ok=True)
    place.parent.chmod(0o755)
    new = Path(tempfile.mkdtemp(prefix=".py3langid-", dir=place.parent))
    try:
        new.chmod(0o755)
        _run([str(python), "-I", "-c", _UNPACK, str(new)])
        new.rename(place)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _remove_programs(folder: Path) -> None:
    """Remove what packages have put beside the interpreter: it names the place in which the set was made."""
    for path in folder.iterdir():
        if not path.name.startswith("python"):
            path.unlink()


def _put(new: Path, place: Path) -> None:
    old = new.with_name(f"{new.name}-old")
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes sets in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(  # noqa: S603  our own words
        command, env=environ, capture_output=True, text=True, check=False, umask=0o022
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module named pip" in line]
        raise LibrariesError(f"the libraries cannot be installed: {' '.join(said) or done.stderr.strip()[-500:]}")

"""Lets a library find what it would otherwise work out anew in every run, such as matplotlib's list of fonts.

The run's home is empty, so that a cache of the user's never is. Only a run that imports the library gets the file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence


class CacheFinder:
    """Finds no module; it only hears, before the import system looks for it, that a library is about to be imported."""

    def __init__(self, caches: Sequence[Sequence[str]]) -> None:
        """
        Args:
            caches: (name of the library, name of a file in its cache, path of that file).
        """
        self._caches = [tuple(cache) for cache in caches]

    def find_spec(self, name: str, *_: object) -> None:
        """Put the files of a library where it looks for them, once."""
        for cache in [cache for cache in self._caches if cache[0] == name]:
            self._caches.remove(cache)
            # where it cannot be done the library works it out by itself
            with contextlib.suppress(OSError):
                put_into_cache(*cache)


def put_into_cache(library: str, name: str, path: str) -> None:
    """Link a file into the cache of a library: ``~/.cache/LIBRARY/NAME``, XDG Base Directory Specification."""
    folder = os.path.expanduser(f"~/.cache/{library}")
    os.makedirs(folder, 0o700, exist_ok=True)
    os.symlink(path, f"{folder}/{name}")


@contextlib.contextmanager
def lend_matplotlib(caches: Sequence[Sequence[str]], preload: Sequence[str]) -> Iterator[None]:
    """Let matplotlib be imported in a zygote, which has no home: it reads its list of fonts where that was installed.

    matplotlib imports only where it finds a folder that it may write, and remembers that folder. Here it takes the
    installed one for such a folder, and forgets it again, so that a run has its own home's.
    """
    folders = [os.path.dirname(path) for library, _, path in caches if library == "matplotlib"]
    if not folders or not any(name.partition(".")[0] == "matplotlib" for name in preload):
        yield
        return
    access, folder = os.access, os.path.realpath(folders[0])
    os.environ["MPLCONFIGDIR"] = folder
    os.access = lambda path, *more, **named: path == folder or access(path, *more, **named)
    try:
        yield
    finally:
        os.access = access
        del os.environ["MPLCONFIGDIR"]
        matplotlib = sys.modules["matplotlib"]
        for name in ("get_configdir", "get_cachedir"):
            found = getattr(matplotlib, name)
            setattr(matplotlib, name, matplotlib._logged_cached(f"{name}=%s", found.__wrapped__))  # noqa: SLF001


def listen(caches: Sequence[Sequence[str]]) -> None:
    """Have a ``CacheFinder`` hear of every import."""
    if caches:
        sys.meta_path.insert(0, CacheFinder(caches))

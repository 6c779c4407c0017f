"""Ends a script as the interpreter ends: threads are joined, ``atexit`` runs, open files are flushed and closed.

The process of a run ends by ``_exit``, which does none of that, because taking a large heap apart takes longer than
most runs. So it is done here, as far as anybody could see it: the heap is taken apart only where something was left
open. The order is that of Py_FinalizeEx: threads, exit functions, the module, what is left. A failure in it is printed
to stderr and changes nothing else. The limits hold all the while.
"""

from __future__ import annotations

import _io
import atexit
import contextlib
import functools
import gc
import resource
import select
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from handlers.progress import Reporter
from handlers.streams import IN_SANDBOX

_FIRST_FD = 4
"""A run's own descriptors end before it."""
_FEW_FDS, _MOST_FDS = 128, 4096
"""Descriptors that are always asked for, as many as most policies grant; and the most that ever are."""
_IN_MEMORY = (_io.BytesIO, _io.StringIO)
_TEXT, _BUFFERED = _io.TextIOWrapper, (_io.BufferedWriter, _io.BufferedRandom, _io.BufferedRWPair)

_join_threads = threading._shutdown  # type: ignore[attr-defined]  # noqa: SLF001 the interpreter itself calls it so
_run_exit_functions = atexit._run_exitfuncs  # noqa: SLF001 likewise
_count_exit_functions = atexit._ncallbacks  # noqa: SLF001 likewise
_enumerate = threading.enumerate
_active_count = threading.active_count
_current_thread = threading.current_thread
_poll, _NOT_OPEN = select.poll, select.POLLNVAL
_get_limit, _OPEN_FILES = resource.getrlimit, resource.RLIMIT_NOFILE
_get_objects, _collect = gc.get_objects, gc.collect


class ScriptEnd:
    """The end of one script; of any other task, which has no script, it is nothing."""

    def __init__(self, reporter: Reporter | None = None, *, is_rehearsal: bool = False) -> None:
        """
        Args:
            reporter: is told what the end waits for.
            is_rehearsal: only look what there is to do, and do nothing: others come after.
        """
        self._is_rehearsal = is_rehearsal
        self._reporter = reporter
        self._namespace: dict[str, Any] | None = None
        self._before: tuple[int, ...] = ()
        self._opens = self._takes_apart = False
        self._not_its_own: frozenset[int] = frozenset()
        self._at_last: list[Callable[[], None]] = []

    def begin(self, namespace: dict[str, Any], *, opens: bool, takes_apart: bool) -> None:
        """Note what is there before the script runs.

        Args:
            namespace: its globals.
            opens: whether it may leave something open.
            takes_apart: its heap is to be taken apart in any case.
        """
        self._namespace, self._opens, self._takes_apart = namespace, opens, takes_apart
        self._before = _what_the_end_has_to_do()
        if not IN_SANDBOX:  # where the heap that is there before is not frozen
            self._not_its_own = frozenset(map(id, _files(_get_objects())))

    def at_last(self, act: Callable[[], None]) -> None:
        """Have something done at the very end."""
        self._at_last.append(act)

    def join_threads(self) -> None:
        """Wait for the script's threads, but for daemons; tell the sandbox whom it waits for, should time run out."""
        if self._namespace is None or (_active_count() == 1 and self._before == _what_the_end_has_to_do()):
            return
        if self._is_rehearsal:
            return
        if _active_count() > 1:
            own = _current_thread()
            self._wait_for([str(one.name) for one in _enumerate() if one is not own and not one.daemon])
        _guard("threading._shutdown", _join_threads)

    def finish(self) -> None:
        """Run the exit functions, then flush and close what the script has left open. Never raises."""
        if self._namespace is None:
            return
        if self._before != (now := _what_the_end_has_to_do()) and not self._is_rehearsal:
            if now[0] > self._before[0]:
                self._wait_for(["functions of atexit"])
            _guard("atexit", _run_exit_functions)
        is_left = self._opens and _has_open_descriptors()
        if (self._takes_apart or is_left) and not self._is_rehearsal:
            _guard("the end of the script", self._take_apart)
        for act in self._at_last:
            _guard("the end of the script", act)

    def _wait_for(self, names: list[str]) -> None:
        if names and self._reporter is not None:
            self._reporter.wait_for(names)

    def _take_apart(self) -> None:
        """Let go of the script's globals as the interpreter does, then close the files that something still holds."""
        threading.excepthook = lambda _: None  # a daemon that now meets a closed file is none of the script's faults
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            with contextlib.suppress(AttributeError):
                delattr(sys, name)
        namespace = self._namespace or {}
        names = [name for name in namespace if type(name) is str and name != "__builtins__"]
        for name in (*filter(_is_private, names), *names):
            namespace[name] = None
        for file in _files(
            _get_objects()
        ):  # in a cycle they are closed in any order, and so might lose their last bytes
            if type(file) is _TEXT or type(file) in _BUFFERED:
                with contextlib.suppress(BaseException):
                    file.flush()
        _collect()
        _close_all(one for one in _files(_get_objects()) if id(one) not in self._not_its_own)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _guard(where: str, act: Callable[[], object]) -> None:
    """Do something; what it raises is printed as the interpreter prints what it cannot raise."""
    try:
        act()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            sys.stderr.write(f"Exception ignored in: {where}\n{type(error).__name__}: {error}\n")


def _what_the_end_has_to_do() -> tuple[int, ...]:
    """How many exit functions there are, and how much there is for those that everybody shares.

    Only when one of these numbers has changed is there something to run: most scripts leave nothing to do.
    """
    logging, multiprocessing = sys.modules.get("logging"), sys.modules.get("multiprocessing.util")
    return (
        _count_exit_functions(),
        len(getattr(threading, "_threading_atexits", ())),
        len(getattr(weakref.finalize, "_registry", ())),
        len(getattr(logging, "_handlerList", ())),
        len(getattr(multiprocessing, "_finalizer_registry", ())),
    )


def _has_open_descriptors() -> bool:
    """Whether anything is open beyond what a run starts with."""
    try:
        most = min(_get_limit(_OPEN_FILES)[0], _MOST_FDS)
        return _any_open(_poll_for(_FIRST_FD, _FEW_FDS), _FEW_FDS - _FIRST_FD) or (
            most > _FEW_FDS and _any_open(_poll_for(_FEW_FDS, most), most - _FEW_FDS)
        )
    except BaseException:  # taken apart by the script: then what it left is looked at
        return True


@functools.cache
def _poll_for(first: int, end: int) -> select.poll:
    """What asks for these descriptors with one system call. Made once, for the children of a zygote to share."""
    poll = _poll()
    for fd in range(first, end):
        poll.register(fd, 0)
    return poll


def _any_open(poll: select.poll, count: int) -> bool:
    """Whether the kernel knows any of them: poll(2) reports each that is not open, and of others nothing or more."""
    answers = poll.poll(0)
    return len(answers) < count or {events for _, events in answers} != {_NOT_OPEN}


def _files(objects: Iterable[object]) -> list[Any]:
    # of C, so that no class of the script is asked
    return [one for one in objects if issubclass(type(one), _io._IOBase)]  # noqa: SLF001


def _close_all(found: Iterable[Any]) -> None:
    """Close these files, the outermost first, but for the standard streams."""
    standard = {id(one) for stream in _standard_streams() for one in _layers(stream)}
    files = [one for one in found if id(one) not in standard]
    own = [one for one in files if type(one).__module__ != "_io"]
    text = [one for one in files if type(one) is _TEXT]
    buffered = [one for one in files if type(one) in _BUFFERED]
    for file in (*own, *text, *buffered):
        if not isinstance(file, _IN_MEMORY):
            with contextlib.suppress(BaseException):
                file.close()


def _standard_streams() -> list[object]:
    names = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
    return [getattr(sys, name, None) for name in names]


def _layers(stream: object) -> list[object]:
    found = [stream]
    for name in ("buffer", "raw"):
        with contextlib.suppress(BaseException):
            found.append(getattr(found[-1], name))
    return found


_ENDING: ContextVar[ScriptEnd] = ContextVar("ending")


def use(ending: ScriptEnd) -> None:
    """Make an ending the one of this context."""
    _ENDING.set(ending)


def current() -> ScriptEnd:
    """The ending of this context; where there is none, one that ends nothing."""
    return _ENDING.get(None) or ScriptEnd()
